"""What every bench stands on: a fresh server on one core, its load on another, taking turns.

Nothing here is shared with the product: the server is started as an operator starts it, and spoken
to over HTTP on loopback. Cores are told apart by `sched_setaffinity`, so that the load never takes
time from what is measured.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[1]
READY_WITHIN_S = 60.0
TASKSET = shutil.which("taskset") or "/usr/bin/taskset"


class NotPossible(Exception):
    """This machine lacks something that the bench needs; the text says what."""


# ------------------------------------------------------------------------------------------ cores


def cores() -> tuple[int, int]:
    """The core of what is measured and the core of the load.

    Raises NotPossible where there is only one: the load would take time from what is measured.
    """
    if not hasattr(os, "sched_setaffinity"):
        raise NotPossible("Only Linux lets a bench choose its cores")
    available = sorted(os.sched_getaffinity(0))
    if len(available) < 2:
        raise NotPossible("Two cores are needed: one to measure, one for the load")
    return available[-1], available[0]


def start(
    command: Sequence[str],
    *,
    core: int,
    environment: dict[str, str] | None = None,
    **options: Any,
) -> subprocess.Popen[bytes]:
    """Start a process that stays on this core, with all its children."""

    return subprocess.Popen(
        [TASKSET, "-c", str(core), *command],
        env={**os.environ, **(environment or {})},
        cwd=ROOT,
        **options,
    )


def stop(process: subprocess.Popen[bytes], *, seconds: float = 20) -> None:
    """Have the process end in good order; by force when it takes too long."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def cpu_seconds(process: subprocess.Popen[bytes]) -> float:
    """The processor time that the process and its living children have used so far."""
    family = [psutil.Process(process.pid)]
    family += family[0].children(recursive=True)
    used = 0.0
    for member in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            times = member.cpu_times()
            used += times.user + times.system
    return used


# ----------------------------------------------------------------------------------------- servers


def free_port() -> int:
    """A port of loopback that nothing listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass(frozen=True)
class Ground:
    """A data folder with a database, an account and devices; each device's token."""

    data: Path
    environment: dict[str, str]
    tokens: list[str]
    devices: list[str]


@contextlib.contextmanager
def prepared(devices: int, *, database_url: str = "") -> Iterator[Ground]:
    """Yield a fresh, migrated data folder with that many devices; it is gone afterwards."""
    data = Path(tempfile.mkdtemp(prefix="dw-bench-"))
    environment = {
        "DOORWARD_DATA": str(data),
        "DOORWARD_DATABASE_URL": database_url,
        "DOORWARD_LOG": "json",
        "DJANGO_SETTINGS_MODULE": "doorward.settings",
    }
    try:
        told = subprocess.run(
            [sys.executable, str(ROOT / "bench" / "ground.py"), str(devices)],
            env={**os.environ, **environment},
            cwd=ROOT,
            check=True,
            stdout=subprocess.PIPE,
        )
        seeded = json.loads(told.stdout)
        yield Ground(data, environment, seeded["tokens"], seeded["devices"])
    finally:
        shutil.rmtree(data, ignore_errors=True)


@contextlib.contextmanager
def gateway(ground: Ground, *, core: int) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """Yield the port and the process of a ready devices' door on this core."""
    port = free_port()
    with door("gateway", "--device-port", port, ground, core=core) as process:
        yield port, process


@contextlib.contextmanager
def portal(ground: Ground, *, core: int) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """Yield the port and the process of a ready people's door on this core."""
    port = free_port()
    with door("portal", "--port", port, ground, core=core) as process:
        yield port, process


@contextlib.contextmanager
def door(
    name: str, option: str, port: int, ground: Ground, *, core: int
) -> Iterator[subprocess.Popen[bytes]]:
    """Yield a ready door of the server on this core; it ends with the block."""
    log = ground.data / f"{name}.log"
    with log.open("wb") as out:
        process = start(
            [sys.executable, "-m", "doorward", name, option, str(port)],
            core=core,
            environment=ground.environment,
            stdout=out,
            stderr=out,
        )
    try:
        wait_until_open(f"http://127.0.0.1:{port}/health/ready", process, log)
        yield process
    finally:
        stop(process)


def wait_until_open(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Return when the address answers 200. Raises RuntimeError with the log when it never does."""
    deadline = time.monotonic() + READY_WITHIN_S
    while True:
        with (
            contextlib.suppress(urllib.error.URLError, OSError),
            urllib.request.urlopen(address, timeout=2) as answer,  # noqa: S310 - our own address
        ):
            if answer.status == 200:
                return
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{address} did not open:\n{log.read_text(errors='replace')}")
        time.sleep(0.05)


def seed(devices: int) -> None:
    """Migrate, store that many devices of a few accounts, and print their tokens as JSON."""
    import django

    from doorward import keys

    keys.prepare(Path(os.environ["DOORWARD_DATA"]))
    django.setup()
    from django.conf import settings
    from django.core.management import call_command
    from django.utils import timezone
    from uuid_utils.compat import uuid7

    from doorward.accounts.models import Account
    from doorward.devices.models import Device, Presence
    from doorward_protocol import signing

    call_command("migrate", verbosity=0, interactive=False)
    now = timezone.now()
    accounts = [Account(name=f"Account {number}") for number in range(max(1, devices // 4))]
    Account.objects.bulk_create(accounts)
    made = [
        Device(
            id=uuid7(),
            account=accounts[number % len(accounts)],
            hostname=f"computer-{number}",
            thumbprint=f"{number:043d}",
            public_key="k" * 43,
            enrolled_at=now,
            changed_at=now,
        )
        for number in range(devices)
    ]
    Device.objects.bulk_create(made)
    Presence.objects.bulk_create(Presence(device=device) for device in made)
    expires_at = int(time.time()) + 3600
    tokens = [
        signing.make_token(
            settings.DEVICE_TOKEN_KEY,
            device_id=device.id,
            epoch=device.epoch,
            expires_at=expires_at,
        )
        for device in made
    ]
    json.dump({"tokens": tokens, "devices": [str(device.id) for device in made]}, sys.stdout)


# ------------------------------------------------------------------------------------------ rounds


def alternate(rounds: int, *measure: Callable[[], float]) -> list[list[float]]:
    """Measure one after the other, round after round, so that a slow minute slows all of them."""
    figures: list[list[float]] = [[] for _ in measure]
    for _ in range(rounds):
        for row, act in zip(figures, measure, strict=True):
            row.append(act())
    return figures


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median of the rounds' ratios, each of two figures taken right after each other."""
    return statistics.median(own / their for own, their in zip(ours, theirs, strict=True))


@dataclass(frozen=True)
class Line:
    """A row of the table: what was measured, against what, and whether it is enough.

    A goal that is not binding is one for later releases: missing it is shown, but no failure.
    """

    what: str
    figure: str
    peer: str
    value: float
    goal: float
    binding: bool = True

    @property
    def holds(self) -> bool:
        """Whether the goal is reached."""
        return self.value >= self.goal


def report(lines: Sequence[Line], notes: Sequence[str] = ()) -> int:
    """Print the table; 0 when every binding goal holds, 1 when one is missed."""
    head = ("what", "figure", "peer or limit", "ratio", "goal", "")
    table = [
        (
            line.what,
            line.figure,
            line.peer,
            f"{line.value:.2f}",
            f">= {line.goal:.2f}",
            "ok" if line.holds else "MISSED" if line.binding else "not yet",
        )
        for line in lines
    ]
    widths = [max(len(row[column]) for row in (head, *table)) for column in range(len(head))]
    for row in (head, *table):
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        )
    for note in notes:
        print(note)
    print(f"machine: {machine()}")
    return 0 if all(line.holds or not line.binding for line in lines) else 1


def machine() -> str:
    """The facts of this machine that the figures depend on."""
    name = "unknown processor"
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    memory = psutil.virtual_memory().total / 2**30
    release = f"{os.uname().sysname} {os.uname().release}"
    python = f"Python {sys.version.split()[0]}"
    return f"{os.cpu_count()} cores of {name}, {memory:.0f} GiB, {release}, {python}"


if __name__ == "__main__":
    seed(int(sys.argv[1]))
