"""What agent and worker say to each other, over a pair of sockets (with descriptors) or over pipes
(with paths).

Frames are four bytes of length, little endian, and JSON. Both ends are ours and equal in version,
so there is no negotiation; an end that sees a frame it cannot read takes the other for broken.
"""

import json
import os
import socket
import sys
from collections.abc import Sequence
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
            if "hits" not in values:
                return cls(str(values["h"]), int(values["n"]), (), (), False)
            return cls(
                sha256=str(values["h"]),
                size=int(values["n"]),
                hits=tuple((str(member), Hit(**hit)) for member, hit in values["hits"]),
                limits=tuple(
                    Limit(str(reason), str(detail)) for reason, detail in values["limits"]
                ),
                changed=bool(values["changed"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ChannelBroken("an answer that cannot be read") from error


class Channel(Protocol):
    """One end."""

    def send(self, message: dict[str, Any], descriptors: Sequence[int] = ()) -> None:
        """Send a message, and with it copies of open descriptors. Raises ChannelBroken."""

    def receive(self) -> tuple[dict[str, Any], list[int]] | None:
        """Return the next message and its descriptors (the receiver closes them); None at the
        end."""

    @property
    def more(self) -> bool:
        """Tell whether another message is here whole, so that `receive` does not wait."""

    def close(self) -> None:
        """Close this end."""


_encode = json.JSONEncoder(separators=(",", ":")).encode


def _framed(message: dict[str, Any]) -> bytes:
    body = _encode(message).encode("ascii")
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

    def send(self, message: dict[str, Any], descriptors: Sequence[int] = ()) -> None:
        """Send a message; one with descriptors says in ``fds`` how many."""
        try:
            if descriptors:
                frame = _framed({**message, "fds": len(descriptors)})
                sent = socket.send_fds(self._end, [frame], descriptors)
                if sent < len(frame):
                    self._end.sendall(frame[sent:])
            else:
                self._end.sendall(_framed(message))
        except OSError as error:
            raise ChannelBroken(str(error)) from error

    @property
    def more(self) -> bool:
        """Tell whether another message is here whole."""
        held = self._held
        return len(held) >= 4 and len(held) >= 4 + int.from_bytes(held[:4], "little")

    def receive(self) -> tuple[dict[str, Any], list[int]] | None:
        """Return the next message and its descriptors; None at the end. Raises ChannelBroken."""
        while True:
            if len(self._held) >= 4:
                length = int.from_bytes(self._held[:4], "little")
                if length > LARGEST_FRAME:
                    raise ChannelBroken("a message too large")
                if len(self._held) >= 4 + length:
                    message = _unframed(bytes(self._held[4 : 4 + length]))
                    del self._held[: 4 + length]
                    return message, self._taken(message.get("fds", 0))
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

    def _taken(self, count: object) -> list[int]:
        if not isinstance(count, int) or not 0 <= count <= len(self._descriptors):
            raise ChannelBroken("a message without its descriptors")
        taken = self._descriptors[:count]
        del self._descriptors[:count]
        return taken

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

    def send(self, message: dict[str, Any], descriptors: Sequence[int] = ()) -> None:
        """Send a message; descriptors stay here, the paths in the message are what counts."""
        try:
            self._target.write(_framed(message))
            self._target.flush()
        except (OSError, ValueError) as error:
            raise ChannelBroken(str(error)) from error

    more = False
    """Nobody can look into a pipe without waiting."""

    def receive(self) -> tuple[dict[str, Any], list[int]] | None:
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
        return _unframed(body), []

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
