# Why not pathlib: paths are bytes here.
"""The work of real-time protection: hear of a change, look at the file, deal with what is found.

One thread does it all, turn by turn; a gate, where there is one, answers in a thread of its own.
Nothing that was written is forgotten: while the workers are busy it waits here, while this process
is busy in the kernel's queue, and when one of them runs over, everything that changed since is
looked for.
"""

import contextlib
import dataclasses
import logging
import os
import select
import stat
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Final

import msgspec

from doorward_agent import definitions, mounts, policy, protection, scan, verdicts
from doorward_agent.config import AgentConfig, prepare
from doorward_agent.inspection import Detection, Inspection, Seen
from doorward_agent.paths import is_within, readable
from doorward_agent.protection import RealTimeStatus
from doorward_agent.realtime import fanotify, gate, places
from doorward_agent.realtime.fanotify import Change, Overflow
from doorward_agent.realtime.gate import Gate, Question
from doorward_protocol.settings import Settings

if TYPE_CHECKING:
    from doorward_agent.realtime.changes import FolderWatch

log = logging.getLogger("doorward_agent")

_MARGIN: Final = 2.0
"""File systems stamp a change by a clock that ticks some milliseconds behind; seconds."""
_REMEMBERED: Final = 10_000
_NAMED: Final = 5


Deal = Callable[[Detection, str, bool], bool]
"""Deal with a detection found under a version of definitions, put away or only told; tells whether
the file is gone from its place."""


class Watch:
    """Real-time protection by some settings, until they change or it is closed."""

    def __init__(
        self,
        config: AgentConfig,
        *,
        deal: Deal,
        tell: Callable[[RealTimeStatus], None],
        since: float | None = None,
        is_own: Callable[[int], bool] = gate.is_own,
    ) -> None:
        """Prepare; nothing is watched before `apply`.

        `since` (seconds since 1970): what has changed from then on is looked for first.
        """
        prepare(config)
        self._base = config
        self._deal = deal
        self._tell = tell
        self._since = since
        self._is_own = is_own
        self._woken, self._wakes = os.pipe()
        os.set_blocking(self._woken, False)
        os.set_blocking(self._wakes, False)
        self.status = RealTimeStatus()
        self._settings = Settings()
        self._config = config
        self._places = places.Places(folders=())
        self._inspection: Inspection | None = None
        self._opened_at = 0.0
        self._definitions = ""
        self._kernel: fanotify.FilesystemWatch | None = None
        self._others: list[FolderWatch] = []
        self._deaf = ""
        self._closers: list[Callable[[], None]] = []
        self._gate: Gate | None = None
        self._mounts: int = -1
        self._questions: deque[Question] = deque()
        self._backlog: OrderedDict[bytes, bool] = OrderedDict()
        self._sweeps: deque[Iterator[bytes]] = deque()
        # From when on changes are to be looked for that found no room above; seconds since 1970.
        self._behind: float | None = None
        self._flying: set[bytes] = set()
        self._again: set[bytes] = set()
        self._asked: dict[int, Question] = {}
        self._told: OrderedDict[tuple[bytes, str], float] = OrderedDict()
        self._caught_up = time.time()
        self._worked_at = time.monotonic()
        self._pause = 0.0
        self._quiet_until = 0.0
        self._checked_at = 0.0

    # ---------------------------------------------------------------------------- start and stop

    def apply(self, version: int, settings: Settings) -> RealTimeStatus:
        """Watch as these settings say, from now on; tells and returns what came of it."""
        since = self._caught_up if self.status.state != "off" else self._since
        self._since = None
        self._stop()
        self._settings = settings
        self._config = dataclasses.replace(
            policy.limits(self._base, settings),
            # A person waits for what was just written; the process itself steps back a little.
            low_priority=False,
        )
        self.status = RealTimeStatus(settings=version)
        if settings.real_time.mode == "off":
            return self._say(state="off", reason=protection.OFF_BY_SETTINGS)
        self._places = places.chosen(settings.real_time, self._config)
        if not self._places.folders:
            return self._say(state="off", reason="none of the folders to watch is here")
        try:
            self._open()
            problems = self._listen()
        except (fanotify.Unavailable, OSError, definitions.DefinitionsUnusable) as problem:
            self._stop()
            return self._say(state="off", reason=str(problem) or type(problem).__name__)
        if since is not None:
            self._sweeps.append(_changed(self._places.folders, since - _MARGIN))
        missing = [f"not here: {', '.join(self._places.missing[:_NAMED])}"]
        reasons = [*problems, *(missing if self._places.missing else [])]
        by = {(True, False): "fanotify", (False, True): "changes", (True, True): "both"}
        return self._say(
            state="partly" if problems else "on",
            by=by[self._kernel is not None, bool(self._others)],
            reason="; ".join(reasons),
            folders=len(self._places.folders),
            gated=len(self._places.gated) if self._gate else 0,
        )

    def close(self) -> None:
        """Watch nothing any more."""
        self._stop()
        os.close(self._woken)
        os.close(self._wakes)

    def _say(self, **changed: object) -> RealTimeStatus:
        self.status = msgspec.structs.replace(self.status, **changed)
        self._tell(self.status)
        return self.status

    def _open(self) -> None:
        found = definitions.in_force(self._base.state_dir)
        self._config, silent = scan.with_second_engine(self._config)
        if silent:
            log.warning("clamd does not answer at %s: watching without it", silent)
        if self._inspection is not None:
            self._inspection.close()
        self._inspection = Inspection(
            self._config, found, version=scan.version(self._config, found), wake=self.wake
        )
        self._definitions = found.version
        self._opened_at = time.monotonic()

    def _listen(self) -> list[str]:
        """Have the system tell us of changes; returns what it could not do, in words."""
        problems: list[str] = []
        folders = list(self._places.folders)
        table = mounts.mounted()
        # Before the marks: a file system mounted in between is noticed after them.
        if os.path.exists("/proc/self/mountinfo"):  # noqa: PTH110 - text
            self._mounts = os.open("/proc/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
        left = folders
        try:
            self._kernel = fanotify.FilesystemWatch(folders, table)
            left = self._kernel.unmarked
            why = ""
        except fanotify.Unavailable as problem:
            why = f"fanotify is not to be had: {problem}"
        if left:
            self._watch_otherwise(left)
        if self._places.gated:
            if self._kernel is None:
                problems.append(f"opening is not held back: {why}")
            else:
                self._hold_back(problems)
        return problems

    def _watch_otherwise(self, folders: list[bytes]) -> None:
        from doorward_agent.realtime.changes import FolderWatch  # only where it is needed

        watch = FolderWatch(folders, wake=self.wake, most=self._config.watch_backlog)
        self._others.append(watch)
        self._closers.append(watch.close)

    def _hold_back(self, problems: list[str]) -> None:
        found = definitions.in_force(self._base.state_dir)
        # A table of the gate's own: one is not for two threads.
        known = verdicts.open(self._config, scan.version(self._config, found))
        table = mounts.mounted()
        trusted: dict[int, bool] = {}

        def known_clean(path: bytes, facts: os.stat_result) -> bool:
            if facts.st_dev not in trusted:
                trusted[facts.st_dev] = mounts.can_remember(table, device=facts.st_dev, path=path)
            return trusted[facts.st_dev] and known.known_clean(facts)

        def ask(question: Question) -> None:
            self._questions.append(question)
            self.wake()

        try:
            self._gate = Gate(
                self._places,
                seconds=self._config.gate_seconds,
                most=self._config.gate_most,
                is_own=self._is_own,
                known_clean=known_clean,
                ask=ask,
            )
        except fanotify.Unavailable as problem:
            known.close()
            problems.append(f"opening is not held back: {problem}")
            return
        self._closers.append(known.close)
        if self._gate.unmarked:
            some = ", ".join(self._gate.unmarked[:_NAMED])
            problems.append(f"opening is not held back in {some}")

    def _stop(self) -> None:
        # The gate first: whoever waits goes on.
        if self._gate is not None:
            self._gate.close()
            self._gate = None
        while self._questions:
            os.close(self._questions.popleft().descriptor)
        self._asked.clear()
        if self._kernel is not None:
            self._kernel.close()
            self._kernel = None
        for close in self._closers:
            close()
        self._closers.clear()
        self._others.clear()
        self._deaf = ""
        if self._mounts >= 0:
            os.close(self._mounts)
            self._mounts = -1
        if self._inspection is not None:
            self._inspection.close()
            self._inspection = None
        for path in self._flying | self._again:
            self._backlog[path] = False
        self._flying.clear()
        self._again.clear()

    def wake(self) -> None:
        """Have `turn` return; from any thread, and from a signal's handler."""
        # A full pipe wakes as well as one more byte.
        with contextlib.suppress(BlockingIOError, OSError):
            os.write(self._wakes, b"x")

    # ------------------------------------------------------------------------------- turn by turn

    @property
    def busy(self) -> bool:
        """Tell whether something is still to be looked at."""
        waiting = self._backlog or self._sweeps or self._questions or self._behind is not None
        return bool(waiting or self._flying or self._asked)

    def turn(self, *, most: float | None = None, also: int = -1) -> bool:
        """Wait for something to do, at most `most` seconds, and do it.

        Tells whether the descriptor `also` is readable.
        """
        poll = select.poll()
        poll.register(self._woken, select.POLLIN)
        if also >= 0:
            poll.register(also, select.POLLIN)
        if self._kernel is not None:
            poll.register(self._kernel, select.POLLIN)
        if self._mounts >= 0:
            poll.register(self._mounts, select.POLLPRI | select.POLLERR)
        patience = self._patience(most)
        ready = {number for number, _ in poll.poll(patience)}
        if self._woken in ready:
            with contextlib.suppress(BlockingIOError):
                while os.read(self._woken, 4096):
                    pass
        if self._mounts in ready:
            self._mounted()
        self._hear()
        self._refresh()
        self._work()
        return also in ready

    def _patience(self, most: float | None) -> int | None:
        """Return the milliseconds to wait; None for as long as it takes."""
        now = time.monotonic()
        limits = [] if most is None else [most]
        broken = self._quiet_until - now
        if broken > 0:
            limits.append(broken)
        elif self._inspection is not None:
            if (self._backlog or self._sweeps or self._questions) and not self._inspection.full:
                return 0
            if self._inspection.outstanding:
                limits.append(1.0)  # so that a worker that hangs is noticed
            elif self._inspection.worker_pids and self._gate is None:
                limits.append(self._worked_at + self._config.watch_rest - now)
        return None if not limits else max(0, int(min(limits) * 1000) + 1)

    def _hear(self) -> None:
        """Take in what the system tells."""
        sources: list[Callable[[], Iterable[Change | Overflow]]] = []
        if self._kernel is not None:
            sources.append(self._kernel.changes)
        sources.extend(other.changes for other in self._others)
        began = time.time()
        missed: list[float] = []
        for changes in sources:
            for change in changes():
                if isinstance(change, Overflow):
                    missed.append(self._caught_up if change.since is None else change.since)
                else:
                    self._heard(change)
        if missed:
            log.warning("something was written that the system did not tell: looking for it")
            self._sweeps.append(_changed(self._places.folders, min(missed) - _MARGIN))
            self._say(overflows=self.status.overflows + 1)
        self._caught_up = began
        self._say_whether_deaf()

    def _say_whether_deaf(self) -> None:
        """Where nothing is heard of changes any more, or again, tell it."""
        deaf = next((why for other in self._others if (why := other.problem)), "")
        if deaf == self._deaf:
            return
        self._deaf = deaf
        log.warning("watching for changes: %s", deaf or "again")
        if deaf:
            told = f"changes are not heard: {readable(deaf)[:200]}"
            self._say(state="partly" if self._kernel is not None else "off", reason=told)
        else:
            self.apply(self.status.settings, self._settings)

    def _heard(self, change: Change) -> None:
        path = change.path
        if not self._places.holds(path):
            return
        if change.is_folder:
            if self._gate is not None and self._places.gates(path):
                self._gate.cover(path)
            # What is new here may hold files that were written elsewhere, or before it was watched.
            if len(self._sweeps) < self._config.watch_sweeps:
                self._sweeps.append(_changed((path,), 0.0))
            else:
                self._fall_behind(0.0)
        elif path in self._flying:
            self._again.add(path)
        elif path in self._backlog or len(self._backlog) < self._config.watch_backlog:
            self._backlog[path] = self._backlog.get(path, True) and change.is_new
        else:
            with contextlib.suppress(OSError):  # else whoever wrote it has taken it away again
                self._fall_behind(os.lstat(path).st_ctime)

    def _fall_behind(self, since: float) -> None:
        """Remember from when on to look for what finds no room here; said once until it is done."""
        if self._behind is None:
            log.warning("more was written than can wait here: it will be looked for")
            self._behind = since
            self._say(overflows=self.status.overflows + 1)
        self._behind = min(self._behind, since)

    def _mounted(self) -> None:
        """Something was mounted below a watched folder, perhaps: watch it too."""
        table = mounts.mounted()
        if self._inspection is not None:
            self._inspection.mounts = table
            self._inspection.trusted.clear()
        if self._kernel is not None and (new := self._kernel.extend(table)):
            with contextlib.suppress(OSError):
                self._watch_otherwise(new)

    def _refresh(self) -> None:
        """Take new definitions, and now and then a fresh look at what is remembered."""
        now = time.monotonic()
        if self._inspection is None or self._flying or self._asked:
            return
        if now - self._worked_at > self._config.watch_rest and self._gate is None:
            self._inspection.rest()
        if now - self._checked_at < self._config.watch_check or not self.busy:
            return
        self._checked_at = now
        with contextlib.suppress(definitions.DefinitionsUnusable):
            is_new = definitions.in_force(self._base.state_dir).version != self._definitions
            if is_new and self._gate is not None:
                self.apply(self.status.settings, self._settings)
            elif is_new or now - self._opened_at > self._config.watch_reopen:
                self._open()

    def _work(self) -> None:
        if self._inspection is None or time.monotonic() < self._quiet_until:
            self._let_go()
            return
        # By name: the pool is loaded by the first file that is read.
        try:
            self._collect()
            self._hand_out()
        except Exception as problem:
            if type(problem).__name__ != "EngineUnavailable":
                raise
            self._broke(str(problem))

    def _hand_out(self) -> None:
        inspection = self._inspection
        if inspection is None:
            return
        while self._questions and not inspection.full:
            question = self._questions.popleft()
            job = inspection.submit(question.path, question.descriptor, question.found)
            self._asked[id(job)] = question
            self._worked_at = time.monotonic()
        if self._behind is not None and len(self._backlog) <= self._config.watch_backlog // 2:
            self._sweeps.append(_changed(self._places.folders, self._behind - _MARGIN))
            self._behind = None
        self._sweep(inspection, self._config.sweep_share)
        while self._backlog and not inspection.full:
            path, is_new = self._backlog.popitem(last=False)
            self._look(inspection, path, is_new=is_new)
        self._sweep(inspection, self._config.sweep_step)

    def _sweep(self, inspection: Inspection, budget: int) -> None:
        """Hand over so many files of what is looked through."""
        while self._sweeps and not inspection.full and budget:
            budget -= 1
            path = next(self._sweeps[0], b"")
            if not path:
                self._sweeps.popleft()
            elif self._places.holds(path):
                self._look(inspection, path, is_new=False)

    def _look(self, inspection: Inspection, path: bytes, *, is_new: bool) -> None:
        if path in self._flying:
            self._again.add(path)
            return
        try:
            found = os.lstat(path)
        except OSError:
            return  # whoever wrote it has taken it away again
        if not stat.S_ISREG(found.st_mode) or (is_new and not found.st_size):
            return
        if inspection.known(path, found):
            return
        self._flying.add(path)
        self._worked_at = time.monotonic()
        if not inspection.look(path, found):
            self._flying.discard(path)

    def _collect(self) -> None:
        if self._inspection is None:
            return
        for seen in self._inspection.collected(0.0):
            self._worked_at = time.monotonic()
            if self._pause:
                self._pause = 0.0
                self.apply(self.status.settings, self._settings)
                return
            self._judge(seen)

    def _judge(self, seen: Seen) -> None:
        question = self._asked.pop(id(seen.job), None)
        path = seen.job.path
        if question is None:
            self._flying.discard(path)
        elif self._gate is not None:
            self._gate.answer(question.number, allow=seen.detection is None)
        if seen.detection is not None:
            self._found(seen.detection)
        if path in self._again and question is None:
            self._again.discard(path)
            self._backlog[path] = False

    def _found(self, detection: Detection) -> None:
        key = (detection.location, detection.sha256)
        now = time.monotonic()
        told = self._told.get(key)
        if told is not None and now - told < self._config.watch_repeat:
            return
        put_away = self._settings.real_time.mode == "quarantine"
        gone = self._deal(detection, self._definitions, put_away)
        self._say(found=self.status.found + 1)
        if not gone:
            # It is still there, and would be told again at each touch.
            self._told[key] = now
            self._told.move_to_end(key)
            while len(self._told) > _REMEMBERED:
                self._told.popitem(last=False)

    # ----------------------------------------------------------------------------------- trouble

    def _broke(self, why: str) -> None:
        """The engine can't be had: tell it, keep what is to be looked at, and try again later."""
        log.error("real-time protection: %s", why)
        self._pause = min(max(self._pause * 2, 1.0), self._config.watch_pause)
        self._quiet_until = time.monotonic() + self._pause
        for path in self._flying | self._again:
            self._backlog[path] = False
        self._flying.clear()
        self._again.clear()
        if self._inspection is not None:
            self._inspection.rest()
        self._let_go()
        self._say(state="off", reason=f"the engine can't be started: {readable(why)[:200]}")

    def _let_go(self) -> None:
        """Nobody waits for an engine that is not there."""
        while self._questions:
            question = self._questions.popleft()
            os.close(question.descriptor)
            if self._gate is not None:
                self._gate.answer(question.number, allow=True)
        if self._quiet_until > time.monotonic():
            for question in self._asked.values():
                if self._gate is not None:
                    self._gate.answer(question.number, allow=True)
            self._asked.clear()


def _changed(folders: Iterable[bytes], since: float) -> Iterator[bytes]:
    """Yield the ordinary files in these folders that have changed since then (seconds since 1970).

    By the change time, which nobody but the kernel sets. No link is followed.
    """
    table = mounts.mounted()
    refused = mounts.not_entered(table, network=False)
    waiting = list(folders)
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        if entry.path not in refused or is_within(entry.path, tuple(folders)):
                            waiting.append(entry.path)
                    # One that goes meanwhile, or whose path is too long, hides none of the others.
                    elif entry.is_file(follow_symlinks=False) and _has_changed(entry, since):
                        yield entry.path
        except OSError:
            continue


def _has_changed(entry: os.DirEntry[bytes], since: float) -> bool:
    try:
        facts = entry.stat(follow_symlinks=False)
    except OSError:
        return False
    return max(facts.st_ctime, facts.st_mtime) >= since
