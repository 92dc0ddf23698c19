"""The link: every failure the protocol names becomes words, and the right thing to do."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import json
import logging
import ssl
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar
from uuid import UUID, uuid4

import httpx2
import msgspec
import pytest
import zstandard
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from doorward_agent import link
from doorward_protocol import messages, signing

T = TypeVar("T")
KEY = Ed25519PrivateKey.generate()
DEVICE = UUID("01930000-0000-7000-8000-000000000001")
SERVER = "https://doorward.example"
Answer = Callable[[httpx2.Request], httpx2.Response]


def go(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


class FakeServer(httpx2.AsyncBaseTransport):
    """The server's end of the wire: checks each proof as the real one does, answers as told."""

    def __init__(self, *answers: Answer, now: Callable[[], float] = time.time) -> None:
        self.answers = list(answers)
        self.now = now
        self.requests: list[httpx2.Request] = []
        self.bodies: list[bytes] = []
        self.tokens = 0

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        body = await request.aread()
        self.requests.append(request)
        self.bodies.append(body)
        path = request.url.path
        if path in {"/device/v1/enroll", "/device/v1/token", "/device/v1/self"}:
            try:
                signing.verify(
                    method=request.method,
                    path=path,
                    query="",
                    headers=dict(request.headers),
                    body=body,
                    find_key=lambda _: KEY.public_key(),
                    now=self.now(),
                )
            except signing.ClockSkew:
                return problem("clock-skew", server_time=int(self.now() * 1000))
        if path == "/device/v1/token" and not self.answers:
            return self.token()
        if path == "/device/v1/token" and self.answers[0] is not TOKEN_PROBLEM:
            return self.token()
        answer = self.answers.pop(0)
        if answer is TOKEN_PROBLEM:
            answer = self.answers.pop(0)
        return answer(request)

    def token(self) -> httpx2.Response:
        self.tokens += 1
        now = int(self.now() * 1000)
        return says(
            messages.TokenAnswer(
                device_id=DEVICE,
                token=f"token{self.tokens}",
                expires_at=now + 3_600_000,
                server_time=now,
            )
        )

    def paths(self) -> list[str]:
        return [request.url.path.rpartition("/")[2] for request in self.requests]


def TOKEN_PROBLEM(_: httpx2.Request) -> httpx2.Response:  # noqa: N802 - a mark among the answers
    """The next answer is for the token, not for what comes after it."""
    raise AssertionError


def wire(status: int, body: bytes, headers: dict[str, str] | None = None) -> httpx2.Response:
    """A response whose body is still on its way, as from a real connection."""
    return httpx2.Response(status, headers=headers, stream=httpx2.ByteStream(body))


def says(message: msgspec.Struct, status: int = 200) -> httpx2.Response:
    return wire(status, messages.encode(message))


def problem(code: str, status: int = 0, **more: Any) -> httpx2.Response:
    status = status or messages.PROBLEM_STATUS[code]  # type: ignore[index]  # any code at all
    headers = more.pop("headers", {})
    body = messages.Problem(type="about:blank", title=code, status=status, code=code, **more)
    return wire(status, messages.encode(body), headers)


def always(response: Callable[[], httpx2.Response]) -> Answer:
    return lambda _: response()


def connected(server: FakeServer, **more: Any) -> link.Link:
    return link.Link(SERVER, KEY, version="1.0", transport=server, **more)


def report(server: FakeServer, *events: bytes, **more: Any) -> messages.ReportAnswer:
    return go(connected(server, **more).report(list(events) or [b"{}"]))


CHECK_IN = messages.CheckIn(boot_id=uuid4(), seq=1)
NEXT = messages.CheckInAnswer(
    server_time=0,
    next_check_in=60,
    settings_version=0,
    definitions_version=0,
    entitlement=messages.Entitled(state="active"),
)


def test_the_token_is_asked_for_once_and_carries_the_rest() -> None:
    server = FakeServer(always(lambda: says(NEXT)), always(lambda: says(NEXT)))
    talk = connected(server)

    async def twice() -> None:
        await talk.check_in(CHECK_IN)
        await talk.check_in(CHECK_IN)

    go(twice())
    assert server.paths() == ["token", "check-in", "check-in"]
    assert server.requests[1].headers["authorization"] == "Bearer token1"
    assert "signature" not in server.requests[1].headers


def test_a_check_in_may_be_held_open() -> None:
    server = FakeServer(always(lambda: says(NEXT)))
    go(connected(server).check_in(CHECK_IN, wait=50))
    assert server.requests[1].headers["prefer"] == "wait=50"


def test_a_token_that_ended_early_is_replaced_once() -> None:
    server = FakeServer(
        always(lambda: problem("unauthorized")), always(lambda: says(messages.ReportAnswer()))
    )
    report(server)
    assert server.paths() == ["token", "reports", "token", "reports"]
    assert server.requests[3].headers["authorization"] == "Bearer token2"


def test_a_device_nobody_knows_does_not_try_for_ever() -> None:
    server = FakeServer(*[always(lambda: problem("unauthorized"))] * 2)
    with pytest.raises(link.NotAuthorized):
        report(server)
    assert server.paths() == ["token", "reports", "token", "reports"]


def test_a_wrong_clock_is_allowed_for_and_the_call_repeated_once() -> None:
    server = FakeServer(always(lambda: says(messages.ReportAnswer())))
    talk = connected(server, clock=lambda: time.time() - 7200)
    go(talk.report([b"{}"]))
    assert server.paths() == ["token", "token", "reports"]
    assert talk.clock_offset == pytest.approx(7200, abs=5)


def test_d10_clocks_of_1970_and_2099_still_reach_the_server() -> None:
    for wrong in (60.0, dt.datetime(2099, 1, 1, tzinfo=dt.UTC).timestamp()):
        server = FakeServer(always(lambda: says(messages.ReportAnswer())))
        go(connected(server, clock=lambda now=wrong: now).report([b"{}"]))
        assert server.paths() == ["token", "token", "reports"]


def test_a_server_that_always_blames_the_clock_is_asked_twice() -> None:
    ahead = int(time.time() * 1000) + 200_000
    blame = always(lambda: problem("clock-skew", server_time=ahead))
    server = FakeServer(TOKEN_PROBLEM, blame, TOKEN_PROBLEM, blame)
    with pytest.raises(link.ClockWrong, match="behind the server's"):
        report(server, clock=lambda: time.time() - 250)
    assert server.paths() == ["token", "token"]


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("revoked", link.DeviceRemoved),
        ("device-cloned", link.DeviceCloned),
        ("key-in-use", link.KeyInUse),
        ("no-seat", link.SeatsExhausted),
        ("enrollment-refused", link.CodeRefused),
        ("upgrade-required", link.UpgradeNeeded),
        ("invalid-message", link.MessageRefused),
        ("too-large", link.MessageRefused),
        ("something-of-tomorrow", link.MessageRefused),
        ("too-many-requests", link.ServerBusy),
        ("unavailable", link.ServerBusy),
        ("internal-error", link.ServerBusy),
        ("request-timeout", link.ServerUnreachable),
    ],
)
def test_each_problem_has_its_name(code: str, kind: type[link.LinkProblem]) -> None:
    status = messages.PROBLEM_STATUS.get(code, 418)  # type: ignore[call-overload]  # any code
    server = FakeServer(always(lambda: problem(code, status)))
    with pytest.raises(kind) as found:
        report(server)
    assert str(found.value).rstrip().endswith((".", ":", code)), "a sentence for people"


def test_refused_events_are_named() -> None:
    bad = messages.RejectedEvent(index=0, code="invalid-event", detail="no path")
    server = FakeServer(always(lambda: problem("invalid-message", rejected=(bad,))))
    with pytest.raises(link.MessageRefused) as found:
        report(server)
    assert found.value.rejected == (bad,)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("120", 120), ("999999999999", 900), ("nonsense", None), ("", None), ("-5", None)],
)
def test_a_busy_server_says_when_to_come_back(header: str, seconds: float | None) -> None:
    server = FakeServer(always(lambda: problem("unavailable", headers={"Retry-After": header})))
    with pytest.raises(link.ServerBusy) as found:
        report(server)
    assert found.value.retry_after == seconds


def test_a_busy_server_may_say_it_as_a_date() -> None:
    moment = dt.datetime(2026, 3, 2, 12, 0, 30, tzinfo=dt.UTC)
    header = {"Retry-After": moment.strftime("%a, %d %b %Y %H:%M:%S GMT")}
    now = moment.timestamp() - 30
    server = FakeServer(always(lambda: problem("unavailable", headers=header)), now=lambda: now)
    with pytest.raises(link.ServerBusy) as found:
        report(server, clock=lambda: now)
    assert found.value.retry_after == pytest.approx(30)


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_proxy_without_words_is_a_busy_server(status: int) -> None:
    server = FakeServer(always(lambda: wire(status, b"<html>")))
    with pytest.raises(link.ServerBusy):
        report(server)


def test_a_sign_in_page_of_a_hotel_is_not_our_server() -> None:
    server = FakeServer(always(lambda: wire(200, b"<html>welcome")))
    with pytest.raises(link.AnswerUnreadable):
        report(server)


def test_a_redirect_is_told_not_followed() -> None:
    elsewhere = {"location": "https://evil.example/\x1b[2J"}
    server = FakeServer(always(lambda: wire(302, b"", elsewhere)))
    with pytest.raises(link.AnswerUnreadable, match="elsewhere") as found:
        report(server)
    assert str(found.value).isprintable()
    assert server.paths() == ["token", "reports"]


def test_an_answer_without_end_is_cut_off() -> None:
    huge = b"x" * (link.MAX_ANSWER_BYTES + 1)
    server = FakeServer(always(lambda: wire(200, huge)))
    with pytest.raises(link.AnswerUnreadable, match="longer"):
        report(server)


def test_a_compressed_answer_is_not_unpacked() -> None:
    packed = {"content-encoding": "gzip"}
    server = FakeServer(always(lambda: wire(200, b"bomb", packed)))
    with pytest.raises(link.AnswerUnreadable, match="compressed"):
        report(server)


@pytest.mark.parametrize(
    "fault",
    [
        httpx2.ConnectError("refused"),
        httpx2.ReadTimeout("slow"),
        httpx2.RemoteProtocolError("cut off"),
        ConnectionResetError("reset"),
    ],
)
def test_a_broken_line_is_no_fault_of_ours(fault: Exception) -> None:
    def broken(_: httpx2.Request) -> httpx2.Response:
        raise fault

    with pytest.raises(link.ServerUnreachable):
        report(FakeServer(broken))


def test_asvs_12_1_1_a_bad_certificate_is_named_and_refused() -> None:
    def untrusted(_: httpx2.Request) -> httpx2.Response:
        cause = ssl.SSLCertVerificationError(1, "CERTIFICATE_VERIFY_FAILED")
        raise httpx2.ConnectError("tls") from cause

    with pytest.raises(link.ServerUntrusted, match="--ca-file"):
        report(FakeServer(untrusted))


def test_long_reports_travel_compressed_and_short_ones_plain() -> None:
    sent: list[tuple[str, bytes, bool]] = []
    server = FakeServer(*[always(lambda: says(messages.ReportAnswer()))] * 2)
    talk = connected(server, sent=lambda *what: sent.append(what))
    long = b'{"a":"' + b"x" * 5000 + b'"}'

    async def both() -> None:
        await talk.report([b"{}"])
        await talk.report([long, long])

    go(both())
    assert server.bodies[1] == b'{"events":[{}]}'
    assert server.requests[2].headers["content-encoding"] == "zstd"
    unpacked = zstandard.decompress(server.bodies[2])
    assert unpacked == b'{"events":[' + long + b"," + long + b"]}"
    assert sent[1:] == [("/reports", server.bodies[1], False), ("/reports", unpacked, True)]


def test_leaving_twice_is_no_problem() -> None:
    server = FakeServer(always(lambda: wire(204, b"")), always(lambda: problem("revoked")))
    talk = connected(server)

    async def twice() -> None:
        await talk.leave()
        await talk.leave()

    go(twice())
    assert server.paths() == ["self", "self"]


def test_a38_what_waits_while_a_device_is_removed_is_never_sent() -> None:
    told: list[str] = []
    server = FakeServer(TOKEN_PROBLEM, always(lambda: problem("revoked")))
    talk = connected(server, sent=lambda path, _body, _compressed: told.append(path))

    async def three_at_once() -> list[object]:
        # Each needs a token first, and one at a time asks for it.
        calls = (talk.report([b"{}"]), talk.settings(), talk.report([b"{}"]))
        return list(await asyncio.gather(*calls, return_exceptions=True))

    assert [type(found) for found in go(three_at_once())] == [link.DeviceRemoved] * 3
    assert server.paths() == ["token"], "asked once, answered once, not a word more"
    assert told == ["/token"]


def test_asvs_16_2_5_no_secret_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    server = FakeServer(always(lambda: problem("enrollment-refused")))
    request = messages.EnrollRequest(
        jwk=signing.jwk_of(KEY.public_key()),
        device=messages.DeviceFacts(hostname="h", os=messages.OperatingSystem(name="linux")),
        code="ABCD-EFGH-JKLM",
    )
    with pytest.raises(link.CodeRefused) as found:
        go(connected(server).enroll(request))
    report(FakeServer(always(lambda: says(messages.ReportAnswer()))))
    told = caplog.text + str(found.value)
    for secret in ("ABCD-EFGH-JKLM", "token1", server.requests[0].headers["signature"]):
        assert secret not in told


@pytest.mark.parametrize(
    ("address", "used"),
    [
        ("https://Doorward.example/", "https://doorward.example"),
        ("https://doorward.example:8443/device/v1", "https://doorward.example:8443"),
        ("http://127.0.0.1:8001", "http://127.0.0.1:8001"),
        ("http://[::1]:8001/", "http://[::1]:8001"),
        ("http://localhost:8001", "http://localhost:8001"),
    ],
)
def test_an_address_is_used_as_it_is_meant(address: str, used: str) -> None:
    assert link.checked_server(address) == used


@pytest.mark.parametrize(
    "address",
    [
        "",
        "doorward.example",
        "ftp://doorward.example",
        "http://doorward.example",
        "http://127.0.0.1.evil.example",
        "http://localhost.evil.example",
        "https://user:secret@doorward.example",
        "https://doorward.example/?x=1",
        "https://doorward.example/other",
        "https://doorward.example:99999999",
        "https://",
    ],
)
def test_asvs_12_1_1_an_address_that_proves_nothing_is_refused(address: str) -> None:
    with pytest.raises(link.ServerUntrusted):
        link.checked_server(address)


def test_plain_http_elsewhere_must_be_asked_for() -> None:
    found = link.checked_server("http://doorward.example", insecure_http=True)
    assert found == "http://doorward.example"


def test_a_file_without_certificates_is_told_in_words() -> None:
    with pytest.raises(link.ServerUntrusted, match="no certificates"):
        link.Link(SERVER, KEY, version="1", ca_file=__file__)


FIELDS = [
    "code",
    "status",
    "title",
    "type",
    "detail",
    "server_time",
    "rejected",
    "accepted",
    "token",
    "expires_at",
    "commands",
    "uid",
    "next_check_in",
    "device_id",
]
hostile = st.one_of(
    st.binary(max_size=300),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(
                st.sampled_from(FIELDS) | st.text(max_size=5),
                inner,
                max_size=8,
            )
        ),
        max_leaves=20,
    ).map(lambda value: json.dumps(value).encode()),
)


@given(
    status=st.integers(200, 599),
    body=hostile,
    retry_after=st.none() | st.text(st.characters(min_codepoint=32, max_codepoint=126)),
    token_too=st.booleans(),
)
@settings(max_examples=400, deadline=None)
def test_whatever_a_server_answers_the_link_says_a_sentence(
    status: int, body: bytes, retry_after: str | None, token_too: bool
) -> None:
    headers = {} if retry_after is None else {"retry-after": retry_after}
    answer = always(lambda: wire(status, body, headers))
    server = FakeServer(*([TOKEN_PROBLEM, answer] * 4 if token_too else [answer] * 4))
    talk = connected(server)
    with contextlib.suppress(link.LinkProblem):
        go(told_in_words(talk))


async def told_in_words(talk: link.Link) -> None:
    try:
        await talk.check_in(CHECK_IN)
    except link.LinkProblem as found:
        if not str(found) or not 0 <= (found.retry_after or 0) <= link.LONGEST_PAUSE:
            raise AssertionError(found) from found
        raise
