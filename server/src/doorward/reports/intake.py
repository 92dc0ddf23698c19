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
class _Submission:
    device: UUID
    events: Sequence[Event]
    received: datetime


def store(device: UUID, events: Sequence[Event]) -> Stored:
    """Store the events; those that were stored before change nothing.

    Raises DeviceGone when the device was removed, IntakeUnavailable when the database is not there.
    """
    (outcome,) = _store_all([_Submission(device, events, timezone.now())])
    if isinstance(outcome, DeviceGone):
        raise outcome
    return outcome


# ---------------------------------------------------------------------------------- group commit


@dataclass(eq=False)
class _Waiting:
    submission: _Submission
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

    async def store(self, device: UUID, events: Sequence[Event], *, size: int = 0) -> Stored:
        """Return when the events are on disk. `size` is what the report weighs, in bytes.

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
        waiting = _Waiting(_Submission(device, events, timezone.now()), size, loop.create_future())
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
            events += len(waiting.submission.events)
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

_FOLLOW_UPS: Final = frozenset({messages.FINDING_UPDATED, messages.FINDING_CLOSED})


def _store_all(submissions: Sequence[_Submission]) -> list[Outcome]:
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


def _apart(submissions: Sequence[_Submission], error: Exception) -> list[Outcome]:
    """Store what can be stored by halving until the culprit is alone; that one is refused."""
    if len(submissions) > 1:
        half = len(submissions) // 2
        return [*_store_all(submissions[:half]), *_store_all(submissions[half:])]
    (submission,) = submissions
    events = submission.events
    if len(events) == 1:
        uid = events[0].metadata.uid
        device = str(submission.device)
        log.error("reports.event.refused", device=device, uid=str(uid), exc_info=error)
        return [Stored(refused=(Refused(0, uid, "The server can't store this event"),))]
    half = len(events) // 2
    stored = Stored()
    for offset, part in ((0, events[:half]), (half, events[half:])):
        (outcome,) = _store_all([_Submission(submission.device, part, submission.received)])
        if isinstance(outcome, DeviceGone):
            return [outcome]
        stored = Stored(
            stored.accepted + outcome.accepted,
            stored.duplicate + outcome.duplicate,
            stored.refused
            + tuple(Refused(it.position + offset, it.uid, it.reason) for it in outcome.refused),
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


def _write(submissions: Sequence[_Submission]) -> list[Outcome]:
    accounts = _lock({submission.device for submission in submissions})
    sources: list[_Source | None] = []
    findings: list[tuple[_Source, list[DetectionFinding]]] = []
    remediations: list[tuple[_Source, FileRemediation | DetectionFinding]] = []
    scans: list[tuple[_Source, int, ScanActivity]] = []
    for submission in submissions:
        account = accounts.get(submission.device)
        if account is None:
            sources.append(None)
            continue
        source = _Source(submission.device, account, submission.received)
        sources.append(source)
        events = submission.events
        found = [
            it
            for it in events
            if type(it) is DetectionFinding and it.activity_id not in _FOLLOW_UPS
        ]
        if len(found) == len(events):
            findings.append((source, found))
            continue
        for position, event in enumerate(events):
            if isinstance(event, DetectionFinding):
                if event.activity_id in _FOLLOW_UPS:
                    remediations.append((source, event))
            elif isinstance(event, FileRemediation):
                remediations.append((source, event))
            else:
                scans.append((source, position, event))
        if found:
            findings.append((source, found))

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


def _store_findings(
    findings: Sequence[tuple[_Source, list[DetectionFinding]]], tally: dict[UUID, list[int]]
) -> None:
    made: list[rows.Row] = []
    for source, found in findings:
        build = rows.builder(connection, source.account, source.device, source.received)
        made += [build(finding) for finding in found]
    new = rows.insert_detections(connection, made)
    position = 0
    for source, found in findings:
        uids = [finding.metadata.uid for finding in found]
        if new is None:
            accepted = uids
        else:
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


def _settle(
    findings: Sequence[tuple[_Source, list[DetectionFinding]]], new: Sequence[Remediation]
) -> None:
    """Give each detection concerned the disposition that its remediations leave it with."""
    concerned = {(row.device_id, row.finding_uid) for row in new if row.finding_uid is not None}
    waiting = rows.waiting_findings(connection, [source.device for source, _ in findings])
    if waiting:
        told = {
            (source.device, finding.finding_info.uid)
            for source, found in findings
            for finding in found
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
