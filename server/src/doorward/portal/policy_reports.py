"""Takes what browsers report of a page that broke its policy, or of a script slipped into one."""

from __future__ import annotations

import json
import time
from typing import Any, Final
from urllib.parse import urlsplit

import structlog
from django.http import HttpRequest, HttpResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

log = structlog.get_logger(__name__)

MOST_BYTES: Final = 16 * 1024
LINES_A_MINUTE: Final = 20
"""Anybody can send reports: more than this are not written down."""

_written: list[float] = []


# Browsers send no token with a report, and nothing is changed by one.
@csrf_exempt
@require_POST
def take(request: HttpRequest) -> HttpResponse:
    """Write down which directive was broken on which page and by what origin; always 204."""
    try:
        length = int(request.META.get("CONTENT_LENGTH") or 0)
    except ValueError:
        length = MOST_BYTES + 1
    if length <= MOST_BYTES:
        for report in _reports(request.read(MOST_BYTES)):
            _write(report)
    return HttpResponse(status=204)


def _reports(body: bytes) -> list[dict[str, Any]]:
    try:
        sent = json.loads(body)
    except (ValueError, RecursionError):
        return []
    # By report-to a list of reports, by the older report-uri one alone.
    bodies = [
        each.get("body") or each.get("csp-report")
        for each in (sent if isinstance(sent, list) else [sent])
        if isinstance(each, dict)
    ]
    return [each for each in bodies if isinstance(each, dict)]


def _write(report: dict[str, Any]) -> None:
    now = time.monotonic()
    _written[:] = [at for at in _written if now - at < 60]
    if len(_written) >= LINES_A_MINUTE:
        return
    _written.append(now)
    directive = report.get("effectiveDirective") or report.get("violated-directive")
    page = report.get("documentURL") or report.get("document-uri")
    blocked = report.get("blockedURL") or report.get("blocked-uri")
    # Never the whole address: it may hold what opens something.
    log.warning(
        "policy.broken",
        directive=str(directive)[:60],
        page=_origin(page),
        blocked=_origin(blocked),
    )


def _origin(address: object) -> str:
    try:
        parts = urlsplit(str(address)[:2000])
        return f"{parts.scheme}://{parts.hostname}" if parts.hostname else str(address)[:20]
    except ValueError:
        return "?"
