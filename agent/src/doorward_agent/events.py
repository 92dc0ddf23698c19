"""What the agent tells its server, in the protocol's words and not one more.

Each function answers one event, ready for the outbox. File names are cut and cleaned only where
they could not be sent at all; file contents never appear. `sequence` comes from
outbox.next_sequence: it rises with each event, whatever the clock does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Final, Literal
from uuid import UUID

from uuid_utils.compat import uuid7

from doorward_agent import outbox
from doorward_protocol import messages

Disposition = Literal[
    "quarantined", "deleted", "restored", "allowed", "uncorrected", "detected", "no_action"
]
DISPOSITIONS: Final[Mapping[Disposition, int]] = {
    "quarantined": messages.DISPOSITION_QUARANTINED,
    "deleted": messages.DISPOSITION_DELETED,
    "restored": messages.DISPOSITION_RESTORED,
    "allowed": messages.DISPOSITION_ALLOWED,
    "uncorrected": messages.DISPOSITION_UNCORRECTED,
    "detected": messages.DISPOSITION_DETECTED,
    "no_action": messages.DISPOSITION_NO_ACTION,
}
SEVERITIES: Final[Mapping[str, int]] = {
    "informational": messages.SEVERITY_INFORMATIONAL,
    "low": messages.SEVERITY_LOW,
    "medium": messages.SEVERITY_MEDIUM,
    "high": messages.SEVERITY_HIGH,
    "critical": messages.SEVERITY_CRITICAL,
}
ScanEnd = Literal["completed", "cancelled", "error"]
_ENDS: Final[Mapping[ScanEnd, int]] = {
    "completed": messages.SCAN_COMPLETED,
    "cancelled": messages.SCAN_CANCELLED,
    "error": messages.SCAN_ERROR,
}
_MOST_REASONS: Final = 32
_MOST_PATHS: Final = 32


def new_uid() -> UUID:
    """Answer a new id (UUIDv7), unlike any other ever made."""
    return UUID(bytes=uuid7().bytes)


def scan_started(
    *,
    sequence: int,
    scan_uid: UUID,
    scheduled: bool,
    name: str,
    paths: Sequence[str],
    time: int,
    definitions_version: int = 0,
    command_uid: UUID | None = None,
) -> outbox.Event:
    """Answer the event "a scan began"; `time` in milliseconds UTC."""
    event = messages.ScanActivity(
        metadata=messages.Metadata(uid=new_uid(), sequence=sequence),
        time=time,
        activity_id=messages.SCAN_STARTED,
        type_uid=messages.type_uid(6007, messages.SCAN_STARTED),
        scan=_scan(scan_uid, scheduled, name),
        command_uid=command_uid,
        start_time=time,
        unmapped=messages.ScanDetail(paths=_paths(paths), definitions_version=definitions_version),
    )
    return _event(event, outbox.CHATTER)


def scan_ended(
    *,
    sequence: int,
    event_uid: UUID,
    scan_uid: UUID,
    scheduled: bool,
    name: str,
    paths: Sequence[str],
    end: ScanEnd,
    start_time: int,
    time: int,
    files: int = 0,
    bytes_read: int = 0,
    cached: int = 0,
    detections: int = 0,
    resolved: int = 0,
    skipped: Mapping[str, int] | None = None,
    message: str = "",
    definitions_version: int = 0,
    command_uid: UUID | None = None,
) -> outbox.Event:
    """Answer the summary of a scan that ended, however it ended; times in milliseconds UTC."""
    reasons = _reasons(skipped or {})
    event = messages.ScanActivity(
        metadata=messages.Metadata(uid=event_uid, sequence=sequence),
        time=time,
        activity_id=_ENDS[end],
        type_uid=messages.type_uid(6007, _ENDS[end]),
        scan=_scan(scan_uid, scheduled, name),
        command_uid=command_uid,
        start_time=start_time,
        end_time=time,
        # A clock set back during the scan must not make the event invalid.
        duration=max(0, time - start_time),
        num_files=files,
        num_detections=detections,
        num_resolutions=resolved,
        num_skipped_items=sum(reasons.values()),
        message=messages.fitted(message, messages.MAX_TEXT),
        unmapped=messages.ScanDetail(
            bytes=bytes_read,
            cached=cached,
            skipped=reasons,
            paths=_paths(paths),
            definitions_version=definitions_version,
        ),
    )
    return _event(event, outbox.SUMMARY)


def finding(
    *,
    sequence: int,
    finding_uid: UUID,
    time: int,
    disposition: Disposition,
    path: str,
    size: int,
    sha256: str,
    rule: str,
    title: str,
    description: str = "",
    severity: str = "high",
    engine: str = "",
    member: str = "",
    scan_uid: UUID | None = None,
    quarantine_id: UUID | None = None,
    definitions_version: int = 0,
    message: str = "",
) -> outbox.Event:
    """Answer the one event that reports a finding: its id is the finding's, so it is told once."""
    event = messages.DetectionFinding(
        metadata=messages.Metadata(uid=finding_uid, sequence=sequence),
        time=time,
        finding_info=messages.FindingInfo(
            uid=finding_uid,
            title=messages.fitted(title or rule, messages.MAX_NAME),
            desc=messages.fitted(description, messages.MAX_TEXT),
            created_time=time,
            analytic=messages.Analytic(
                uid=messages.fitted(rule, messages.MAX_NAME),
                name=messages.fitted(title, messages.MAX_NAME),
            ),
        ),
        evidences=(messages.Evidence(file=_file(path, size, sha256)),),
        activity_id=messages.FINDING_CREATED,
        type_uid=messages.type_uid(2004, messages.FINDING_CREATED),
        disposition_id=DISPOSITIONS[disposition],
        severity_id=SEVERITIES.get(severity, messages.SEVERITY_UNKNOWN),
        message=messages.fitted(message, messages.MAX_TEXT),
        unmapped=messages.FindingDetail(
            scan_uid=scan_uid,
            engine=messages.fitted(engine, messages.MAX_WORD),
            member=messages.fitted(member, messages.MAX_PATH),
            quarantine_id=quarantine_id,
            definitions_version=definitions_version,
        ),
    )
    return _event(event, outbox.FINDING)


def remediation(
    *,
    sequence: int,
    event_uid: UUID,
    time: int,
    action: Literal["restored", "deleted"],
    path: str,
    size: int,
    sha256: str,
    finding_uid: UUID | None,
    quarantine_id: UUID | None,
    command_uid: UUID | None = None,
) -> outbox.Event:
    """Answer the event "a quarantined file was restored" or "… was deleted"."""
    activity = {"restored": messages.REMEDIATION_RESTORE, "deleted": messages.REMEDIATION_EVICT}
    event = messages.FileRemediation(
        metadata=messages.Metadata(uid=event_uid, sequence=sequence),
        time=time,
        activity_id=activity[action],
        type_uid=messages.type_uid(7002, activity[action]),
        file=_file(path, size, sha256),
        disposition_id=DISPOSITIONS[action],
        command_uid=command_uid,
        unmapped=messages.RemediationDetail(finding_uid=finding_uid, quarantine_id=quarantine_id),
    )
    return _event(event, outbox.FINDING)


def _event(event: messages.Event, rank: int) -> outbox.Event:
    return outbox.Event(str(event.metadata.uid), rank, messages.encode(event))


def _scan(uid: UUID, scheduled: bool, name: str) -> messages.ScanInfo:
    kind = messages.SCAN_TYPE_SCHEDULED if scheduled else messages.SCAN_TYPE_MANUAL
    return messages.ScanInfo(uid=uid, name=messages.fitted(name, messages.MAX_NAME), type_id=kind)


def _file(path: str, size: int, sha256: str) -> messages.File:
    hashes = (messages.Hash(value=sha256),) if sha256 else ()
    return messages.File(
        path=messages.fitted(path, messages.MAX_PATH) or "?",
        name=messages.fitted(PurePath(path).name, messages.MAX_PATH),
        size=size,
        hashes=hashes,
    )


def _paths(paths: Sequence[str]) -> tuple[str, ...]:
    fitted = [messages.fitted(path, messages.MAX_PATH) for path in paths[:_MOST_PATHS]]
    return tuple(path for path in fitted if path)


def _reasons(skipped: Mapping[str, int]) -> dict[str, int]:
    """Answer the counts by reason; more reasons than fit are added up under `other`."""
    ordered = sorted(skipped.items(), key=lambda entry: (-entry[1], entry[0]))
    kept = {
        messages.fitted(reason, messages.MAX_WORD): count
        for reason, count in ordered[: _MOST_REASONS - 1]
        if count > 0
    }
    rest = sum(count for _, count in ordered[_MOST_REASONS - 1 :])
    if rest:
        kept["other"] = kept.get("other", 0) + rest
    return kept
