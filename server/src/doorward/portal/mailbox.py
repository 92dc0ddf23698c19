"""The demo's mailbox: on a throw-away server everyone may read its mail; nowhere else is it."""

from __future__ import annotations

import email
import email.policy
import email.utils
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

NEWEST: Final = 50


@dataclass(frozen=True)
class Letter:
    """One mail as the page shows it."""

    to: str
    subject: str
    text: str
    sent: datetime | None


@require_safe
def mailbox(request: HttpRequest) -> HttpResponse:
    """Show the newest mails of a demo; anywhere else this page does not exist."""
    if not settings.DEMO:
        raise Http404
    folder = Path(settings.DATA) / "mail"
    newest = sorted(folder.glob("*.eml"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
    letters = [_letter(path) for path in newest[:NEWEST]]
    return render(request, "portal/mailbox.html", {"letters": letters})


def _letter(path: Path) -> Letter:
    message = email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
    body = message.get_body(("plain",))
    date = message["Date"]
    return Letter(
        to=str(message["To"]),
        subject=str(message["Subject"]),
        text=body.get_content() if body is not None else "",
        sent=email.utils.parsedate_to_datetime(str(date)) if date else None,
    )
