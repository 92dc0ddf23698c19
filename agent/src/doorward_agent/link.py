"""The connection to the server: the only module of the agent that talks to the network.

Every call either answers a message that was checked in full, or raises a LinkProblem that says in
words what happened and, by its class, what the agent should do about it. Secrets (codes, tokens,
signatures) appear in no error and no log.
"""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import ipaddress
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Final, TypeVar
from urllib.parse import SplitResult, urlsplit
from uuid import UUID

import httpx2
import msgspec
import zstandard
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from doorward_protocol import messages, signing

PREFIX: Final = "/device/v1"
CONNECT_SECONDS: Final = 10.0
READ_SECONDS: Final = 30.0
# From the first byte sent to the last received, beside the time the server was asked to wait: a
# server that answers one byte a second must not hold the agent for ever.
CALL_SECONDS: Final = 60.0
# A file that comes more slowly, in bytes a second, is given up; what came of it is kept.
SLOWEST_FILE: Final = 4096
# No answer is longer than a report may be; a longer one is not from our server.
MAX_ANSWER_BYTES: Final = messages.MAX_REPORT_BYTES
# Below this, compressing costs more than it saves.
COMPRESS_FROM_BYTES: Final = 1024
# The longest pause a server can ask for (Retry-After).
LONGEST_PAUSE: Final = 900.0

_T = TypeVar("_T")
_Sent = Callable[[str, bytes, bool], None]


class LinkProblem(Exception):
    """The call did not do what was asked; the message is a sentence for people.

    `retry_after` is in seconds, where the server asked for a pause.
    """

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ServerUnreachable(LinkProblem):
    """Nobody answered, or only in part: trying again later may help."""


class ServerBusy(LinkProblem):
    """The server cannot serve us now and said so: trying again later will help."""


class ServerUntrusted(LinkProblem):
    """The server did not prove that it is the one we mean, or the address proves nothing."""


class AnswerUnreadable(LinkProblem):
    """Somebody answered who does not speak this protocol: a proxy, a portal, another program."""


class CodeRefused(LinkProblem):
    """The code is wrong, used up or too old."""


class SeatsExhausted(LinkProblem):
    """The account's plan covers no further device."""


class DeviceRemoved(LinkProblem):
    """The account no longer has this device: it must stop reporting."""


class DeviceCloned(LinkProblem):
    """Two computers use this device's key: this one has to enroll anew."""


class KeyInUse(LinkProblem):
    """This device's key belongs to another account already."""


class ClockWrong(LinkProblem):
    """This computer's clock is far from the server's, even after allowing for the difference."""


class UpgradeNeeded(LinkProblem):
    """The server no longer speaks with so old an agent."""


class MessageRefused(LinkProblem):
    """The server will not take this message, now or later; `rejected` says which events are bad."""

    def __init__(
        self, message: str, *, code: str = "", rejected: Sequence[messages.RejectedEvent] = ()
    ) -> None:
        super().__init__(message)
        self.code = code
        self.rejected = tuple(rejected)


class NotAuthorized(LinkProblem):
    """The server does not know this device's key or token."""


def checked_server(address: str, *, insecure_http: bool = False) -> str:
    """Answer the address of the server's device door as it is used, or raise ServerUntrusted.

    Plain http is refused except to this computer itself, or where it was asked for by name.
    """
    try:
        parts = urlsplit(address.strip())
        port = parts.port
    except ValueError:
        raise ServerUntrusted(f"{address!r} is not an address.") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ServerUntrusted(
            f"{address!r} is not an address of a server. It looks like https://doorward.example."
        )
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ServerUntrusted("The server's address must hold no user, password, ? or #.")
    if parts.path.rstrip("/") not in {"", "/device", PREFIX}:
        raise ServerUntrusted(
            f"The server's address must end after the name and port, without {parts.path!r}."
        )
    if parts.scheme == "http" and not (insecure_http or is_loopback(parts.hostname)):
        raise ServerUntrusted(
            "Plain http:// would show everything to everybody on the way. Use https://, or add "
            "--insecure-http if you are sure that nobody can listen."
        )
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return SplitResult(parts.scheme, f"{host}:{port}" if port else host, "", "", "").geturl()


def is_loopback(host: str) -> bool:
    """Whether this name can only mean this very computer."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Link:
    """One kept-alive connection to one server, as one device."""

    def __init__(
        self,
        server: str,
        key: Ed25519PrivateKey,
        *,
        version: str,
        clock_offset: float = 0.0,
        insecure_http: bool = False,
        ca_file: str = "",
        transport: httpx2.AsyncBaseTransport | None = None,
        sent: _Sent | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Make the link; nothing is sent yet. `sent` is told path, body and whether it is
        compressed.

        Raises ServerUntrusted for an address that proves nothing, or a CA file that cannot be read.
        """
        self.server = checked_server(server, insecure_http=insecure_http)
        # Seconds to add to our clock to get the server's.
        self.clock_offset = clock_offset
        self._key = key
        self._clock = clock
        self._sent = sent
        # With what definitions begin to be trusted, as the server last told it.
        self.definitions_root: messages.DefinitionsRoot | None = None
        self._token = ""
        self._token_until = 0.0
        self._token_lock = asyncio.Lock()
        self._removed: DeviceRemoved | None = None
        host = urlsplit(self.server).hostname or ""
        self._client = httpx2.AsyncClient(
            base_url=self.server,
            verify=_trust(ca_file),
            timeout=httpx2.Timeout(READ_SECONDS, connect=CONNECT_SECONDS),
            limits=httpx2.Limits(
                max_connections=4, max_keepalive_connections=2, keepalive_expiry=120
            ),
            headers={
                "User-Agent": f"doorward-agent/{version}",
                "Accept": "application/json, application/problem+json",
                # An answer is small; not unpacking it leaves nothing to blow up.
                "Accept-Encoding": "identity",
            },
            follow_redirects=False,
            trust_env=not is_loopback(host),
            transport=transport,
        )

    async def close(self) -> None:
        """Give up the connection."""
        await self._client.aclose()

    # ------------------------------------------------------------------------------ the calls

    async def enroll(self, request: messages.EnrollRequest) -> messages.EnrollAnswer:
        """Join an account; with a key that joined before, be the same device again."""
        body = messages.encode(request)
        return await self._signed("POST", "/enroll", body, messages.EnrollAnswer)

    async def check_in(self, state: messages.CheckIn, *, wait: int = 0) -> messages.CheckInAnswer:
        """Tell the server how this device is, and learn what there is to do."""
        headers = {"Prefer": f"wait={wait}"} if wait else {}
        body = messages.encode(state)
        return await self._bearer(
            "/check-in", body, messages.CheckInAnswer, headers=headers, wait=wait
        )

    async def settings(self) -> messages.RawSettings:
        """Ask for all settings; they are still unread, so that a mistake in them names itself."""
        return await self._bearer("/settings", b"", messages.RawSettings, method="GET")

    async def report(self, events: Sequence[bytes]) -> messages.ReportAnswer:
        """Deliver events; what the answer calls accepted or duplicate is on the server's disk."""
        body = b'{"events":[' + b",".join(events) + b"]}"
        return await self._bearer("/reports", body, messages.ReportAnswer, compress=True)

    async def answer_command(self, command_uid: UUID, state: messages.CommandState) -> None:
        """Tell the server how far a command is."""
        await self._bearer(f"/commands/{command_uid}", messages.encode(state), None)

    async def change_key(self, request: messages.KeyChange) -> messages.KeyChangeAnswer:
        """Have the server know this device by another key; the same request again is fine."""
        body = messages.encode(request)
        return await self._signed("POST", "/keys", body, messages.KeyChangeAnswer)

    async def prove(self) -> None:
        """Learn whether the server knows this device by its key; raises NotAuthorized."""
        await self._current_token()

    async def leave(self) -> None:
        """Leave the account: the seat is free from now on. Having left before is no problem."""
        with contextlib.suppress(DeviceRemoved):
            await self._signed("DELETE", "/self", b"", None)

    # ----------------------------------------------------------------------------- underneath

    async def _bearer(
        self,
        path: str,
        body: bytes,
        answer: type[_T] | None,
        *,
        headers: dict[str, str] | None = None,
        compress: bool = False,
        wait: int = 0,
        method: str = "POST",
    ) -> _T:
        wire, encoding = body, {}
        if compress and len(body) >= COMPRESS_FROM_BYTES:
            wire, encoding = zstandard.compress(body, 3), {"Content-Encoding": "zstd"}
        for attempt in (1, 2):
            token = await self._current_token()
            try:
                return await self._call(
                    method,
                    path,
                    wire,
                    answer,
                    headers={**(headers or {}), **encoding, "Authorization": f"Bearer {token}"},
                    plain=body,
                    wait=wait,
                )
            except NotAuthorized:
                # The token may have ended early (the server changed its key): one new one is tried.
                if self._token == token:
                    self._token = ""
                if attempt == 2:
                    raise
        raise AssertionError("unreachable")

    async def _current_token(self) -> str:
        async with self._token_lock:
            if self._token and time.monotonic() < self._token_until:
                return self._token
            body = messages.encode(messages.TokenRequest())
            answer = await self._signed("POST", "/token", body, messages.TokenAnswer)
            self.definitions_root = answer.definitions_root
            # Measured on a clock that nobody can set; a tenth early, so that none ends on its way.
            lifetime = (answer.expires_at - answer.server_time) / 1000
            self._token, self._token_until = answer.token, time.monotonic() + lifetime * 0.9
            return self._token

    async def _signed(self, method: str, path: str, body: bytes, answer: type[_T] | None) -> _T:
        for attempt in (1, 2):
            headers = signing.sign(
                self._key,
                method=method,
                path=PREFIX + path,
                body=body,
                created=int(self._clock() + self.clock_offset),
            )
            before = self.clock_offset
            try:
                return await self._call(method, path, body, answer, headers=headers, plain=body)
            except ClockWrong:
                # The answer carried the true time: sign once more by it.
                if attempt == 2 or self.clock_offset == before:
                    raise
        raise AssertionError("unreachable")

    async def _call(
        self,
        method: str,
        path: str,
        wire: bytes,
        answer: type[_T] | None,
        *,
        headers: dict[str, str],
        plain: bytes,
        wait: int = 0,
    ) -> _T:
        if self._removed is not None:
            # Whatever waited for its turn meanwhile is no longer the server's business.
            raise self._removed
        if wire:
            headers = {**headers, "Content-Type": "application/json"}
            if self._sent is not None:
                self._sent(path, plain, wire is not plain)
        request = self._client.build_request(
            method,
            PREFIX + path,
            content=wire,
            headers=headers,
            timeout=httpx2.Timeout(READ_SECONDS + wait, connect=CONNECT_SECONDS),
        )
        async with self._mapped(CALL_SECONDS + wait):
            response = await self._client.send(request, stream=True)
            try:
                body = await _bounded(response)
            finally:
                await response.aclose()
        if response.is_success:
            return _decoded(response, body, answer)
        problem = self._problem(response, body)
        if isinstance(problem, DeviceRemoved):
            self._removed = problem
        raise problem

    @contextlib.asynccontextmanager
    async def _mapped(self, seconds: float) -> AsyncIterator[None]:
        """Turn what the network does into words."""
        try:
            async with asyncio.timeout(seconds):
                with _told(self.server):
                    yield
        except TimeoutError:
            raise ServerUnreachable(f"{self.server} did not answer in time.") from None

    def _problem(self, response: httpx2.Response, body: bytes) -> LinkProblem:
        """Answer the error that this response means."""
        status = response.status_code
        retry_after = _retry_after(response, self._clock() + self.clock_offset)
        try:
            found = messages.decode(_PROBLEM, body)
        except messages.InvalidMessage:
            return self._wordless(response, retry_after)
        words = _printable(found.detail or found.title)
        if found.code == "clock-skew" and found.server_time is not None:
            self.clock_offset = found.server_time / 1000 - self._clock()
            return ClockWrong(
                f"This computer's clock is {abs(self.clock_offset):.0f} seconds "
                f"{'behind' if self.clock_offset > 0 else 'ahead of'} the server's. Set it right."
            )
        if status in {429, 503} or status >= 500:
            return ServerBusy(f"The server is busy: {words}", retry_after=retry_after)
        if status == 408:
            return ServerUnreachable(f"{self.server} did not get the whole message in time.")
        known: dict[str, Callable[[], LinkProblem]] = {
            "enrollment-refused": lambda: CodeRefused(
                "The code was not accepted: it is wrong, already used, or older than ten minutes. "
                'Make a new one with "Add a device" on your account\'s page.'
            ),
            "no-seat": lambda: SeatsExhausted(
                "Your plan covers no further device. Remove one you no longer use, or change the "
                "plan, then try again."
            ),
            "revoked": lambda: DeviceRemoved(
                f"This device was removed from the account.{_why(found)} It goes on protecting, "
                "but reports nothing. To add it again: `unenroll`, then `enroll` with a new code."
            ),
            "device-cloned": lambda: DeviceCloned(
                f"Another computer uses the same key, as after copying a disk.{_why(found)} On "
                "this one, run `unenroll --local`, then `enroll` with a new code."
            ),
            "key-in-use": lambda: KeyInUse(
                "This device's key belongs to another account. Run `unenroll --local`, then "
                "`enroll` with a new code."
            ),
            "upgrade-required": lambda: UpgradeNeeded(
                f"This agent is too old for its server. Install a newer one. {words}".strip()
            ),
            "unauthorized": lambda: NotAuthorized(
                "The server does not accept this device. If that goes on, run `unenroll --local`, "
                "then `enroll` with a new code."
            ),
        }
        if found.code in known:
            return known[found.code]()
        return MessageRefused(
            f"The server refused the message ({status} {_printable(found.code)}): {words}",
            code=found.code,
            rejected=found.rejected,
        )

    def _wordless(self, response: httpx2.Response, retry_after: float | None) -> LinkProblem:
        """Answer the error for a response that is not in the protocol's form."""
        status = response.status_code
        if status in {429, 502, 503, 504}:
            return ServerBusy(f"{self.server} is not ready ({status}).", retry_after=retry_after)
        if response.is_redirect:
            where = _printable(response.headers.get("location", ""))
            return AnswerUnreadable(
                f"{self.server} sent us elsewhere ({where}). Enroll with the right address."
            )
        return AnswerUnreadable(
            f"{self.server} answered {status}, but not as a Doorward server does. Is the address "
            "right, and does a sign-in page of this network stand in between?"
        )


class NotServed(LinkProblem):
    """The server has no such file; `status` is its answer."""

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class Files:
    """Fetches the server's signed files. What is in them proves itself, so no key is needed."""

    def __init__(
        self,
        server: str,
        *,
        insecure_http: bool = False,
        ca_file: str = "",
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        """Prepare; nothing is sent yet. Raises ServerUntrusted as Link does."""
        self.server = checked_server(server, insecure_http=insecure_http)
        self._client = httpx2.Client(
            verify=_trust(ca_file),
            timeout=httpx2.Timeout(READ_SECONDS, connect=CONNECT_SECONDS),
            limits=httpx2.Limits(max_connections=1),
            follow_redirects=False,
            trust_env=not is_loopback(urlsplit(self.server).hostname or ""),
            transport=transport,
        )

    def close(self) -> None:
        """Give up the connection."""
        self._client.close()

    def fetch(self, name: str, *, start: int = 0) -> Iterator[bytes]:
        """Yield a file from the byte `start` on, as it comes; whoever reads it counts the bytes.

        Raises NotServed, ServerUnreachable, ServerUntrusted, AnswerUnreadable.
        """
        # By hand, without a header too many: that nothing is new must cost next to nothing.
        request = httpx2.Request("GET", f"{self.server}{PREFIX}/definitions/{name}")
        if start:
            request.headers["Range"] = f"bytes={start}-"
        with _told(self.server):
            response = self._client.send(request, stream=True)
            try:
                if response.status_code != (206 if start else 200):
                    raise NotServed(
                        f"{self.server} answered {response.status_code} for {name}.",
                        status=response.status_code,
                    )
                if response.headers.get("content-encoding", "identity") != "identity":
                    raise AnswerUnreadable("A file came compressed, which was not asked for.")
                begun, received = time.monotonic(), 0
                for piece in response.iter_raw():
                    received += len(piece)
                    # A server that drips must not hold us for ever.
                    if time.monotonic() - begun > CALL_SECONDS + received / SLOWEST_FILE:
                        raise ServerUnreachable(f"{self.server} sends {name} too slowly.")
                    yield piece
            finally:
                response.close()


@contextlib.contextmanager
def _told(server: str) -> Iterator[None]:
    """Turn what the network does into words."""
    try:
        yield
    except httpx2.TimeoutException:
        raise ServerUnreachable(f"{server} did not answer in time.") from None
    except (httpx2.HTTPError, ssl.SSLError, OSError, httpx2.InvalidURL) as problem:
        certificate = _certificate_problem(problem)
        if certificate:
            raise ServerUntrusted(
                f"The certificate of {server} is not to be trusted: {certificate}. "
                "If it is your own authority's, name its file with --ca-file."
            ) from None
        reason = str(problem).strip() or type(problem).__name__
        raise ServerUnreachable(
            f"{server} cannot be reached: {messages.fitted(reason.rstrip('.'), 200)}."
        ) from None


_PROBLEM = msgspec.json.Decoder(messages.Problem)


def _why(found: messages.Problem) -> str:
    """Answer what the server gives as the reason, as a sentence to follow ours."""
    return f" {_printable(found.detail)}" if found.detail else ""


def _trust(ca_file: str) -> ssl.SSLContext | bool:
    """Answer whom to trust: the system's authorities, or only those of one file."""
    if not ca_file:
        return True
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as problem:
        raise ServerUntrusted(f"{ca_file} holds no certificates: {problem}") from None


async def _bounded(response: httpx2.Response) -> bytes:
    if response.headers.get("content-encoding", "identity") != "identity":
        raise AnswerUnreadable("The answer came compressed, which was not asked for.")
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            raise AnswerUnreadable("The answer is longer than any answer of a Doorward server.")
    return bytes(body)


def _decoded(response: httpx2.Response, body: bytes, answer: type[_T] | None) -> _T:
    if answer is None:
        return None  # type: ignore[return-value]  # the caller asked for no message
    try:
        return messages.decode(msgspec.json.Decoder(answer), body)
    except messages.InvalidMessage as problem:
        raise AnswerUnreadable(
            f"The answer ({response.status_code}) is not what a Doorward server says: {problem}"
        ) from None


def _retry_after(response: httpx2.Response, now: float) -> float | None:
    """Answer the pause the server asks for, in seconds, from either form of RFC 9110, 10.2.3."""
    raw = response.headers.get("retry-after", "").strip()
    if not raw:
        return None
    if raw.isascii() and raw.isdecimal():
        return min(float(raw[:9]), LONGEST_PAUSE)
    try:
        moment = email.utils.parsedate_to_datetime(raw)
    except ValueError:
        return None
    return min(max(moment.timestamp() - now, 0.0), LONGEST_PAUSE)


def _certificate_problem(problem: BaseException | None) -> str:
    """Answer why a certificate was refused, if anywhere in the chain of causes one was."""
    while problem is not None:
        if isinstance(problem, ssl.SSLCertVerificationError):
            return getattr(problem, "verify_message", "") or "it could not be verified"
        if "CERTIFICATE_VERIFY_FAILED" in str(problem):
            # OpenSSL's own words: "… certificate verify failed: certificate has expired (_ssl.c:…".
            said = str(problem).partition("verify failed: ")[2].partition(" (_ssl")[0]
            return _printable(said) or "it could not be verified"
        problem = problem.__cause__ or problem.__context__
    return ""


def _printable(text: str) -> str:
    """Answer the text without anything that could steer a terminal."""
    return "".join(each if each.isprintable() else "\ufffd" for each in text[:300])
