"""A fleet at work: a thousand devices on one server, and their people asking things of them.

Each device is the agent's own link with a key of its own: it signs for its token, has its calls
held open, fetches settings, carries out what it is asked (in no time: it is the server that is
measured), tells each step and reports the scan. People ask for scans and change settings by the
API, and look at their pages. Now and then a device's answer is lost on the way, and it comes again.

At the end everything is compared: each command was carried out once and is told as done, each
device has the newest settings, each report is stored once.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import secrets
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psutil
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from uuid_utils.compat import uuid7

from bench import ground
from doorward_agent.link import Link, LinkProblem, ServerUnreachable
from doorward_protocol import messages

DEVICES_OF_AN_ACCOUNT = 20
HELD_S = 50
"""How long a device asks the server to hold its call, as an agent does."""
LOST_OF_100 = 2
"""So many of a hundred calls that tell how far a command is are made twice, as if the answer had
been lost."""
PAGES_P95_MS = 300.0
GROWTH = 1.15
"""Memory at the end against memory once everybody had been there: what may be noise."""
DRAIN_S = 90.0
FINAL = frozenset({"done", "failed", "rejected", "interrupted", "expired", "canceled"})
ASK_EACH_S, CHANGE_EACH_S, LOOK_EACH_S = 0.25, 2.0, 0.2


def main(argv: list[str]) -> int:
    """Let the fleet work and print the table; 1 when a goal is missed, 2 on wrong use."""
    parser = argparse.ArgumentParser(prog="doorward bench fleet", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="forty devices for seconds")
    parser.add_argument("--devices", type=int, default=1_000)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--live", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--compare", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.seed:
        return seed(options.seed)
    if options.live:
        return asyncio.run(live(options.live[0], Path(options.live[1])))
    if options.compare:
        return compare()
    devices, minutes = (40, 0.2) if options.quick else (options.devices, options.minutes)
    try:
        core, load_core = ground.cores()
    except ground.NotPossible as reason:
        print(f"bench fleet: {reason}", file=sys.stderr)
        return 2
    status = measure(devices, minutes * 60, core, load_core)
    return 0 if options.quick else status


# ------------------------------------------------------------------------------------ the whole run


def measure(devices: int, seconds: float, core: int, load_core: int) -> int:
    """Start the server, the devices and their people; compare at the end, and print the table."""
    with tempfile.TemporaryDirectory(prefix="dw-fleet-") as folder, contextlib.ExitStack() as open_:
        data = Path(folder)
        port, device_port = ground.free_port(), ground.free_port()
        environment = {
            **os.environ,
            "DOORWARD_DATA": str(data),
            "DOORWARD_LOG": "json",
            "DOORWARD_SITE_URL": f"http://localhost:{port}",
            "DJANGO_SETTINGS_MODULE": "doorward.settings",
        }

        def step(on: int, *words: str, **more: Any) -> subprocess.Popen[bytes]:
            command = [ground.TASKSET, "-c", str(on), sys.executable, "-m", "bench.fleet", *words]
            return subprocess.Popen(command, env=environment, cwd=ground.ROOT, **more)

        def answer(process: subprocess.Popen[bytes]) -> Any:
            out, _ = process.communicate(timeout=600)
            if process.returncode != 0:
                raise RuntimeError(f"a part of the bench ended with {process.returncode}")
            return json.loads(out)

        seeded = answer(step(core, "--seed", str(devices), stdout=subprocess.PIPE))
        (data / "fleet.json").write_text(json.dumps(seeded))
        server = open_.enter_context(serving(environment, data, port, device_port, core))
        simulated = step(
            load_core,
            *("--live", f"http://127.0.0.1:{device_port}", str(data)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        open_.callback(simulated.kill)
        people = People(f"http://localhost:{port}", seeded["accounts"])
        watch = Watch(server)
        # Not what is measured: each device is met for the first time.
        time.sleep(min(20.0, seconds / 3))
        os.sched_setaffinity(0, {load_core})
        people.live(seconds, each=watch.look)
        left = people.wait_until_done(DRAIN_S)
        # What the devices have not delivered yet, they deliver now; then they tell what they did.
        told = answer(simulated)
        ground.stop(server, seconds=30)
        found = answer(step(core, "--compare", stdout=subprocess.PIPE))
    return table(devices, seconds, people, watch, left, told, found)


def table(
    devices: int,
    seconds: float,
    people: People,
    watch: Watch,
    left: int,
    told: dict[str, Any],
    found: dict[str, Any],
) -> int:
    """Print what was seen; 1 when something was lost, came twice, or was too slow."""
    asked = set(people.asked)
    carried = Counter(told["carried_out"])
    once = sum(carried[uid] == 1 for uid in asked)
    done = sum(found["commands"].get(uid) == "done" for uid in asked)
    scans = sum(found["scans"].get(uid) == 1 for uid in asked)
    waits = sorted(people.pages)
    p95 = waits[int(len(waits) * 0.95)] * 1e3 if waits else float("inf")
    early, late = watch.early(), watch.late()
    share = max(1, len(asked))
    lines = [
        ground.Line(
            "commands carried out once", f"{once:,}", f"asked {len(asked):,}", once / share, 1.0
        ),
        ground.Line("commands told as done", f"{done:,}", f"{len(asked):,}", done / share, 1.0),
        ground.Line("their scans stored once", f"{scans:,}", f"{len(asked):,}", scans / share, 1.0),
        ground.Line(
            "devices with the newest settings",
            f"{found['newest']:,}",
            f"{devices:,} devices",
            found["newest"] / devices,
            1.0,
        ),
        ground.Line(
            "portal pages, p95", f"{p95:.0f} ms", f"{PAGES_P95_MS:.0f} ms", PAGES_P95_MS / p95, 1.0
        ),
        ground.Line(
            "memory at the end",
            f"{late / 2**20:.0f} MiB",
            f"{early / 2**20:.0f} MiB after warming up",
            GROWTH * early / late,
            1.0,
        ),
    ]
    rates = {what: count / seconds for what, count in told["calls"].items()}
    return ground.report(
        lines,
        [
            f"{devices:,} devices in {devices // DEVICES_OF_AN_ACCOUNT} accounts for"
            f" {seconds / 60:.1f} min; server on one core, devices and people on another",
            "calls of the devices a second: "
            + ", ".join(f"{what} {rate:.1f}" for what, rate in sorted(rates.items())),
            f"{people.changes:,} changes of settings, {len(waits):,} pages"
            f" (median {statistics.median(waits or [0]) * 1e3:.0f} ms),"
            f" {left} commands under way after {DRAIN_S:.0f} s,"
            f" {told['twice']} states told twice on purpose",
            "memory, MiB: "
            + ", ".join(
                f"{name} {first / 2**20:.0f} → {last / 2**20:.0f}"
                for name, (first, last) in sorted(watch.each().items())
            ),
            *(f"refused: {count} x {what}" for what, count in people.refused.most_common(5)),
            *(f"trouble of devices: {count} x {what}" for what, count in told["trouble"].items()),
        ],
    )


@contextlib.contextmanager
def serving(
    environment: dict[str, str], data: Path, port: int, device_port: int, core: int
) -> Iterator[subprocess.Popen[bytes]]:
    """Yield `doorward serve` with both doors open; it ends with the block."""
    log = data / "serve.log"
    with log.open("wb") as out:
        process = ground.start(
            [
                *(sys.executable, "-m", "doorward", "serve", "--data", str(data)),
                *("--port", str(port), "--device-port", str(device_port)),
            ],
            core=core,
            environment=environment,
            stdout=out,
            stderr=out,
        )
    try:
        for door in (port, device_port):
            ground.wait_until_open(f"http://127.0.0.1:{door}/health/ready", process, log)
        yield process
    finally:
        ground.stop(process)


# -------------------------------------------------------------------------------------- the people


@dataclass
class People:
    """Who asks, changes and looks; one after the other, as fast as the server answers or slower."""

    site: str
    accounts: list[dict[str, Any]]
    asked: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Each command, and the account that it was asked for."""
    pages: list[float] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    changes: int = 0
    _chance: random.Random = field(default_factory=lambda: random.Random(4))  # noqa: S311 - a load

    def live(self, seconds: float, each: Callable[[], None]) -> None:
        """Ask, change and look for so long; `each` is called every second."""
        until = time.monotonic() + seconds

        def again(act: Callable[[], None], pause: float) -> None:
            while time.monotonic() < until:
                began = time.monotonic()
                act()
                time.sleep(max(0.0, pause - (time.monotonic() - began)))

        work = [
            threading.Thread(target=again, args=words)
            for words in (
                (self.ask, ASK_EACH_S),
                (self.change, CHANGE_EACH_S),
                (self.look, LOOK_EACH_S),
            )
        ]
        for thread in work:
            thread.start()
        while time.monotonic() < until:
            each()
            time.sleep(1)
        for thread in work:
            thread.join()

    def ask(self) -> None:
        """Have a device scan a folder."""
        account = self._chance.choice(self.accounts)
        device = self._chance.choice(account["devices"])["id"]
        answer = self._call(
            account,
            f"/api/v1/devices/{device}/commands",
            {"kind": "scan.run", "args": {"paths": [f"/home/{len(self.asked)}"]}},
        )
        if answer is not None:
            self.asked[answer["command_uid"]] = account

    def change(self) -> None:
        """Change a setting for all devices of an account."""
        self.changes += 1
        start = f"{self.changes % 24:02d}:{self.changes % 60:02d}"
        self._call(
            self._chance.choice(self.accounts),
            "/api/v1/settings",
            {"values": {"quick_scan": {"start": start}}},
            method="PATCH",
        )

    def look(self) -> None:
        """Open a page as a browser does."""
        account = self._chance.choice(self.accounts)
        device = self._chance.choice(account["devices"])["id"]
        page = self._chance.choice(["/", "/devices/", f"/devices/{device}/", "/reports/"])
        request = urllib.request.Request(  # noqa: S310 - our own address
            self.site + page, headers={"Cookie": account["cookie"], "User-Agent": "Firefox/140.0"}
        )
        began = time.perf_counter()
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - the same
                answer.read()
                if answer.url != self.site + page:
                    self.refused[f"{page} led elsewhere"] += 1
        except urllib.error.HTTPError as error:
            self.refused[f"{error.code} GET {page.replace(device, '…')}"] += 1
        self.pages.append(time.perf_counter() - began)

    def wait_until_done(self, seconds: float) -> int:
        """Wait until no command is under way; how many still are when the time is up."""
        until = time.monotonic() + seconds
        waiting = list(self.asked)
        while waiting and time.monotonic() < until:
            found = self._call(
                self.asked[waiting[-1]], f"/api/v1/commands/{waiting[-1]}", None, method="GET"
            )
            if found is not None and found["state"] in FINAL:
                waiting.pop()
            else:
                time.sleep(0.2)
        return len(waiting)

    def _call(
        self,
        account: dict[str, Any],
        path: str,
        body: object,
        *,
        method: str = "POST",
    ) -> dict[str, Any] | None:
        request = urllib.request.Request(  # noqa: S310 - our own address
            self.site + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={
                "Authorization": f"Bearer {account['token']}",
                "Content-Type": "application/json",
            },
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - the same
                told: dict[str, Any] = json.load(answer)
                return told
        except urllib.error.HTTPError as error:
            self.refused[f"{error.code} {error.read()[:200]!r}"] += 1
            return None


class Watch:
    """How much memory each process of the server has, over time."""

    def __init__(self, server: subprocess.Popen[bytes]) -> None:
        self._server = psutil.Process(server.pid)
        self._seen: list[dict[str, int]] = []

    def look(self) -> None:
        """Note it."""
        family = [self._server, *self._server.children(recursive=True)]
        now: Counter[str] = Counter()
        for member in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                words = member.cmdline()
                name = next((word for word in words if word in _PROCESSES), "serve")
                # What it shares with others is counted once, where it belongs to.
                now[name] += member.memory_full_info().pss
        self._seen.append(dict(now))

    def early(self) -> int:
        """The whole, in bytes, when a third of the time had passed."""
        return sum(first for first, _ in self.each().values())

    def late(self) -> int:
        """The whole at the end."""
        return sum(last for _, last in self.each().values())

    def each(self) -> dict[str, tuple[int, int]]:
        """Of each process: after a third of the time, and at the end; medians of a few looks."""
        names = {name for look in self._seen for name in look}
        few = max(1, len(self._seen) // 20)
        third = len(self._seen) // 3

        def typical(looks: list[dict[str, int]], name: str) -> int:
            return int(statistics.median(look.get(name, 0) for look in looks))

        return {
            name: (
                typical(self._seen[third : third + few], name),
                typical(self._seen[-few:], name),
            )
            for name in names
        }


_PROCESSES = frozenset({"portal", "gateway", "worker"})


# ------------------------------------------------------------------------------------- the devices


@dataclass
class Fleet:
    """What all simulated devices did together."""

    carried_out: list[str] = field(default_factory=list)
    calls: Counter[str] = field(default_factory=Counter)
    trouble: Counter[str] = field(default_factory=Counter)
    twice: int = 0


class Simulated:
    """One device: the agent's link, and as much of a memory as an agent keeps."""

    def __init__(self, server: str, made: dict[str, str], fleet: Fleet) -> None:
        key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(made["key"]))
        self._link = Link(server, key, version="1.0")
        self._fleet = fleet
        self._boot, self._seq, self._events = uuid4(), 0, 0
        self._settings = 0
        self._known: set[UUID] = set()
        self._chance = random.Random(made["id"])  # noqa: S311 - a load

    async def live(self, until: asyncio.Event) -> None:
        """Check in and do what is asked, until told to stop."""
        await asyncio.sleep(self._chance.uniform(0, 8))
        while not until.is_set():
            try:
                await self._once()
            except ServerUnreachable:
                if until.is_set():
                    return
                self._fleet.trouble["unreachable"] += 1
                await asyncio.sleep(self._chance.uniform(0.5, 2))
            except LinkProblem as problem:
                self._fleet.trouble[f"{type(problem).__name__}: {problem}"[:120]] += 1
                await asyncio.sleep(problem.retry_after or 2)

    async def close(self) -> None:
        """Give up the connection."""
        await self._link.close()

    async def _once(self) -> None:
        self._seq += 1
        self._fleet.calls["check-in"] += 1
        answer = await self._link.check_in(
            messages.CheckIn(
                boot_id=self._boot,
                seq=self._seq,
                settings=messages.SettingsState(version=self._settings),
            ),
            wait=HELD_S,
        )
        for command in answer.commands:
            if command.command_uid not in self._known:
                self._known.add(command.command_uid)
                await self._carry_out(command)
        if answer.settings_version > self._settings:
            self._fleet.calls["settings"] += 1
            self._settings = (await self._link.settings()).version

    async def _carry_out(self, command: messages.Command) -> None:
        uid = command.command_uid
        now = time.time_ns() // 1_000_000
        await self._tell(uid, messages.CommandState(status="accepted"))
        await self._tell(uid, messages.CommandState(status="running", started_at=now))
        self._fleet.carried_out.append(str(uid))
        progress = messages.CommandProgress(files=40, bytes=4_000)
        await self._tell(uid, messages.CommandState(status="running", progress=progress))
        scan = messages.ScanInfo(uid=uuid7(), name="Scan")
        events = []
        for activity in (messages.SCAN_STARTED, messages.SCAN_COMPLETED):
            self._events += 1
            events.append(
                messages.encode(
                    messages.ScanActivity(
                        metadata=messages.Metadata(uid=uuid7(), sequence=self._events),
                        time=now,
                        activity_id=activity,
                        scan=scan,
                        command_uid=uid,
                        num_files=80,
                    )
                )
            )
        self._fleet.calls["reports"] += 1
        await self._link.report(events)
        await self._tell(uid, messages.CommandState(status="succeeded", started_at=now))

    async def _tell(self, uid: UUID, state: messages.CommandState) -> None:
        is_lost = self._chance.random() * 100 < LOST_OF_100
        self._fleet.twice += is_lost
        for _ in range(1 + is_lost):
            self._fleet.calls["command states"] += 1
            await self._link.answer_command(uid, state)


async def live(server: str, data: Path) -> int:
    """Be all the devices until standard input is closed; print what they did."""
    made = json.loads((data / "fleet.json").read_text())
    fleet, until = Fleet(), asyncio.Event()
    devices = [
        Simulated(server, each, fleet)
        for account in made["accounts"]
        for each in account["devices"]
    ]
    tasks = [asyncio.create_task(device.live(until)) for device in devices]
    await asyncio.to_thread(sys.stdin.read)
    until.set()
    # Calls that are held open end when the server lets go of them; a device that works goes on.
    await asyncio.wait(tasks, timeout=5)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.gather(*(device.close() for device in devices))
    json.dump(
        {
            "carried_out": fleet.carried_out,
            "calls": fleet.calls,
            "trouble": fleet.trouble,
            "twice": fleet.twice,
        },
        sys.stdout,
    )
    return 0


# ------------------------------------------------------------------------------------ the database


def seed(devices: int) -> int:
    """Store accounts with their people, devices with keys of their own; print what opens them."""
    import django

    from doorward import keys

    keys.prepare(Path(os.environ["DOORWARD_DATA"]))
    django.setup()
    from allauth.account.models import EmailAddress
    from django.core.management import call_command
    from django.test import Client
    from django.utils import timezone

    from doorward.accounts import signup, tokens
    from doorward.accounts.models import User
    from doorward.devices.models import Device, Presence
    from doorward_protocol import signing

    call_command("migrate", verbosity=0, interactive=False)
    call_command("collectstatic", verbosity=0, interactive=False)
    now = timezone.now()
    accounts = []
    for number in range(max(1, devices // DEVICES_OF_AN_ACCOUNT)):
        email = f"owner-{number}@example.org"
        user = User.objects.create_user(email, secrets.token_urlsafe(24), name=f"Owner {number}")
        EmailAddress.objects.create(user=user, email=email, verified=True, primary=True)
        account = signup.found_account(user)
        _, text = tokens.create(
            user,
            name="fleet",
            scopes=["devices:read", "commands:write", "settings:write"],
            days=1,
            account=account,
        )
        client = Client(HTTP_HOST="localhost")
        client.force_login(user, "allauth.account.auth_backends.AuthenticationBackend")
        client.get("/")
        made = []
        for each in range(DEVICES_OF_AN_ACCOUNT):
            private = Ed25519PrivateKey.generate()
            jwk = signing.jwk_of(private.public_key())
            device = Device.objects.create(
                id=uuid7(),
                account=account,
                hostname=f"computer-{each}",
                os_name="Linux",
                capabilities=["settings", "commands", *messages.COMMAND_KINDS],
                thumbprint=signing.thumbprint(jwk),
                public_key=jwk.x,
                enrolled_at=now,
                changed_at=now,
            )
            Presence.objects.create(device=device)
            made.append({"id": str(device.pk), "key": private.private_bytes_raw().hex()})
        cookie = "; ".join(f"{name}={morsel.value}" for name, morsel in client.cookies.items())
        accounts.append({"token": text, "cookie": cookie, "devices": made})
    json.dump({"accounts": accounts}, sys.stdout)
    return 0


def compare() -> int:
    """Print what the database holds: each command's state, its scans, the devices up to date."""
    import django

    django.setup()
    from django.db.models import Count, F

    from doorward.devices.models import Command, Device
    from doorward.reports.models import Scan

    commands = {str(uid): state for uid, state in Command.objects.values_list("uid", "state")}
    scans = {
        str(uid): count
        for uid, count in Scan.objects.values_list("command_uid").annotate(Count("id"))
    }
    newest = Device.objects.filter(settings_version__gte=F("wanted_version")).count()
    json.dump({"commands": commands, "scans": scans, "newest": newest}, sys.stdout)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
