"""Check-ins: calls answered a second by one core, against nginx saying `return 200`.

2,000 devices call in turn over 64 keep-alive connections, each with its own token and a sequence
number that rises; the gateway checks the token, decodes and checks the call, keeps what it says and
writes it behind each second. nginx reads the same requests and answers as many bytes, and that is
all. Afterwards the database is asked: every device's last call must be there.

Both run on one core, wrk on another. The table says how busy each was. When other work on the
machine kept the gateway's core from being busy, the clock says little: then the calls are counted
per second of the servers' own processor time instead, which is harder on the gateway, because wrk
never keeps nginx's core wholly busy.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import resource
import shutil
import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench import ground

CONNECTIONS = 64
DEVICES = 2_000
GOAL = 0.25
GOAL_CPU_US = 35.0
FIRST_SEQUENCE = 100_000_000
ANSWER_BYTES = 175
QUIET = 0.85
"""A gateway that is less busy than this shared its core with other work."""


def main(argv: list[str]) -> int:
    """Measure and print the table; 1 when a goal is missed, 2 on wrong use or without nginx."""
    parser = argparse.ArgumentParser(prog="doorward bench check-in", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round: does it run at all?")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4, help="of each measurement")
    options = parser.parse_args(argv)
    rounds, seconds = (1, 1) if options.quick else (options.rounds, options.seconds)
    missing = [name for name in ("nginx", "wrk") if shutil.which(name) is None]
    if missing:
        print(f"bench check-in: needs {' and '.join(missing)}: apt install nginx-light wrk")
        return 2
    try:
        core, load_core = ground.cores()
    except ground.NotPossible as reason:
        print(f"bench check-in: {reason}", file=sys.stderr)
        return 2
    with (
        ground.prepared(DEVICES) as prepared,
        ground.gateway(prepared, core=core) as (port, process),
        nginx(prepared.data, core=core) as (nginx_port, nginx_process),
    ):
        tokens = prepared.data / "tokens"
        tokens.write_text("\n".join(prepared.tokens))
        first = FIRST_SEQUENCE

        def load(on: int, server: subprocess.Popen[bytes], duration: int) -> Run:
            nonlocal first
            first += 1_000_000
            return call(on, server, duration, tokens, first, load_core)

        load(port, process, 1)  # The gateway meets its devices; that is not what is measured.
        ours: list[Run] = []
        theirs: list[Run] = []
        last = first
        for _ in range(rounds):
            ours.append(load(port, process, seconds))
            last = first
            theirs.append(load(nginx_port, nginx_process, seconds))
        forgotten = devices_behind(prepared.data, last, ours[-1].requests)
    if forgotten:
        print(f"bench check-in: of {DEVICES} devices {forgotten} lost their last call")
        return 1
    return conclude(ours, theirs, rounds, seconds, quick=options.quick)


@dataclass(frozen=True)
class Run:
    """What one run of the load brought; latencies in milliseconds."""

    requests: int
    seconds: float
    cpu: float
    load_busy: float
    p50: float
    p99: float

    @property
    def a_second(self) -> float:
        """Calls answered per second of the clock."""
        return self.requests / self.seconds

    @property
    def busy(self) -> float:
        """The share of the time in which the server worked."""
        return self.cpu / self.seconds

    @property
    def a_cpu_second(self) -> float:
        """Calls answered per second of the server's processor time."""
        return self.requests / self.cpu


def call(
    port: int,
    server: subprocess.Popen[bytes],
    seconds: int,
    tokens: Path,
    first: int,
    load_core: int,
) -> Run:
    """Call for so long. Raises RuntimeError when a call was refused or lost."""
    used, mine = ground.cpu_seconds(server), resource.getrusage(resource.RUSAGE_CHILDREN)
    command = ["wrk", "--threads", "1", "--connections", str(CONNECTIONS), "--latency"]
    command += ["--duration", f"{seconds}s", "--script", str(ground.ROOT / "bench/check_in.lua")]
    command += [f"http://127.0.0.1:{port}/", "--", str(tokens), str(first)]
    done = subprocess.run(
        [ground.TASKSET, "-c", str(load_core), *command], check=True, capture_output=True, text=True
    )
    told = json.loads(done.stdout.strip().splitlines()[-1])
    if told["refused"] or told["broken"]:
        raise RuntimeError(f"{told['refused']} calls were refused, {told['broken']} broken")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    took = told["microseconds"] / 1e6
    load = after.ru_utime + after.ru_stime - mine.ru_utime - mine.ru_stime
    return Run(
        told["requests"],
        took,
        ground.cpu_seconds(server) - used,
        load / took,
        told["p50"] / 1e3,
        told["p99"] / 1e3,
    )


def devices_behind(data: Path, first: int, requests: int) -> int:
    """How many devices' last call is not in the database, two seconds after it at most."""
    time.sleep(2)
    least = first + requests // DEVICES - 1
    with contextlib.closing(sqlite3.connect(data / "doorward.sqlite3")) as database:
        statement = "SELECT count(*) FROM devices_presence WHERE seq >= ? AND last_seen IS NOT NULL"
        (kept,) = database.execute(statement, (least,)).fetchone()
    return DEVICES - int(kept)


@contextlib.contextmanager
def nginx(folder: Path, *, core: int) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """Yield the port and process of an nginx that answers everything at once."""
    port = ground.free_port()
    configuration = folder / "nginx.conf"
    configuration.write_text(
        f"""
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/nginx.log;
events {{ worker_connections 1024; }}
http {{
  access_log off; keepalive_requests 1000000000; default_type application/json;
  client_body_temp_path {folder}/nginx-body; proxy_temp_path {folder}/nginx-proxy;
  fastcgi_temp_path {folder}/nginx-fastcgi; uwsgi_temp_path {folder}/nginx-uwsgi;
  scgi_temp_path {folder}/nginx-scgi;
  server {{ listen 127.0.0.1:{port}; location / {{ return 200 '{"x" * ANSWER_BYTES}'; }} }}
}}
"""
    )
    with (folder / "nginx.out").open("wb") as out:
        process = ground.start(
            [shutil.which("nginx") or "nginx", "-c", str(configuration)],
            core=core,
            stdout=out,
            stderr=out,
        )
    try:
        ground.wait_until_open(f"http://127.0.0.1:{port}/", process, folder / "nginx.out")
        yield port, process
    finally:
        ground.stop(process)


def conclude(ours: list[Run], theirs: list[Run], rounds: int, seconds: int, *, quick: bool) -> int:
    """Print the table and what stands behind it."""

    def middle(runs: list[Run], of: str) -> float:
        return statistics.median(float(getattr(run, of)) for run in runs)

    cpu_us = 1e6 / middle(ours, "a_cpu_second")
    by, unit = "a_second", "calls/s"
    if middle(ours, "busy") < QUIET:
        by, unit = "a_cpu_second", "calls/CPU s"
    lines = [
        ground.Line(
            "check-in, state kept",
            f"{middle(ours, by):,.0f} {unit}",
            f"nginx return 200: {middle(theirs, by):,.0f}",
            ground.ratio([getattr(run, by) for run in ours], [getattr(run, by) for run in theirs]),
            GOAL,
        ),
        ground.Line(
            "CPU of a check-in",
            f"{cpu_us:.1f} us",
            f"{GOAL_CPU_US:.0f} us at most",
            GOAL_CPU_US / cpu_us,
            1.0,
            binding=False,
        ),
    ]
    notes = [
        f"busy: gateway {middle(ours, 'busy'):.0%}, nginx {middle(theirs, 'busy'):.0%},"
        f" wrk {middle(ours, 'load_busy'):.0%} and {middle(theirs, 'load_busy'):.0%}"
        + ("" if by == "a_second" else " (NOT A QUIET MACHINE: judged by processor time)"),
        f"by the clock: gateway {middle(ours, 'a_second'):,.0f}/s, nginx"
        f" {middle(theirs, 'a_second'):,.0f}/s, ratio"
        f" {middle(ours, 'a_second') / middle(theirs, 'a_second'):.2f}; by processor time:"
        f" {middle(ours, 'a_cpu_second'):,.0f}/s, {middle(theirs, 'a_cpu_second'):,.0f}/s, ratio"
        f" {middle(ours, 'a_cpu_second') / middle(theirs, 'a_cpu_second'):.2f}",
        f"latency at full load: gateway median {middle(ours, 'p50'):.1f} ms,"
        f" p99 {middle(ours, 'p99'):.1f} ms; nginx p99 {middle(theirs, 'p99'):.1f} ms",
        f"{DEVICES:,} devices, {CONNECTIONS} keep-alive connections, each device's last call found"
        f" in the database; median of {rounds} alternated rounds of {seconds} s",
    ]
    status = ground.report(lines, notes)
    return 0 if quick else status


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
