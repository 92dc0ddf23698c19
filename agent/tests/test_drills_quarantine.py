"""Kill -9 the agent while it scans, puts away and brings back: no file is lost or half-moved."""

import collections
import dataclasses
import errno
import itertools
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from doorward_agent import allowed, folders, packages, quarantine, scan, vault
from doorward_agent.config import AgentConfig
from doorward_agent.definitions.build import eicar

KILLS = 20
FILES = 40

AGENT = """
import dataclasses, os, sys
from pathlib import Path
from doorward_agent import allowed, packages, quarantine, scan
from doorward_agent.config import AgentConfig
state, home = Path(sys.argv[1]), sys.argv[2]
config = AgentConfig(state_dir=state, workers=1, clamd=False, verdict_settle_ns=0)
# Reading the package lists takes most of the time and changes nothing: kill where things move.
packages.DPKG_LISTS = b"/nonexistent"
quarantine.recover(config)
config.allowed_file.unlink(missing_ok=True)
sys.stdout.write("scanning\\n")
sys.stdout.flush()
while True:
    for record in quarantine.list_records(config)[::2]:
        quarantine.restore(config, record.id)
        allowed.remove(config, record.sha256, location=record.location)
    for detection in scan.run([home], config):
        quarantine.put_away(detection, config)
        if sys.argv[3] == "moving":
            sys.stdout.write("moving\\n")
            sys.stdout.flush()
"""


def _fill(home: Path) -> dict[str, bytes]:
    # Each file is the test file with other white space behind it, so that no two are equal.
    endings = itertools.product(b" \t\r\n", repeat=4)
    wanted = {}
    for number, ending in zip(range(FILES), endings, strict=False):
        wanted[f"file-{number:03}"] = eicar() + bytes(ending)
    for number in range(FILES * 5):
        wanted[f"letter-{number:03}"] = f"Dear Bob, this is letter {number}.\n".encode() * 50
    for name, content in wanted.items():
        (home / name).write_bytes(content)
        (home / name).chmod(0o600)
    return wanted


def _in_vault(config: AgentConfig) -> dict[str, bytes]:
    key = (config.quarantine_dir / "key").read_bytes()
    found = {}
    for record in quarantine.list_records(config):
        opened = vault.Opened(key, os.fspath(config.quarantine_dir / "vault" / f"{record.id}.dwq"))
        content = b"".join(opened.pieces())
        opened.close()
        name = os.fsdecode(record.location).rpartition("/")[2]
        assert name not in found, f"{name} is in the vault twice"
        found[name] = content
    return found


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["scanning", "moving"])
def test_d03_killed_twenty_times_every_file_is_in_its_place_or_in_the_vault(
    stage: str, config: AgentConfig, home: Path
) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    chance = random.Random(seed)  # noqa: S311 (moments to kill at, not secrets)
    wanted = _fill(home)
    outcomes: collections.Counter[str] = collections.Counter()
    for kill in range(KILLS):
        agent = subprocess.Popen(  # noqa: S603 (our own program)
            [sys.executable, "-c", AGENT, os.fspath(config.state_dir), os.fspath(home), stage],
            stdout=subprocess.PIPE,
        )
        assert agent.stdout is not None
        assert agent.stdout.readline() == b"scanning\n"
        if stage == "moving":
            assert agent.stdout.readline() == b"moving\n"
        try:
            agent.wait(timeout=chance.uniform(0.0, 0.25))
        except subprocess.TimeoutExpired:
            agent.kill()
        agent.wait()
        agent.stdout.close()
        assert agent.returncode == -9, "the agent ended by itself"

        interrupted = quarantine.recover(config)
        outcomes.update(f"{one.operation} {one.outcome}" for one in interrupted)
        in_place = {path.name: path.read_bytes() for path in home.iterdir()}
        away = _in_vault(config) if (config.quarantine_dir / "key").exists() else {}
        told = f"kill {kill} of seed {seed}"
        assert not set(in_place) & set(away), f"{told}: in both places"
        assert {**in_place, **away} == wanted, told
        assert list((config.quarantine_dir / "held").iterdir()) == [], told
        assert list((config.quarantine_dir / "journal").iterdir()) == [], told
    if stage == "moving":
        assert outcomes, f"no kill of seed {seed} hit a move"
    config.allowed_file.unlink(missing_ok=True)
    # And what was left can be finished as if nothing had happened.
    for detection in scan.run([home], config):
        quarantine.put_away(detection, config)
    assert len(_in_vault(config)) == FILES


STEPS = frozenset(("open", "os.rename", "os.remove", "os.link", "os.mkdir", "os.rmdir"))
"""Audit events of everything that changes, or opens, a file."""


def _killed_at(step: int, act: Callable[[], object]) -> bool:
    """Run an act in a process that kills itself before its nth step; tell whether it got there."""
    child = os.fork()
    if child == 0:
        left = step

        def count(event: str, _arguments: tuple[object, ...]) -> None:
            nonlocal left
            if event in STEPS:
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(count)
        try:
            act()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def _states(config: AgentConfig, home: Path) -> tuple[dict[str, bytes], dict[str, bytes]]:
    away = _in_vault(config) if (config.quarantine_dir / "key").exists() else {}
    return {path.name: path.read_bytes() for path in home.iterdir()}, away


def _as_it_is(detection: scan.Detection, path: Path) -> scan.Detection:
    found = path.stat()
    return dataclasses.replace(detection, device=found.st_dev, inode=found.st_ino)


@pytest.mark.parametrize("far", [False, True], ids=["same file system", "another file system"])
def test_d03_killed_at_any_step_of_putting_away_nothing_is_lost(
    far: bool,
    config: AgentConfig,
    eicar_file: Path,
    detection: scan.Detection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if far:
        real_move = folders.HeldFolder.move
        away_from = config.quarantine_dir / "held"

        def move(
            self: folders.HeldFolder, name: bytes, target: folders.Folder, new_name: bytes
        ) -> None:
            found = away_from.stat()
            if target.identity == (found.st_dev, found.st_ino):
                raise OSError(errno.EXDEV, "Invalid cross-device link")
            real_move(self, name, target, new_name)

        monkeypatch.setattr(folders.HeldFolder, "move", move)
    monkeypatch.setattr(packages, "DPKG_LISTS", b"/nonexistent")
    outcomes: set[str] = set()
    for step in itertools.count(1):
        found = _as_it_is(detection, eicar_file)
        killed = _killed_at(step, partial(quarantine.put_away, found, config))
        outcomes.update(one.outcome for one in quarantine.recover(config))
        in_place, away = _states(config, eicar_file.parent)
        assert {**in_place, **away} == {eicar_file.name: eicar()}, step
        assert len(in_place) + len(away) == 1, step
        assert list((config.quarantine_dir / "held").iterdir()) == [], step
        assert list((config.quarantine_dir / "journal").iterdir()) == [], step
        assert not list((config.quarantine_dir / "vault").glob("*.new")), step
        for record in quarantine.list_records(config):
            quarantine.restore(config, record.id)
            allowed.remove(config, record.sha256, location=record.location)
        if not killed:
            break
    assert step > 15
    assert outcomes == {"finished", "taken-back"}


def test_d03_killed_at_any_step_of_bringing_back_nothing_is_lost(
    config: AgentConfig, eicar_file: Path, detection: scan.Detection
) -> None:
    record = quarantine.put_away(detection, config)
    outcomes: set[str] = set()
    for step in itertools.count(1):
        killed = _killed_at(step, partial(quarantine.restore, config, record.id))
        outcomes.update(one.outcome for one in quarantine.recover(config))
        in_place, away = _states(config, eicar_file.parent)
        assert {**in_place, **away} == {eicar_file.name: eicar()}, step
        assert len(in_place) + len(away) == 1, step
        assert list((config.quarantine_dir / "journal").iterdir()) == [], step
        # Allowed exactly when it is back.
        assert allowed.holds(config, record.sha256, record.location) == bool(in_place), step
        if in_place:
            assert eicar_file.stat().st_mtime_ns == record.mtime_ns
            allowed.remove(config, record.sha256, location=record.location)
            record = quarantine.put_away(_as_it_is(detection, eicar_file), config)
        if not killed:
            break
    assert step > 10
    assert outcomes == {"finished", "taken-back"}
