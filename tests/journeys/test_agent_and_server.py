"""The real agent against the real server, in every case the protocol names."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from tests.conftest import Server, agent

from doorward_agent import database, identity, link, loop
from doorward_agent.config import AgentConfig
from doorward_protocol import messages, signing

# In two halves, so that no scanner takes this file for the test file itself.
EICAR = r"X5O!P%@AP[4\PZX54(P^)7CC)7}$" + "EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"
DELIVERED_WITHIN_S = 5.0
PATIENCE_S = 30.0

ACCOUNT = """
import json, sys
import django
django.setup()
from doorward.accounts import members, signup
from doorward.accounts.models import User
from doorward.devices import enrollment, removal
from doorward.devices.models import Device
from doorward.reports.models import Detection
def person(address):
    found = User.objects.filter(email=address).first()
    if found is None:
        found = User.objects.create_user(address, None, name="Alice")
        signup.found_account(found)
    return found
what, address, *rest = sys.argv[1:]
alice = person(address)
account = members.account_of(alice)
devices = Device.objects.filter(account=account)
if what == "codes":
    print(json.dumps([enrollment.new_code(account, alice)[1] for _ in range(int(rest[0]))]))
elif what == "remove":
    removal.remove(devices.get(pk=rest[0]), actor=alice)
    print("{}")
else:
    print(json.dumps({
        "devices": [str(device.pk) for device in devices.filter(revoked_at=None)],
        "cloned": [str(device.pk) for device in devices.exclude(cloned_at=None)],
        "findings": [found.path for found in Detection.objects.filter(account_id=account.pk)],
    }))
"""


class Alice:
    """The owner of an account on the server, acting on its database."""

    def __init__(self, server: Server, address: str) -> None:
        self.server, self.address = server, address

    def _does(self, what: str, *words: str) -> object:
        done = subprocess.run(
            [sys.executable, "-c", ACCOUNT, what, self.address, *words],
            env={
                **os.environ,
                **self.server.environment,
                "DJANGO_SETTINGS_MODULE": "doorward.settings",
                "DOORWARD_DATA": str(self.server.data),
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def codes(self, count: int = 1) -> list[str]:
        found = self._does("codes", str(count))
        assert isinstance(found, list)
        return found

    def removes(self, device: str) -> None:
        self._does("remove", device)

    def sees(self) -> dict[str, list[str]]:
        found = self._does("look")
        assert isinstance(found, dict)
        return found


@pytest.fixture
def alice(server: Server, request: pytest.FixtureRequest) -> Alice:
    return Alice(server, f"alice-{abs(hash(request.node.name))}@example.org")


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "agent"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


def enrolled(state: Path, server: Server, code: str) -> str:
    done = agent(state, "enroll", "--server", server.device_url, "--code", code)
    assert done.returncode == 0, done.stderr
    found = identity.load(state)
    assert found is not None
    return found.device_id


@contextlib.contextmanager
def at_work(state: Path) -> Iterator[subprocess.Popen[bytes]]:
    with (state / "run.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "doorward_agent", "run", "--no-schedule", "--state", str(state)],
            stdout=log,
            stderr=log,
        )
    try:
        yield process
    finally:
        process.terminate()
        assert process.wait(30) == 0, (state / "run.log").read_text()


def status(state: Path) -> dict[str, object]:
    found = json.loads(agent(state, "status", "--json").stdout)
    assert isinstance(found, dict)
    return found


def until(true: Callable[[], bool], seconds: float = PATIENCE_S) -> float:
    """Wait until it is so; answer the seconds that took."""
    began = time.monotonic()
    while not true():
        if time.monotonic() - began > seconds:
            pytest.fail(f"not so within {seconds} s")
        time.sleep(0.05)
    return time.monotonic() - began


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
    with at_work(state):
        until(lambda: bool(status(state)["last_check_in"]))
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
    with at_work(state) as work:
        until(lambda: bool(status(state)["last_check_in"]))
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
    with at_work(state):
        until(lambda: bool(status(state)["last_check_in"]))
    copy = tmp_path / "copy"
    shutil.copytree(state, copy)
    with at_work(state), at_work(copy):
        until(lambda: any("same key" in str(status(each)["trouble"]) for each in (state, copy)))
    assert alice.sees()["cloned"] == [device]


def test_a_server_that_restarts_loses_nothing(own_server: Server, state: Path, home: Path) -> None:
    alice = Alice(own_server, "alice@example.org")
    enrolled(state, own_server, alice.codes()[0])
    with at_work(state):
        until(lambda: bool(status(state)["last_check_in"]))
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
    with at_work(state) as work:
        until(lambda: bool(status(state)["last_check_in"]))
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
    words = ("-m", "doorward_agent", "run", "--no-schedule", "--verbose", "--state", str(state))
    with log.open("ab") as file:
        process = subprocess.Popen([sys.executable, *words], stderr=file)
    until(lambda: bool(status(state)["last_check_in"]))
    process.terminate()
    process.wait(20)
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
