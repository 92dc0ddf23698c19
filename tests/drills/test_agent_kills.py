"""Kill -9 the real agent while it scans, notes and delivers to the real server.

Nothing that was found is lost, and nothing is told twice.
"""

from __future__ import annotations

import itertools
import json
import random
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest
from tests.agent_at_work import EICAR, enrolled, working_agent
from tests.conftest import Server, agent
from tests.journeys.people import Alice

KILLS = 20
FILES = 30
PATIENCE_S = 60

pytestmark = pytest.mark.slow

# Finds one imagined file after the other, says so once it is noted, and never ends by itself.
FINDER = """
import os, sys, time
from pathlib import Path
from doorward_agent import database, events, findings, scan
from doorward_agent.config import AgentConfig
config = AgentConfig(state_dir=Path(sys.argv[1]))
db = database.open_in(config.state_dir)
teller = findings.Teller(config=config, db=db, scan_uid=events.new_uid(), name="Drill",
                         scheduled=False, paths=("/home",), start_time=int(time.time() * 1000))
teller.begin("2026.11.22")
number = 0
while True:
    number += 1
    path = f"/home/{os.getpid()}/{number}"
    found = scan.Detection(path=path, location=path.encode(), member="", sha256="0" * 64, size=1,
        rule="DW-TEST-0001", title="Drill", reason="", engine="yara", severity="low", kind="test",
        also=(), found_at=time.time(), device=1, inode=1, mtime_ns=1)
    uid = teller.found(found, "2026.11.22", quarantine=False)
    os.write(1, f"{uid}\\n".encode())
    teller.settled(uid, found, findings.Outcome(action="detected"), "2026.11.22")
"""


@pytest.fixture
def state(own_server: Server, tmp_path: Path) -> Path:
    """The state folder of an agent that was enrolled with a real server."""
    folder = tmp_path / "agent"
    with closing(Alice(own_server, "alice@example.org")) as alice:
        enrolled(folder, own_server, alice.codes()[0])
    return folder


def begin(*words: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def kill(process: subprocess.Popen[bytes]) -> bytes:
    """Kill -9; answer everything the process had said."""
    process.kill()
    said, _ = process.communicate()
    return said


def until_delivered(state: Path) -> None:
    """Let the agent run until nothing waits and nothing is unfinished."""
    left = (-1, -1)
    with working_agent(state):
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            db = sqlite3.connect(state / "agent.db")
            left = db.execute(
                "SELECT (SELECT count(*) FROM event), (SELECT count(*) FROM intent)"
            ).fetchone()
            db.close()
            if left == (0, 0):
                return
            time.sleep(0.1)
    pytest.fail(f"not delivered within {PATIENCE_S} s: {left}")


def on_the_server(server: Server) -> Counter[str]:
    """How often each finding is stored."""
    db = sqlite3.connect(server.data / "doorward.sqlite3")
    rows = db.execute("SELECT uid FROM reports_detection").fetchall()
    db.close()
    return Counter(str(row[0]).replace("-", "") for row in rows)


def test_d03_killed_20_times_while_noting_and_20_times_while_delivering(
    own_server: Server, state: Path
) -> None:
    luck = random.Random(20)  # noqa: S311 - the same drill each time
    found: list[str] = []
    for _ in range(KILLS):
        finder = begin("-c", FINDER, str(state))
        work = begin("-m", "doorward_agent", "run", "--no-schedule", "--state", str(state))
        time.sleep(luck.uniform(0.3, 1.2))
        found += kill(finder).decode().split()
        time.sleep(luck.uniform(0, 0.3))
        kill(work)
    until_delivered(state)
    stored = on_the_server(own_server)
    assert len(found) > 10 * KILLS, "the drill hardly began"
    assert [uid for uid in found if stored[uid.replace("-", "")] != 1] == []
    # A process may be killed after noting and before saying so: one more for each kill at most.
    assert len(stored) - len(found) <= KILLS
    assert max(stored.values()) == 1


def test_d03_killed_20_times_in_a_scan_every_file_is_put_away_and_told_once(
    own_server: Server, state: Path, tmp_path: Path
) -> None:
    luck = random.Random(3)  # noqa: S311 - the same drill each time
    home = tmp_path / "home"
    home.mkdir()
    # Each is the test file with other white space behind it, so that no two are equal.
    for number, ending in zip(range(FILES), itertools.product(" \t\r\n", repeat=3), strict=False):
        (home / f"file{number}").write_text(EICAR + "".join(ending), newline="")
    with working_agent(state):
        for _ in range(KILLS):
            scanning = begin("-m", "doorward_agent", "scan", str(home), "--state", str(state))
            time.sleep(luck.uniform(0.15, 0.7))
            kill(scanning)
        last = agent(state, "scan", str(home))
    assert last.returncode in {0, 1}, last.stderr
    until_delivered(state)
    assert list(home.iterdir()) == []
    held = json.loads(agent(state, "quarantine", "list", "--json").stdout)
    assert len(held["files"]) == FILES
    assert held["damaged"] == []
    db = sqlite3.connect(own_server.data / "doorward.sqlite3")
    paths = [row[0] for row in db.execute("SELECT path FROM reports_detection")]
    db.close()
    assert sorted(paths) == sorted(str(home / f"file{number}") for number in range(FILES))
