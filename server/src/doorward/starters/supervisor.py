"""Starts the three processes together, starts again what falls over, and stops them together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

NAMES = ("portal", "gateway", "worker")
# People and devices wait for the doors, nobody for the worker's first round: it leaves them the
# processor while they open.
LATER = {"worker": 1.5}
# Longer than a door's own draining, so that it is killed only when it hangs.
STOP_SECONDS = 15.0
FIRST_PAUSE = 0.2
LONGEST_PAUSE = 30.0
# A child that lived this long had started well: its next restart is quick again.
STEADY_SECONDS = 30.0


def say(sentence: str) -> None:
    """Tell the person at the terminal."""
    sys.stderr.write(f"doorward: {sentence}\n")
    sys.stderr.flush()


@dataclass
class Child:
    """One process, named as its command, and how often it fell over lately."""

    name: str
    number: int = 1
    environment: Mapping[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    pause: float = FIRST_PAUSE
    due: float = field(default=0.0)

    def start(self) -> None:
        """Start it in a process group of its own, on a pipe that closes when we die."""
        self.process = subprocess.Popen(  # noqa: S603 - our own interpreter and words
            [sys.executable, "-m", "doorward", self.name],
            stdin=subprocess.PIPE,
            env={**os.environ, **self.environment, "DOORWARD_LEASH": "1"},
            start_new_session=True,
        )
        self.started = time.monotonic()

    def signal(self, number: int) -> None:
        """Tell its whole group."""
        if self.process is not None:
            try:
                os.killpg(self.process.pid, number)
            except ProcessLookupError:
                return

    def fell_over(self) -> bool:
        """Whether it ended by itself since the last look."""
        return self.process is not None and self.process.poll() is not None


class Supervisor:
    """Some children, by default the three, and whether they should run."""

    def __init__(self, say: Callable[[str], None], children: Sequence[Child] | None = None) -> None:
        self._children = [Child(name) for name in NAMES] if children is None else children
        self._stop = threading.Event()
        self._say = say

    def stop(self) -> None:
        """Let ``run`` end everything and return."""
        self._stop.set()

    def start(self) -> None:
        """Start all, the doors first."""
        for child in self._children:
            if child.name in LATER:
                child.due = time.monotonic() + LATER[child.name]
            else:
                child.start()

    def run(self) -> None:
        """Watch over the children until stopped; then stop them in good order."""
        try:
            while not self._stop.wait(0.1):
                for child in self._children:
                    self._look_after(child)
        finally:
            self._end()

    def _look_after(self, child: Child) -> None:
        now = time.monotonic()
        if child.fell_over() and child.process is not None:
            if now - child.started > STEADY_SECONDS:
                child.pause = FIRST_PAUSE
            self._say(
                f"{child.name} ended with status {child.process.returncode}; starting it again"
            )
            # Its workers, should any be left, would hold the port.
            child.signal(signal.SIGKILL)
            child.process = None
            child.due = now + child.pause
            child.pause = min(child.pause * 2, LONGEST_PAUSE)
        elif child.process is None and now >= child.due:
            child.start()

    def _end(self) -> None:
        for child in self._children:
            if child.process is not None and child.process.poll() is None:
                child.process.terminate()
        deadline = time.monotonic() + STOP_SECONDS
        for child in self._children:
            if child.process is None:
                continue
            try:
                child.process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                self._say(f"{child.name} did not stop in {STOP_SECONDS:.0f} s; ending it")
            child.signal(signal.SIGKILL)
            child.process.wait()


def wait_until_ready(addresses: list[str], *, seconds: float, alive: Callable[[], bool]) -> bool:
    """Return whether every address answered 200 in time, while ``alive`` held."""
    deadline = time.monotonic() + seconds
    for address in addresses:
        while True:
            try:
                with urllib.request.urlopen(address, timeout=2) as answer:  # nosec B310 # noqa: S310 - our own http address
                    if answer.status == 200:
                        break
            except (urllib.error.URLError, OSError):
                pass
            if time.monotonic() > deadline or not alive():
                return False
            time.sleep(0.05)
    return True
