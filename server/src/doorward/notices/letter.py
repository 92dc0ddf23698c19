"""A letter to a person: written once, sent as text and as HTML that say the same."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from django.conf import settings
from django.template.loader import render_to_string
from django.utils import timezone, translation
from django.utils.translation import gettext as _

from doorward.notices import outbox
from doorward.notices.models import Mail


@dataclass(frozen=True, kw_only=True)
class Letter:
    """What a mail says. Anything that came from outside is shown as text, on one line, in both."""

    kind: str
    subject: str
    lines: list[str]
    code: str = ""
    link: str = ""
    link_label: str = ""
    closing: tuple[str, ...] = ()
    useless_after: timedelta | None = None
    # Why they get it, where it is not for what happened in an account of theirs.
    why: str = ""


def post(letter: Letter, *, to: str, account: UUID | None = None, forget: bool = False) -> Mail:
    """Put the letter into the outbox, in the caller's transaction."""
    context = {
        "letter": {
            "subject": outbox.one_line(letter.subject),
            "lines": [outbox.one_line(line) for line in letter.lines],
            "code": letter.code,
            "link": letter.link,
            "link_label": letter.link_label,
            "closing": [outbox.one_line(line) for line in letter.closing],
            "why": letter.why or _("You get this because of what happened in your account at"),
        },
        "product_name": outbox.one_line(settings.PRODUCT_NAME),
        "site_url": settings.SITE_URL,
        "language": translation.get_language() or "en",
    }
    return outbox.enqueue(
        to=to,
        kind=letter.kind,
        subject=letter.subject,
        text=render_to_string("notices/letter.txt", context).strip() + "\n",
        html=render_to_string("notices/letter.html", context).strip() + "\n",
        account=account,
        not_after=timezone.now() + letter.useless_after if letter.useless_after else None,
        forget=forget,
    )
