"""The scanner: what a rescan costs beside a bare walk, how fast the first scan is, and its memory.

The corpus is real files of this machine, read where they are; nothing is put into quarantine and no
server is told. The limit of the rescan is a bare walk in the same run: `os.scandir` and one
`os.lstat` a file, timed inside this process, so without the start of an interpreter, which the
rescan has to pay. Walk and rescan take turns.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench import ground

FILES_WANTED = 20_000
CORPUS = ("/usr/include", "/usr/lib/python3", "/usr/share", "/usr/lib")
"""Folders of every Debian, taken in turn until there are enough files."""

RESCAN_LIMIT = 3.0
AGENT_MIB = 45.0
WORKER_MIB = 130.0


@dataclass(frozen=True)
class Row:
    """What was measured, beside what, and the limit it has to keep; no limit where none is set."""

    what: str
    figure: str
    peer: str
    value: float | None = None
    limit: float | None = None

    @property
    def holds(self) -> bool:
        """Whether the limit is kept."""
        return self.limit is None or (self.value is not None and self.value <= self.limit)


def main(argv: list[str]) -> int:
    """Measure and print the table; 1 when a limit is missed, 2 on wrong use."""
    parser = argparse.ArgumentParser(prog="doorward bench scan", description=__doc__)
    parser.add_argument("folders", nargs="*", metavar="DIR", help="scan these instead")
    parser.add_argument("--quick", action="store_true", help="one round: does it run at all?")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args(argv)
    rounds = 1 if options.quick else max(1, options.rounds)
    folders = options.folders or _corpus()
    for folder in folders:
        if not Path(folder).is_dir():
            print(f"bench scan: {folder} is no folder", file=sys.stderr)
            return 2
    count = _walk(folders)
    if count < FILES_WANTED and not options.quick:
        print(
            f"bench scan: {count:,} files are too few; {FILES_WANTED:,} are wanted", file=sys.stderr
        )
        return 2
    state = Path(tempfile.mkdtemp(prefix="dw-bench-scan-"))
    try:
        return report(
            _measure(folders, state, rounds), f"corpus: {count:,} names in {', '.join(folders)}"
        )
    finally:
        shutil.rmtree(state, ignore_errors=True)


def _corpus() -> list[str]:
    chosen: list[str] = []
    for folder in CORPUS:
        if Path(folder).is_dir():
            chosen.append(folder)
            if _walk(chosen) >= FILES_WANTED:
                break
    return chosen


def _measure(folders: list[str], state: Path, rounds: int) -> Iterator[Row]:
    # Read everything once, so that the disk is in no figure.
    megabytes, alone = _read_and_hash(folders)
    first, memory = _first_scan(folders, state)
    speed = first["bytes"] / 1e6 / first["seconds"]
    yield Row(
        "first scan, everything read",
        f"{first['read']:,.0f} files, {speed:.0f} MB/s",
        f"reading and hashing alone {megabytes / alone:.0f} MB/s",
        first["seconds"] / alone,
    )
    yield _clamdscan(folders, first["seconds"])

    _settled(folders, state)
    again = json.loads(_scanned(folders, state, "--json"))
    known = again["known_clean"] / max(1, again["files"])
    walks, rescans = ground.alternate(
        rounds, lambda: _timed_walk(folders), lambda: _timed_scan(folders, state)
    )
    yield Row(
        f"rescan, whole process, {known:.1%} known clean",
        f"{statistics.median(rescans) * 1000:.0f} ms",
        f"bare walk with lstat {statistics.median(walks) * 1000:.0f} ms",
        ground.ratio(rescans, walks),
        RESCAN_LIMIT,
    )

    known = _killed_and_scanned_again(folders, state)
    walks, rescans = ground.alternate(
        max(1, rounds // 3), lambda: _timed_walk(folders), lambda: _timed_scan(folders, state)
    )
    yield Row(
        f"rescan after kill -9 of a scan, {known:.1%} known clean",
        f"{statistics.median(rescans) * 1000:.0f} ms",
        f"bare walk with lstat {statistics.median(walks) * 1000:.0f} ms",
        ground.ratio(rescans, walks),
        RESCAN_LIMIT,
    )
    yield Row(
        "memory of the scanning agent, most",
        f"{memory.agent:.0f} MiB",
        f"limit {AGENT_MIB:.0f} MiB",
        memory.agent / AGENT_MIB,
        1.0,
    )
    yield Row(
        "memory of its worker with the engine, most",
        f"{memory.worker:.0f} MiB",
        f"limit {WORKER_MIB:.0f} MiB",
        memory.worker / WORKER_MIB,
        1.0,
    )


# ---------------------------------------------------------------------------------------- the walk


def _walk(folders: list[str]) -> int:
    """The least any scanner must do: see every name and ask for the facts of every file."""
    files = 0
    waiting = list(folders)
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    else:
                        os.lstat(entry.path)
                        files += 1
        except OSError:
            continue
    return files


def _timed_walk(folders: list[str]) -> float:
    began = time.perf_counter()
    _walk(folders)
    return time.perf_counter() - began


def _read_and_hash(folders: list[str]) -> tuple[float, float]:
    """Return megabytes and seconds of reading and hashing alone, the second time."""
    figures = (0.0, 0.0)
    for _ in range(2):
        began = time.perf_counter()
        total = 0
        for folder in folders:
            for here, _, names in os.walk(folder):
                for name in names:
                    path = Path(here, name)
                    if path.is_symlink() or not path.is_file():
                        continue
                    try:
                        content = path.read_bytes()
                    except OSError:
                        continue
                    hashlib.sha256(content).digest()
                    total += len(content)
        figures = (total / 1e6, time.perf_counter() - began)
    return figures


# --------------------------------------------------------------------------------------- the agent


def _command(folders: list[str], state: Path, *options: str) -> list[str]:
    return [
        sys.executable,
        "-m",
        "doorward_agent",
        "scan",
        "--state",
        os.fspath(state),
        "--no-quarantine",
        "--no-report",
        "--full-speed",
        *options,
        *folders,
    ]


def _scanned(folders: list[str], state: Path, *options: str) -> str:
    told = subprocess.run(
        _command(folders, state, *options), capture_output=True, text=True, check=False
    )
    if told.returncode not in {0, 1}:
        raise RuntimeError(f"the scan failed: {told.stderr[-2000:]}")
    return told.stdout


def _timed_scan(folders: list[str], state: Path) -> float:
    began = time.perf_counter()
    _scanned(folders, state)
    return time.perf_counter() - began


@dataclass
class Memory:
    """The most resident memory seen, in MiB."""

    agent: float = 0.0
    worker: float = 0.0


def _first_scan(folders: list[str], state: Path) -> tuple[dict[str, float], Memory]:
    """Scan with nothing known, with one worker's memory watched."""
    began = time.perf_counter()
    process = subprocess.Popen(
        _command(folders, state, "--json"), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    memory = Memory()
    done = threading.Event()
    watcher = threading.Thread(target=_watch, args=(process.pid, memory, done))
    watcher.start()
    told, _ = process.communicate()
    seconds = time.perf_counter() - began
    done.set()
    watcher.join()
    result = json.loads(told)
    return {"seconds": seconds, "read": result["read"], "bytes": result["bytes"]}, memory


def _watch(pid: int, memory: Memory, done: threading.Event) -> None:
    """Note the high-water marks the kernel keeps, as long as the processes live."""
    while not done.wait(0.05):
        try:
            memory.agent = max(memory.agent, _most(pid))
            for child in psutil.Process(pid).children():
                memory.worker = max(memory.worker, _most(child.pid))
        except (OSError, psutil.Error):
            continue


def _most(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return 0.0


def _settled(folders: list[str], state: Path) -> None:
    """Scan once more: what had changed less than two seconds before the first is known then."""
    _scanned(folders, state)


def _killed_and_scanned_again(folders: list[str], state: Path) -> float:
    """Kill a scan that writes into the table; return which share is known clean afterwards."""
    for wait in (0.05, 0.1, 0.2):
        process = subprocess.Popen(
            _command(folders, state), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            process.wait(wait)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        process.wait()
    told = json.loads(_scanned(folders, state, "--json"))
    return float(told["known_clean"] / max(1, told["files"]))


def _clamdscan(folders: list[str], seconds: float) -> Row:
    """The same corpus through clamd, where it is installed and runs."""
    program = shutil.which("clamdscan")
    if program is None:
        return Row("first scan", f"{seconds:.1f} s", "clamdscan is not installed")
    began = time.perf_counter()
    told = subprocess.run(
        [program, "--multiscan", "--fdpass", "--quiet", *folders], capture_output=True, check=False
    )
    if told.returncode == 2:
        return Row("first scan", f"{seconds:.1f} s", "clamdscan does not reach a clamd")
    theirs = time.perf_counter() - began
    return Row("first scan", f"{seconds:.1f} s", f"clamdscan {theirs:.1f} s", seconds / theirs)


# --------------------------------------------------------------------------------------- the table


def report(rows: Iterator[Row], about: str) -> int:
    """Print the table and what it is about; 1 when a limit is missed."""
    head = ("what", "figure", "peer or limit", "ratio", "limit", "")
    kept = list(rows)
    table = [
        (
            row.what,
            row.figure,
            row.peer,
            "" if row.value is None else f"{row.value:.2f}",
            "" if row.limit is None else f"<= {row.limit:.2f}",
            "" if row.limit is None else ("ok" if row.holds else "MISSED"),
        )
        for row in kept
    ]
    widths = [max(len(line[column]) for line in (head, *table)) for column in range(len(head))]
    for line in (head, *table):
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        )
    print(about)
    print(f"machine: {ground.machine()}")
    return 0 if all(row.holds for row in kept) else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
