"""Report intake: reports a second through HTTP, durable before 202, against storing the same rows.

A report holds 50 detections, about 10 KB. The peer is storage alone: the same rows, made before the
clock starts, stored by the same statement in batches as large as the gateway's can be, each batch
durable before the next. The gateway also reads HTTP, checks the token, decodes and checks the
events, makes the rows, tells new from old, counts, and answers.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import cast
from uuid import UUID

import zstandard
from server.tests import postgres
from uuid_utils.compat import uuid7

from bench import ground
from doorward_protocol import messages

EVENTS = 50
CONNECTIONS = 64
DEVICES = 2_000
GOALS = {"SQLite": 0.45, "PostgreSQL": 0.35}


def main(argv: list[str]) -> int:
    """Measure both databases and print the table; 1 when a goal is missed, 2 on wrong use."""
    parser = argparse.ArgumentParser(prog="doorward bench intake", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round: does it run at all?")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    parser.add_argument("--database", choices=["sqlite", "postgresql"], help="only this one")
    parser.add_argument("--wire", choices=["plain", "zstd"], default="zstd", help="of the report")
    parser.add_argument("--load", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--store", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.load:
        port, duration, connections, wire = options.load
        return load(int(port), float(duration), int(connections), wire)
    if options.store:
        return store(float(options.store[0]), int(options.store[1]))
    rounds, seconds = (1, 0.5) if options.quick else (options.rounds, options.seconds)
    try:
        core, load_core = ground.cores()
    except ground.NotPossible as reason:
        print(f"bench intake: {reason}", file=sys.stderr)
        return 2
    measured: list[tuple[ground.Line, str]] = []
    if options.database in (None, "sqlite"):
        measured.append(measure("SQLite", "", options.wire, rounds, seconds, core, load_core))
    if options.database in (None, "postgresql"):
        os.sched_setaffinity(0, {core})  # so that the database is on the measured core, too
        with postgres.running(durable=True) as url:
            measured.append(
                measure("PostgreSQL", url, options.wire, rounds, seconds, core, load_core)
            )
    status = ground.report(
        [line for line, _ in measured],
        [
            *(note for _, note in measured),
            f"{EVENTS} detections a report ({len(body(0)) / 1000:.1f} KB, sent {options.wire}),"
            f" {CONNECTIONS} keep-alive"
            f" connections, {DEVICES:,} devices; gateway and database on one core, load on another;"
            f" median of {rounds} alternated rounds of {seconds:g} s",
        ],
    )
    return 0 if options.quick else status


def measure(
    name: str, url: str, wire: str, rounds: int, seconds: float, core: int, load_core: int
) -> tuple[ground.Line, str]:
    """Alternate the gateway and the bare storage on this database."""
    with (
        ground.prepared(DEVICES, database_url=url) as prepared,
        ground.gateway(prepared, core=core) as (port, process),
    ):
        (prepared.data / "tokens").write_text("\n".join(prepared.tokens))
        environment = {**os.environ, **prepared.environment}

        def child(on: int, *words: str) -> dict[str, float]:
            done = subprocess.run(
                [ground.TASKSET, "-c", str(on), sys.executable, "-m", "bench.intake", *words],
                env=environment,
                cwd=ground.ROOT,
                check=True,
                stdout=subprocess.PIPE,
            )
            told: dict[str, float] = json.loads(done.stdout)
            return told

        cpu_us: dict[str, list[float]] = {"gateway": [], "storage": []}

        def through_http(duration: float = seconds) -> float:
            used = ground.cpu_seconds(process)
            told = child(load_core, "--load", str(port), str(duration), str(CONNECTIONS), wire)
            cpu_us["gateway"].append((ground.cpu_seconds(process) - used) / told["reports"] * 1e6)
            return told["reports"] / told["seconds"]

        def alone() -> float:
            told = child(core, "--store", str(seconds), str(CONNECTIONS))
            cpu_us["storage"].append(told["cpu"] / told["reports"] * 1e6)
            return told["reports"] / told["seconds"]

        # Not what is measured: the gateway meets its devices, the files grow to their first size.
        through_http(1.0)
        ours, theirs = ground.alternate(rounds, through_http, alone)
    line = ground.Line(
        f"report intake, {name}",
        f"{statistics.median(ours):,.0f} reports/s",
        f"storage alone {statistics.median(theirs):,.0f}/s",
        ground.ratio(ours, theirs),
        GOALS[name],
    )
    note = (
        f"{name}: CPU a report {statistics.median(cpu_us['gateway'][1:]):,.0f} us in the gateway,"
        f" {statistics.median(cpu_us['storage']):,.0f} us in the process that only stores"
        + (" (the database server's own not counted)" if url else "")
    )
    return line, note


# -------------------------------------------------------------------------------------- the reports


def ids() -> Iterator[UUID]:
    """UUIDv7 after UUIDv7."""
    while True:
        yield uuid7()


def body(seed: int) -> bytes:
    """A report that was never sent before, written as the agent writes it."""
    now = time.time_ns() // 1_000_000
    fresh = ids()
    scan = next(fresh)
    events = tuple(
        messages.DetectionFinding(
            metadata=messages.Metadata(uid=next(fresh), sequence=seed * EVENTS + number),
            time=now - EVENTS + number,
            severity_id=messages.SEVERITY_HIGH,
            disposition_id=messages.DISPOSITION_QUARANTINED,
            finding_info=messages.FindingInfo(
                uid=next(fresh),
                title="EICAR test file",
                analytic=messages.Analytic(uid="doorward.eicar", name="EICAR test file"),
            ),
            evidences=(
                messages.Evidence(
                    file=messages.File(
                        path=f"/home/alice/Downloads/{seed:06d}/attachment-{number:02d}.com",
                        name=f"attachment-{number:02d}.com",
                        size=68,
                        hashes=(messages.Hash(value=f"{seed * EVENTS + number:064x}"),),
                    )
                ),
            ),
            unmapped=messages.FindingDetail(
                scan_uid=scan, engine="yara-x", quarantine_id=next(fresh)
            ),
        )
        for number in range(EVENTS)
    )
    return messages.encode(messages.Report(events=events))


# ----------------------------------------------------------------------------------------- the load


class Caller(asyncio.Protocol):
    """One connection that sends a report, waits for the answer, and sends the next."""

    def __init__(self, requests: Iterator[bytes], tally: list[int], until: float) -> None:
        self.requests, self.tally, self.until = requests, tally, until
        self.heard = b""
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first."""
        self.transport = cast(asyncio.Transport, transport)
        self.ask()

    def ask(self) -> None:
        """Send the next report, or end when the time is over."""
        request = next(self.requests, None)
        if time.perf_counter() >= self.until or request is None:
            self.transport.close()
            if not self.done.done():
                self.done.set_result(None)
            return
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        """Count the report when its answer is whole."""
        self.heard += data
        head, blank, rest = self.heard.partition(b"\r\n\r\n")
        if not blank:
            return
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        if len(rest) < length:
            return
        self.heard = b""
        accepted = len(json.loads(rest)["accepted"]) if head.startswith(b"HTTP/1.1 202") else 0
        if accepted != EVENTS:
            self.done.set_exception(RuntimeError(f"not accepted: {head!r} {rest[:500]!r}"))
            self.transport.close()
            return
        self.tally[0] += 1
        self.ask()

    def connection_lost(self, error: Exception | None) -> None:
        """A connection that breaks is an error, unless it was ours to end."""
        if not self.done.done():
            self.done.set_exception(error or RuntimeError("the gateway hung up"))


def load(port: int, seconds: float, connections: int, wire: str) -> int:
    """Send as many reports as the gateway takes; print how many and for how long."""
    tokens = Path(os.environ["DOORWARD_DATA"], "tokens").read_text().split()
    seed = int(time.time()) % 1000 * 100_000
    # Made before the clock starts, so that the load is never what is waited for.
    requests = []
    for number in range(int(seconds * 1_500) + connections):
        content = body(seed + number)
        encoding = b""
        if wire == "zstd":
            content, encoding = zstandard.compress(content, 3), b"Content-Encoding: zstd\r\n"
        requests.append(
            b"POST /device/v1/reports HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
            b"%bAuthorization: Bearer %b\r\nContent-Length: %d\r\n\r\n%b"
            % (encoding, tokens[number % len(tokens)].encode(), len(content), content)
        )

    async def run() -> tuple[int, float]:
        loop = asyncio.get_running_loop()
        tally = [0]
        began = time.perf_counter()
        waiting = iter(requests)
        callers = []
        for _ in range(connections):
            _, caller = await loop.create_connection(
                lambda: Caller(waiting, tally, began + seconds), "127.0.0.1", port
            )
            callers.append(caller)
        await asyncio.gather(*(caller.done for caller in callers))
        return tally[0], time.perf_counter() - began

    used = time.process_time()
    reports, took = asyncio.run(run())
    json.dump(
        {"reports": reports, "seconds": took, "busy": (time.process_time() - used) / took},
        sys.stdout,
    )
    return 0


# ----------------------------------------------------------------------------------- storage alone


def store(seconds: float, batch: int) -> int:
    """Store the same rows without anything around it; print how many reports and for how long."""
    import django

    django.setup()
    from django.db import connection, transaction
    from django.utils import timezone

    from doorward.devices.models import Device
    from doorward.reports import rows

    devices = list(Device.objects.values_list("account_id", "id"))
    tallies = [
        {devices[number % len(devices)][0]: (0, EVENTS) for number in range(first, first + batch)}
        for first in range(0, len(devices), batch)
    ]
    seed = int(time.time()) % 1000 * 100_000
    now = timezone.now()
    batches = []
    for first in range(0, int(seconds * 2_500) + batch, batch):
        made: list[rows.Row] = []
        for number in range(first, first + batch):
            account, device = devices[number % len(devices)]
            build = rows.builder(connection, account, device, now)
            events, _ = messages.decode_report(body(seed + number))
            made.extend(
                build(event) for event in events if isinstance(event, messages.DetectionFinding)
            )
        batches.append(made)
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    stored = 0
    used = time.process_time()
    began = time.perf_counter()
    for number, made in enumerate(batches):
        with transaction.atomic():
            if rows.insert_detections(connection, [made]) is not None:
                raise RuntimeError("rows of a bench are never duplicates")
            rows.add_to_tallies(connection, tallies[number % len(tallies)])
        stored += batch
        if time.perf_counter() - began >= seconds:
            break
    took = time.perf_counter() - began
    json.dump({"reports": stored, "seconds": took, "cpu": time.process_time() - used}, sys.stdout)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
