"""Browsers in which a person is not asked for the second step again, for 30 days.

They never replace the password, and every change of a password or of a second step forgets them.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from datetime import timedelta
from typing import Final
from uuid import UUID

from django.conf import settings
from django.utils import timezone

from doorward.accounts.models import RememberedBrowser, User
from doorward.audit import trail

LASTS: Final = timedelta(days=30)
SECRET_BYTES: Final = 32
_SECRET: Final = re.compile(r"[A-Za-z0-9_-]{43}")


def secret_in(cookie: str | None) -> str:
    """Return the secret a browser holds, or a new one for it."""
    if cookie and _SECRET.fullmatch(cookie):
        return cookie
    return secrets.token_urlsafe(SECRET_BYTES)


def remember(user: User, cookie: str, *, ip: str, agent: str) -> RememberedBrowser:
    """Remember the browser that holds this secret, for this person."""
    now = timezone.now()
    browser, _new = RememberedBrowser.objects.update_or_create(
        digest=_digest(user, cookie),
        defaults={
            "user": user,
            "agent": agent,
            "ip": ip,
            "created_at": now,
            "last_used_at": now,
            "expires_at": now + LASTS,
        },
    )
    trail.record(
        "account.browser.remembered", actor=user, target=str(browser.pk), ip=ip, agent=agent
    )
    return browser


def is_remembered(user: User, cookie: str | None) -> bool:
    """Tell whether this person is not to be asked again in the browser that holds this secret."""
    if not cookie or not _SECRET.fullmatch(cookie):
        return False
    now = timezone.now()
    found = RememberedBrowser.objects.filter(digest=_digest(user, cookie), expires_at__gt=now)
    return found.update(last_used_at=now) == 1


def of(user: User) -> list[RememberedBrowser]:
    """Return the browsers remembered for this person, newest first."""
    return list(
        RememberedBrowser.objects.filter(user=user, expires_at__gt=timezone.now()).order_by(
            "-created_at"
        )
    )


def forget(user: User, browser: UUID, *, ip: str = "", agent: str = "") -> bool:
    """Forget one of the person's browsers; tells whether there was one."""
    gone, _rows = RememberedBrowser.objects.filter(user=user, pk=browser).delete()
    if gone:
        trail.record(
            "account.browser.forgotten", actor=user, target=str(browser), ip=ip, agent=agent
        )
    return bool(gone)


def forget_all(user: User) -> int:
    """Forget every browser of this person; returns how many were still remembered."""
    there = RememberedBrowser.objects.filter(user=user)
    alive = there.filter(expires_at__gt=timezone.now()).count()
    there.delete()
    return alive


def _digest(user: User, secret: str) -> str:
    return hashlib.blake2b(
        f"{user.pk} {secret}".encode(),
        key=settings.FIELD_KEY,
        person=b"doorward-memory",
        digest_size=32,
    ).hexdigest()
