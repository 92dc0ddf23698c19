"""What a member asks is done by the real agent, told as it goes, and never called done before."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import Server, agent
from tests.journeys.test_agent_and_server import EICAR, Alice, enrolled, status, until

RUNNING_WITHIN_S = 1.0
PATIENCE_S = 30.0

ASKING = """
import json, sys
import django
django.setup()
from django.utils import timezone
from doorward.devices import commands
from doorward.devices.models import Command, Device
from doorward.reports.models import Detection, Scan
from doorward_protocol.messages import CommandArgs
def shown(command):
    return {
        "uid": str(command.uid), "state": command.state, "code": command.code,
        "detail": command.detail, "files": command.files, "bytes": command.bytes,
        "threats": command.threats, "report": command.report,
        "started": command.started_at and command.started_at.timestamp(),
        "asked": command.created_at.timestamp(),
    }
for line in sys.stdin:
    what, *words = json.loads(line)
    if what == "ask":
        device, kind, args = words
        import msgspec
        command = commands.ask(
            Device.objects.get(pk=device), kind, msgspec.convert(args, CommandArgs), actor=None
        )
        answer = shown(command)
    elif what == "look":
        answer = shown(Command.objects.get(uid=words[0]))
    elif what == "cancel":
        answer = shown(commands.cancel(Command.objects.get(uid=words[0]), actor=None))
    elif what == "quarantined":
        answer = [
            [str(each.quarantine_id), each.disposition]
            for each in Detection.objects.filter(device=words[0]).order_by("id")
        ]
    elif what == "scans":
        answer = [
            [str(each.command_uid), each.state]
            for each in Scan.objects.filter(device=words[0]).order_by("id")
        ]
    elif what == "thumbprint":
        answer = Device.objects.get(pk=words[0]).thumbprint
    elif what == "capabilities":
        answer = Device.objects.get(pk=words[0]).capabilities
    print(json.dumps(answer), flush=True)
"""


class Member:
    """Somebody who asks devices to do things, by a process of their own as the portal is one."""

    def __init__(self, server: Server) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", ASKING],
            env={
                **os.environ,
                **server.environment,
                "DJANGO_SETTINGS_MODULE": "doorward.settings",
                "DOORWARD_DATA": str(server.data),
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(self, *words: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(words) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def ask(self, device: str, kind: str, **args: Any) -> str:
        return str(self("ask", device, kind, args)["uid"])

    def wait_for(self, uid: str, *states: str, seconds: float = PATIENCE_S) -> dict[str, Any]:
        until(lambda: self("look", uid)["state"] in states, seconds)
        found = self("look", uid)
        assert isinstance(found, dict)
        return found

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(10)


@pytest.fixture
def alice(server: Server, request: pytest.FixtureRequest) -> Alice:
    return Alice(server, f"alice-{abs(hash(request.node.name))}@example.org")


@pytest.fixture
def member(server: Server) -> Iterator[Member]:
    found = Member(server)
    yield found
    found.close()


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "agent"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


@contextmanager
def at_work(state: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The real agent, connected: a call of its waits at the server."""
    with (state / "run.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "doorward_agent", "run", "--no-schedule", "--state", str(state)],
            stdout=log,
            stderr=log,
        )
    before = status(state)["last_check_in"]
    try:
        until(lambda: status(state)["last_check_in"] != before)
        time.sleep(1.5)  # Until the second call is held.
        yield process
    finally:
        process.terminate()
        process.wait(30)


def much(home: Path, files: int = 3000) -> None:
    """So many different files that scanning them takes a while."""
    for number in range(files):
        (home / f"{number}.txt").write_bytes(os.urandom(64 * 1024))


def test_n4_scan_now_runs_within_a_second_moves_and_is_done(
    server: Server, alice: Alice, member: Member, state: Path, home: Path
) -> None:
    device = enrolled(state, server, alice.codes()[0])
    much(home)
    (home / "zz.com").write_text(EICAR)
    with at_work(state):
        uid = member.ask(device, "scan.run", paths=[str(home)])
        took = until(lambda: member("look", uid)["state"] == "running", 5)
        seen = set()

        def moved() -> bool:
            found = member("look", uid)
            seen.add((found["state"], found["files"]))
            return found["state"] not in {"queued", "delivered", "running"}

        until(moved, 120)
        found = member("look", uid)
        until(lambda: member("quarantined", device) != [])
    print(f"running after {took:.2f} s")
    assert (found["state"], found["files"], found["threats"]) == ("done", 3001, 1)
    assert len({files for state_, files in seen if state_ == "running"}) > 2
    assert found["bytes"] > 3000 * 64 * 1024
    assert [uid, 2] in member("scans", device)
    assert not (home / "zz.com").exists()
    assert took < RUNNING_WITHIN_S
