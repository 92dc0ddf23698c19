"""The real agent as a process that stays: joined to a server, at work, and asked how it is."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

import pytest
from tests.conftest import Server, agent

from doorward_agent import database, identity

# In two halves, so that no scanner takes this file for the test file itself.
EICAR: Final = r"X5O!P%@AP[4\PZX54(P^)7CC)7}$" + "EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"
PATIENCE_S: Final = 90.0


def until(true: Callable[[], bool], seconds: float = PATIENCE_S) -> float:
    """Wait until it is so; answer the seconds that took."""
    began = time.monotonic()
    while not true():
        if time.monotonic() - began > seconds:
            pytest.fail(f"not so within {seconds} s")
        time.sleep(0.05)
    return time.monotonic() - began


def enrolled(state: Path, server: Server, code: str) -> str:
    """Join the server by this code; answer the device's id."""
    done = agent(state, "enroll", "--server", server.device_url, "--code", code)
    assert done.returncode == 0, done.stderr
    found = identity.load(state)
    assert found is not None
    return found.device_id


def status(state: Path) -> dict[str, object]:
    """Return what the agent says of itself."""
    found = json.loads(agent(state, "status", "--json").stdout)
    assert isinstance(found, dict)
    return found


class Work(subprocess.Popen[bytes]):
    """The running agent, and whether the test killed it."""

    killed = False

    def kill(self) -> None:
        """End it without a chance to tidy up."""
        self.killed = True
        super().kill()


@contextmanager
def working_agent(
    state: Path, *words: str, connected: bool = True, schedule: bool = False
) -> Iterator[Work]:
    """Keep the real agent running meanwhile; it must end in good order unless the test killed it.

    Unless told that it need not be connected: from when a call of its waits at the server.
    """
    before = _calls(state)
    command = [sys.executable, "-m", "doorward_agent", "run", "--state", str(state), *words]
    with (state / "run.log").open("ab") as log:
        work = Work([*command, *([] if schedule else ["--no-schedule"])], stdout=log, stderr=log)
    try:
        if connected:
            until(lambda: work.poll() is not None or _is_connected(state, before))
        yield work
    finally:
        work.terminate()
        ended = work.wait(PATIENCE_S)
    assert ended == (-signal.SIGKILL if work.killed else 0), (state / "run.log").read_text()


def _calls(state: Path) -> tuple[int, int]:
    """How often it ever began to call, and when it was last answered."""
    with closing(database.open_in(state)) as db:
        return database.noted_int(db, "seq"), database.noted_int(db, "checked_in")


def _is_connected(state: Path, before: tuple[int, int]) -> bool:
    """Whether its second call since then has begun: the server holds it open, unlike the first."""
    calls, answered = _calls(state)
    return answered != before[1] and calls >= before[0] + 2
