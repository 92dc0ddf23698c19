"""Being the only `serve` of a data folder: a lock that ends with its process, however that ends."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

FILE: Final = "serve.lock"


class AlreadyServed(Exception):
    """Another `serve` is at work on this data folder; the text says which and what to do."""


@contextlib.contextmanager
def on(data: Path) -> Iterator[None]:
    """Hold the folder while inside; a killed holder leaves nothing to clean up.

    Raises AlreadyServed at once when somebody else holds it. The processes that `serve` starts do
    not inherit the lock, and may each run several times on several machines.
    """
    handle = os.open(data / FILE, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            _take(handle)
        except OSError:
            holder = os.pread(handle, 20, 1).decode(errors="replace").strip()
            raise AlreadyServed(
                f"another `serve` (process {holder or 'unknown'}) is at work on {data}. "
                "Stop it first, or name another folder with --data."
            ) from None
        os.pwrite(handle, f" {os.getpid():<19}".encode(), 0)
        yield
    finally:
        os.close(handle)


if sys.platform == "win32":

    def _take(handle: int) -> None:
        import msvcrt

        # The first byte only: the holder's number behind it stays readable.
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)

else:

    def _take(handle: int) -> None:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
