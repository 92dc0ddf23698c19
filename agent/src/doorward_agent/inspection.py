# Why not pathlib: paths are bytes here, and loading it costs 7 ms.
"""One file after another: known to be clean, or handed to the workers; and what their answer means.

Whoever meets files (a walk, or the kernel's word that one was written) asks here. What was not seen
whole is counted with the reason, never taken for clean, and never remembered as such.

Nothing heavy is imported until a file must really be read.
"""

import errno
import os
import stat
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from doorward_agent import mounts, verdicts
from doorward_agent.config import AgentConfig
from doorward_agent.definitions import DefinitionSet
from doorward_agent.paths import readable

if TYPE_CHECKING:
    from doorward_agent.engines import Hit
    from doorward_agent.engines.pool import Done, Job, Pool

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
class Seen:
    """One file that was asked about: what was found in it, or whether every byte of it is clean."""

    job: "Job"
    detection: Detection | None
    clean: bool
    """Seen whole, and unchanged meanwhile."""


@dataclass(slots=True)
class Counts:
    """What became of the files met so far."""

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
        """Count a reason, and keep the path while few have it."""
        among[reason] += 1
        if among[reason] <= NOTES_KEPT:
            self.notes.append(Note(readable(path), reason, readable(detail)[:LONGEST_DETAIL]))


class Inspection:
    """The workers, what is remembered, and the counts of one scan or one watch. Not for several
    threads at once."""

    def __init__(
        self,
        config: AgentConfig,
        found: DefinitionSet,
        *,
        version: str,
        remember: bool = True,
        wake: Callable[[], None] | None = None,
    ) -> None:
        """Open what is remembered under this version; no worker is started yet.

        Without `remember` every file is read, whatever is known. `wake` is called from another
        thread whenever an answer waits to be collected.
        """
        self.counts = Counts()
        self.mounts = mounts.mounted()
        self.trusted: dict[int, bool] = {}
        """For each device met, whether verdicts about its files may be kept."""
        self.verdicts = verdicts.open(config, version)
        self.here = b""
        """The file handed over last, for people to see."""
        self._config = config
        self._definitions = found
        self._remember = remember
        self._wake = wake
        self._pool: Pool | None = None

    @property
    def worker_pids(self) -> list[int]:
        """Return the worker processes there are right now."""
        return [] if self._pool is None else self._pool.pids

    @property
    def outstanding(self) -> int:
        """Return how many files are without an answer."""
        return 0 if self._pool is None else self._pool.outstanding

    @property
    def full(self) -> bool:
        """Tell whether answers should be collected before another file is handed over."""
        return self._pool is not None and self._pool.full

    @property
    def heard(self) -> bool:
        """Tell whether an answer waits to be collected."""
        return self._pool is not None and self._pool.heard

    def rest(self) -> None:
        """End the workers; the next file starts them again."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def close(self) -> None:
        """End the workers and let go of what is remembered; it stays on disk."""
        self.rest()
        self.verdicts.close()

    def known(self, path: bytes, found: os.stat_result) -> bool:
        """Tell whether a file is known to be clean; learns whether its device can be trusted."""
        trusted = self.trusted.get(found.st_dev)
        if trusted is None:
            trusted = mounts.can_remember(self.mounts, device=found.st_dev, path=path)
            self.trusted[found.st_dev] = trusted
        if trusted and self._remember and self.verdicts.known_clean(found):
            self.counts.cached += 1
            return True
        return False

    def look(self, path: bytes, listed: os.stat_result) -> bool:
        """Hand one file to the workers; tells whether there will be an answer.

        Collect while `full`, before this. Nothing but the very ordinary file that was listed is
        opened, and no link is followed.
        """
        if listed.st_size == 0:
            self.counts.scanned += 1
            return False
        if listed.st_size > self._config.max_file_bytes:
            self.counts.note(self.counts.skipped, "too-large", path)
            return False
        self.here = path
        try:
            descriptor = _opened(path)
        except OSError as error:
            self.counts.note(self.counts.errors, why_unreadable(error), path)
            return False
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or (found.st_dev, found.st_ino) != (
            listed.st_dev,
            listed.st_ino,
        ):
            os.close(descriptor)
            self.counts.note(self.counts.errors, "changed", path)
            return False
        self.submit(path, descriptor, found)
        return True

    def submit(self, path: bytes, descriptor: int, found: os.stat_result) -> "Job":
        """Hand an open file to the workers; its descriptor is closed once the answer is collected.

        Raises engines.pool.EngineUnavailable.
        """
        from doorward_agent.engines.pool import Job, Pool  # only when a file must be read

        if self._pool is None:
            self._pool = Pool(self._config, self._definitions.folder, wake=self._wake)
        job = Job(path, descriptor, found)
        self._pool.submit(job)
        return job

    def collected(self, timeout: float) -> Iterator[Seen]:
        """Yield what was answered; waits up to `timeout` seconds for the first.

        Raises engines.pool.EngineUnavailable.
        """
        if self._pool is None:
            return
        for done in self._pool.collect(timeout):
            yield self._judged(done)

    def _judged(self, done: "Done") -> Seen:
        """Turn one answer into counts, a remembered verdict, or a detection."""
        counts = self.counts
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
            return Seen(job, None, clean=False)
        counts.scanned += 1
        counts.bytes_read += answer.size
        for limit in answer.limits:
            counts.note(counts.limited, limit.reason, job.path, limit.detail)
        if answer.hits:
            detection = self._detected(done, answer.hits, answer.sha256)
            # What a person has decided to keep may be opened, too.
            return Seen(job, detection, clean=detection is None)
        settle = self._config.verdict_settle_ns
        if answer.changed:
            counts.note(counts.errors, "changed", job.path)
        elif (
            not answer.limits
            and self.trusted.get(after.st_dev)
            and verdicts.settled(job.found, after, now_ns=time.time_ns(), settle_ns=settle)
        ):
            self.verdicts.remember_clean(after)
        return Seen(job, None, clean=not answer.changed and not answer.limits)

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
            self.counts.allowed += 1
            return None
        job = done.job
        member, gravest = max(hits, key=lambda hit: _SEVERITIES.index(hit[1].severity))
        self.counts.detections += 1
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


def why_unreadable(error: OSError) -> str:
    """Return the word an error is counted under."""
    if isinstance(error, FileNotFoundError):
        return "gone"
    if isinstance(error, PermissionError):
        return "no-permission"
    if error.errno == errno.ENAMETOOLONG:
        # A path has at most 4,096 bytes on Linux; folders can be made deeper than that.
        return "path-too-long"
    return errno.errorcode.get(error.errno or 0, "unreadable").lower()


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
