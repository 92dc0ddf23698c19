"""One device's connection: bad and slow senders are cut, and whole requests answered at once."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any, Final

from django.conf import settings
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from doorward.gateway import problems
from doorward.gateway.problems import Answer, Refused

MAX_HEAD_BYTES: Final = 32 * 1024
"""Request line and headers. A signed request of ours needs about 1 KiB."""
HEAD_SECONDS: Final = 15.0
"""A connection on which no head has become whole by then is cut (abuse case A65, drill D13)."""

AtOnce = Callable[[Any, bytes], Answer | None]

_open: Final[set[Connection]] = set()


def headers_of_all() -> list[tuple[str, str]]:
    """Return what every answer at this door carries: where the site is https, to stay with that.

    For uvicorn's own list, which it puts together once a second: no answer costs more by it.
    """
    if not settings.SECURE_HSTS_SECONDS:
        return []
    kept = f"max-age={settings.SECURE_HSTS_SECONDS}"
    if settings.SECURE_HSTS_INCLUDE_SUBDOMAINS:
        kept += "; includeSubDomains"
    return [("strict-transport-security", kept)]


class Connection(HttpToolsProtocol):
    """uvicorn's connection, which by itself waits for a head for ever, and of any length."""

    def __init__(self, *words: Any, **named: Any) -> None:
        super().__init__(*words, **named)
        self._head_bytes = 0
        self._head_since: float | None = None
        self._serving = False
        self._begun: tuple[RequestResponseCycle, Any] | None = None
        self._answer_at_once: AtOnce | None = getattr(self.app, "answer_at_once", None)

    def connection_made(self, transport: Any) -> None:
        """Begin to wait for the first head."""
        super().connection_made(transport)
        self._head_since = monotonic()
        _open.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody is there any more."""
        _open.discard(self)
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """A head begins, perhaps in the same piece in which the request before it ended."""
        if self._head_since is None:
            self._head_since = monotonic()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The head is whole; how long the body may take is the reader's business."""
        self._head_since = None
        self._head_bytes = 0
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        """Take what came, and refuse a head that has no end."""
        cycle: RequestResponseCycle | None = self.cycle  # None before the first request
        if self._head_since is None and (cycle is None or cycle.response_complete):
            self._head_since = monotonic()
        super().data_received(data)
        self._serve_begun()
        if self._head_since is not None:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
                self._refuse(Refused("too-large", "The headers have no end", close=True))

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP, and hang up."""
        self._refuse(Refused("invalid-message", "This is not HTTP/1.1", close=True))

    def cut_if_slow(self, before: float) -> None:
        """Hang up when the head under way began before then (on `time.monotonic`)."""
        if self._head_since is not None and self._head_since < before:
            self.transport.abort()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        # Its body may be on the way to the parser just now: a moment later it is known to be whole.
        self._begun = cycle, app

    def on_response_complete(self) -> None:
        """Go on with the request that came behind the one just answered, if one did."""
        cycle: RequestResponseCycle = self.cycle
        if cycle.response_complete and cycle.more_body and self._head_since is None:
            # Refused before its body was read, which nobody waits for now: as long as for a head.
            self._head_since = monotonic()
        super().on_response_complete()
        self._serve_begun()

    def _serve_begun(self) -> None:
        if self._serving:
            return  # Whoever serves goes on with the next: a thousand requests are no recursion.
        self._serving = True
        try:
            while self._begun is not None:
                (cycle, app), self._begun = self._begun, None
                self._serve(cycle, app)
        finally:
            self._serving = False

    def _serve(self, cycle: RequestResponseCycle, app: Any) -> None:
        if self._answer_at_once is not None and not cycle.more_body and not cycle.disconnected:
            answer = self._answer_at_once(cycle.scope, bytes(cycle.body))
            if answer is not None:
                self._write(answer, cycle)
                return
        super()._start_asgi_task(cycle, app)

    def _write(self, answer: Answer, cycle: RequestResponseCycle) -> None:
        # The same steps as uvicorn's own at the end of an answer.
        cycle.response_started = cycle.response_complete = True
        self.transport.write(_wire(answer, self.server_state.default_headers, cycle.keep_alive))
        if not cycle.keep_alive or problems.CLOSE in answer[1]:
            self.transport.close()
        self.on_response_complete()

    def _refuse(self, refused: Refused) -> None:
        answer = problems.answer(refused)
        self.transport.write(_wire(answer, self.server_state.default_headers, keep_alive=True))
        self.transport.close()


def _wire(answer: Answer, defaults: list[tuple[bytes, bytes]], keep_alive: bool) -> bytes:
    status, headers, body = answer
    lines = [STATUS_LINE[status]]
    for name, value in (*defaults, *headers):
        lines += (name, b": ", value, b"\r\n")
    if not keep_alive:
        lines.append(b"connection: close\r\n")
    lines += (b"\r\n", body)
    return b"".join(lines)


def cut_slow() -> None:
    """Hang up on everybody who takes too long to say what they want."""
    before = monotonic() - HEAD_SECONDS
    for connection in list(_open):
        connection.cut_if_slow(before)
