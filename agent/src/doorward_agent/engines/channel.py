"""What agent and worker say to each other, over a pair of sockets (with descriptors) or over pipes
(with paths).

Frames are four bytes of length, little endian, and JSON. Both ends are ours and equal in version,
so there is no negotiation; an end that sees a frame it cannot read takes the other for broken.
"""

import json
import os
import socket
import sys
from dataclasses import asdict, dataclass
from typing import Any, BinaryIO, Protocol

from doorward_agent.engines import Hit, Limit

LARGEST_FRAME = 16 * 1024 * 1024
_BATCH = 256 * 1024
_MOST_DESCRIPTORS = 64


class ChannelBroken(Exception):
    """The other end is gone, or says what nobody can read."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a worker found out about one file."""

    sha256: str
    size: int
    hits: tuple[tuple[str, Hit], ...]
    """(member, hit); the member is "" for the file itself."""
    limits: tuple[Limit, ...]
    """Why the file was not seen whole; empty means every byte was looked at."""
    changed: bool
    """The file changed while it was read."""

    def encoded(self) -> dict[str, Any]:
        """Return the answer as plain values."""
        if not self.hits and not self.limits and not self.changed:
            return {"h": self.sha256, "n": self.size}
        return {
            "h": self.sha256,
            "n": self.size,
            "hits": [[member, asdict(hit)] for member, hit in self.hits],
            "limits": [[limit.reason, limit.detail] for limit in self.limits],
            "changed": self.changed,
        }

    @classmethod
    def decoded(cls, values: dict[str, Any]) -> "Answer":
        """Return the answer that `encoded` wrote. Raises ChannelBroken."""
        try:
            return cls(
                sha256=str(values["h"]),
                size=int(values["n"]),
                hits=tuple((str(member), Hit(**hit)) for member, hit in values.get("hits", ())),
                limits=tuple(
                    Limit(str(reason), str(detail)) for reason, detail in values.get("limits", ())
                ),
                changed=bool(values.get("changed", False)),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ChannelBroken("an answer that cannot be read") from error


class Channel(Protocol):
    """One end."""

    def send(self, message: dict[str, Any], descriptor: int | None = None) -> None:
        """Send a message, and with it a copy of an open descriptor. Raises ChannelBroken."""

    def receive(self) -> tuple[dict[str, Any], int | None] | None:
        """Return the next message and its descriptor (the receiver closes it); None at the end."""

    def close(self) -> None:
        """Close this end."""


def _framed(message: dict[str, Any]) -> bytes:
    body = json.dumps(message, separators=(",", ":")).encode("ascii")
    return len(body).to_bytes(4, "little") + body


def _unframed(body: bytes) -> dict[str, Any]:
    try:
        message = json.loads(body)
    except ValueError as error:
        raise ChannelBroken("a message that cannot be read") from error
    if not isinstance(message, dict):
        raise ChannelBroken("a message that cannot be read")
    return message


class SocketChannel:
    """Over one of a pair of stream sockets; descriptors arrive in the order of their messages
    (POSIX)."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._held = bytearray()
        self._descriptors: list[int] = []

    def send(self, message: dict[str, Any], descriptor: int | None = None) -> None:
        """Send a message; one with a descriptor says so in ``fd``."""
        if descriptor is None:
            frame = memoryview(_framed(message))
            sent = 0
        else:
            frame = memoryview(_framed({**message, "fd": True}))
            try:
                sent = socket.send_fds(self._end, [frame], [descriptor])
            except OSError as error:
                raise ChannelBroken(str(error)) from error
        try:
            self._end.sendall(frame[sent:])
        except OSError as error:
            raise ChannelBroken(str(error)) from error

    def receive(self) -> tuple[dict[str, Any], int | None] | None:
        """Return the next message and its descriptor; None at the end. Raises ChannelBroken."""
        while True:
            if len(self._held) >= 4:
                length = int.from_bytes(self._held[:4], "little")
                if length > LARGEST_FRAME:
                    raise ChannelBroken("a message too large")
                if len(self._held) >= 4 + length:
                    message = _unframed(bytes(self._held[4 : 4 + length]))
                    del self._held[: 4 + length]
                    if not message.get("fd"):
                        return message, None
                    if not self._descriptors:
                        raise ChannelBroken("a message without its descriptor")
                    return message, self._descriptors.pop(0)
            try:
                piece, descriptors, flags, _ = socket.recv_fds(self._end, _BATCH, _MOST_DESCRIPTORS)
            except OSError as error:
                raise ChannelBroken(str(error)) from error
            self._descriptors.extend(descriptors)
            if flags & getattr(socket, "MSG_CTRUNC", 0):
                raise ChannelBroken("descriptors were lost")
            if not piece:
                return None
            self._held += piece

    def close(self) -> None:
        """Close this end and every descriptor nobody took."""
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors.clear()
        self._end.close()


class PipeChannel:
    """Over two pipes, with paths instead of descriptors (Windows; works everywhere)."""

    def __init__(self, source: BinaryIO, target: BinaryIO) -> None:
        self._source = source
        self._target = target

    def send(self, message: dict[str, Any], descriptor: int | None = None) -> None:
        """Send a message; a descriptor stays here, the path in the message is what counts."""
        try:
            self._target.write(_framed(message))
            self._target.flush()
        except (OSError, ValueError) as error:
            raise ChannelBroken(str(error)) from error

    def receive(self) -> tuple[dict[str, Any], int | None] | None:
        """Return the next message; None at the end. Raises ChannelBroken."""
        try:
            start = self._source.read(4)
            if len(start) < 4:
                return None
            length = int.from_bytes(start, "little")
            if length > LARGEST_FRAME:
                raise ChannelBroken("a message too large")
            body = self._source.read(length)
        except (OSError, ValueError) as error:
            raise ChannelBroken(str(error)) from error
        if len(body) < length:
            return None
        return _unframed(body), None

    def close(self) -> None:
        """Close both pipes."""
        for pipe in (self._target, self._source):
            try:
                pipe.close()
            except OSError:
                # What was not flushed has no reader any more.
                continue


def worker_end(arguments: list[str]) -> Channel:
    """Return the worker's end of the channel its arguments name."""
    if arguments[:1] == ["descriptors"]:
        return SocketChannel(socket.socket(fileno=int(arguments[1])))
    return PipeChannel(sys.stdin.buffer, sys.stdout.buffer)
