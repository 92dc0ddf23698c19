"""Reads what a device sends: never more than allowed, never for longer than allowed."""

from __future__ import annotations

import asyncio
import io
import sys
import threading
import time
import zlib
from collections.abc import Awaitable, Callable
from typing import Any, Final

import zstandard

from doorward.gateway.problems import Refused

Receive = Callable[[], Awaitable[dict[str, Any]]]

SLOWEST_SECONDS: Final = 30.0
"""A body that has not arrived by then is cut (abuse case A65)."""
LAST_SECONDS: Final = 3.0
"""While the gateway is stopping, a body has only so long."""
MAX_ZSTD_WINDOW: Final = 8 * 1024 * 1024
"""The memory that a zstd frame may ask for, in bytes. RFC 8878 advises 8 MiB."""


class Gone(ConnectionError):
    """The device hung up before its request was whole."""


class SlowBodies:
    """Knows which requests are still arriving, and cuts those that take too long.

    A timer per request would cost more than the rest of a check-in; one look around each second
    does the same.
    """

    def __init__(self) -> None:
        self._seconds = SLOWEST_SECONDS
        self._deadlines: dict[asyncio.Task[Any], float] = {}
        self._cut: set[asyncio.Task[Any]] = set()

    def hasten(self) -> None:
        """From now on a body has only a moment to arrive: the gateway is stopping."""
        self._seconds = LAST_SECONDS
        soon = time.monotonic() + LAST_SECONDS
        for task, deadline in self._deadlines.items():
            self._deadlines[task] = min(deadline, soon)

    def cut_slow(self) -> None:
        """Cut every request whose time is up."""
        now = time.monotonic()
        for task, deadline in list(self._deadlines.items()):
            if deadline <= now:
                self._cut.add(task)
                del self._deadlines[task]
                task.cancel()

    async def read(self, receive: Receive, limit: int, announced: bytes | None) -> bytes:
        """The request's body, of which its Content-Length `announced` how long it will be.

        Raises Refused when it is too long or too slow, and Gone when the device hung up.
        """
        length = _announced_length(announced, limit)
        if length == 0:
            return b""
        task = asyncio.current_task()
        if task is None:  # ASGI servers run each request in a task.
            raise RuntimeError("Bodies are read in a task")
        self._deadlines[task] = time.monotonic() + self._seconds
        try:
            message = await receive()
            body: bytes = message.get("body", b"")
            # Whole once it is as long as announced: asking the server again costs as much as all
            # else that a check-in does.
            if message["type"] == "http.request" and len(body) == length:
                return body
            return await _read_rest(message, receive, limit)
        except asyncio.CancelledError:
            if task in self._cut:
                task.uncancel()
                raise Refused("request-timeout", close=True) from None
            raise
        finally:
            self._deadlines.pop(task, None)
            self._cut.discard(task)


async def _read_rest(message: dict[str, Any], receive: Receive, limit: int) -> bytes:
    pieces: list[bytes] = []
    length = 0
    while True:
        if message["type"] != "http.request":
            raise Gone
        piece: bytes = message.get("body", b"")
        length += len(piece)
        if length > limit:
            raise Refused("too-large", close=True)
        pieces.append(piece)
        if not message.get("more_body", False):
            return b"".join(pieces)
        message = await receive()


def _announced_length(value: bytes | None, limit: int) -> int | None:
    if value is None:
        return None
    if len(value) > 15 or not value.isdigit() or int(value) > limit:
        raise Refused("too-large", close=True)
    return int(value)


def unpacked(body: bytes, encoding: str, limit: int) -> bytes:
    """The body after its Content-Encoding was undone, at most `limit` bytes long.

    Unpacking stops at the limit: a bomb costs no more than a full message. Raises Refused.
    """
    match encoding.strip().lower():
        case "" | "identity":
            whole = body
        case "zstd":
            whole = _unzstd(body, limit)
        case "gzip":
            whole = _gunzip(body, limit)
        case _:
            raise Refused("unsupported-media-type", "Content-Encoding is zstd, gzip or absent")
    if len(whole) > limit:
        raise Refused("too-large")
    return whole


def length_unpacked(body: bytes, encoding: str) -> int:
    """How long the body will be once unpacked, or the most there is where it does not say.

    A zstd frame that says so can't be longer: it is refused where it ends otherwise.
    """
    encoding = encoding.strip().lower()
    if encoding in {"", "identity"}:
        return len(body)
    if encoding == "zstd":
        try:
            announced = zstandard.frame_content_size(body)
        except zstandard.ZstdError:
            return sys.maxsize
        return announced if announced >= 0 else sys.maxsize
    return sys.maxsize


class _Unpackers(threading.local):
    """Making one takes as long as unpacking a small report; threads must not share one."""

    def __init__(self) -> None:
        self.unzstd = zstandard.ZstdDecompressor(max_window_size=MAX_ZSTD_WINDOW)


_of_this_thread = _Unpackers()


def _unzstd(body: bytes, limit: int) -> bytes:
    announced = length_unpacked(body, "zstd")
    try:
        if announced <= limit:
            # Into memory of the announced length: a frame that lied about it can't fill more.
            return _of_this_thread.unzstd.decompress(body)
        reader = zstandard.ZstdDecompressor(max_window_size=MAX_ZSTD_WINDOW).stream_reader(
            io.BytesIO(body), read_across_frames=False
        )
        whole = reader.read(limit + 1)
        while len(whole) <= limit and (more := reader.read(limit + 1 - len(whole))):
            whole += more
    except zstandard.ZstdError:
        raise Refused("invalid-message", "The body is not zstd") from None
    return whole


def _gunzip(body: bytes, limit: int) -> bytes:
    unzip = zlib.decompressobj(wbits=31)
    try:
        whole = unzip.decompress(body, limit + 1)
    except zlib.error:
        raise Refused("invalid-message", "The body is not gzip") from None
    if len(whole) <= limit and (not unzip.eof or unzip.unused_data):
        raise Refused("invalid-message", "The body is not one whole gzip member")
    return whole
