"""Where scan, quarantine and outbox meet: each finding is dealt with and told once.

Killed at any point, nothing is lost or told twice. What is about to be done is noted first, with
the id under which it will be told; the next start completes what has no owner any more.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import sqlite3
import time
from typing import TYPE_CHECKING, Any, Final, Literal
from uuid import UUID

from doorward_agent import events, journal, outbox, protection
from doorward_agent.config import AgentConfig
from doorward_agent.database import note, noted, transaction

if TYPE_CHECKING:
    from doorward_agent.quarantine import QuarantineRecord
    from doorward_agent.scan import Detection, ScanSummary

_CLOCK_STEP: Final = 2.0
_IN_REAL_TIME: Final = "Found by real-time protection, at the moment it was written or opened."


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one detection."""

    # `deleted`: somebody else has, before it could be put away.
    action: Literal["quarantined", "deleted", "allowed", "detected", "uncorrected"]
    quarantine_id: str = ""
    detail: str = ""
    # Why the server cannot be told, where the outbox could not be written.
    untold: str = ""

    @property
    def is_still_there(self) -> bool:
        """Whether the file lies where it was found, and nobody has said that it may."""
        return self.action in {"detected", "uncorrected"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Teller:
    """Tells the server, by way of the outbox, about one scan and what it finds.

    Without a `scan_uid` it is what real-time protection finds: findings that belong to no scan.
    """

    config: AgentConfig
    db: sqlite3.Connection
    scan_uid: UUID | None = None
    name: str = ""
    scheduled: bool = False
    paths: tuple[str, ...] = ()
    start_time: int = 0
    # The command that asked for the scan; it ends in the same transaction as the scan.
    command_uid: str = ""

    def begin(self, definitions_version: str) -> None:
        """Tell that the scan began; should this process be killed, the next tells that it ended."""
        scan_uid = self._of_scan()
        body = json.dumps(
            {
                "name": self.name,
                "scheduled": self.scheduled,
                "paths": self.paths,
                "start_time": self.start_time,
                "command_uid": self.command_uid,
            }
        ).encode()
        with transaction(self.db):
            outbox.intend(
                self.db,
                kind="scan",
                key=str(scan_uid),
                uid=str(scan_uid),
                owner=owner(),
                body=body,
            )
            event = events.scan_started(
                sequence=outbox.next_sequence(self.db),
                scan_uid=scan_uid,
                scheduled=self.scheduled,
                name=self.name,
                paths=self.paths,
                time=self.start_time,
                definitions_version=protection.version_number(definitions_version),
                command_uid=_uuid_or_none(self.command_uid),
            )
            _put(self.config, self.db, event)

    def found(self, detection: Detection, definitions_version: str, *, quarantine: bool) -> UUID:
        """Note a detection before anything is done about it; answer the finding's id."""
        uid = outbox.intend(
            self.db,
            kind="finding",
            key=_key(detection.location, detection.sha256),
            uid=str(events.new_uid()),
            owner=owner(),
            body=_frozen(detection, self.scan_uid, definitions_version, quarantine=quarantine),
        )
        return UUID(uid)

    def settled(
        self, finding_uid: UUID, detection: Detection, outcome: Outcome, definitions_version: str
    ) -> None:
        """Tell what became of a detection."""
        frozen = json.loads(
            _frozen(detection, self.scan_uid, definitions_version, quarantine=False)
        )
        tell_finding(self.config, self.db, finding_uid, frozen, outcome)

    def end(
        self,
        summary: ScanSummary,
        *,
        resolved: int,
        problem: str = "",
        stopped_by: Literal["canceled", "interrupted"] = "interrupted",
    ) -> None:
        """Tell how the scan ended; and, where a command had asked for it, how that ended."""
        scan_uid = self._of_scan()
        how: events.ScanEnd = "completed"
        if problem:
            how = "error"
        elif summary.cancelled:
            how = "cancelled"
        skipped: dict[str, int] = dict(summary.skipped)
        for among in (summary.limited, summary.errors):
            for reason, count in among.items():
                skipped[reason] = skipped.get(reason, 0) + count
        with transaction(self.db):
            event = events.scan_ended(
                sequence=outbox.next_sequence(self.db),
                event_uid=events.new_uid(),
                scan_uid=scan_uid,
                scheduled=self.scheduled,
                name=self.name,
                paths=self.paths,
                end=how,
                start_time=self.start_time,
                time=max(self.start_time, int(summary.ended_at * 1000)),
                files=summary.files,
                bytes_read=summary.bytes,
                cached=summary.cached,
                detections=summary.detections,
                resolved=resolved,
                skipped=skipped,
                message=problem,
                definitions_version=protection.version_number(summary.definitions_version),
                command_uid=_uuid_or_none(self.command_uid),
            )
            _fulfill(self.config, self.db, str(scan_uid), event)
            if self.command_uid:
                ends = {"completed": "succeeded", "error": "failed", "cancelled": stopped_by}
                journal.settle(
                    self.db,
                    self.command_uid,
                    ends[how],
                    now=int(time.time() * 1000),
                    code="" if how == "completed" else "scan-failed" if problem else stopped_by,
                    detail=problem,
                    # Looked at, as the progress told it: a scan that was stopped had met more.
                    counts=journal.Counts(
                        summary.scanned + summary.cached, summary.bytes, summary.detections
                    ),
                )
            if how == "completed":
                note(self.db, "scanned", int(summary.ended_at * 1000))

    def _of_scan(self) -> UUID:
        if self.scan_uid is None:
            raise ValueError("what belongs to no scan neither begins nor ends one")
        return self.scan_uid


def owner() -> str:
    """Answer who we are, in a form that no later process shares: its number and its start."""
    return _owner_of(os.getpid())


def is_gone(who: str) -> bool:
    """Whether the process that began something has ended."""
    number, _, began = who.partition("@")
    if not number.isdecimal():
        return True
    now = _owner_of(int(number)).partition("@")[2]
    # The moment is reckoned from the wall clock of the start, which may be set right later.
    return not now or not began or abs(float(now) - float(began)) > _CLOCK_STEP


def orphans(db: sqlite3.Connection) -> list[tuple[str, str, dict[str, Any]]]:
    """Take over all that was begun by processes which have ended; answer uid, kind and what."""
    mine = ""
    found = []
    for uid, kind, who, body in outbox.intents(db):
        if is_gone(who):
            mine = mine or owner()
            if outbox.claim(db, uid, before=who, owner=mine):
                found.append((uid, kind, json.loads(body)))
    return found


def tell_interrupted_scan(
    config: AgentConfig, db: sqlite3.Connection, scan_uid: str, frozen: dict[str, Any], now: int
) -> None:
    """Tell that a scan ended without an end of its own; `now` in milliseconds UTC."""
    with transaction(db):
        event = events.scan_ended(
            sequence=outbox.next_sequence(db),
            event_uid=events.new_uid(),
            scan_uid=UUID(scan_uid),
            scheduled=bool(frozen["scheduled"]),
            name=frozen["name"],
            paths=tuple(frozen["paths"]),
            end="error",
            start_time=frozen["start_time"],
            time=max(now, frozen["start_time"]),
            message="The scan was interrupted: the agent or the computer was stopped.",
            command_uid=_uuid_or_none(frozen.get("command_uid", "")),
        )
        _fulfill(config, db, scan_uid, event)
        if command_uid := frozen.get("command_uid", ""):
            journal.settle(
                db,
                command_uid,
                "interrupted",
                now=now,
                code="crash",
                detail="The scan was ended from outside before its end.",
            )


def intend_remediation(
    db: sqlite3.Connection,
    record: QuarantineRecord,
    action: Literal["restored", "deleted"],
    *,
    command_uid: str = "",
) -> str:
    """Note that a quarantined file is about to be restored or deleted; answer the act's id.

    The id is reckoned from the file's and the act: however often it is told, it is the same one.
    """
    seed = hashlib.blake2b(f"{record.id} {action}".encode(), digest_size=16).digest()
    # RFC 9562, version 8: bits of one's own choosing.
    bits = int.from_bytes(seed) & ~(0xF << 76) & ~(0x3 << 62) | 0x8 << 76 | 0x2 << 62
    return outbox.intend(
        db,
        kind="remediation",
        key=f"{record.id} {action}",
        uid=str(UUID(int=bits)),
        owner=owner(),
        body=json.dumps(act_on(record, action, command_uid=command_uid)).encode(),
    )


def act_on(
    record: QuarantineRecord, action: Literal["restored", "deleted"], *, command_uid: str = ""
) -> dict[str, Any]:
    """Answer what is told of such an act, now or by whoever completes it."""
    return {
        "action": action,
        "path": record.path,
        "size": record.size,
        "sha256": record.sha256,
        "quarantine_id": record.id,
        "command_uid": command_uid,
    }


def tell_remediation(
    config: AgentConfig, db: sqlite3.Connection, uid: str, frozen: dict[str, Any], now: int
) -> None:
    """Tell that a quarantined file was restored or deleted; `now` in milliseconds UTC."""
    with transaction(db):
        finding = noted(db, _finding_of(frozen["quarantine_id"]))
        event = events.remediation(
            sequence=outbox.next_sequence(db),
            event_uid=UUID(uid),
            time=now,
            action=frozen["action"],
            path=frozen["path"],
            size=frozen["size"],
            sha256=frozen["sha256"],
            finding_uid=UUID(finding) if isinstance(finding, str) else None,
            quarantine_id=UUID(frozen["quarantine_id"]),
            command_uid=_uuid_or_none(frozen.get("command_uid", "")),
        )
        _fulfill(config, db, uid, event)
        if command_uid := frozen.get("command_uid", ""):
            journal.settle(db, command_uid, "succeeded", now=now)
        db.execute("DELETE FROM note WHERE name = ?", (_finding_of(frozen["quarantine_id"]),))


def commanded(db: sqlite3.Connection) -> set[str]:
    """Answer the commands that a process which is still there carries out just now."""
    found = set()
    for _, _, who, body in outbox.intents(db):
        uid = json.loads(body).get("command_uid", "")
        if uid and not is_gone(who):
            found.add(uid)
    return found


def drop(db: sqlite3.Connection, uid: str) -> None:
    """Forget what was begun and, as it turned out, never happened."""
    outbox.fulfill(db, uid, [], max_bytes=0, max_events=0)


def _uuid_or_none(text: str) -> UUID | None:
    return UUID(text) if text else None


def _finding_of(quarantine_id: str) -> str:
    """Answer the name under which the finding of a quarantined file is remembered."""
    return f"finding.{quarantine_id}"


def _owner_of(number: int) -> str:
    import psutil

    try:
        return f"{number}@{psutil.Process(number).create_time():.2f}"
    except psutil.Error:
        return ""


def _key(location: bytes, sha256: str) -> str:
    return hashlib.blake2b(location + b"\0" + sha256.encode(), digest_size=16).hexdigest()


def _frozen(
    detection: Detection, scan_uid: UUID | None, definitions_version: str, *, quarantine: bool
) -> bytes:
    """Answer everything that telling, or completing, the finding needs later."""
    return json.dumps(
        {
            "quarantine": quarantine,
            "kind": detection.kind,
            "also": detection.also,
            "path": detection.path,
            "location": detection.location.hex(),
            "member": detection.member,
            "sha256": detection.sha256,
            "size": detection.size,
            "rule": detection.rule,
            "title": detection.title,
            "reason": detection.reason,
            "engine": detection.engine,
            "severity": detection.severity,
            "found_at": detection.found_at,
            "device": detection.device,
            "inode": detection.inode,
            "mtime_ns": detection.mtime_ns,
            "scan_uid": str(scan_uid or ""),
            "definitions_version": definitions_version,
        }
    ).encode()


def tell_finding(
    config: AgentConfig,
    db: sqlite3.Connection,
    finding_uid: UUID,
    frozen: dict[str, Any],
    outcome: Outcome,
) -> None:
    """Tell what became of a finding that was noted before."""
    with transaction(db):
        if outcome.quarantine_id:
            note(db, _finding_of(outcome.quarantine_id), str(finding_uid))
        event = events.finding(
            sequence=outbox.next_sequence(db),
            finding_uid=finding_uid,
            time=int(frozen["found_at"] * 1000),
            disposition=outcome.action,
            path=frozen["path"],
            size=frozen["size"],
            sha256=frozen["sha256"],
            rule=frozen["rule"],
            title=frozen["title"],
            description=frozen["reason"],
            severity=frozen["severity"],
            engine=frozen["engine"],
            member=frozen["member"],
            scan_uid=_uuid_or_none(frozen["scan_uid"]),
            quarantine_id=UUID(outcome.quarantine_id) if outcome.quarantine_id else None,
            definitions_version=protection.version_number(frozen["definitions_version"]),
            message=outcome.detail or ("" if frozen["scan_uid"] else _IN_REAL_TIME),
        )
        _fulfill(config, db, str(finding_uid), event)


def _fulfill(config: AgentConfig, db: sqlite3.Connection, uid: str, event: outbox.Event) -> None:
    outbox.fulfill(db, uid, [event], max_bytes=config.outbox_bytes, max_events=config.outbox_events)


def _put(config: AgentConfig, db: sqlite3.Connection, event: outbox.Event) -> None:
    outbox.put(db, [event], max_bytes=config.outbox_bytes, max_events=config.outbox_events)
