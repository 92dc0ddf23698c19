# Why not pathlib: descriptors and paths as bytes.
# ruff: noqa: PTH115, PTH123
"""Holds back the opening of files in chosen folders until they were looked at; Linux, as root.

A computer must never hang for this. Every question is answered in time, by a thread that does
nothing else: at once for the agent's own processes and for what is known to be clean, else with the
verdict, and with "go on" where that is not there within `gate_seconds`. Only the chosen folders are
marked, one by one, never a whole file system. When this process ends, however it ends, the kernel
lets everything go on.
"""

import contextlib
import os
import select
import stat
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from doorward_agent.paths import readable
from doorward_agent.realtime import fanotify
from doorward_agent.realtime.places import Places

_MASK = fanotify.OPEN_PERM | fanotify.ON_CHILD


@dataclass(frozen=True, slots=True)
class Question:
    """Somebody waits to open this file; answer it with `Gate.answer`, once."""

    number: int
    path: bytes
    descriptor: int
    """A copy of our own: whoever takes the question closes it."""
    found: os.stat_result


class Gate:
    """The folders where opening waits, and the thread that answers."""

    def __init__(
        self,
        places: Places,
        *,
        seconds: float,
        most: int,
        is_own: Callable[[int], bool],
        known_clean: Callable[[bytes, os.stat_result], bool],
        ask: Callable[[Question], None],
    ) -> None:
        """Hold back from now on. Raises fanotify.Unavailable.

        The last three are called in the gate's own thread, and answer at once: whether a process
        never waits, whether a file is known; `ask` only notes the question.
        At most `most` questions wait at one time, none for longer than `seconds`.
        """
        self._places = places
        self._seconds = seconds
        self._most = most
        self._is_own = is_own
        self._known_clean = known_clean
        self._ask = ask
        self._group = fanotify.begin(fanotify.CLASS_CONTENT)
        self._lock = threading.Lock()
        self._waiting: dict[int, tuple[int, float]] = {}
        self._number = 0
        self.late = 0
        """Opens that went on without a verdict, because none came in time."""
        self.unmarked: list[str] = []
        """Folders that could not be marked, as safe text."""
        self._stop, self._stopped = os.pipe()
        self._thread = threading.Thread(target=self._serve, name="doorward-gate", daemon=True)
        # Before the marks: from the first of them on, somebody may wait.
        self._thread.start()
        for folder in places.gated:
            self.cover(folder)

    def cover(self, folder: bytes) -> None:
        """Hold back in this folder and all that are in it, as far as they belong to the gate."""
        for each in _folders(folder):
            if not self._places.gates(each):
                continue
            try:
                fanotify.mark(self._group, each, _MASK)
            except FileNotFoundError:
                continue
            except OSError:
                if len(self.unmarked) < 20:
                    self.unmarked.append(readable(each))

    def answer(self, number: int, *, allow: bool) -> None:
        """Let the open go on or refuse it; one that was answered already stays as it was."""
        with self._lock:
            waiting = self._waiting.pop(number, None)
            if waiting is not None:
                self._reply(waiting[0], allow=allow)

    def close(self) -> None:
        """Let everything go on and hold back nothing any more."""
        with contextlib.suppress(OSError):
            os.write(self._stopped, b"x")
        self._thread.join(timeout=5.0)
        with self._lock:
            if self._group < 0:
                return
            for descriptor, _ in self._waiting.values():
                self._reply(descriptor, allow=True)
            self._waiting.clear()
            os.close(self._group)
            self._group = -1
        os.close(self._stop)
        os.close(self._stopped)

    # ------------------------------------------------------------------------- the thread's part

    def _serve(self) -> None:
        poll = select.poll()
        poll.register(self._group, select.POLLIN)
        poll.register(self._stop, select.POLLIN)
        while True:
            ready = [number for number, _ in poll.poll(self._patience())]
            if self._stop in ready:
                return
            self._give_up_late()
            if self._group in ready:
                for asked in fanotify.questions(self._group):
                    self._decide(asked)

    def _patience(self) -> int | None:
        """Return the milliseconds until the oldest question has waited long enough."""
        with self._lock:
            if not self._waiting:
                return None
            first = min(until for _, until in self._waiting.values())
        return max(0, int((first - time.monotonic()) * 1000) + 1)

    def _give_up_late(self) -> None:
        now = time.monotonic()
        with self._lock:
            for number in [key for key, (_, until) in self._waiting.items() if until <= now]:
                self._reply(self._waiting.pop(number)[0], allow=True)
                self.late += 1

    def _decide(self, asked: fanotify.Asked) -> None:
        question = None
        # Whatever is wrong here, the computer goes on.
        with contextlib.suppress(OSError, ValueError):
            question = self._question(asked)
        if question is None:
            with self._lock:
                self._reply(asked.descriptor, allow=True)
            return
        with self._lock:
            self._waiting[question.number] = (asked.descriptor, time.monotonic() + self._seconds)
        self._ask(question)

    def _question(self, asked: fanotify.Asked) -> Question | None:
        """Return what must be looked at first, None for what may go on at once."""
        if self._is_own(asked.pid) or len(self._waiting) >= self._most:
            return None
        found = os.fstat(asked.descriptor)
        if not stat.S_ISREG(found.st_mode) or not found.st_size:
            return None
        path = os.readlink(b"/proc/self/fd/%d" % asked.descriptor)
        if not self._places.gates(path) or self._known_clean(path, found):
            return None
        self._number += 1
        return Question(self._number, path, os.dup(asked.descriptor), found)

    def _reply(self, descriptor: int, *, allow: bool) -> None:
        with contextlib.suppress(OSError):
            fanotify.answer(self._group, descriptor, allow=allow)
        with contextlib.suppress(OSError):
            os.close(descriptor)


def is_own(pid: int) -> bool:
    """Tell whether a process is this agent's: this one, `run` above it, or begun by either."""
    ours = {os.getpid(), os.getppid()} - {0, 1}
    for _ in range(8):
        if pid in ours:
            return True
        pid = _parent(pid)
        if pid <= 1:
            return False
    return False


def _parent(pid: int) -> int:
    """Return the parent of a process, 0 where it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as source:
            told = source.read()
    except OSError:
        return 0
    # proc(5): the name in brackets may hold anything, brackets too.
    return int(told[told.rindex(b")") + 2 :].split()[1])


def _folders(start: bytes) -> Iterator[bytes]:
    """Yield a folder and every one in it; no link is followed."""
    waiting = [start]
    while waiting:
        folder = waiting.pop()
        yield folder
        try:
            with os.scandir(folder) as entries:
                waiting.extend(
                    entry.path for entry in entries if entry.is_dir(follow_symlinks=False)
                )
        except OSError:
            continue
