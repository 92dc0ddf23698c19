"""Serves files that are on disk: signed definitions, and the databases of a ClamAV mirror.

Only names that can be there are looked for, nothing is followed, and nothing needs a token: what is
served is signed, or public. Ranges, so that a broken download goes on where it stopped.
"""

from __future__ import annotations

import asyncio
import email.utils
import os
import re
import stat
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from doorward.gateway import problems
from doorward.gateway.problems import NO_SNIFF, Headers

DEFINITIONS: Final = "/device/v1/definitions/"
CLAMAV: Final = "/device/v1/clamav/"

SIGNED: Final = re.compile(
    r"timestamp\.json|[0-9]{1,10}\.(root|snapshot|targets)\.json"
    r"|sets/[0-9a-f]{64}\.[0-9]{1,10}\.json|parts/[0-9a-f]{64}\.[0-9a-f]{20}\.zst"
)
DATABASES: Final = re.compile(
    r"(main|daily|bytecode|safebrowsing)\.(cvd|cld)|(main|daily|bytecode)-[0-9]{1,7}\.cdiff"
    r"|(main|daily|bytecode)-[0-9]{1,7}\.(cvd|cdiff)\.sign"
)
"""What freshclam asks a mirror for, and nothing else that may lie in the folder."""

AT_ONCE: Final = 64 * 1024
PIECE: Final = 256 * 1024
MOST_AT_A_TIME: Final = 256
"""Longer files under way; whoever comes then is asked to come back."""
SLOWEST: Final = 8 * 1024
"""Bytes a second; a reader that is slower is cut, since its place is needed."""

Send = Callable[[dict[str, Any]], Awaitable[None]]


@dataclass(frozen=True)
class FromDisk:
    """The body of an answer that is sent piece by piece."""

    path: Path
    start: int
    length: int


FileAnswer = tuple[int, Headers, bytes | FromDisk]


class Files:
    """The files of one folder, by their names."""

    def __init__(self, folder: Callable[[], Path | None], names: re.Pattern[str], at: str) -> None:
        """`folder` answers where they are, None while there are none."""
        self._folder, self._names, self._at = folder, names, at

    async def answer(self, scope: dict[str, Any], receive: Any) -> FileAnswer:
        """The file that is asked for, or the part of it. Raises Refused."""
        name = scope["path"].removeprefix(self._at)
        folder = self._folder()
        if folder is None or self._names.fullmatch(name) is None:
            return _NOT_THERE
        answer = await asyncio.to_thread(_found, folder / name, scope)
        if isinstance(answer[2], FromDisk) and len(_under_way) >= MOST_AT_A_TIME:
            raise problems.busy("Too many downloads at a time")
        return answer


_under_way: set[asyncio.Task[Any]] = set()


async def send(body: FromDisk, send: Send) -> None:
    """Send the file's part; a reader that is too slow loses the connection."""
    task = asyncio.current_task()
    if task is None:  # ASGI servers run each request in a task.
        raise RuntimeError("Files are sent in a task")
    _under_way.add(task)
    try:
        async with asyncio.timeout(30 + body.length / SLOWEST):
            await _send(body, send)
    except TimeoutError:
        raise ConnectionError("read too slowly") from None
    finally:
        _under_way.discard(task)


async def _send(body: FromDisk, send: Send) -> None:
    descriptor = os.open(body.path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
    try:
        sent = 0
        while sent < body.length:
            size = min(PIECE, body.length - sent)
            piece = await asyncio.to_thread(os.pread, descriptor, size, body.start + sent)
            if not piece:
                raise ConnectionError("the file became shorter")
            sent += len(piece)
            more = sent < body.length
            await send({"type": "http.response.body", "body": piece, "more_body": more})
    finally:
        os.close(descriptor)


_NOT_THERE: Final[FileAnswer] = (404, ((b"content-length", b"0"),), b"")


def _found(path: Path, scope: dict[str, Any]) -> FileAnswer:
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
    except OSError:
        return _NOT_THERE
    try:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode):
            return _NOT_THERE
        asked = {name: value.decode("latin-1") for name, value in scope["headers"]}
        changed = email.utils.formatdate(about.st_mtime, usegmt=True)
        # Metadata that keeps its name is asked for anew each time; what bears a hash never changes.
        headers: list[tuple[bytes, bytes]] = [(b"last-modified", changed.encode())]
        if path.suffix != ".zst":
            # Without this word a cache on the way may guess a time from the date, and freeze it.
            headers.append((b"cache-control", b"no-cache"))
        if _unchanged(asked.get(b"if-modified-since"), about.st_mtime):
            return 304, tuple(headers), b""
        start, length = 0, about.st_size
        status = 200
        wanted = asked.get(b"range")
        if wanted and asked.get(b"if-range", changed) == changed:
            part = _range(wanted, about.st_size)
            if part is None:
                none = (b"content-range", b"bytes */%d" % about.st_size)
                return 416, (none, (b"content-length", b"0")), b""
            start, length = part
            if (start, length) != (0, about.st_size):
                status = 206
                last = start + length - 1
                headers.append((b"content-range", b"bytes %d-%d/%d" % (start, last, about.st_size)))
        headers += [(b"content-length", str(length).encode()), NO_SNIFF]
        if path.suffix != ".json":
            headers.append((b"content-type", b"application/octet-stream"))
            headers.append((b"accept-ranges", b"bytes"))
        else:
            headers.append(problems.JSON)
        if scope["method"] == "HEAD":
            return status, tuple(headers), b""
        if length > AT_ONCE:
            return status, tuple(headers), FromDisk(path, start, length)
        return status, tuple(headers), os.pread(descriptor, length, start)
    finally:
        os.close(descriptor)


def _unchanged(since: str | None, modified: float) -> bool:
    if since is None:
        return False
    try:
        return int(modified) <= email.utils.parsedate_to_datetime(since).timestamp()
    except (TypeError, ValueError, OverflowError):
        return False


def _range(wanted: str, size: int) -> tuple[int, int] | None:
    """Begin and length of the one range asked for (RFC 9110, 14.1.2); None where it is not there.

    What cannot be read, or names several, is answered as if nothing had been asked: the whole.
    """
    found = re.fullmatch(r"bytes=([0-9]{0,15})-([0-9]{0,15})", wanted.strip())
    if found is None or not (found[1] or found[2]):
        return 0, size
    if not found[1]:
        length = min(int(found[2]), size)
        return (size - length, length) if length else None
    start = int(found[1])
    last = min(int(found[2]), size - 1) if found[2] else size - 1
    if start >= size:
        return None
    return (start, last - start + 1) if last >= start else (0, size)
