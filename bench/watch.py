"""Real-time protection: how long a bad file lives, what watching costs, and that nothing is lost.

A real agent (`run`, as root, with fanotify) watches one folder; the test file is written into it
again and again. The clock starts before the file is opened for writing and stops when its name is
gone: written, seen, looked at, put away encrypted and flushed, noted for the server. For idleness
the processor time of `run` and of everything it has started is counted, while nothing is written
into the watched folder (what the rest of the machine writes to the same file system is heard, and
put aside by its path).
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import psutil

from bench.scan import Row, report
from doorward_agent import database, identity, policy, protection
from doorward_agent.config import AgentConfig, prepare
from doorward_agent.definitions.build import eicar
from doorward_protocol.settings import RealTime, Settings

LIVES_MS = 50.0
IDLE_PERCENT = 0.1
PATIENCE_S = 30.0
OTHERWISE = """
import sys
from doorward_agent import __main__
from doorward_agent.realtime import fanotify

def refuse(flags):
    raise fanotify.Unavailable("for this measurement")

fanotify.begin = refuse
sys.exit(__main__.main(sys.argv[1:]))
"""


def main(argv: list[str]) -> int:
    """Measure and print the table; 1 when a limit is missed, 2 on wrong use."""
    parser = argparse.ArgumentParser(prog="doorward bench watch", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round: does it run at all?")
    parser.add_argument("--writes", type=int, default=200)
    parser.add_argument("--idle", type=float, default=60.0, metavar="SECONDS")
    options = parser.parse_args(argv)
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        print("bench watch: fanotify takes Linux and root", file=sys.stderr)
        return 2
    writes = 10 if options.quick else options.writes
    idle = 3.0 if options.quick else options.idle
    # A start's own cost must not count for a quick look at idleness.
    limits = not options.quick
    return report(
        _measured(writes, idle, limits=limits), f"{writes} writes one by one, {idle:.0f} s idle"
    )


def _measured(writes: int, idle: float, *, limits: bool) -> Iterator[Row]:
    with _watching() as (folder, agent):
        lives = _lives(folder, writes)
        yield _of_lives("written, then quarantined, by fanotify", lives, limits=limits)
        lost, took = _many(folder, writers=20, each=max(1, writes // 20))
        yield Row(
            f"20 writers at once, {max(1, writes // 20)} bad files each: not quarantined",
            f"{lost} of {20 * max(1, writes // 20)}",
            f"all gone after {took:.1f} s",
            float(lost),
            0.0,
        )
        watch = _child_of(agent, "watch")
        yield Row(
            "memory of the watching process, unique",
            f"{watch.memory_full_info().uss / 2**20:.0f} MiB",
            "and of its worker "
            + ", ".join(
                f"{worker.memory_full_info().uss / 2**20:.0f} MiB" for worker in watch.children()
            ),
        )
        used = _used(agent, idle)
        yield Row(
            "idle, run and all it has started",
            f"{used / idle:.3%} of one core",
            f"limit {IDLE_PERCENT} %",
            used / idle * 100 / IDLE_PERCENT,
            1.0 if limits else None,
        )
    with _watching(OTHERWISE, "watch") as (folder, agent):
        lives = _lives(folder, max(5, writes // 4))
        yield _of_lives("the same by watching for changes", lives, limits=False)
        used = _used(agent, idle / 2)
        yield Row(
            "idle, watching for changes",
            f"{used / (idle / 2):.3%} of one core",
            f"limit {IDLE_PERCENT} %",
            used / (idle / 2) * 100 / IDLE_PERCENT,
        )


def _of_lives(what: str, lives: list[float], *, limits: bool) -> Row:
    ordered = sorted(lives)
    middle, p95 = statistics.median(ordered), ordered[int(len(ordered) * 0.95) - 1]
    return Row(
        what,
        f"p50 {middle:.1f} ms, p95 {p95:.1f} ms, most {ordered[-1]:.1f} ms",
        f"limit {LIVES_MS:.0f} ms",
        p95 / LIVES_MS,
        1.0 if limits else None,
    )


@contextlib.contextmanager
def _watching(program: str = "", command: str = "run") -> Iterator[tuple[Path, psutil.Process]]:
    """Yield a watched folder and the agent that watches it, once it does."""
    home = Path(tempfile.mkdtemp(prefix="dw-bench-watch-"))
    state, folder = home / "state", home / "watched"
    state.mkdir(mode=0o700)
    folder.mkdir()
    config = AgentConfig(state_dir=state)
    prepare(config)
    # Enrolled with a server that is away: findings are noted for it, as they are in earnest.
    identity.key_or_new(state)
    identity.save(
        state,
        identity.Identity(
            server="https://127.0.0.1:9", state="enrolled", device_id="0" * 8, wait=50
        ),
    )
    settings = Settings(real_time=RealTime(usual_places=False, folders=(os.fspath(folder),)))
    db = database.open_in(state)
    policy.receive(db, 1, msgspec.json.encode(settings))
    words = ["-c", program] if program else ["-m", "doorward_agent"]
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, *words, command, "--state", os.fspath(state)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE if command == "watch" else log,
            stderr=log,
        )
    try:
        end = time.monotonic() + PATIENCE_S
        while not _is_on(process, db, command):
            if time.monotonic() > end or process.poll() is not None:
                raise RuntimeError((home / "log").read_text())
            time.sleep(0.05)
        # The first file starts the engine: not what is measured.
        _lives(folder, 3)
        yield folder, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        db.close()
        shutil.rmtree(home, ignore_errors=True)


def _is_on(process: subprocess.Popen[bytes], db: object, command: str) -> bool:
    if command == "watch":
        told = process.stdout.readline() if process.stdout else b""
        return b'"on"' in told
    found = protection.real_time(db)  # type: ignore[arg-type]  # opened above
    return found is not None and found.state == "on"


def _lives(folder: Path, count: int) -> list[float]:
    """Write the test file again and again; return how long each was there, in milliseconds."""
    found = []
    for number in range(count):
        path = os.fspath(folder / f"invoice-{number}.com")
        content = eicar()
        began = time.perf_counter()
        with open(path, "wb") as target:  # noqa: PTH123 - timed
            target.write(content)
        while os.access(path, os.F_OK):
            if time.perf_counter() - began > PATIENCE_S:
                raise RuntimeError(f"{path} is still there")
            time.sleep(0.0005)
        found.append((time.perf_counter() - began) * 1000)
    return found


def _many(folder: Path, *, writers: int, each: int) -> tuple[int, float]:
    """Write from many threads at once, each into a folder it makes; return how many stayed."""

    def write(number: int) -> None:
        own = folder / f"writer-{number}"
        own.mkdir()
        for turn in range(each):
            (own / f"{turn}.com").write_bytes(eicar())
            (own / f"{turn}.txt").write_text(f"Dear Bob, {number} {turn}")

    began = time.monotonic()
    threads = [threading.Thread(target=write, args=(number,)) for number in range(writers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    while (left := len(list(folder.rglob("*.com")))) and time.monotonic() - began < PATIENCE_S:
        time.sleep(0.05)
    return left, time.monotonic() - began


def _child_of(agent: psutil.Process, word: str) -> psutil.Process:
    return next(child for child in agent.children() if word in child.cmdline())


def _used(agent: psutil.Process, seconds: float) -> float:
    """Return the processor time that the agent and all below it use while nothing happens."""
    time.sleep(2.0)
    before = _total(agent)
    time.sleep(seconds)
    return _total(agent) - before


def _total(agent: psutil.Process) -> float:
    used = 0.0
    for member in (agent, *agent.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = member.cpu_times()
            used += times.user + times.system
    return used


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
