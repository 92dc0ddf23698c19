"""The demo's mailbox: on a throw-away server everyone may read its mail; nowhere else is it."""

from __future__ import annotations

import contextlib
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
    letters = [_letter(raw) for raw in _newest(Path(settings.DATA) / "mail")]
    return render(request, "portal/mailbox.html", {"letters": letters})


def _newest(folder: Path) -> list[bytes]:
    # A mail goes with the person it was for, maybe while we look.
    written = {}
    for path in folder.glob("*.eml"):
        with contextlib.suppress(FileNotFoundError):
            written[path] = path.stat().st_mtime_ns
    found = []
    for path in sorted(written, key=written.__getitem__, reverse=True)[:NEWEST]:
        with contextlib.suppress(FileNotFoundError):
            found.append(path.read_bytes())
    return found


def _letter(raw: bytes) -> Letter:
    message = email.message_from_bytes(raw, policy=email.policy.default)
    body = message.get_body(("plain",))
    date = message["Date"]
    return Letter(
        to=str(message["To"]),
        subject=str(message["Subject"]),
        text=body.get_content() if body is not None else "",
        sent=email.utils.parsedate_to_datetime(str(date)) if date else None,
    )
