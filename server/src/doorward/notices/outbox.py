"""Mail that is to be sent is a row; it exists if and only if the act it tells of happened."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, formataddr
from typing import Final
from urllib.parse import urlsplit
from uuid import UUID

import msgspec
import structlog
from django.conf import settings
from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from doorward.notices import carriers, envelope
from doorward.notices.models import Mail

log = structlog.get_logger(__name__)

# Longer than one whole conversation may take (carriers.TIMEOUT_S for each of its steps).
LEASE: Final = timedelta(minutes=5)
# 30 s, 1 min, 2 min ... at most an hour apart, for two days: longer than a usual outage.
FIRST_RETRY: Final = timedelta(seconds=30)
LONGEST_RETRY: Final = timedelta(hours=1)
GIVE_UP_AFTER: Final = timedelta(days=2)
MOST_PER_TURN: Final = 200


class _Body(msgspec.Struct, frozen=True):
    text: str
    html: str


@dataclass(frozen=True)
class Claimed:
    """A mail that is ours to send until its lease runs out."""

    mail: Mail
    lease: datetime


def enqueue(
    *,
    to: str,
    kind: str,
    subject: str,
    text: str,
    html: str = "",
    account: UUID | None = None,
    due_at: datetime | None = None,
    not_after: datetime | None = None,
    forget: bool = False,
) -> Mail:
    """Store the mail in the caller's transaction; the worker sends it within a second or two.

    ``not_after``: the moment from which it is useless (its code has expired) and is not sent.
    ``forget``: delete every trace of it once it is sent or dropped.
    """
    now = timezone.now()
    mail = Mail(
        to=to,
        kind=kind,
        subject=one_line(subject)[:200],
        account_id=account,
        created_at=now,
        due_at=due_at or now,
        not_after=not_after,
        forget=forget,
    )
    mail.body = envelope.seal(
        msgspec.json.encode(_Body(text=text, html=html)), purpose=_purpose(mail)
    )
    mail.save(force_insert=True)
    return mail


def send_due(now: datetime) -> int:
    """Send what is due and return how many mails are settled; each goes out once.

    A mail whose moment has passed is dropped unsent. When the way out is down, the rest wait for
    their next turn instead of each waiting for the same timeout.
    """
    dropped = _drop_expired(now)
    settled = 0
    with _carrier() as carrier:
        while settled < MOST_PER_TURN:
            claimed = _claim(now)
            if claimed is None:
                break
            try:
                carrier.deliver(_message(claimed.mail))
            except carriers.Refused as refused:
                _settle(claimed, dropped_at=now, error=str(refused))
            except carriers.TryLater as later:
                _postpone(claimed, now, error=str(later))
                if later.everything:
                    break
            except envelope.Unreadable:
                _settle(claimed, dropped_at=now, error="sealed with another key")
            else:
                _settle(claimed, sent_at=now)
            settled += 1
    return dropped + settled


def one_line(text: str) -> str:
    """Return the text as one line without control or direction characters: fit for a header."""
    spaced = "".join(
        " " if unicodedata.category(c) in {"Cc", "Cf", "Cs", "Zl", "Zp"} else c for c in text
    )
    return " ".join(spaced.split())


def _purpose(mail: Mail) -> str:
    return f"mail {mail.pk}"


@contextmanager
def _carrier() -> Iterator[carriers.Carrier]:
    carrier = carriers.from_url(settings.EMAIL_URL, data=settings.DATA)
    try:
        yield carrier
    finally:
        carrier.close()


def _waiting(now: datetime) -> Q:
    unleased = Q(lease_until__isnull=True) | Q(lease_until__lte=now)
    return Q(sent_at__isnull=True, dropped_at__isnull=True) & unleased


def _drop_expired(now: datetime) -> int:
    expired = Mail.objects.filter(_waiting(now), not_after__lte=now)
    return expired.update(dropped_at=now, body=b"", lease_until=None, last_error="expired")


@transaction.atomic
def _claim(now: datetime) -> Claimed | None:
    due = Mail.objects.filter(_waiting(now), due_at__lte=now).order_by("due_at")
    # On PostgreSQL two workers skip each other's rows; on SQLite the transaction itself excludes.
    mail = due.select_for_update(skip_locked=True).first()
    if mail is None:
        return None
    mail.lease_until = now + LEASE
    mail.tries += 1
    mail.save(update_fields=["lease_until", "tries"])
    return Claimed(mail=mail, lease=mail.lease_until)


def _settle(
    claimed: Claimed,
    *,
    sent_at: datetime | None = None,
    dropped_at: datetime | None = None,
    error: str = "",
) -> None:
    mail = claimed.mail
    if mail.forget:
        Mail.objects.filter(pk=mail.pk).delete()
    Mail.objects.filter(pk=mail.pk).update(
        sent_at=sent_at, dropped_at=dropped_at, body=b"", lease_until=None, last_error=error[:200]
    )
    if sent_at is not None:
        log.info("mail.sent", kind=mail.kind, mail=str(mail.pk), tries=mail.tries)
    else:
        log.warning("mail.dropped", kind=mail.kind, mail=str(mail.pk), error=error)


def _postpone(claimed: Claimed, now: datetime, *, error: str) -> None:
    mail = claimed.mail
    if now - mail.created_at > GIVE_UP_AFTER:
        _settle(claimed, dropped_at=now, error=error)
        return
    wait = min(FIRST_RETRY * 2 ** min(mail.tries - 1, 16), LONGEST_RETRY)
    Mail.objects.filter(pk=mail.pk, lease_until=claimed.lease).update(
        due_at=now + wait, lease_until=None, last_error=error[:200]
    )
    log.warning("mail.postponed", kind=mail.kind, mail=str(mail.pk), tries=mail.tries, error=error)


def _message(mail: Mail) -> EmailMessage:
    sealed = bytes(mail.body)
    body = msgspec.json.decode(envelope.unseal(sealed, purpose=_purpose(mail)), type=_Body)
    message = EmailMessage(policy=SMTP)
    message["Subject"] = mail.subject
    message["From"] = formataddr((one_line(settings.PRODUCT_NAME), settings.DEFAULT_FROM_EMAIL))
    message["To"] = one_line(mail.to)
    message["Date"] = format_datetime(mail.created_at)
    # The same at every try, so that a mail accepted just before a crash is seen to be the same one.
    message["Message-ID"] = f"<{mail.pk}@{urlsplit(settings.SITE_URL).hostname}>"
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(body.text)
    if body.html:
        message.add_alternative(body.html, subtype="html")
    return message
