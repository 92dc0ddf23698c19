"""The scanner: what a rescan costs beside a bare walk, how fast the first scan is, and its memory.

The corpus is real files of this machine, read where they are; nothing is put into quarantine and no
server is told. The limit of the rescan is a bare walk in the same run: `os.scandir` and one
`os.lstat` a file, timed inside this process, so without the start of an interpreter, which the
rescan has to pay. Walk and rescan take turns.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import resource
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
from doorward.protection.definitions import joining
from doorward.protection.definitions.importers import clamav, reading
from doorward_agent import definitions
from doorward_protocol import hash_list

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
    parser.add_argument(
        "--clamd", action="store_true", help="only beside a clamd with the same signatures"
    )
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
        measured = (_beside_clamd if options.clamd else _measure)(folders, state, rounds)
        return report(measured, f"corpus: {count:,} names in {', '.join(folders)}")
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


# ------------------------------------------------------------------------------------ beside clamd

PATTERNS, HASHES = 10_000, 1_000_000
FULL_LIMIT, RESCAN_BESIDE_LIMIT = 1 / 3, 1 / 30
PARSERS = (
    "ScanPE", "ScanELF", "ScanOLE2", "ScanPDF", "ScanHTML", "ScanMail", "ScanArchive", "ScanSWF",
    "ScanXMLDOCS", "ScanHWP3", "ScanOneNote", "ScanImage",
)  # fmt: skip


def _beside_clamd(folders: list[str], home: Path, rounds: int) -> Iterator[Row]:
    """The same corpus and the same signatures through both: all processors, one after the other.

    The clamd is one of our own, with Debian's program and defaults, started for this.
    """
    program = shutil.which("clamd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None or shutil.which("clamdscan") is None:
        yield Row("beside clamd", "not measured", "apt install clamav-daemon clamdscan")
        return
    state = home / "state"
    state.mkdir(mode=0o700)
    signatures = home / "clamd"
    _same_signatures(state, signatures)
    _read_and_hash(folders)
    ours, busy, memory = _beside(folders, state, rounds)
    for parsers in (True, False):
        with _clamd(program, signatures, home, parsers=parsers) as process:
            theirs, used, again = _asked_clamd(folders, home, process, rounds)
            what = "" if parsers else ", clamd's parsers off"
            yield Row(
                f"full scan, 10k patterns + 1M hashes{what}",
                f"{ours:.1f} s ({busy:.1f} s of processor)",
                f"clamdscan {theirs:.1f} s ({used:.1f} s)",
                ours / theirs,
                FULL_LIMIT if parsers else None,
            )
            most = _most(process.pid)
            if not parsers:
                continue
            _settled(folders, state)
            mine = [_timed_scan(folders, state) for _ in range(rounds)]
            yield Row(
                "unchanged rescan beside a warm clamd",
                f"{statistics.median(mine) * 1000:.0f} ms",
                f"clamdscan {again:.1f} s",
                statistics.median(mine) / again,
                RESCAN_BESIDE_LIMIT,
            )
            yield Row(
                "memory while scanning",
                f"agent {memory.agent:.0f} MiB, each worker {memory.worker:.0f} MiB",
                f"clamd {most:.0f} MiB",
            )


def _same_signatures(state: Path, signatures: Path) -> None:
    """Write one set twice: as our agent holds it, and as clamd reads it."""
    chance = random.Random(7)  # noqa: S311 - protects nothing: the same signatures each time
    ours = state / definitions.FOLDER / "sets" / "many"
    shutil.copytree(
        definitions.BUNDLED, ours, ignore=shutil.ignore_patterns("*.py", "__pycache__", "tuf*")
    )
    (ours.parent.parent / definitions.CURRENT).write_text("many")
    signatures.mkdir()
    bodies = [chance.randbytes(chance.randint(12, 32)).hex() for _ in range(PATTERNS)]
    lines = "".join(f"MANY_{number}:0:*:{body}\n" for number, body in enumerate(bodies))
    (signatures / "many.ndb").write_text(lines)
    # As the server imports and gives out such a file.
    feed = reading.Feed()
    clamav.read_bodies(lines, "many.ndb", feed)
    if feed.refused:
        raise RuntimeError(f"{len(feed.refused)} of the signatures are refused")
    (ours / "many.rules").write_text(json.dumps(joining.joined(feed.rules)))
    digests = [chance.randbytes(32) for _ in range(HASHES)]
    named = ((digest, f"many {number % 1000}") for number, digest in enumerate(digests))
    (ours / "known.hashes").write_bytes(hash_list.build(named))
    with (signatures / "many.hsb").open("w") as target:
        target.writelines(
            f"{digest.hex()}:*:many-{number % 1000}:73\n" for number, digest in enumerate(digests)
        )
    (ours / "VERSION").write_text(f"2026.11.22 {definitions.digest(os.fspath(ours))}\n")


@contextlib.contextmanager
def _clamd(
    program: str, signatures: Path, home: Path, *, parsers: bool
) -> Iterator[subprocess.Popen[bytes]]:
    """Yield a clamd of our own that is ready: its defaults, its database ours."""
    configuration = home / "clamd.conf"
    lines = [
        f"LocalSocket {home / 'clamd.sock'}",
        f"DatabaseDirectory {signatures}",
        "Foreground yes",
        *([] if parsers else [f"{name} no" for name in PARSERS]),
    ]
    configuration.write_text("\n".join(lines) + "\n")
    for folder in (home, signatures):
        folder.chmod(0o755)
    with (home / "clamd.log").open("wb") as log:
        process = subprocess.Popen(
            [program, "-c", os.fspath(configuration)], stdout=log, stderr=log
        )
    try:
        end = time.monotonic() + 120
        while not (home / "clamd.sock").exists():
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError((home / "clamd.log").read_text()[-2000:])
            time.sleep(0.1)
        yield process
    finally:
        process.terminate()
        process.wait()
        (home / "clamd.sock").unlink(missing_ok=True)


def _asked_clamd(
    folders: list[str], home: Path, process: subprocess.Popen[bytes], rounds: int
) -> tuple[float, float, float]:
    """Return the seconds of its first scan, the processor's, and those of scans when it is warm."""
    command = ["clamdscan", "-c", os.fspath(home / "clamd.conf"), "--multiscan", "--fdpass"]

    def scan() -> float:
        began = time.perf_counter()
        told = subprocess.run(
            [*command, "--quiet", *folders], stdout=subprocess.DEVNULL, check=False
        )
        # 2: something could not be opened, as everywhere in a real tree.
        if told.returncode == 1:
            raise RuntimeError("clamd has found something in a corpus without anything to find")
        return time.perf_counter() - began

    before = sum(psutil.Process(process.pid).cpu_times()[:2])
    first = scan()
    used = sum(psutil.Process(process.pid).cpu_times()[:2]) - before
    return first, used, statistics.median([scan() for _ in range(max(1, rounds // 3))])


def _beside(folders: list[str], state: Path, rounds: int) -> tuple[float, float, Memory]:
    """Return the seconds of our scan with nothing known, the processor's, and the memory."""
    seconds, busy, memory = [], [], Memory()
    for _ in range(max(1, rounds // 3)):
        shutil.rmtree(state / "verdicts", ignore_errors=True)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        first, seen = _first_scan(folders, state)
        memory = Memory(max(memory.agent, seen.agent), max(memory.worker, seen.worker))
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(first["seconds"])
        busy.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return statistics.median(seconds), statistics.median(busy), memory


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
