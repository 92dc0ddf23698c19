"""The reports pages: scans and threats, filtered by links that can be kept, and one of each."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from django.conf import settings
from django.core.exceptions import BadRequest
from django.http import Http404, HttpRequest, HttpResponse, QueryDict
from django.utils import timezone
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _
from django.views.decorators.http import require_safe

from doorward.accounts.models import Account
from doorward.accounts.permissions import Act
from doorward.devices import queries as devices
from doorward.portal import filters, live, quarantine, telling, texts, visits, wrong_finds
from doorward.portal.devices import launcher_of
from doorward.portal.visits import Visit
from doorward.reports import queries
from doorward.reports.models import Detection, Disposition, Scan, ScanState

FOUND_SHOWN: Final = 50
"""Threats on the page of a scan."""
DEVICE_LINKS: Final = 8
"""So many devices are offered as links; whoever has more filters from the device's own page."""
SPANS: Final[dict[str, tuple[str | Promise, timedelta]]] = {
    "day": (_("24 hours"), timedelta(days=1)),
    "week": (_("7 days"), timedelta(days=7)),
    "month": (_("30 days"), timedelta(days=30)),
}
ACTIONS: Final[dict[str, tuple[str | Promise, frozenset[int]]]] = {
    "open": (_("Still there"), frozenset()),
    "away": (_("Put away"), frozenset(map(int, telling.PUT_AWAY))),
    "deleted": (_("Deleted"), frozenset(map(int, telling.DELETED))),
    "back": (_("Put back"), frozenset({int(Disposition.RESTORED)})),
}
RESULTS: Final[dict[str, str | Promise]] = {
    "threats": _("With threats"),
    "clean": _("Nothing found"),
    "running": _("Running"),
    "failed": _("Not finished"),
}


@require_safe
@visits.may(Act.REPORTS_LOOK)
def scans(request: HttpRequest, visit: Visit) -> HttpResponse:
    """List the account's scans, newest first."""
    result = filters.one_of(request.GET, "result", RESULTS)
    wanted = queries.ScanFilter(
        device=_device(request.GET),
        with_detections={"threats": True, "clean": False}.get(result),
        states=frozenset(
            {
                "running": {int(ScanState.RUNNING)},
                "clean": {int(ScanState.COMPLETED)},
                "failed": {
                    int(ScanState.FAILED),
                    int(ScanState.CANCELLED),
                    int(ScanState.TOO_LONG),
                },
            }.get(result, set())
        ),
        since=_since(request.GET),
    )

    def context() -> dict[str, object]:
        page = queries.scans(visit.sight, wanted, cursor=request.GET.get("at", ""))
        return {
            "visit": visit,
            "tab": "scans",
            "filters": [
                _device_filter(request.GET, visit.account),
                filters.by(request.GET, _("Result"), "result", RESULTS),
                _span_filter(request.GET),
            ],
            "is_filtered": _is_filtered(request.GET),
            "scans": page.rows,
            **_neighbors(request.GET, page),
        }

    return _live(request, visit, "scans", context)


@require_safe
@visits.may(Act.REPORTS_LOOK)
def threats(request: HttpRequest, visit: Visit) -> HttpResponse:
    """List the account's threats, newest first."""
    action = filters.one_of(request.GET, "action", ACTIONS)
    text = request.GET.get("text", "").strip().replace("\x00", "")[:200]
    wanted = queries.ThreatFilter(
        device=_device(request.GET),
        dispositions=ACTIONS[action][1] if action else frozenset(),
        is_open=True if action == "open" else None,
        text=text,
        since=_since(request.GET),
    )

    def context() -> dict[str, object]:
        page = queries.threats(visit.sight, wanted, cursor=request.GET.get("at", ""))
        actions = {key: words for key, (words, _kinds) in ACTIONS.items()}
        return {
            "visit": visit,
            "tab": "threats",
            "filters": [
                _device_filter(request.GET, visit.account),
                filters.by(request.GET, _("Action taken"), "action", actions),
                _span_filter(request.GET),
            ],
            "is_filtered": _is_filtered(request.GET),
            "threats": page.rows,
            **_neighbors(request.GET, page),
        }

    return _live(request, visit, "threats", context)


@require_safe
@visits.may(Act.REPORTS_LOOK)
def scan(request: HttpRequest, visit: Visit, uid: UUID) -> HttpResponse:
    """Show one scan: what it looked at, what it found, what it left out."""
    try:
        found = queries.scan(visit.sight, uid)
    except Scan.DoesNotExist:
        raise Http404 from None

    def context() -> dict[str, object]:
        threats = queries.ThreatFilter(scan=found)
        return {
            "visit": visit,
            "scan": found,
            "headline": telling.scan_headline(found),
            "threats": queries.threats(visit.sight, threats, limit=FOUND_SHOWN).rows,
        }

    return _live(request, visit, "scan", context)


@require_safe
@visits.may(Act.REPORTS_LOOK)
def threat(request: HttpRequest, visit: Visit, uid: UUID) -> HttpResponse:
    """Show one threat: file, device, rule, when, what was done, and how to go on."""
    try:
        queries.threat(visit.sight, uid)
    except Detection.DoesNotExist:
        raise Http404 from None

    def context() -> dict[str, object]:
        detail = queries.threat_detail(visit.sight, uid)
        return {
            "visit": visit,
            "threat": detail.threat,
            "remediations": detail.remediations,
            "scan": detail.scan,
            "headline": telling.threat_headline(detail.threat),
            "meaning": telling.threat_meaning(detail.threat),
            "launcher": launcher_of(detail.threat.device),
            # Its agent is no person's: it lives in the demo's own folder (starters/demo.py).
            "demo_state": settings.DATA.parent / "laptop" / "state" if settings.DEMO else "",
            "can_restore": detail.threat.disposition in telling.PUT_AWAY,
            "can_restore_here": quarantine.can_act(visit, detail.threat),
            "said": wrong_finds.said(visit, detail.threat),
        }

    return _live(request, visit, "threat", context)


def _live(
    request: HttpRequest, visit: Visit, name: str, context: Callable[[], dict[str, object]]
) -> HttpResponse:
    # A list of the last 24 hours loses rows as time goes by: looked at anew each minute.
    now = timezone.now()
    moment = now.replace(second=0, microsecond=0) if request.GET.get("time") else now.date()
    seen = (
        queries.version(visit.account),
        devices.news(visit.account),
        visit.role,
        moment,
    )
    try:
        return live.answer(
            request,
            f"portal/reports/{name}.html",
            f"portal/reports/{name}_live.html",
            seen=seen,
            context=context,
        )
    except queries.InvalidCursor:
        raise BadRequest("cursor") from None


# -- filters -------------------------------------------------------------------------------------


def _device(asked: QueryDict) -> UUID | None:
    text = asked.get("device", "")
    try:
        return UUID(text) if text else None
    except ValueError:
        raise BadRequest("device") from None


def _since(asked: QueryDict) -> datetime | None:
    span = filters.one_of(asked, "time", SPANS)
    if not span:
        return None
    # To the minute, so that the live part's question stays the same between two looks.
    return timezone.now().replace(second=0, microsecond=0) - SPANS[span][1]


def _is_filtered(asked: QueryDict) -> bool:
    return any(asked.get(key) for key in ("device", "result", "action", "time", "text"))


def _neighbors(asked: QueryDict, page: queries.Page[Any]) -> dict[str, str]:
    """Return the links to the pages before and after, "" where there is none."""
    return {
        "older": filters.link(asked, at=page.older) if page.older else "",
        "newer": filters.link(asked, at=page.newer) if page.newer else "",
    }


def _span_filter(asked: QueryDict) -> filters.Filter:
    return filters.by(
        asked, _("Time"), "time", {key: words for key, (words, _span) in SPANS.items()}
    )


def _device_filter(asked: QueryDict, account: Account) -> filters.Filter:
    offered = devices.page(account, size=DEVICE_LINKS)[:DEVICE_LINKS]
    chosen = _device(asked)
    if chosen is not None and all(device.pk != chosen for device in offered):
        other = devices.find(account, chosen)
        offered = [*offered, other] if other is not None else offered
    names: dict[str, str | Promise] = {
        str(device.pk): texts.shortened(texts.visible(device.label), 32) for device in offered
    }
    if chosen is not None and str(chosen) not in names:
        names[str(chosen)] = _("A removed device")
    return filters.by(asked, _("Device"), "device", names)
