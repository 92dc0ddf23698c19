# Why not pathlib: paths are bytes here, and the walk is the hot path.
# ruff: noqa: PTH110
"""Walk folders, skip what is known to be clean, have the rest looked at, and yield what was found.

    run = scan.run([b"/home"], config)
    for detection in run:
        ...
    run.summary

A run yields one `Detection` a file, with the gravest finding. No link is followed, nothing but
ordinary files is opened, and the kernel's own views (/proc, /sys, /dev), network mounts below the
start and the agent's own files are left out and counted. What could not be seen whole is told ("not
fully scanned"), never taken for clean.

Nothing heavy is imported until a file must really be read: a rescan of unchanged files costs little
more than the walk.
"""

import dataclasses
import os
import stat
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType

from doorward_agent import definitions, mounts
from doorward_agent.config import AgentConfig, prepare
from doorward_agent.engines import versions
from doorward_agent.inspection import (
    LONGEST_DETAIL,
    NOTES_KEPT,
    Detection,
    Inspection,
    Note,
    why_unreadable,
)
from doorward_agent.paths import own_places, readable

__all__ = [
    "LOGIC",
    "LONGEST_DETAIL",
    "NOTES_KEPT",
    "Detection",
    "Note",
    "NothingToScan",
    "Progress",
    "Run",
    "ScanSummary",
    "run",
    "version",
]

LOGIC = 5
"""Raised whenever the scanner itself sees more than before: what an older one found clean is then
looked at again."""


class NothingToScan(Exception):
    """A path that was asked for does not exist or may not be scanned; the message says which and
    why."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is."""

    files: int
    done: int
    """Of the files met so far, those with a verdict: read, or known clean."""
    bytes: int
    cached: int
    detections: int
    skipped: int
    errors: int
    seconds: float
    path: str


@dataclass(frozen=True, slots=True)
class ScanSummary:
    """What a run did. `clean` is claimed only for files that were seen whole or are remembered as
    such."""

    paths: tuple[str, ...]
    started_at: float
    ended_at: float
    files: int
    """Ordinary files met, whatever became of them."""
    scanned: int
    """Files read and looked at in this run."""
    bytes: int
    """Bytes of the files read."""
    cached: int
    """Files known to be clean and unchanged."""
    detections: int
    allowed: int
    """Files with a finding that a person has decided to keep."""
    skipped: dict[str, int]
    """Left out on purpose, by reason."""
    limited: dict[str, int]
    """Not fully scanned, by reason."""
    errors: dict[str, int]
    """Could not be scanned, by reason."""
    notes: tuple[Note, ...]
    """The first paths of each of these reasons."""
    definitions_version: str
    cancelled: bool

    @property
    def complete(self) -> bool:
        """Tell whether every file was seen whole."""
        return not (self.cancelled or self.limited or self.errors)


def run(
    paths: Iterable[str | bytes | os.PathLike[str]],
    config: AgentConfig,
    *,
    progress: Callable[[Progress], None] | None = None,
    cancel: Callable[[], bool] | None = None,
    remember: bool = True,
) -> "Run":
    """Return a run over files and folders; iterate over it to scan.

    `progress` is called at most every ``progress_interval`` seconds, `cancel` is asked between
    files. Without `remember` every file is read, whatever is known, and what is found clean is
    still remembered. Raises NothingToScan, config.StateUnusable, definitions.DefinitionsUnusable;
    while iterating engines.pool.EngineUnavailable.
    """
    prepare(config)
    return Run(
        tuple(_start(path) for path in paths),
        config,
        progress=progress,
        cancel=cancel,
        remember=remember,
    )


def with_second_engine(config: AgentConfig) -> tuple[AgentConfig, str]:
    """Return the configuration with the clamd that is there now, and the socket of one that should
    answer and does not ("" where that is not so)."""
    if not config.clamd or not any(os.path.exists(path) for path in config.clamd_sockets):
        return dataclasses.replace(config, clamd_version=""), ""
    from doorward_agent.engines import clamav  # only where a socket is there

    found = clamav.find(config)
    silent = "" if found is not None else clamav.socket_path(config) or ""
    return dataclasses.replace(config, clamd_version=found.version if found else ""), silent


def version(config: AgentConfig, found: definitions.DefinitionSet) -> str:
    """Return everything a verdict depends on, as text: definitions, engines (clamd as
    `with_second_engine` has found it), and the settings they work under."""
    seen_by = [
        f"logic {LOGIC}",
        f"definitions {found.version}",
        f"yara-x {versions.yara()}",
        # The unpackers are the standard library's.
        f"python {sys.version_info[0]}.{sys.version_info[1]}",
    ]
    if config.clamd_version:
        seen_by.append(f"clamd {config.clamd_version}")
    limits = (
        "window_bytes",
        "window_overlap_bytes",
        "archive_depth",
        "archive_member_bytes",
        "max_file_bytes",
        "open_archives",
    )
    seen_by.extend(f"{name} {getattr(config, name)}" for name in limits)
    return "\n".join(seen_by)


def _start(path: str | bytes | os.PathLike[str]) -> bytes:
    given = os.fsencode(path)
    # A link named by a person means its target; links met on the way are never followed.
    try:
        real = os.path.realpath(given)
        mode = os.lstat(real).st_mode
    except OSError as error:
        raise NothingToScan(
            f"{readable(given)}: {(error.strerror or 'unreadable').lower()}"
        ) from error
    except ValueError as error:
        raise NothingToScan(f"{readable(given)}: not a path") from error
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise NothingToScan(f"{readable(given)}: neither a file nor a folder")
    return real


class Run:
    """One scan from start to end; iterate once."""

    def __init__(
        self,
        starts: tuple[bytes, ...],
        config: AgentConfig,
        *,
        progress: Callable[[Progress], None] | None,
        cancel: Callable[[], bool] | None,
        remember: bool,
    ) -> None:
        self._starts = starts
        config, silent = with_second_engine(config)
        self._config = config
        self._progress = progress
        self._cancel = cancel
        self._remember = remember
        self._definitions = definitions.in_force(config.state_dir)
        self._inspection = Inspection(
            config,
            self._definitions,
            version=version(config, self._definitions),
            remember=remember,
        )
        self._counts = self._inspection.counts
        if silent:
            # It is here and should see every program and archive: they are not seen whole.
            self._counts.note(self._counts.limited, "clamav-away", os.fsencode(silent))
        self._mounts = self._inspection.mounts
        self._cancelled = False
        self._started_at = time.time()
        self._ended_at = 0.0
        self._began = time.monotonic()
        self._told = 0.0

    def __enter__(self) -> "Run":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def summary(self) -> ScanSummary:
        """Return what was done up to now; whole once the iteration has ended."""
        counts = self._counts
        return ScanSummary(
            paths=tuple(readable(start) for start in self._starts),
            started_at=self._started_at,
            ended_at=self._ended_at or time.time(),
            files=counts.files,
            scanned=counts.scanned,
            bytes=counts.bytes_read,
            cached=counts.cached,
            detections=counts.detections,
            allowed=counts.allowed,
            skipped=dict(counts.skipped),
            limited=dict(counts.limited),
            errors=dict(counts.errors),
            notes=tuple(counts.notes),
            definitions_version=self._definitions.version,
            cancelled=self._cancelled,
        )

    @property
    def cancelled(self) -> bool:
        """Tell whether somebody has cancelled."""
        return self._cancelled

    @property
    def worker_pids(self) -> list[int]:
        """Return the worker processes there are right now."""
        return self._inspection.worker_pids

    def close(self) -> None:
        """End the workers; a run that is not iterated to its end needs this."""
        self._inspection.close()

    def __iter__(self) -> Iterator[Detection]:
        try:
            for start in self._starts:
                yield from self._start(start)
            while self._inspection.outstanding and not self._cancelled:
                yield from self._collected(wait=True)
                self._tick()
        finally:
            self.close()
            self._ended_at = time.time()
            if self._progress is not None:
                self._tell(time.monotonic())

    def _start(self, start: bytes) -> Iterator[Detection]:
        left_out = mounts.not_entered(self._mounts, network=self._config.scan_network_mounts)
        own = own_places(self._config)
        for place in own:
            left_out[place] = "own-file"
        for excluded in self._config.excluded:
            left_out[os.path.realpath(os.fsencode(excluded))] = "excluded"
        # Whoever asks for a network folder by name wants it scanned; the others stay out even then.
        reason = mounts.barred(self._mounts, start, left_out)
        if reason:
            self._counts.note(self._counts.skipped, reason, start)
            return
        left_out.pop(start, None)
        try:
            found = os.lstat(start)
        except OSError as error:
            self._counts.note(self._counts.errors, why_unreadable(error), start)
            return
        if stat.S_ISDIR(found.st_mode):
            yield from self._walk(start, left_out)
        else:
            self._counts.files += 1
            if not self._inspection.known(start, found):
                yield from self._look(start, found)

    def _walk(self, start: bytes, left_out: dict[bytes, str]) -> Iterator[Detection]:
        """The inner loop: everything in it runs once for each file there is."""
        counts = self._counts
        trusted = self._inspection.trusted
        known_clean = self._inspection.verdicts.known_clean
        remember = self._remember
        files_left_out = bool(self._config.excluded)
        waiting = [start]
        while waiting:
            folder = waiting.pop()
            self._inspection.here = folder
            self._tick()
            if self._cancelled:
                return
            files = cached = 0
            misses: list[tuple[bytes, os.stat_result, bool]] = []
            try:
                with os.scandir(folder) as entries:
                    for entry in entries:
                        if entry.is_file(follow_symlinks=False):
                            try:
                                found = entry.stat(follow_symlinks=False)
                            except OSError as error:
                                # It went meanwhile, or its path is too long: the others are there.
                                counts.note(counts.errors, why_unreadable(error), entry.path)
                                continue
                            files += 1
                            if files_left_out and entry.path in left_out:
                                counts.note(counts.skipped, left_out[entry.path], entry.path)
                            elif remember and trusted.get(found.st_dev) and known_clean(found):
                                cached += 1
                            else:
                                misses.append((entry.path, found, found.st_dev not in trusted))
                        elif entry.is_dir(follow_symlinks=False):
                            path = entry.path
                            if path in left_out:
                                counts.note(counts.skipped, left_out[path], path)
                                waiting.extend(mounts.files_within(self._mounts, path, left_out))
                            else:
                                waiting.append(path)
                        else:
                            counts.skipped["link" if entry.is_symlink() else "special"] += 1
            except OSError as error:
                counts.note(counts.errors, why_unreadable(error), folder)
            counts.files += files
            counts.cached += cached
            for path, found, unasked in misses:
                # The first folder on a device: only now is it known whether verdicts count there.
                if unasked and self._inspection.known(path, found):
                    continue
                yield from self._look(path, found)
                if self.cancelled:
                    return

    def _look(self, path: bytes, listed: os.stat_result) -> Iterator[Detection]:
        """Hand one file to the workers, collecting answers while they are busy."""
        while self._inspection.full:
            yield from self._collected(wait=True)
            self._tick()
            if self._cancelled:
                return
        if self._inspection.look(path, listed) and self._inspection.heard:
            yield from self._collected(wait=False)

    def _collected(self, *, wait: bool) -> Iterator[Detection]:
        timeout = self._config.progress_interval if wait else 0.0
        for seen in self._inspection.collected(timeout):
            if seen.detection is not None:
                yield seen.detection

    def _tick(self) -> None:
        """Between files: has somebody cancelled, is it time to tell how far we are?"""
        if self._cancel is not None and not self._cancelled and self._cancel():
            self._cancelled = True
        if self._progress is not None:
            now = time.monotonic()
            if now - self._told >= self._config.progress_interval:
                self._tell(now)

    def _tell(self, now: float) -> None:
        assert self._progress is not None  # noqa: S101 (for the type checker: callers have looked)
        self._told = now
        counts = self._counts
        self._progress(
            Progress(
                files=counts.files,
                done=counts.scanned + counts.cached,
                bytes=counts.bytes_read,
                cached=counts.cached,
                detections=counts.detections,
                skipped=counts.skipped.total(),
                errors=counts.errors.total() + counts.limited.total(),
                seconds=now - self._began,
                path=readable(self._inspection.here),
            )
        )
