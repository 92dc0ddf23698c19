"""A request takes a thread once it is whole: who sends slowly, or reads slowly, holds none."""

from __future__ import annotations

import asyncio
import io
import json
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from queue import SimpleQueue
from typing import Any, BinaryIO, Final

from granian.rsgi import (  # type: ignore[attr-defined]  # exported under other names
    HTTPProtocol,
    ProtocolClosed,
    ProtocolError,
    Scope,
)

from doorward.accounts.lockout import network_of
from doorward.accounts.origin import address_in

BODY_SECONDS: Final = 10.0
"""A body that has not arrived by then is cut (abuse case A65, drills D12 and D13)."""
MOST_UNFINISHED: Final = 64
"""Bodies still on the way from one network; one more, and the oldest of them is cut."""
MOST_UNFINISHED_BYTES: Final = 32 * 1024 * 1024
"""What bodies still on the way may announce in all; beyond it the oldest are cut."""

LOOK_SECONDS: Final = 1.0
"""How often the late are looked for."""

Environ = dict[str, Any]
Application = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]
Job = tuple[Environ, HTTPProtocol, "asyncio.Future[None]", asyncio.AbstractEventLoop]
# In words, and as the API names it (docs/api.md).
REFUSALS: Final = {
    400: ("bad-request", "The request was not whole."),
    408: ("too-slow", "The request took too long to arrive. Please send it again."),
    411: ("length-required", "A request says how long it is (Content-Length)."),
    413: ("too-large", "The request is longer than anything this server takes."),
}
# What every answer of the portal says; these are made where no middleware sees them.
REFUSAL_HEADERS: Final = [
    ("connection", "close"),
    ("cache-control", "no-store"),
    ("content-security-policy", "default-src 'none'; sandbox"),
    ("cross-origin-resource-policy", "same-origin"),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
]


class Refused(Exception):
    """The request will not be answered by a page: it is too long, too slow or broken."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Arrivals:
    """Takes requests as granian hands them over (RSGI), and has threads answer the whole ones.

    It lives in one event loop, which does nothing but wait for bodies; a request without one goes
    straight to a thread.
    """

    def __init__(self, application: Application, *, threads: int, longest: int) -> None:
        self._application = application
        self._longest = longest
        self._threads = Threads(threads, self._answer)
        self._unfinished = Unfinished()

    async def __rsgi__(self, scope: Scope, protocol: HTTPProtocol) -> None:
        """Answer one request."""
        environ = environ_of(scope)
        try:
            body = await self._body(environ, protocol)
        except Refused as refused:
            kind, said = _refusal(environ["PATH_INFO"], refused.status)
            headers = [*REFUSAL_HEADERS, ("content-type", kind)]
            protocol.response_bytes(refused.status, headers, said)
            return
        environ["wsgi.input"] = io.BytesIO(body)
        await self._threads.run(environ, protocol)

    async def _body(self, environ: Environ, protocol: HTTPProtocol) -> bytes:
        # granian's HTTP library lets no request through that says both, or says a length wrongly.
        if "HTTP_TRANSFER_ENCODING" in environ:
            raise Refused(411)
        length = int(environ.get("CONTENT_LENGTH") or 0)
        if length == 0:
            return b""
        if length > self._longest:
            raise Refused(413)
        network = network_of(address_in(environ))
        try:
            return await self._unfinished.wait(protocol, network, length)
        except (ProtocolClosed, ProtocolError):
            # Nobody is there any more, most likely; granian wants an answer all the same.
            raise Refused(400) from None

    def _answer(self, environ: Environ, protocol: HTTPProtocol) -> None:
        head = Head()
        pieces = self._application(environ, head.begin)
        try:
            path = pieces.path if isinstance(pieces, FromDisk) else None
            if path is not None:
                protocol.response_file(head.status, head.headers, path)
            else:
                # Whole before it is sent. Nothing here streams what is longer than a page.
                protocol.response_bytes(head.status, head.headers, b"".join(pieces))
        finally:
            close = getattr(pieces, "close", None)
            if close is not None:
                close()


def _refusal(path: str, status: int) -> tuple[str, bytes]:
    """Return the content type and the words, as who asks at this address reads them."""
    code, words = REFUSALS[status]
    if path.startswith("/api/"):
        problem = {"type": f"urn:doorward:problem:{code}", "title": words}
        told = json.dumps({**problem, "status": status, "code": code})
        return "application/problem+json", told.encode()
    if path.startswith("/_allauth/"):
        error = {"message": words, "code": code.replace("-", "_")}
        return "application/json", json.dumps({"status": status, "errors": [error]}).encode()
    return "text/plain; charset=utf-8", f"{words}\n".encode()


class Unfinished:
    """The bodies that are still on the way; the slow are cut, and of too many the oldest.

    Not the newest: that one may be anybody's, and an honest body is whole in a moment. A timer for
    each would cost more than it is worth: one look around each second does the same.
    """

    def __init__(self) -> None:
        self._bodies: dict[asyncio.Task[Any], tuple[float, str, int]] = {}
        self._cut: set[asyncio.Task[Any]] = set()
        self._of_network: dict[str, int] = {}
        self._announced = 0
        self._looking = False

    async def wait(self, protocol: HTTPProtocol, network: str, length: int) -> bytes:
        """The body, whole. Raises Refused when it was cut."""
        task = asyncio.current_task()
        if task is None:  # granian runs each request in a task.
            raise RuntimeError("Bodies are awaited in a task")
        self._make_room(network, length)
        loop = asyncio.get_running_loop()
        self._bodies[task] = loop.time() + BODY_SECONDS, network, length
        self._of_network[network] = self._of_network.get(network, 0) + 1
        self._announced += length
        if not self._looking:
            self._looking = True
            loop.call_later(LOOK_SECONDS, self._look_around)
        try:
            return await protocol()
        except asyncio.CancelledError:
            if task in self._cut:
                task.uncancel()
                raise Refused(408) from None
            raise
        finally:
            self._cut.discard(task)
            self._forget(task)

    def _make_room(self, network: str, length: int) -> None:
        if self._of_network.get(network, 0) >= MOST_UNFINISHED:
            self._cut_off(next(task for task, (_, of, _) in self._bodies.items() if of == network))
        while self._bodies and self._announced + length > MOST_UNFINISHED_BYTES:
            self._cut_off(next(iter(self._bodies)))

    def _look_around(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for task, (until, _, _) in list(self._bodies.items()):
            if until > now:
                break
            self._cut_off(task)
        self._looking = bool(self._bodies)
        if self._looking:
            loop.call_later(LOOK_SECONDS, self._look_around)

    def _cut_off(self, task: asyncio.Task[Any]) -> None:
        self._forget(task)
        self._cut.add(task)
        task.cancel()

    def _forget(self, task: asyncio.Task[Any]) -> None:
        found = self._bodies.pop(task, None)
        if found is None:
            return  # It was cut.
        _, network, length = found
        self._announced -= length
        self._of_network[network] -= 1
        if not self._of_network[network]:
            del self._of_network[network]


class Threads:
    """The threads that make pages: no more of them than there were pages to make at once.

    Each keeps its connection to the database. A pool of the standard library costs half as much
    again for a request as the queue does.
    """

    def __init__(self, most: int, act: Callable[[Environ, HTTPProtocol], None]) -> None:
        self._most = most
        self._act = act
        self._started = 0
        self._under_way = 0
        self._jobs: SimpleQueue[Job] = SimpleQueue()

    async def run(self, environ: Environ, protocol: HTTPProtocol) -> None:
        """Have a thread answer; return when it did. Raises what it raised."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        self._under_way += 1
        if self._started < min(self._under_way, self._most):
            self._started += 1
            threading.Thread(target=self._work, name=f"page-{self._started}", daemon=True).start()
        self._jobs.put((environ, protocol, done, loop))
        try:
            await done
        finally:
            self._under_way -= 1

    def _work(self) -> None:
        while True:
            self._do(*self._jobs.get())

    def _do(
        self,
        environ: Environ,
        protocol: HTTPProtocol,
        done: asyncio.Future[None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        try:
            self._act(environ, protocol)
        except BaseException as error:  # noqa: BLE001 - granian logs it and answers 500
            loop.call_soon_threadsafe(done.set_exception, error)
        else:
            loop.call_soon_threadsafe(done.set_result, None)


@dataclass
class Head:
    """Status and headers of an answer."""

    status: int = 500
    headers: list[tuple[str, str]] = field(default_factory=list)

    def begin(self, status: str, headers: list[tuple[str, str]], _error: object = None) -> None:
        """Note them, as WSGI's `start_response`."""
        self.status = int(status.partition(" ")[0])
        self.headers = headers


class FromDisk:
    """An answer that is a file (`wsgi.file_wrapper`): granian reads it, so that no thread waits."""

    def __init__(self, file: BinaryIO, block_size: int = 64 * 1024) -> None:
        self._file = file
        self._block_size = block_size
        self.close = file.close

    @property
    def path(self) -> str | None:
        """Where all of it is, or None when it is something else than a whole file."""
        name = getattr(self._file, "name", None)
        if isinstance(self._file, io.BufferedReader) and isinstance(name, str | Path):
            return str(name) if self._file.tell() == 0 else None
        return None

    def __iter__(self) -> Iterator[bytes]:
        while piece := self._file.read(self._block_size):
            yield piece


_ALWAYS: Final[Environ] = {
    "GATEWAY_INTERFACE": "CGI/1.1",
    "SCRIPT_NAME": "",
    "wsgi.errors": sys.stderr,
    "wsgi.file_wrapper": FromDisk,
    "wsgi.multiprocess": True,
    "wsgi.multithread": True,
    "wsgi.run_once": False,
    "wsgi.version": (1, 0),
}


def environ_of(scope: Scope) -> Environ:
    """The request as WSGI describes it, without its body."""
    server, _, port = scope.server.rpartition(":")
    environ = _ALWAYS | {
        "SERVER_PROTOCOL": f"HTTP/{scope.http_version}",
        "SERVER_NAME": server.strip("[]"),
        "SERVER_PORT": port,
        "REMOTE_ADDR": scope.client.rpartition(":")[0].strip("[]"),
        "REQUEST_METHOD": scope.method,
        "PATH_INFO": scope.path.encode().decode("latin-1"),
        "QUERY_STRING": scope.query_string,
        "wsgi.url_scheme": scope.scheme,
    }
    for name, value in scope.headers.items():
        key = _key_of(name)
        if key in environ:
            environ[key] += (";" if key == "HTTP_COOKIE" else ",") + value
        elif key:
            environ[key] = value
    return environ


@lru_cache(maxsize=512)
def _key_of(name: str) -> str:
    # WSGI knows no difference between X_Forwarded_For and what our proxy wrote.
    if "_" in name:
        return ""
    key = name.replace("-", "_").upper()
    return key if key in {"CONTENT_TYPE", "CONTENT_LENGTH"} else f"HTTP_{key}"
