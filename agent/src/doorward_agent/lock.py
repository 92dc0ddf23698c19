"""Being the only one: a lock that ends with its process, however that ends."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

RUN_FILE: Final = "run.lock"


class LockHeld(Exception):
    """Another process of this agent holds the lock."""


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold the lock while inside. Raises LockHeld at once when somebody else does.

    The system frees it when the process ends, so a killed agent leaves nothing to clean up.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            _take(handle)
        except OSError:
            raise LockHeld(f"{path} is held by another process") from None
        yield
    finally:
        os.close(handle)


def is_held(path: Path) -> bool:
    """Whether another process holds the lock now."""
    try:
        with held(path):
            return False
    except LockHeld:
        return True


if sys.platform == "win32":

    def _take(handle: int) -> None:
        import msvcrt

        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)

else:

    def _take(handle: int) -> None:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
