"""A child never outlives the process that started it, even when that one is killed."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading

PR_SET_PDEATHSIG = 1


def follow_parent() -> None:
    """Die with the parent (Linux, prctl(2) PR_SET_PDEATHSIG); elsewhere the pipe has to do."""
    if sys.platform != "linux" or os.environ.get("DOORWARD_LEASH") is None:
        return
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def follow_supervisor() -> None:
    """Stop in good order when the supervisor's end of our standard input closes."""
    if os.environ.get("DOORWARD_LEASH") is None:
        return

    def wait() -> None:
        while os.read(0, 1024):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="leash", daemon=True).start()
