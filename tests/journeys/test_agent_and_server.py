"""The real agent against the real server, in every case the protocol names."""

from __future__ import annotations

import asyncio
import shutil
import signal
import time
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import pytest
from tests.agent_at_work import EICAR, enrolled, status, until, working_agent
from tests.conftest import Server, agent
from tests.journeys.people import Alice

from doorward_agent import database, identity, link, loop
from doorward_agent.config import AgentConfig
from doorward_protocol import messages, signing

DELIVERED_WITHIN_S = 5.0


def linked(state: Path, **more: object) -> link.Link:
    found = identity.load(state)
    assert found is not None
    return link.Link(found.server, identity.key(state), version="1", **more)  # type: ignore[arg-type]  # passed on


async def calls_once(state: Path, seq: int, **more: object) -> link.Link:
    server = linked(state, **more)
    try:
        await server.check_in(messages.CheckIn(boot_id=uuid4(), seq=seq))
    finally:
        await server.close()
    return server


def test_a_lost_enroll_reply_costs_neither_code_nor_seat(
    server: Server, alice: Alice, state: Path
) -> None:
    (code,) = alice.codes()
    state.mkdir(mode=0o700)
    key = identity.key_or_new(state)
    request = messages.EnrollRequest(
        jwk=signing.jwk_of(key.public_key()), device=loop.device_facts("1"), code=code
    )

    async def heard_by_nobody() -> None:
        lost = link.Link(server.device_url, key, version="1")
        await lost.enroll(request)
        await lost.close()

    asyncio.run(heard_by_nobody())
    device = enrolled(state, server, code)
    assert alice.sees()["devices"] == [device]


def test_a_finding_is_on_the_server_within_seconds_of_the_scan(
    server: Server, alice: Alice, state: Path, home: Path
) -> None:
    enrolled(state, server, alice.codes()[0])
    threat = home / "invoice.com"
    threat.write_text(EICAR)
    with working_agent(state):
        done = agent(state, "scan", str(home))
        assert done.returncode == 1, done.stderr
        until(lambda: status(state)["outbox"]["waiting"] == 0, DELIVERED_WITHIN_S)  # type: ignore[index]  # a dict
    assert alice.sees()["findings"] == [str(threat)]
    assert not threat.exists()
    # The finding may have gone ahead of the scan's end, so this is one or the other: both name it.
    sent = agent(state, "status", "--last-payload", "reports")
    assert str(home) in sent.stdout
    assert EICAR[:20] not in sent.stdout


def test_a_scan_delivers_by_itself_when_no_agent_runs(
    server: Server, alice: Alice, state: Path, home: Path
) -> None:
    enrolled(state, server, alice.codes()[0])
    (home / "invoice.com").write_text(EICAR)
    done = agent(state, "scan", str(home))
    assert "Reported to" in done.stdout
    assert len(alice.sees()["findings"]) == 1


@pytest.mark.parametrize("code", ["AAAA-BBBB-CCCC", "nonsense", "💥", "x" * 500])
def test_a34_a_wrong_code_is_refused_in_words(server: Server, state: Path, code: str) -> None:
    done = agent(state, "enroll", "--server", server.device_url, "--code", code)
    assert done.returncode == 2
    assert "Make a new one" in done.stderr
    assert "Traceback" not in done.stderr
    assert code not in done.stderr


def test_a_used_code_adds_nobody_else(server: Server, alice: Alice, tmp_path: Path) -> None:
    (code,) = alice.codes()
    enrolled(tmp_path / "a", server, code)
    done = agent(tmp_path / "b", "enroll", "--server", server.device_url, "--code", code)
    assert (done.returncode, "already used" in done.stderr) == (2, True)
    assert len(alice.sees()["devices"]) == 1


def test_without_a_seat_nothing_is_created_and_a_freed_seat_is_taken(
    server: Server, alice: Alice, tmp_path: Path
) -> None:
    codes = alice.codes(6)
    for number, code in enumerate(codes[:5]):
        enrolled(tmp_path / str(number), server, code)
    words = ("enroll", "--server", server.device_url, "--code", codes[5])
    done = agent(tmp_path / "six", *words)
    assert (done.returncode, "covers no further device" in done.stderr) == (2, True)
    assert len(alice.sees()["devices"]) == 5
    assert agent(tmp_path / "0", "unenroll").returncode == 0
    assert agent(tmp_path / "six", *words).returncode == 0, "the same code, once a seat is free"
    assert len(alice.sees()["devices"]) == 5


def test_a38_a_removed_device_stops_reporting_and_goes_on_protecting(
    server: Server, alice: Alice, state: Path, home: Path
) -> None:
    device = enrolled(state, server, alice.codes()[0])
    with working_agent(state) as work:
        alice.removes(device)
        # It learns of it at its next call: here, when it has something to tell.
        for number in (1, 2):
            (home / f"invoice{number}.com").write_text(EICAR)
            assert agent(state, "scan", str(home)).returncode == 1
            until(lambda: status(state)["enrollment"]["state"] == "removed")  # type: ignore[index]  # a dict
        assert work.poll() is None
    assert list(home.iterdir()) == []
    assert alice.sees()["findings"] == []
    # Added again with a new code, it is the same device, and reports again.
    assert enrolled(state, server, alice.codes()[0]) == device
    assert alice.sees()["devices"] == [device]


def test_d10_a_clock_that_is_hours_wrong_does_not_matter(
    server: Server, alice: Alice, state: Path
) -> None:
    enrolled(state, server, alice.codes()[0])
    for seq, wrong in enumerate((-7200.0, 86400.0 * 365 * 70, -1_700_000_000.0), start=1):
        used = asyncio.run(calls_once(state, seq, clock=lambda wrong=wrong: time.time() + wrong))
        assert used.clock_offset == pytest.approx(-wrong, abs=5)


def test_a_copied_disk_is_told_to_enroll_anew(
    server: Server, alice: Alice, state: Path, tmp_path: Path
) -> None:
    device = enrolled(state, server, alice.codes()[0])
    with working_agent(state):
        pass
    copy = tmp_path / "copy"
    shutil.copytree(state, copy)
    with working_agent(state, connected=False), working_agent(copy, connected=False):
        until(lambda: any("same key" in str(status(each)["trouble"]) for each in (state, copy)))
    assert alice.sees()["cloned"] == [device]


def test_a_server_that_restarts_loses_nothing(own_server: Server, state: Path, home: Path) -> None:
    with closing(Alice(own_server, "alice@example.org")) as alice:
        enrolled(state, own_server, alice.codes()[0])
        with working_agent(state):
            own_server.stop()
            (home / "invoice.com").write_text(EICAR)
            assert agent(state, "scan", str(home)).returncode == 1
            until(lambda: bool(status(state)["trouble"]))
            own_server.start()
            until(lambda: status(state)["outbox"]["waiting"] == 0)  # type: ignore[index]  # a dict
            until(lambda: not status(state)["trouble"])
        assert len(alice.sees()["findings"]) == 1


def test_the_agent_ends_in_good_order_when_asked(server: Server, alice: Alice, state: Path) -> None:
    enrolled(state, server, alice.codes()[0])
    with working_agent(state) as work:
        # In the middle of a check-in that the server holds open.
        work.send_signal(signal.SIGTERM)
        assert work.wait(5) == 0
    assert "Traceback" not in (state / "run.log").read_text()


def test_asvs_16_2_5_the_agents_log_holds_no_secret(
    server: Server, alice: Alice, state: Path, home: Path
) -> None:
    (code,) = alice.codes()
    enrolled(state, server, code)
    log = state / "run.log"
    with working_agent(state, "--verbose"):
        pass
    told = log.read_text()
    assert "reporting to" in told
    for secret in (code, "Bearer", "Signature", "PRIVATE"):
        assert secret not in told
    # Nor does anything on the disk but the key itself.
    db = database.open_in(state)
    body = database.noted(db, "sent/enroll")
    db.close()
    assert isinstance(body, bytes)
    assert code.encode() not in body
    assert AgentConfig(state_dir=state).state_dir.stat().st_mode & 0o077 == 0
