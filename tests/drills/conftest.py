"""A real gateway that may be killed, on either database, and devices that keep calling it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from uuid_utils.compat import uuid7

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from bench import ground  # noqa: E402 - found by the line above
from server.tests import postgres  # noqa: E402

from doorward_protocol import messages  # noqa: E402


def _waited_for_a_core(pid: int) -> float:
    """Return the seconds that a process was ready to run and something else ran instead.

    Of its first thread, which does the starting; scheduler statistics of Linux, 0 elsewhere.
    """
    statistics = Path(f"/proc/{pid}/schedstat")
    return int(statistics.read_text().split()[1]) / 1e9 if statistics.exists() else 0.0


@dataclass
class Gateway:
    """The devices' door as a process of its own, with a folder and devices that outlive it."""

    ground: ground.Ground
    port: int
    target: str = ""
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> float:
        """Start it; the seconds until it was ready, without those in which it had no core.

        What else this machine has to do is not the gateway's doing.
        """
        began = time.monotonic()
        command = [sys.executable, "-m", "doorward", "gateway", "--device-port", str(self.port)]
        if self.target:
            command = [sys.executable, "-m", "uvicorn", "--port", str(self.port), self.target]
        with (self.ground.data / "gateway.log").open("ab") as log:
            self.process = subprocess.Popen(
                command,
                env={**os.environ, **self.ground.environment, "PYTHONPATH": str(ROOT)},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        ground.wait_until_open(
            f"http://127.0.0.1:{self.port}/health/ready",
            self.process,
            self.ground.data / "gateway.log",
        )
        return time.monotonic() - began - _waited_for_a_core(self.process.pid)

    def kill(self) -> None:
        """End it as a power cut would: every process of it at once, without a word."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        """What the database holds, asked past the server."""
        url = self.ground.environment["DOORWARD_DATABASE_URL"]
        if url:
            with psycopg.connect(url) as connection:
                return connection.execute(statement.encode()).fetchall()
        with contextlib.closing(sqlite3.connect(self.ground.data / "doorward.sqlite3")) as database:
            return database.execute(statement).fetchall()


@pytest.fixture(params=["sqlite", "postgresql"])
def gateway(request: pytest.FixtureRequest) -> Iterator[Gateway]:
    """A gateway with eight devices, not started yet."""
    running = postgres.running(durable=True) if request.param == "postgresql" else None
    with running or contextlib.nullcontext("") as url, ground.prepared(8, database_url=url) as it:
        made = Gateway(it, ground.free_port())
        yield made
        made.kill()


def finding(uid: UUID, sequence: int) -> messages.DetectionFinding:
    """A finding of EICAR, put into quarantine."""
    return messages.DetectionFinding(
        metadata=messages.Metadata(uid=uid, sequence=sequence),
        time=time.time_ns() // 1_000_000,
        severity_id=messages.SEVERITY_HIGH,
        disposition_id=messages.DISPOSITION_QUARANTINED,
        finding_info=messages.FindingInfo(
            uid=uid,
            title="EICAR test file",
            analytic=messages.Analytic(uid="doorward.eicar", name="EICAR"),
        ),
        evidences=(messages.Evidence(file=messages.File(path=f"/home/alice/{uid}.com", size=68)),),
    )


def remediation(about: UUID, disposition: int, sequence: int) -> messages.FileRemediation:
    """What was done about the finding later."""
    return messages.FileRemediation(
        metadata=messages.Metadata(uid=uuid7(), sequence=sequence),
        time=time.time_ns() // 1_000_000,
        activity_id=messages.REMEDIATION_RESTORE,
        file=messages.File(path=f"/home/alice/{about}.com"),
        disposition_id=disposition,
        unmapped=messages.RemediationDetail(finding_uid=about),
    )


class Unanswered(Exception):
    """The gateway did not answer 202: whatever it did, the device must send again."""


def send(port: int, token: str, events: tuple[messages.Event, ...]) -> dict[str, Any]:
    """Send one report as a device does. Raises Unanswered unless it was acknowledged."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(
            "POST",
            "/device/v1/reports",
            messages.encode(messages.Report(events=events)),
            {"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
        )
        answer = connection.getresponse()
        body = answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise Unanswered(str(error)) from error
    finally:
        connection.close()
    if answer.status != 202:
        raise Unanswered(f"{answer.status} {body!r}")
    told: dict[str, Any] = json.loads(body)
    return told


@dataclass
class Caller:
    """A device that sends report after report, each again and again until it is acknowledged."""

    gateway: Gateway
    token: str
    sent: set[str] = field(default_factory=set)
    acknowledged: set[str] = field(default_factory=set)
    answered_twice: int = 0
    refusals: list[str] = field(default_factory=list)
    stopping: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.random = random.Random(self.token)  # noqa: S311 - repeatable chance, no secret

    def run(self) -> None:
        """Call until told to stop; the report under way is still seen through."""
        sequence = 0
        while not self.stopping.is_set():
            events = []
            for _ in range(self.random.randint(1, 20)):
                sequence += 1
                events.append(finding(uuid7(), sequence))
            self.deliver(tuple(events))

    def deliver(self, events: tuple[messages.Event, ...]) -> None:
        """Send the report until it is acknowledged."""
        uids = {str(event.metadata.uid) for event in events}
        self.sent |= uids
        while True:
            try:
                told = send(self.gateway.port, self.token, events)
            except Unanswered as error:
                self.refusals.append(str(error))
                time.sleep(0.02)
                continue
            self.answered_twice += len(told["duplicate"])
            self.acknowledged.update(told["accepted"], told["duplicate"])
            return
