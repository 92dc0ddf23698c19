"""The agent at work, against a server that answers in the protocol's own words."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from uuid import UUID

import httpx2
import msgspec
import pytest
import zstandard

from doorward_agent import (
    database,
    delivery,
    events,
    identity,
    journal,
    link,
    lock,
    loop,
    outbox,
    policy,
    protection,
)
from doorward_agent.commands import status
from doorward_agent.config import AgentConfig, prepare
from doorward_agent.loop import Loop, Pause
from doorward_protocol import messages

SERVER = "https://doorward.example"
DEVICE = UUID("01930000-0000-7000-8000-000000000001")


class Server(httpx2.AsyncBaseTransport):
    """Keeps each event once, as the real one does; can be told to fail in every way there is."""

    def __init__(self) -> None:
        self.stored: list[str] = []
        self.heard: list[messages.CheckIn] = []
        self.answered: list[tuple[str, messages.CommandState]] = []
        self.calls: list[str] = []
        self.refuse: dict[str, str] = {}  # path -> error code
        self.retry_after = ""
        self.lose_answers = 0
        self.bad: set[str] = set()
        self.away = False
        self.commands: tuple[messages.Command, ...] = ()
        self.settings: tuple[int, bytes] = (0, b"{}")

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        body = await request.aread()
        path = request.url.path.removeprefix("/device/v1")
        self.calls.append(path)
        if self.away:
            raise httpx2.ConnectError("nobody there")
        if path in self.refuse:
            return self._problem(self.refuse[path])
        if request.headers.get("content-encoding") == "zstd":
            body = zstandard.decompress(body)
        return self._answer(path, body)

    def _answer(self, path: str, body: bytes) -> httpx2.Response:
        now = int(time.time() * 1000)
        if path == "/token":
            return wire(
                messages.TokenAnswer(
                    device_id=DEVICE, token="t", expires_at=now + 3_600_000, server_time=now
                )
            )
        if path == "/check-in":
            self.heard.append(msgspec.json.decode(body, type=messages.CheckIn))
            commands, self.commands = self.commands, ()
            return wire(
                messages.CheckInAnswer(
                    server_time=now,
                    next_check_in=60,
                    settings_version=self.settings[0],
                    definitions_version=0,
                    entitlement=messages.Entitled(state="active"),
                    commands=commands,
                )
            )
        if path == "/settings":
            version, effective = self.settings
            return wire(messages.RawSettings(version=version, effective=msgspec.Raw(effective)))
        if path.startswith("/commands/"):
            said = msgspec.json.decode(body, type=messages.CommandState)
            self.answered.append((path.rpartition("/")[2], said))
            return httpx2.Response(204, stream=httpx2.ByteStream(b""))
        return self._stored(body)

    def _stored(self, body: bytes) -> httpx2.Response:
        good, _ = messages.decode_report(body)
        accepted, duplicate, rejected = [], [], []
        for index, event in enumerate(good):
            uid = event.metadata.uid
            if str(uid) in self.bad:
                rejected.append(
                    messages.RejectedEvent(index=index, code="invalid-event", detail="bad", uid=uid)
                )
            elif str(uid) in self.stored:
                duplicate.append(uid)
            else:
                self.stored.append(str(uid))
                accepted.append(uid)
        if self.lose_answers:
            self.lose_answers -= 1
            raise httpx2.ReadError("the answer was lost")
        return wire(
            messages.ReportAnswer(
                accepted=tuple(accepted), duplicate=tuple(duplicate), rejected=tuple(rejected)
            ),
            202,
        )

    def _problem(self, code: str) -> httpx2.Response:
        status = messages.PROBLEM_STATUS[code]  # type: ignore[index]  # any code
        headers = {"Retry-After": self.retry_after} if self.retry_after else {}
        body = messages.Problem(type="about:blank", title=code, status=status, code=code)
        return wire(body, status, headers)


def wire(
    message: msgspec.Struct, status: int = 200, headers: dict[str, str] | None = None
) -> httpx2.Response:
    stream = httpx2.ByteStream(messages.encode(message))
    return httpx2.Response(status, headers=headers, stream=stream)


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def settings(config: AgentConfig) -> AgentConfig:
    prepare(config)
    identity.key_or_new(config.state_dir)
    identity.save(
        config.state_dir,
        identity.Identity(server=SERVER, state="enrolled", device_id=str(DEVICE), wait=50),
    )
    return dataclasses.replace(
        config, watch_interval=0.002, pause_first=0.002, pause_cap=0.01, check_in_least=0.002
    )


@pytest.fixture
def db(settings: AgentConfig) -> Iterator[sqlite3.Connection]:
    found = database.open_in(settings.state_dir)
    yield found
    found.close()


@pytest.fixture
def work(settings: AgentConfig, db: sqlite3.Connection, server: Server) -> Loop:
    return new_loop(settings, db, server)


def new_loop(settings: AgentConfig, db: sqlite3.Connection, server: Server) -> Loop:
    def make(*given: object, **more: object) -> link.Link:
        return link.Link(*given, transport=server, **more)  # type: ignore[arg-type]  # passed on

    return Loop(settings, db, version="1.0", scheduled_scans=False, make_link=make)


def talk(settings: AgentConfig, server: Server) -> link.Link:
    return link.Link(SERVER, identity.key(settings.state_dir), version="1.0", transport=server)


def summary(number: int) -> outbox.Event:
    return events.scan_ended(
        sequence=number,
        event_uid=events.new_uid(),
        scan_uid=events.new_uid(),
        scheduled=False,
        name="Scan",
        paths=("/home",),
        end="completed",
        start_time=1,
        time=2,
    )


def store(db: sqlite3.Connection, count: int = 3) -> list[str]:
    made = [summary(number) for number in range(count)]
    outbox.put(db, made, max_bytes=10**7, max_events=10**5)
    return [event.uid for event in made]


async def until(true: Callable[[], bool]) -> None:
    """Wait for something that takes milliseconds; never longer than ten seconds."""
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110 - what is waited for is another task's doing
            await asyncio.sleep(0.001)


@contextlib.asynccontextmanager
async def running(work: Loop) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(work.run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def at_work(work: Loop, until_true: Callable[[], bool]) -> None:
    """Let the agent work until something has happened."""

    async def go() -> None:
        async with running(work) as task:
            await until(lambda: until_true() or task.done())
            assert not task.done(), task.exception()

    asyncio.run(go())


def waiting(db: sqlite3.Connection) -> int:
    return outbox.depth(db).waiting


def test_what_is_put_into_the_outbox_is_delivered(
    work: Loop, db: sqlite3.Connection, server: Server, settings: AgentConfig
) -> None:
    first = store(db)

    async def go() -> None:
        async with running(work):
            await until(lambda: server.stored == first)
            # Another process, as `scan` is, stores more while we are at work.
            other = database.open_in(settings.state_dir)
            more = store(other)
            other.close()
            await until(lambda: server.stored == first + more and waiting(db) == 0)

    asyncio.run(go())


def test_without_news_the_agent_looks_ever_rarer_and_at_once_as_before_when_there_is_some(
    work: Loop, settings: AgentConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []

    async def rest(pause: float) -> None:
        pauses.append(pause)
        if len(pauses) == 20:
            other = database.open_in(settings.state_dir)
            store(other)
            other.close()
        if len(pauses) == 30:
            raise TimeoutError

    monkeypatch.setattr(asyncio, "sleep", rest)
    with pytest.raises(TimeoutError):
        asyncio.run(work._watch_for_ever())
    least = settings.watch_interval
    assert pauses[0] == least
    assert pauses[:20] == sorted(pauses[:20])
    assert pauses[19] == pytest.approx(least * 3)
    assert pauses[20] == least


def test_d02_a_lost_answer_costs_a_repetition_and_no_second_row(
    work: Loop, db: sqlite3.Connection, server: Server
) -> None:
    uids = store(db)
    server.lose_answers = 3
    at_work(work, lambda: waiting(db) == 0)
    assert server.stored == uids
    assert server.calls.count("/reports") == 4


def test_a_refused_event_is_parked_and_the_rest_delivered(
    work: Loop, db: sqlite3.Connection, server: Server
) -> None:
    uids = store(db)
    server.bad = {uids[1]}
    at_work(work, lambda: waiting(db) == 0)
    assert server.stored == [uids[0], uids[2]]
    assert outbox.parked(db) == [(uids[1], "bad")]


def test_a_report_refused_without_reason_is_halved_until_the_culprit_is_alone(
    settings: AgentConfig, db: sqlite3.Connection, server: Server
) -> None:
    uids = store(db, 9)

    async def picky(request: httpx2.Request) -> httpx2.Response:
        body = await request.aread()
        if request.headers.get("content-encoding") == "zstd":
            body = zstandard.decompress(body)
        if request.url.path.endswith("/reports") and uids[5].encode() in body:
            return server._problem("too-large")
        return server._answer(request.url.path.removeprefix("/device/v1"), body)

    server.handle_async_request = picky  # type: ignore[method-assign]  # the fault

    async def go() -> int:
        return await delivery.all_waiting(db, talk(settings, server), max_parked=5)

    assert asyncio.run(go()) == 8
    assert sorted(server.stored) == sorted(set(uids) - {uids[5]})
    assert [uid for uid, _ in outbox.parked(db)] == [uids[5]]


def test_an_answer_that_names_nothing_does_not_make_a_loop(
    settings: AgentConfig, db: sqlite3.Connection, server: Server
) -> None:
    store(db)
    server._stored = lambda body: wire(messages.ReportAnswer(), 202)  # type: ignore[method-assign]  # the fault
    with pytest.raises(link.AnswerUnreadable):
        asyncio.run(delivery.all_waiting(db, talk(settings, server), max_parked=5))
    assert waiting(db) == 3


def test_a38_a_removed_device_stops_reporting_keeps_its_queue_and_says_so(
    work: Loop, db: sqlite3.Connection, server: Server, settings: AgentConfig
) -> None:
    store(db)
    server.refuse = {"/reports": "revoked", "/check-in": "revoked"}

    async def go() -> None:
        async with running(work) as task:
            await until(lambda: state_of(settings) == "removed")
            before = len(server.calls)
            store(db)
            await asyncio.sleep(0.05)
            assert len(server.calls) == before, "not a word more"
            assert not task.done(), "it goes on protecting"

    asyncio.run(go())
    assert waiting(db) == 6


def state_of(settings: AgentConfig) -> str:
    found = identity.load(settings.state_dir)
    return found.state if found else ""


def test_enrolled_again_it_reports_again_without_a_restart(
    work: Loop, db: sqlite3.Connection, server: Server, settings: AgentConfig
) -> None:
    who = identity.load(settings.state_dir)
    assert who is not None
    identity.save(settings.state_dir, dataclasses.replace(who, state="removed"))

    async def go() -> None:
        async with running(work):
            await asyncio.sleep(0.02)
            assert server.calls == []
            identity.save(settings.state_dir, who)
            await until(lambda: len(server.heard) == 1)

    asyncio.run(go())


def test_a_server_away_for_long_gets_everything_afterwards(
    work: Loop, db: sqlite3.Connection, server: Server
) -> None:
    uids = store(db, 20)
    server.away = True

    async def go() -> None:
        async with running(work) as task:
            await until(lambda: len(server.calls) > 20)
            assert not task.done()
            assert database.noted(db, "trouble")
            server.away = False
            await until(lambda: server.stored == uids)
            await until(lambda: database.noted(db, "trouble") is None)

    asyncio.run(go())


def test_the_check_in_tells_how_the_device_is(
    work: Loop, db: sqlite3.Connection, server: Server
) -> None:
    with database.transaction(db):
        database.note(db, "dropped", 7)
    at_work(work, lambda: len(server.heard) == 1)
    (said,) = server.heard
    assert said.queue.dropped == 7
    assert said.definitions.version > 2026_00_00_00
    assert said.protection.state == "protected"
    assert said.device is not None


def test_what_the_server_knows_of_the_computer_is_not_told_again(
    settings: AgentConfig, db: sqlite3.Connection, server: Server
) -> None:
    at_work(new_loop(settings, db, server), lambda: len(server.heard) == 1)
    at_work(new_loop(settings, db, server), lambda: len(server.heard) == 2)
    first, second = server.heard
    assert first.device is not None
    assert second.device is None
    assert second.seq == first.seq + 1
    assert second.boot_id != first.boot_id


def test_a_number_is_never_used_twice_even_if_nobody_hears_it(
    settings: AgentConfig, db: sqlite3.Connection, server: Server
) -> None:
    server.refuse = {"/check-in": "unavailable"}
    at_work(new_loop(settings, db, server), lambda: server.calls.count("/check-in") >= 3)
    server.refuse = {}
    at_work(new_loop(settings, db, server), lambda: len(server.heard) == 1)
    assert server.heard[0].seq > 3


def test_a_failed_scan_shows_in_the_check_in(
    work: Loop, db: sqlite3.Connection, server: Server
) -> None:
    with database.transaction(db):
        database.note(db, "status.quick", -9)
    at_work(work, lambda: len(server.heard) == 1)
    assert server.heard[0].protection.state == "attention"
    assert server.heard[0].protection.reasons == ("quick-scan-failed",)


def test_settings_that_cannot_be_applied_are_told_and_change_nothing(
    work: Loop, db: sqlite3.Connection, server: Server
) -> None:
    policy.receive(db, 4, b'{"quick_scan": {"start": "03:00"}}')
    policy.receive(db, 5, b'{"quick_scan": {"start": "99:00"}}')
    assert policy.current(db)[1].quick_scan.start == "03:00"
    at_work(work, lambda: len(server.heard) == 1)
    said = server.heard[0].settings
    assert (said.version, said.status, said.failed_version) == (4, "failed", 5)
    assert said.errors[0].pointer == "/quick_scan/start"


def test_new_settings_are_fetched_applied_and_told(
    work: Loop, db: sqlite3.Connection, server: Server
) -> None:
    server.settings = (4, b'{"quick_scan": {"start": "03:00"}}')
    at_work(work, lambda: len(server.heard) == 2)
    assert policy.current(db)[1].quick_scan.start == "03:00"
    assert [said.settings.version for said in server.heard] == [0, 4]


def test_settings_that_failed_are_fetched_once_and_the_next_ones_heal(
    work: Loop, db: sqlite3.Connection, server: Server
) -> None:
    policy.receive(db, 3, b'{"quick_scan": {"start": "03:00"}}')
    server.settings = (4, b'{"quick_scan": {"start": 7}}')
    at_work(work, lambda: len(server.heard) == 2)
    asyncio.run(_again(work, server))
    assert server.calls.count("/settings") == 1
    said = server.heard[-1].settings
    assert (said.version, said.status, said.failed_version) == (3, "failed", 4)
    server.settings = (5, b'{"quick_scan": {"start": "04:00"}}')
    asyncio.run(_again(work, server))
    assert policy.current(db)[0] == 5
    assert policy.refused(db) is None


async def _again(work: Loop, server: Server) -> None:
    talking = talk(work.config, server)
    await work.check_in(talking)
    await talking.close()


def test_what_is_not_shared_is_not_sent(work: Loop, db: sqlite3.Connection, server: Server) -> None:
    policy.receive(db, 1, b'{"sharing": {"system_version": false}}')
    at_work(work, lambda: len(server.heard) == 1)
    assert server.heard[0].device is not None
    assert server.heard[0].device.os.version == ""
    assert "settings" in (server.heard[0].device.capabilities or ())


def test_a_command_of_an_unknown_kind_is_answered_honestly_once(
    work: Loop, db: sqlite3.Connection, server: Server
) -> None:
    uid = UUID("01930000-0000-7000-8000-00000000000c")
    command = messages.Command(command_uid=uid, seq=1, kind="run-program", not_after=9 * 10**12)
    server.commands = (command,)
    at_work(work, lambda: bool(server.answered))
    ((named, said),) = server.answered
    assert (named, said.status, said.code) == (str(uid), "rejected", "unsupported")
    assert journal.unanswered(db) == []


@pytest.mark.parametrize(
    ("told", "more", "kept"), [(0, False, 1), (0, True, 1), (10**6, False, 3600)]
)
def test_a_server_can_neither_hurry_nor_silence_a_device(
    settings: AgentConfig,
    db: sqlite3.Connection,
    server: Server,
    told: int,
    more: bool,
    kept: int,
) -> None:
    answer = messages.CheckInAnswer(
        server_time=0,
        next_check_in=told,
        settings_version=0,
        definitions_version=0,
        entitlement=messages.Entitled(state="active"),
        more=more,
    )
    token = server._answer
    server._answer = lambda path, body: token(path, body) if path == "/token" else wire(answer)  # type: ignore[method-assign]  # the fault
    work = new_loop(dataclasses.replace(settings, check_in_least=1.0), db, server)
    assert asyncio.run(work.check_in(talk(settings, server))) == kept


@pytest.mark.parametrize(
    ("wait", "held", "command", "least", "most"),
    [
        (50, 50.0, False, 0.0, 0.25),  # held to the end: at once again
        (50, 26.0, False, 0.0, 0.25),
        (50, 10.0, False, 60, 60),  # a server that holds shorter than asked: when it says
        (50, 5.0, True, 0.0, 0.25),  # held until there was news
        (50, 0.3, True, 0.7, 0.7),  # news at once, and never more often than once a second
        (0, 0.0, False, 60, 60),  # a server that holds no calls
    ],
)
def test_after_a_call_that_was_held_the_next_one_follows_at_once(
    settings: AgentConfig,
    db: sqlite3.Connection,
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
    wait: int,
    held: float,
    command: bool,
    least: float,
    most: float,
) -> None:
    identity.save(
        settings.state_dir,
        identity.Identity(server=SERVER, state="enrolled", device_id=str(DEVICE), wait=wait),
    )
    work = new_loop(dataclasses.replace(settings, check_in_least=1.0), db, server)
    work._identity, work._checked_in = identity.load(settings.state_dir), True
    clock = 100.0
    monkeypatch.setattr("doorward_agent.loop.time.monotonic", lambda: clock)
    answer = server._answer

    def slowly(path: str, body: bytes) -> httpx2.Response:
        nonlocal clock
        if path == "/check-in":
            clock += held
            if command:
                server.commands = (
                    messages.Command(command_uid=UUID(int=1), seq=1, kind="scan", not_after=2**40),
                )
        return answer(path, body)

    server._answer = slowly  # type: ignore[method-assign]  # the server's time passes here
    assert least <= asyncio.run(work.check_in(talk(settings, server))) <= most + 1e-9


def test_after_the_first_call_of_a_run_the_next_one_is_held(
    settings: AgentConfig, db: sqlite3.Connection, server: Server
) -> None:
    work = new_loop(settings, db, server)
    work._identity = identity.load(settings.state_dir)
    assert asyncio.run(work.check_in(talk(settings, server))) <= 0.25


def test_a_busy_server_is_left_alone_for_as_long_as_it_asks() -> None:
    pause = Pause(first=2, cap=900)
    for _ in range(50):
        assert 120 <= pause.after_failure(120) <= 240


def test_d05_pauses_are_spread_double_and_have_a_cap() -> None:
    ceilings = []
    for failures in range(30):
        drawn = [Pause(first=2, cap=900, failures=failures).after_failure() for _ in range(300)]
        assert min(drawn) < max(drawn) * 0.2, "full jitter"
        ceilings.append(max(drawn))
    assert ceilings[0] <= 2
    assert ceilings[3] > 4
    assert 450 < max(ceilings) <= 900


@pytest.mark.parametrize("state", ["expired", "suspended"])
def test_a_lapsed_subscription_is_said_and_protection_goes_on(
    state: str, work: Loop, db: sqlite3.Connection, server: Server, settings: AgentConfig
) -> None:
    real = server._answer

    def lapsed(path: str, body: bytes) -> httpx2.Response:
        if path != "/check-in":
            return real(path, body)
        return wire(
            messages.CheckInAnswer(
                server_time=int(time.time() * 1000),
                next_check_in=60,
                settings_version=0,
                definitions_version=0,
                entitlement=msgspec.convert({"state": state}, messages.Entitled),
            )
        )

    server._answer = lapsed  # type: ignore[method-assign]  # the lapse
    uids = store(db)
    at_work(work, lambda: server.stored == uids and database.noted(db, "entitlement") is not None)
    found = status.gather(settings, db, start="run")
    assert found["entitlement"] == state
    assert state in status.subscription(found["entitlement"])
    assert status.subscription("active") == status.subscription("grace") == ""
    # An account that has not paid is no reason to leave a computer open.
    assert protection.state(settings, db).state == "protected"
    assert not work.pause.failures


def test_a_protocol_too_old_is_told_and_protection_goes_on(
    work: Loop, db: sqlite3.Connection, server: Server, settings: AgentConfig
) -> None:
    server.refuse = {"/token": "upgrade-required"}
    uids = store(db)

    async def go() -> None:
        async with running(work) as task:
            await until(lambda: bool(database.noted(db, "trouble")))
            assert not task.done(), "it goes on protecting"

    asyncio.run(go())
    assert waiting(db) == len(uids), "kept until the agent is updated"
    assert "too old" in str(database.noted(db, "trouble"))
    # Called again, but seldom: somebody may have updated the server meanwhile.
    assert server.calls.count("/check-in") == 0


def test_a_second_agent_on_the_same_folder_is_refused(tmp_path: Path) -> None:
    with lock.held(tmp_path / "lock"):
        assert lock.is_held(tmp_path / "lock")
        with pytest.raises(lock.LockHeld), lock.held(tmp_path / "lock"):
            pass
    assert not lock.is_held(tmp_path / "lock")


def test_the_last_bytes_sent_can_be_seen_and_hold_no_code(db: sqlite3.Connection) -> None:
    delivery.remember_sent(db, "/reports", b"one", compressed=False, now=1)
    delivery.remember_sent(db, "/reports", b"two", compressed=True, now=2)
    assert database.noted(db, "sent/reports") == b"two"
    body = b'{"code":"ABCD-EFGH-JKLM","name":"x"}'
    delivery.remember_sent(db, "/enroll", body, compressed=False, now=3)
    kept = database.noted(db, "sent/enroll")
    assert isinstance(kept, bytes)
    assert b"ABCD" not in kept


def test_scans_are_due_by_the_policy(
    settings: AgentConfig, db: sqlite3.Connection, server: Server
) -> None:
    work = new_loop(settings, db, server)
    with database.transaction(db):
        database.note(db, "since", int(time.time() * 1000))
    assert [plan.kind for plan in work.due()] == ["quick"]
    policy.receive(db, 1, b'{"quick_scan":{"enabled":false},"full_scan":{"enabled":false}}')
    assert work.due() == []


def test_what_the_agent_says_of_the_computer_fits_the_protocol() -> None:
    facts = loop.device_facts("1.0")
    assert msgspec.json.decode(messages.encode(facts), type=messages.DeviceFacts) == facts


class Patient(Server):
    """Holds each check-in but the first open, as a server without news does."""

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        answer = await super().handle_async_request(request)
        if request.url.path.endswith("/check-in") and len(self.heard) > 1:
            await asyncio.Event().wait()
        return answer


def test_what_became_of_definitions_is_told_at_once_although_a_call_is_held(
    settings: AgentConfig, db: sqlite3.Connection
) -> None:
    async def scenario() -> messages.CheckIn:
        patient = Patient()
        other = database.open_in(settings.state_dir)
        async with running(new_loop(settings, db, patient)):
            await until(lambda: len(patient.heard) == 2)
            database.note(other, "definitions_code", "expired")
            await until(lambda: len(patient.heard) == 3)
        other.close()
        return patient.heard[-1]

    told = asyncio.run(scenario())
    assert told.definitions.code == "expired"
