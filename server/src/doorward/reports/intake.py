"""Reports of devices become rows: on disk before the answer, each event once, whatever happens.

`Intake` collects the reports that arrive while a transaction is being written and stores them
together in the next one (group commit): the disk is waited for once for many devices. `store` does
the same at once, for one report, for whoever has no event loop.

What holds afterwards:

- An event counts once for each device, by its `metadata.uid`: a unique constraint keeps that, also
  between several processes and machines.
- The account of a row is that of its device in the database, never what a message says.
- A detection's disposition is that of the latest successful remediation in the device's own order,
  whichever arrived first.
- An event that can't be stored is refused alone; the others of its report and its batch are stored.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, TypeAlias
from uuid import UUID

import structlog
from django.db import (
    DatabaseError,
    DataError,
    IntegrityError,
    InterfaceError,
    OperationalError,
    connection,
    connections,
    transaction,
)
from django.utils import timezone

from doorward.reports import rows
from doorward.reports.models import SETTLED, Detection, Remediation, Scan, ScanState
from doorward.reports.queries import rank
from doorward_protocol import messages
from doorward_protocol.messages import DetectionFinding, Event, FileRemediation, ScanActivity

log = structlog.get_logger(__name__)

MAX_BATCH_REPORTS: Final = 100
MAX_BATCH_EVENTS: Final = 5_000
"""A transaction holds no more than these, so that nobody waits long for the one before."""
MAX_WAITING_REPORTS: Final = 2_000
MAX_WAITING_BYTES: Final = 24 * 1024 * 1024
"""More is not taken in while the disk is behind: the device keeps it and comes again."""
GATHER_S: Final = 0.015
"""The longest that a report waits for company, in seconds, where there was company just before."""
RETRY_BUSY_S: Final = 2
RETRY_BROKEN_S: Final = 5
"""When a device may come again, in seconds: the queue is full, the database does not answer."""
MAX_EVENTS_OF_A_SCAN: Final = 16
"""A scan begins, pauses and ends; a device that says more than this about one is mistaken."""


class IntakeUnavailable(Exception):
    """Nothing was stored, through no fault of the report: come again in `retry_after` seconds."""

    def __init__(self, reason: str, retry_after: int) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class DeviceGone(Exception):
    """The device was removed: nothing of it is taken in any more."""


@dataclass(frozen=True)
class Refused:
    """An event that will never be stored: its position among those handed in, and why."""

    position: int
    uid: UUID
    reason: str


@dataclass(frozen=True)
class Stored:
    """What became of each event: stored now, stored already, refused. The first two are on disk."""

    accepted: tuple[UUID, ...] = ()
    duplicate: tuple[UUID, ...] = ()
    refused: tuple[Refused, ...] = ()


Outcome: TypeAlias = Stored | DeviceGone


@dataclass(frozen=True, eq=False)
class Submission:
    """A report on its way to the disk. What was found is rows already, the rest still events.

    A row weighs a fifth of its event and is made while the event is in the processor's cache: a
    batch of events kept until it is their turn would have left it three times over.
    """

    device: UUID
    account: UUID
    received: datetime
    uids: Sequence[UUID] = ()
    rows: Sequence[rows.Row] = ()
    places: Sequence[int] = ()
    """Of each row: its event's name, itself, and the event's position among those handed in."""
    others: Sequence[tuple[int, Event]] = ()
    refused: tuple[Refused, ...] = ()
    """Events that can't become a row."""

    def __len__(self) -> int:
        return len(self.rows) + len(self.others)

    def halves(self) -> tuple[Submission, Submission]:
        """Two that hold its events together."""
        half = len(self) // 2
        found = min(half, len(self.rows))
        cuts = slice(None, found), slice(found, None)
        rest = slice(None, half - found), slice(half - found, None)
        first, second = (
            Submission(
                self.device,
                self.account,
                self.received,
                self.uids[cut],
                self.rows[cut],
                self.places[cut],
                self.others[other],
            )
            for cut, other in zip(cuts, rest, strict=True)
        )
        return first, second


_FOLLOW_UPS: Final = frozenset({messages.FINDING_UPDATED, messages.FINDING_CLOSED})


def prepared(device: UUID, account: UUID, events: Sequence[Event]) -> Submission:
    """The events, received now, as they will be stored; nothing is asked of the database.

    `account` is where the device is believed to be: should it have moved, the rows go along.
    """
    received = timezone.now()
    build = rows.builder(connection, account, device, received)
    found = [
        it for it in events if type(it) is DetectionFinding and it.activity_id not in _FOLLOW_UPS
    ]
    try:
        made = [build(event) for event in found]
    # Whatever an event broke, it must not take others along.
    except Exception:  # noqa: BLE001
        return _prepared_one_by_one(device, account, received, events)
    uids = [event.metadata.uid for event in found]
    if len(found) == len(events):
        return Submission(device, account, received, uids, made, range(len(made)))
    chosen = set(map(id, found))
    places = [at for at, event in enumerate(events) if id(event) in chosen]
    others = [(at, event) for at, event in enumerate(events) if id(event) not in chosen]
    return Submission(device, account, received, uids, made, places, others)


def _prepared_one_by_one(
    device: UUID, account: UUID, received: datetime, events: Sequence[Event]
) -> Submission:
    build = rows.builder(connection, account, device, received)
    uids: list[UUID] = []
    made: list[rows.Row] = []
    places: list[int] = []
    others: list[tuple[int, Event]] = []
    refused: list[Refused] = []
    for at, event in enumerate(events):
        if not isinstance(event, DetectionFinding) or event.activity_id in _FOLLOW_UPS:
            others.append((at, event))
            continue
        try:
            made.append(build(event))
        except Exception as error:  # noqa: BLE001
            refused.append(_refused(device, at, event.metadata.uid, error))
            continue
        uids.append(event.metadata.uid)
        places.append(at)
    return Submission(device, account, received, uids, made, places, others, tuple(refused))


def _refused(device: UUID, position: int, uid: UUID, error: Exception) -> Refused:
    log.error("reports.event.refused", device=str(device), uid=str(uid), exc_info=error)
    return Refused(position, uid, "The server can't store this event")


def store(device: UUID, events: Sequence[Event]) -> Stored:
    """Store the events; those that were stored before change nothing.

    Raises DeviceGone when the device was removed, IntakeUnavailable when the database is not there.
    """
    # Whose it is will be read with the rest.
    (outcome,) = _store_all([prepared(device, UUID(int=0), events)])
    if isinstance(outcome, DeviceGone):
        raise outcome
    return outcome


# ---------------------------------------------------------------------------------- group commit


@dataclass(eq=False)
class _Waiting:
    submission: Submission
    size: int
    answer: asyncio.Future[Stored] = field(compare=False)


class Intake:
    """Stores reports in batches, in a thread of its own with a connection of its own.

    It lives in one event loop. While a batch is written the next one gathers; so the busier it is,
    the larger the batches. Whoever was answered together tends to come again together: after a
    batch of many the next one waits a moment until as many are there, since two commits for them
    would cost twice. A lone report after a lone report never waits.
    """

    def __init__(self) -> None:
        self._waiting: deque[_Waiting] = deque()
        self._waiting_bytes = 0
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="intake")
        self._is_writing = False
        self._is_closed = False
        self._expected = 1
        self._gathering: asyncio.TimerHandle | None = None
        self._idle = asyncio.Event()
        self._idle.set()

    async def store(self, submission: Submission, *, size: int = 0) -> Stored:
        """Return when the report is on disk. `size` is what it weighs, in bytes.

        Raises DeviceGone when the device was removed, and IntakeUnavailable when too much is
        waiting, the database is not there or the server is stopping: then nothing is acknowledged.
        """
        if self._is_closed:
            raise IntakeUnavailable("the server is stopping", RETRY_BUSY_S)
        if (
            len(self._waiting) >= MAX_WAITING_REPORTS
            or self._waiting_bytes + size > MAX_WAITING_BYTES
        ):
            raise IntakeUnavailable("too many reports are waiting", RETRY_BUSY_S)
        loop = asyncio.get_running_loop()
        waiting = _Waiting(submission, size, loop.create_future())
        self._waiting.append(waiting)
        self._waiting_bytes += size
        if not self._is_writing:
            self._is_writing = True
            self._idle.clear()
            self._gather(loop)
        elif self._gathering is not None and len(self._waiting) >= self._expected:
            self._gathering.cancel()
            self._write_next(loop)
        return await waiting.answer

    async def close(self) -> None:
        """Take nothing more, write what was taken, and let go of the database."""
        self._is_closed = True
        if self._gathering is not None:
            self._gathering.cancel()
            self._write_next(asyncio.get_running_loop())
        await self._idle.wait()
        await asyncio.get_running_loop().run_in_executor(self._writer, connections.close_all)
        self._writer.shutdown()

    def _gather(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._expected > 1 and len(self._waiting) < self._expected and not self._is_closed:
            self._gathering = loop.call_later(GATHER_S, self._write_next, loop)
        else:
            # Not at once: whoever else is heard in this turn of the loop goes along.
            loop.call_soon(self._write_next, loop)

    def _write_next(self, loop: asyncio.AbstractEventLoop) -> None:
        self._gathering = None
        batch: list[_Waiting] = []
        events = 0
        while self._waiting and len(batch) < MAX_BATCH_REPORTS and events < MAX_BATCH_EVENTS:
            waiting = self._waiting.popleft()
            self._waiting_bytes -= waiting.size
            events += len(waiting.submission)
            # Whose caller left need not be stored; the device will send it again.
            if not waiting.answer.done():
                batch.append(waiting)
        if not batch:
            self._is_writing = False
            self._idle.set()
            return
        self._expected = len(batch)
        written = loop.run_in_executor(
            self._writer, _store_all, [waiting.submission for waiting in batch]
        )
        written.add_done_callback(lambda done: self._answer(loop, batch, done))

    def _answer(
        self,
        loop: asyncio.AbstractEventLoop,
        batch: list[_Waiting],
        written: asyncio.Future[list[Outcome]],
    ) -> None:
        # The next batch first: the disk works while the answers go out.
        if len(self._waiting) >= self._expected:
            self._write_next(loop)
        elif self._waiting:
            self._gather(loop)
        else:
            self._is_writing = False
            self._idle.set()
        error = written.exception()
        if error is not None and not isinstance(error, IntakeUnavailable):
            log.error("reports.intake.failed", exc_info=error)
            error = IntakeUnavailable("reports can't be stored", RETRY_BROKEN_S)
        for position, waiting in enumerate(batch):
            if waiting.answer.done():
                continue
            outcome = error if error is not None else written.result()[position]
            if isinstance(outcome, Stored):
                waiting.answer.set_result(outcome)
            else:
                waiting.answer.set_exception(outcome)


# ------------------------------------------------------------------------------- one transaction


def _store_all(submissions: Sequence[Submission]) -> list[Outcome]:
    """Store them in one transaction; alone where one of them can't be stored with the others."""
    session = connection.connection
    try:
        try:
            with transaction.atomic():
                return _write(submissions)
        except OperationalError:
            # Django has replaced a session that was cut, by a restart of the database, say. Then it
            # is worth a second try at once; it does no harm should the first have been committed.
            if session is None or connection.connection is session or connection.in_atomic_block:
                raise
        with transaction.atomic():
            return _write(submissions)
    except (DataError, IntegrityError) as error:
        return _apart(submissions, error)
    except (DatabaseError, InterfaceError, MemoryError, OSError) as error:
        log.warning("reports.intake.unavailable", error=str(error).strip())
        raise IntakeUnavailable("the database does not answer", RETRY_BROKEN_S) from error
    # Whatever an event broke, it must not take others along.
    except Exception as error:  # noqa: BLE001
        return _apart(submissions, error)


def _apart(submissions: Sequence[Submission], error: Exception) -> list[Outcome]:
    """Store what can be stored by halving until the culprit is alone; that one is refused."""
    if len(submissions) > 1:
        half = len(submissions) // 2
        return [*_store_all(submissions[:half]), *_store_all(submissions[half:])]
    (submission,) = submissions
    if len(submission) == 1:
        if submission.rows:
            position, uid = submission.places[0], submission.uids[0]
        else:
            position, event = submission.others[0]
            uid = event.metadata.uid
        refused = _refused(submission.device, position, uid, error)
        return [Stored(refused=(*submission.refused, refused))]
    stored = Stored(refused=submission.refused)
    for part in submission.halves():
        (outcome,) = _store_all([part])
        if isinstance(outcome, DeviceGone):
            return [outcome]
        stored = Stored(
            stored.accepted + outcome.accepted,
            stored.duplicate + outcome.duplicate,
            stored.refused + outcome.refused,
        )
    return [stored]


@dataclass(eq=False)
class _Source:
    """Where the rows of one submission come from, and what became of its events."""

    device: UUID
    account: UUID
    received: datetime
    accepted: list[UUID] = field(default_factory=list)
    duplicate: list[UUID] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)

    def note(self, uid: UUID, *, is_new: bool) -> None:
        (self.accepted if is_new else self.duplicate).append(uid)


_Found: TypeAlias = tuple[_Source, Sequence[UUID], Sequence[rows.Row]]
"""The detections of one source: their names and their rows."""


def _write(submissions: Sequence[Submission]) -> list[Outcome]:
    accounts = _lock({submission.device for submission in submissions})
    sources: list[_Source | None] = []
    findings: list[_Found] = []
    remediations: list[tuple[_Source, FileRemediation | DetectionFinding]] = []
    scans: list[tuple[_Source, int, ScanActivity]] = []
    for submission in submissions:
        account = accounts.get(submission.device)
        if account is None:
            sources.append(None)
            continue
        source = _Source(submission.device, account, submission.received)
        source.refused.extend(submission.refused)
        sources.append(source)
        if submission.rows:
            made = submission.rows
            if account != submission.account:
                made = rows.moved(connection, made, account)
            findings.append((source, submission.uids, made))
        for position, event in submission.others:
            if isinstance(event, ScanActivity):
                scans.append((source, position, event))
            else:
                remediations.append((source, event))

    tally: dict[UUID, list[int]] = {}
    if findings:
        _store_findings(findings, tally)
    new_remediations = _store_remediations(remediations, tally) if remediations else []
    if findings or new_remediations:
        _settle(findings, new_remediations)
    if scans:
        _store_scans(scans, tally)
    if tally:
        rows.add_to_tallies(connection, {of: (it[0], it[1]) for of, it in tally.items()})
    return [
        DeviceGone()
        if source is None
        else Stored(tuple(source.accepted), tuple(source.duplicate), tuple(source.refused))
        for source in sources
    ]


def _lock(devices: set[UUID]) -> dict[UUID, UUID]:
    """The account of each device that is still there; no other process stores for them meanwhile.

    Two requests of one device may reach two processes at the same time (it gave up on the first).
    Without the lock, one could store a remediation and the other its detection, each unseen by the
    other. SQLite has one writer anyway; in PostgreSQL the locks are taken in order, so that no two
    batches wait for each other.
    """
    if connection.vendor == "postgresql":
        keys = sorted(int.from_bytes(device.bytes[8:], signed=True) for device in devices)
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_advisory_xact_lock(key) FROM unnest(%s::bigint[]) AS key", [keys]
            )
    return rows.accounts_of(connection, devices)


def _touch(
    tally: dict[UUID, list[int]], account: UUID, *, scans: int = 0, detections: int = 0
) -> None:
    counts = tally.setdefault(account, [0, 0])
    counts[0] += scans
    counts[1] += detections


# ---------------------------------------------------------------------------------- detections


def _store_findings(findings: Sequence[_Found], tally: dict[UUID, list[int]]) -> None:
    new = rows.insert_detections(connection, [made for _, _, made in findings])
    position = 0
    for source, uids, _ in findings:
        accepted = uids
        if new is not None:
            accepted = [uid for at, uid in enumerate(uids, position) if at in new]
            source.duplicate += [uid for at, uid in enumerate(uids, position) if at not in new]
        position += len(uids)
        if accepted:
            source.accepted += accepted
            _touch(tally, source.account, detections=len(accepted))


# ------------------------------------------------------------------------------- remediations

_OUTCOME_OF: Final = {
    messages.REMEDIATION_ISOLATE: messages.DISPOSITION_QUARANTINED,
    messages.REMEDIATION_EVICT: messages.DISPOSITION_DELETED,
    messages.REMEDIATION_RESTORE: messages.DISPOSITION_RESTORED,
}


def _store_remediations(
    events: Sequence[tuple[_Source, FileRemediation | DetectionFinding]],
    tally: dict[UUID, list[int]],
) -> list[Remediation]:
    known = set(
        Remediation.objects.filter(
            uid__in={event.metadata.uid for _, event in events},
            device_id__in={source.device for source, _ in events},
        ).values_list("device_id", "uid")
    )
    new: list[Remediation] = []
    for source, event in events:
        key = (source.device, event.metadata.uid)
        source.note(event.metadata.uid, is_new=key not in known)
        if key not in known:
            known.add(key)
            new.append(_remediation(source, event))
            _touch(tally, source.account)
    Remediation.objects.bulk_create(new)
    return new


def _remediation(source: _Source, event: FileRemediation | DetectionFinding) -> Remediation:
    row = Remediation(
        account_id=source.account,
        device_id=source.device,
        uid=event.metadata.uid,
        sequence=event.metadata.sequence,
        device_time=event.time,
        time=rows.believed(event.time, source.received),
        received_at=source.received,
        disposition=event.disposition_id,
        message=event.message,
    )
    if isinstance(event, DetectionFinding):
        row.action = 0
        row.status = messages.STATUS_SUCCESS
        row.finding_uid = event.finding_info.uid
        row.quarantine_id = event.unmapped.quarantine_id
        row.path = event.evidences[0].file.path
    else:
        row.action = event.activity_id
        row.status = event.status_id
        row.finding_uid = event.unmapped.finding_uid
        row.quarantine_id = event.unmapped.quarantine_id
        row.path = event.file.path
        row.command_uid = event.command_uid
        row.disposition = event.disposition_id or _OUTCOME_OF.get(event.activity_id, 0)
    return row


def _settle(findings: Sequence[_Found], new: Sequence[Remediation]) -> None:
    """Give each detection concerned the disposition that its remediations leave it with."""
    concerned = {(row.device_id, row.finding_uid) for row in new if row.finding_uid is not None}
    waiting = rows.waiting_findings(connection, [source.device for source, _, _ in findings])
    if waiting:
        told = {
            (source.device, finding)
            for source, _, made in findings
            for finding in rows.findings_of(made)
        }
        concerned.update(told & waiting)
    if not concerned:
        return
    of_concerned: dict[str, Any] = {
        "finding_uid__in": {finding for _, finding in concerned},
        "device_id__in": {device for device, _ in concerned},
    }
    remediations: dict[tuple[UUID, UUID | None], list[Remediation]] = {}
    for remediation in Remediation.objects.filter(**of_concerned):
        key = (remediation.device_id, remediation.finding_uid)
        remediations.setdefault(key, []).append(remediation)
    present: set[tuple[UUID, UUID | None]] = set()
    for detection in Detection.objects.filter(**of_concerned).only(
        "device_id", "finding_uid", "reported_disposition", "disposition", "quarantine_id"
    ):
        key = (detection.device_id, detection.finding_uid)
        present.add(key)
        done = [it for it in remediations.get(key, ()) if it.status == messages.STATUS_SUCCESS]
        if not done:
            continue
        last = max(done, key=rank)
        quarantine_id = last.quarantine_id or detection.quarantine_id
        if (last.disposition, quarantine_id) != (detection.disposition, detection.quarantine_id):
            detection.disposition = last.disposition
            detection.quarantine_id = quarantine_id
            detection.is_open = last.disposition not in SETTLED
            detection.save(update_fields=["disposition", "quarantine_id", "is_open"])
    changed: dict[bool, list[int]] = {False: [], True: []}
    for key, group in remediations.items():
        waits = key not in present
        changed[waits].extend(it.id for it in group if it.is_waiting != waits)
    for is_waiting, ids in changed.items():
        if ids:
            Remediation.objects.filter(id__in=ids).update(is_waiting=is_waiting)


# ----------------------------------------------------------------------------------------- scans


def _store_scans(
    events: Sequence[tuple[_Source, int, ScanActivity]], tally: dict[UUID, list[int]]
) -> None:
    known = {
        (scan.device_id, scan.uid): scan
        for scan in Scan.objects.filter(
            uid__in={event.scan.uid for _, _, event in events},
            device_id__in={source.device for source, _, _ in events},
        )
    }
    new: list[Scan] = []
    changed: dict[tuple[UUID, UUID], Scan] = {}
    for source, position, event in events:
        key = (source.device, event.scan.uid)
        uid = event.metadata.uid
        scan = known.get(key)
        if scan is not None and str(uid) in scan.event_uids:
            source.note(uid, is_new=False)
            continue
        if scan is not None and len(scan.event_uids) >= MAX_EVENTS_OF_A_SCAN:
            source.refused.append(Refused(position, uid, "Too many events about one scan"))
            continue
        if scan is None:
            scan = known[key] = Scan(
                account_id=source.account,
                device_id=source.device,
                uid=event.scan.uid,
                received_at=source.received,
                event_uids=[],
            )
            new.append(scan)
            _touch(tally, source.account, scans=1)
        elif scan not in new:
            changed[key] = scan
            _touch(tally, source.account)
        _merge(scan, event, source.received)
        source.note(uid, is_new=True)
    Scan.objects.bulk_create(new)
    for scan in changed.values():
        scan.save()


def _merge(scan: Scan, event: ScanActivity, received: datetime) -> None:
    """Add what the event tells. The result is the same in whichever order the events come."""
    scan.event_uids.append(str(event.metadata.uid))
    place = [event.metadata.sequence, event.time, str(event.metadata.uid)]
    is_start = event.activity_id == messages.SCAN_STARTED
    if is_start and (scan.started_rank is None or place < scan.started_rank):
        scan.started_rank = place
        _describe(scan, event, received)
    elif not is_start and (scan.ended_rank is None or place > scan.ended_rank):
        scan.ended_rank = place
        if scan.started_rank is None:
            _describe(scan, event, received)
        _conclude(scan, event, received)
    if scan.ended_rank is None:
        scan.state = ScanState.RUNNING


def _describe(scan: Scan, event: ScanActivity, received: datetime) -> None:
    began = event.time
    if event.activity_id != messages.SCAN_STARTED:
        began = max(0, event.time - event.duration)
    scan.device_time = began if event.start_time is None else event.start_time
    scan.time = rows.believed(scan.device_time, received)
    scan.name = event.scan.name
    scan.kind = event.scan.type_id
    scan.paths = list(event.unmapped.paths)
    scan.command_uid = event.command_uid


def _conclude(scan: Scan, event: ScanActivity, received: datetime) -> None:
    scan.state = event.activity_id
    ended = event.time if event.end_time is None else event.end_time
    scan.ended_at = rows.believed(ended, received)
    scan.duration_ms = event.duration
    scan.files = event.num_files
    scan.bytes = event.unmapped.bytes
    scan.cached = event.unmapped.cached
    scan.skipped = event.num_skipped_items
    scan.skipped_by_reason = dict(event.unmapped.skipped)
    scan.detections = event.num_detections
    scan.resolved = event.num_resolutions
    scan.message = event.message
    scan.definitions_version = event.unmapped.definitions_version
