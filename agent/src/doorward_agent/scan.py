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

import errno
import os
import stat
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING

from doorward_agent import definitions, mounts, verdicts
from doorward_agent.config import AgentConfig, prepare
from doorward_agent.engines import versions
from doorward_agent.paths import own_places, readable

if TYPE_CHECKING:
    from doorward_agent.engines import Hit
    from doorward_agent.engines.pool import Done, Pool

LOGIC = 4
"""Raised whenever the scanner itself sees more than before: what an older one found clean is then
looked at again."""

NOTES_KEPT = 200
"""How many paths are kept for each kind of note; the counts are always whole."""

LONGEST_DETAIL = 200

_SEVERITIES = ("informational", "low", "medium", "high", "critical")
_OPEN_FLAGS = (
    os.O_RDONLY
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_BINARY", 0)
)
_NO_ACCESS_TIME = getattr(os, "O_NOATIME", 0)


class NothingToScan(Exception):
    """A path that was asked for does not exist or may not be scanned; the message says which and
    why."""


@dataclass(frozen=True, slots=True)
class Detection:
    """One file in which something was found."""

    path: str
    """The path as text that is safe to show and send."""
    location: bytes
    """The path as it is on disk."""
    member: str
    """Where inside an archive, as safe text; empty for the file itself."""
    sha256: str
    """Of the whole file, also when a member was the reason."""
    size: int
    rule: str
    title: str
    reason: str
    engine: str
    severity: str
    """informational, low, medium, high or critical."""
    kind: str
    also: tuple[str, ...]
    """Other rules that hit the same file."""
    found_at: float
    """Seconds since 1970, UTC."""
    device: int
    inode: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Note:
    """A file that was not, or not wholly, looked at."""

    path: str
    reason: str
    """The word it is counted under."""
    detail: str = ""
    """What else is known, as safe text."""


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


@dataclass(slots=True)
class _Counts:
    files: int = 0
    scanned: int = 0
    bytes_read: int = 0
    cached: int = 0
    detections: int = 0
    allowed: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    limited: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    notes: list[Note] = field(default_factory=list)

    def note(self, among: Counter[str], reason: str, path: bytes, detail: str = "") -> None:
        among[reason] += 1
        if among[reason] <= NOTES_KEPT:
            self.notes.append(Note(readable(path), reason, readable(detail)[:LONGEST_DETAIL]))


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


def version(config: AgentConfig, found: definitions.DefinitionSet) -> str:
    """Return everything a verdict depends on, as text: definitions, engines, and the settings they
    work under."""
    seen_by = [
        f"logic {LOGIC}",
        f"definitions {found.version}",
        f"yara-x {versions.yara()}",
        # The unpackers are the standard library's.
        f"python {sys.version_info[0]}.{sys.version_info[1]}",
    ]
    if config.clamd and any(os.path.exists(path) for path in config.clamd_sockets):
        from doorward_agent.engines import clamav  # only where a socket is there

        clamd = clamav.find(config)
        if clamd is not None:
            seen_by.append(f"clamd {clamd.version}")
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
        self._config = config
        self._progress = progress
        self._cancel = cancel
        self._remember = remember
        self._definitions = definitions.current()
        self._counts = _Counts()
        self._pool: Pool | None = None
        self._trusted: dict[int, bool] = {}
        self._mounts = mounts.mounted()
        self._cancelled = False
        self._here = b""
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
        return [] if self._pool is None else self._pool.pids

    def close(self) -> None:
        """End the workers; a run that is not iterated to its end needs this."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def __iter__(self) -> Iterator[Detection]:
        self._verdicts = verdicts.open(self._config, version(self._config, self._definitions))
        try:
            for start in self._starts:
                yield from self._start(start)
            while self._pool is not None and self._pool.outstanding and not self._cancelled:
                yield from self._collected(wait=True)
                self._tick()
        finally:
            self.close()
            self._verdicts.close()
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
            self._counts.note(self._counts.errors, _why(error), start)
            return
        if stat.S_ISDIR(found.st_mode):
            yield from self._walk(start, left_out)
        else:
            self._counts.files += 1
            if not self._known(start, found):
                yield from self._look(start, found)

    def _walk(self, start: bytes, left_out: dict[bytes, str]) -> Iterator[Detection]:
        """The inner loop: everything in it runs once for each file there is."""
        counts = self._counts
        trusted = self._trusted
        known_clean = self._verdicts.known_clean
        remember = self._remember
        files_left_out = bool(self._config.excluded)
        waiting = [start]
        while waiting:
            folder = waiting.pop()
            self._here = folder
            self._tick()
            if self._cancelled:
                return
            files = cached = 0
            misses: list[tuple[bytes, os.stat_result, bool]] = []
            try:
                with os.scandir(folder) as entries:
                    for entry in entries:
                        if entry.is_file(follow_symlinks=False):
                            found = entry.stat(follow_symlinks=False)
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
                counts.note(counts.errors, _why(error), folder)
            counts.files += files
            counts.cached += cached
            for path, found, unasked in misses:
                # The first folder on a device: only now is it known whether verdicts count there.
                if unasked and self._known(path, found):
                    continue
                yield from self._look(path, found)
                if self.cancelled:
                    return

    def _known(self, path: bytes, found: os.stat_result) -> bool:
        """Tell whether a file is known to be clean; learns whether its device can be trusted."""
        trusted = self._trusted.get(found.st_dev)
        if trusted is None:
            trusted = mounts.can_remember(self._mounts, device=found.st_dev, path=path)
            self._trusted[found.st_dev] = trusted
        if trusted and self._remember and self._verdicts.known_clean(found):
            self._counts.cached += 1
            return True
        return False

    def _look(self, path: bytes, listed: os.stat_result) -> Iterator[Detection]:
        """Hand one file to the workers, collecting answers while they are busy."""
        if listed.st_size == 0:
            self._counts.scanned += 1
            return
        if listed.st_size > self._config.max_file_bytes:
            self._counts.note(self._counts.skipped, "too-large", path)
            return
        from doorward_agent.engines.pool import Job, Pool  # only when a file must be read

        if self._pool is None:
            self._pool = Pool(self._config, self._definitions.folder)
        while self._pool.full:
            yield from self._collected(wait=True)
            self._tick()
            if self._cancelled:
                return
        self._here = path
        try:
            descriptor = _opened(path)
        except OSError as error:
            self._counts.note(self._counts.errors, _why(error), path)
            return
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or (found.st_dev, found.st_ino) != (
            listed.st_dev,
            listed.st_ino,
        ):
            os.close(descriptor)
            self._counts.note(self._counts.errors, "changed", path)
            return
        self._pool.submit(Job(path, descriptor, found))
        yield from self._collected(wait=False)

    def _collected(self, *, wait: bool) -> Iterator[Detection]:
        assert self._pool is not None  # noqa: S101 (for the type checker: only called with a pool)
        for done in self._pool.collect(self._config.progress_interval if wait else 0.0):
            detection = self._judged(done)
            if detection is not None:
                yield detection

    def _judged(self, done: "Done") -> Detection | None:
        """Turn one answer into counts, a remembered verdict, or a detection."""
        counts = self._counts
        job = done.job
        try:
            after = os.fstat(job.descriptor)
        finally:
            os.close(job.descriptor)
        answer = done.answer
        if answer is None:
            failed = done.failed
            reason, detail = (
                ("engine-failed", "") if failed is None else (failed.reason, failed.detail)
            )
            counts.note(counts.errors, reason, job.path, detail)
            return None
        counts.scanned += 1
        counts.bytes_read += answer.size
        for limit in answer.limits:
            counts.note(counts.limited, limit.reason, job.path, limit.detail)
        if answer.hits:
            return self._detected(done, answer.hits, answer.sha256)
        settle = self._config.verdict_settle_ns
        if answer.changed:
            counts.note(counts.errors, "changed", job.path)
        elif (
            not answer.limits
            and self._trusted.get(after.st_dev)
            and verdicts.settled(job.found, after, now_ns=time.time_ns(), settle_ns=settle)
        ):
            self._verdicts.remember_clean(after)
        return None

    def _detected(
        self, done: "Done", hits: "tuple[tuple[str, Hit], ...]", sha256: str
    ) -> Detection | None:
        from doorward_agent import allowed  # only when something is found

        try:
            kept = allowed.holds(self._config, sha256, done.job.path)
        except allowed.AllowedUnreadable:
            # When in doubt, report.
            kept = False
        kept = kept or _excluded(self._config, sha256, done.job.path)
        if kept:
            self._counts.allowed += 1
            return None
        job = done.job
        member, gravest = max(hits, key=lambda hit: _SEVERITIES.index(hit[1].severity))
        self._counts.detections += 1
        return Detection(
            path=readable(job.path),
            location=job.path,
            member=readable(member) if member else "",
            sha256=sha256,
            size=job.found.st_size,
            rule=gravest.rule,
            title=gravest.title,
            reason=gravest.reason,
            engine=gravest.engine,
            severity=gravest.severity,
            kind=gravest.kind,
            also=tuple(sorted({hit.rule for _, hit in hits} - {gravest.rule})),
            found_at=time.time(),
            device=job.found.st_dev,
            inode=job.found.st_ino,
            mtime_ns=job.found.st_mtime_ns,
        )

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
                path=readable(self._here),
            )
        )


def _excluded(config: AgentConfig, sha256: str, path: bytes) -> bool:
    """Tell whether the settings let exactly this content be, here or everywhere."""
    return any(
        digest == sha256 and (not place or os.path.realpath(os.fsencode(place)) == path)
        for digest, place in config.excluded_files
    )


def _opened(path: bytes) -> int:
    try:
        return os.open(path, _OPEN_FLAGS | _NO_ACCESS_TIME)
    except PermissionError:
        # open(2): O_NOATIME is for the owner only.
        return os.open(path, _OPEN_FLAGS)


def _why(error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "gone"
    if isinstance(error, PermissionError):
        return "no-permission"
    return errno.errorcode.get(error.errno or 0, "unreadable").lower()
