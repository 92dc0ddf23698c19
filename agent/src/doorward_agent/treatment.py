"""What is done about a detection, and completing what a killed process had begun."""

from __future__ import annotations

import contextlib
import dataclasses
import sqlite3
import time
from typing import Any
from uuid import UUID

from doorward_agent import allowed, findings, quarantine, vault
from doorward_agent.config import AgentConfig
from doorward_agent.definitions import SUSPICIOUS
from doorward_agent.findings import Outcome, Teller
from doorward_agent.scan import Detection


def treat(
    detection: Detection,
    config: AgentConfig,
    *,
    put_away: bool,
    teller: Teller | None,
    definitions_version: str,
) -> Outcome:
    """Put the file away if asked to, tell it, and answer what became of it.

    A file that is only suspicious stays where it is, and is told. Protecting comes first: with a
    full disk, where nothing can be noted, the file is put away all the same.
    """
    uid, untold = None, ""
    put_away = put_away and detection.kind != SUSPICIOUS
    if teller is not None:
        try:
            uid = teller.found(detection, definitions_version, quarantine=put_away)
        except sqlite3.Error as problem:
            untold = str(problem)
    outcome = _put_away(detection, config) if put_away else Outcome(action="detected")
    if teller is not None and uid is not None:
        # Where this fails, it is noted that it was begun: the next start tells it.
        with contextlib.suppress(sqlite3.Error):
            teller.settled(uid, detection, outcome, definitions_version)
    return dataclasses.replace(outcome, untold=untold)


def complete(config: AgentConfig, db: sqlite3.Connection) -> int:
    """Complete and tell what processes that were killed had begun; answer how much that was.

    A file that was being put away is put away now if it is still the same one, so that no finding
    waits for the next scan to be dealt with.
    """
    left = findings.orphans(db)
    if not left:
        return 0
    quarantine.recover(config)
    records = quarantine.list_records(config)
    held = {record.id for record in records}
    put_away = {(each.location, each.sha256, each.found_at): each.id for each in records}
    now = int(time.time() * 1000)
    for uid, kind, frozen in left:
        if kind == "scan":
            findings.tell_interrupted_scan(config, db, uid, frozen, now)
        elif kind == "remediation":
            if frozen["quarantine_id"] in held:
                findings.drop(db, uid)
            else:
                findings.tell_remediation(config, db, uid, frozen, now)
        else:
            detection = _thawed(frozen)
            known = put_away.get((detection.location, detection.sha256, detection.found_at))
            outcome = (
                Outcome(action="quarantined", quarantine_id=known)
                if known
                else _again(detection, config, frozen)
            )
            findings.tell_finding(config, db, UUID(uid), frozen, outcome)
    return len(left)


def _again(detection: Detection, config: AgentConfig, frozen: dict[str, Any]) -> Outcome:
    if not frozen["quarantine"]:
        return Outcome(action="detected")
    try:
        if allowed.holds(config, detection.sha256, detection.location):
            return Outcome(action="allowed", detail="Restored, and allowed since.")
    except allowed.AllowedUnreadable:
        pass  # when in doubt, put it away: that can be undone
    return _put_away(detection, config)


def _put_away(detection: Detection, config: AgentConfig) -> Outcome:
    try:
        record = quarantine.put_away(detection, config)
    except quarantine.Refused as problem:
        if problem.reason == "gone":
            return Outcome(action="deleted", detail="It was gone before it could be put away.")
        return Outcome(action="uncorrected", detail=str(problem))
    except (vault.VaultDamaged, OSError) as problem:
        return Outcome(action="uncorrected", detail=f"Quarantine failed: {problem}")
    return Outcome(action="quarantined", quarantine_id=record.id)


def _thawed(frozen: dict[str, Any]) -> Detection:
    return Detection(
        path=frozen["path"],
        location=bytes.fromhex(frozen["location"]),
        member=frozen["member"],
        sha256=frozen["sha256"],
        size=frozen["size"],
        rule=frozen["rule"],
        title=frozen["title"],
        reason=frozen["reason"],
        engine=frozen["engine"],
        severity=frozen["severity"],
        kind=frozen["kind"],
        also=tuple(frozen["also"]),
        found_at=frozen["found_at"],
        device=frozen["device"],
        inode=frozen["inode"],
        mtime_ns=frozen["mtime_ns"],
    )
