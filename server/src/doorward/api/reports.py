"""Scans and threats over the API, by the same questions as the pages ask."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from django.http import HttpRequest
from ninja import Router

from doorward.accounts.permissions import Act
from doorward.api import callers, shapes
from doorward.api.problems import Refused
from doorward.reports import queries as reports
from doorward.reports.models import Detection, Scan

router: Final = Router()


@router.get(
    "/scans",
    response={200: shapes.Page[shapes.ScanOut], **shapes.ERRORS},
    summary="Scans, the latest first",
)
def list_scans(
    request: HttpRequest,
    device: UUID | None = None,
    with_threats: bool | None = None,
    since: shapes.Moment | None = None,
    until: shapes.Moment | None = None,
    cursor: shapes.Cursor | None = None,
    limit: shapes.Limit = 50,
) -> shapes.Page[shapes.ScanOut]:
    """Return scans of your account's devices."""
    wanted = reports.ScanFilter(
        device=device, with_detections=with_threats, since=since, until=until
    )
    found = reports.scans(
        callers.of(request, Act.REPORTS_LOOK).sight, wanted, cursor=cursor or "", limit=limit
    )
    return shapes.Page(
        items=[shapes.ScanOut.of(scan) for scan in found.rows], next=found.older or None
    )


@router.get(
    "/scans/{uuid:scan_id}", response={200: shapes.ScanOut, **shapes.WITH_ID}, summary="One scan"
)
def show_scan(request: HttpRequest, scan_id: UUID) -> shapes.ScanOut:
    """Return one scan."""
    try:
        return shapes.ScanOut.of(reports.scan(callers.of(request, Act.REPORTS_LOOK).sight, scan_id))
    except Scan.DoesNotExist:
        raise Refused("not-found") from None


@router.get(
    "/threats",
    response={200: shapes.Page[shapes.ThreatOut], **shapes.ERRORS},
    summary="Threats, the latest first",
)
def list_threats(
    request: HttpRequest,
    device: UUID | None = None,
    is_open: bool | None = None,
    text: shapes.Text | None = None,
    since: shapes.Moment | None = None,
    until: shapes.Moment | None = None,
    cursor: shapes.Cursor | None = None,
    limit: shapes.Limit = 50,
) -> shapes.Page[shapes.ThreatOut]:
    """Return threats found on your account's devices. `text` is sought in path, title and rule."""
    wanted = reports.ThreatFilter(
        device=device, is_open=is_open, text=text or "", since=since, until=until
    )
    found = reports.threats(
        callers.of(request, Act.REPORTS_LOOK).sight, wanted, cursor=cursor or "", limit=limit
    )
    return shapes.Page(
        items=[shapes.ThreatOut.of(threat) for threat in found.rows], next=found.older or None
    )


@router.get(
    "/threats/{uuid:threat_id}",
    response={200: shapes.ThreatOut, **shapes.WITH_ID},
    summary="One threat",
)
def show_threat(request: HttpRequest, threat_id: UUID) -> shapes.ThreatOut:
    """Return one threat."""
    try:
        return shapes.ThreatOut.of(
            reports.threat(callers.of(request, Act.REPORTS_LOOK).sight, threat_id)
        )
    except Detection.DoesNotExist:
        raise Refused("not-found") from None
