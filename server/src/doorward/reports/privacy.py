"""What devices reported, as an export shows it, and how it is forgotten."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from django.db.models import Q, Sum

from doorward.accounts import privacy
from doorward.accounts.models import Shares
from doorward.accounts.privacy import Room, Row, Table, Whose
from doorward.accounts.privacy_tables import moment
from doorward.devices import privacy as devices_privacy
from doorward.devices import sharing
from doorward.devices.sharing import Sight
from doorward.reports.models import (
    Detection,
    Disposition,
    Remediation,
    Scan,
    ScanKind,
    ScanState,
    Severity,
    Tally,
)

AnyReport = type[Scan] | type[Detection] | type[Remediation]
HIDDEN: Final = "(not shared with you)"


def _shown(model: AnyReport, whose: Whose) -> Iterator[tuple[Any, Sight | None]]:
    # Another member's devices show in the owner's copy what they show on the owner's pages.
    for account in whose.accounts:
        sight = sharing.of(account, whose.user)
        seen = sight.condition()
        rows = model.objects.filter(device__account=account)
        for row in _in_order(rows if seen is None else rows.filter(seen)):
            yield row, sight
    for row in _in_order(model.objects.filter(_elsewhere(whose))):
        yield row, None


def _in_order(rows: Any) -> Iterator[Any]:
    yield from rows.select_related("device").order_by("time", "id").iterator(chunk_size=2000)


def _elsewhere(whose: Whose) -> Q:
    """Return what this person's own devices reported in accounts that are not theirs alone."""
    return Q(device__member=whose.user.pk) & ~Q(device__account__in=whose.accounts)


def _path(text: str, sight: Sight | None, row: Scan | Detection | Remediation) -> str:
    if not text or sight is None or sight.of(row.device) == Shares.PATHS:
        return text
    return HIDDEN


def _scans(whose: Whose) -> Iterator[Row]:
    for scan, sight in _shown(Scan, whose):
        yield [
            str(scan.uid),
            str(scan.device_id),
            str(scan.name),
            ScanKind(scan.kind).name.lower(),
            ScanState(scan.state).name.lower(),
            moment(scan.time),
            moment(scan.ended_at),
            scan.files,
            scan.bytes,
            scan.skipped,
            scan.detections,
            [_path(str(path), sight, scan) for path in scan.paths],
            _path(scan.message, sight, scan),
        ]


def _threats(whose: Whose) -> Iterator[Row]:
    for found, sight in _shown(Detection, whose):
        yield [
            str(found.finding_uid),
            str(found.device_id),
            str(found.scan_uid) if found.scan_uid else None,
            moment(found.time),
            found.title,
            found.rule,
            Severity(found.severity).name.lower(),
            Disposition(found.disposition).name.lower(),
            _path(found.path, sight, found),
            _path(found.member, sight, found),
            found.size,
            found.sha256,
            [_path(str(path), sight, found) for path in found.more_paths or []],
        ]


def _remediations(whose: Whose) -> Iterator[Row]:
    for done, sight in _shown(Remediation, whose):
        yield [
            str(done.uid),
            str(done.device_id),
            str(done.finding_uid) if done.finding_uid else None,
            moment(done.time),
            Disposition(done.disposition).name.lower(),
            _path(done.path, sight, done),
            _path(done.message, sight, done),
        ]


def _foretell(whose: Whose) -> dict[str, int]:
    # Counting millions of rows for a page would be slow; the tallies have counted an account's.
    tallied = Tally.objects.filter(account__in=whose.accounts)
    told = tallied.aggregate(scans=Sum("scans", default=0), threats=Sum("detections", default=0))
    own = _elsewhere(whose)
    return {
        "scans": told["scans"] + Scan.objects.filter(own).count(),
        "threats": told["threats"] + Detection.objects.filter(own).count(),
    }


def _erase(whose: Whose, most: int) -> dict[str, int]:
    kinds: dict[str, AnyReport] = {
        "remediations": Remediation,
        "threats": Detection,
        "scans": Scan,
    }
    for kind, model in kinds.items():
        found = model.objects.filter(devices_privacy.of(whose, "device__"))
        doomed = list(found.values_list("pk", flat=True)[:most])
        if doomed:
            return {kind: model.objects.filter(pk__in=doomed).delete()[0]}
    return {}


def register() -> None:
    """Have this room take part."""
    scans = {
        "id": "the scan's number",
        "device": "the device's number",
        "name": "the scan's name",
        "kind": "what started it",
        "state": "how it ended",
        "started_at": "when it began",
        "ended_at": "when it ended",
        "files": "files looked at",
        "bytes": "bytes looked at",
        "skipped": "files that could not be looked at",
        "threats": "threats found",
        "paths": "where it looked",
        "message": "what the device said about it",
    }
    threats = {
        "id": "the threat's number",
        "device": "the device's number",
        "scan": "the scan that found it",
        "at": "when",
        "title": "what it is",
        "rule": "the rule that hit",
        "severity": "how bad it is",
        "action": "what was done about it",
        "path": "the file",
        "member": "the file inside an archive",
        "size": "the file's size in bytes",
        "sha256": "the file's SHA-256",
        "more_paths": "more files that show the same",
    }
    remediations = {
        "id": "the action's number",
        "device": "the device's number",
        "threat": "the threat it was about",
        "at": "when",
        "action": "what was done",
        "path": "the file",
        "message": "what the device said about it",
    }
    tables = (
        Table("scans", "Scans on your devices.", scans, _scans),
        Table("threats", "What was found on your devices.", threats, _threats),
        Table("actions", "What was done about threats later.", remediations, _remediations),
    )
    gone = "deleted before its device"
    covers = {
        "reports.Scan": gone,
        "reports.Detection": gone,
        "reports.Remediation": gone,
        "reports.Tally": "goes with the account",
    }
    privacy.register(
        Room("reports", tables=tables, covers=covers, foretell=_foretell, erase=_erase)
    )
