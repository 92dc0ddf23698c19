"""Browsers an account knows: a lock for strangers does not touch them.

A cookie proves it, given only after signing in all the way, or by a link mailed to the owner. It
never replaces a password or a second step.
"""

from __future__ import annotations

import hashlib
import secrets
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from django.conf import settings
from django.db import connection, transaction
from django.db.models import QuerySet
from django.utils import timezone
from uuid_utils.compat import uuid7

from doorward.accounts import lockout, rows
from doorward.accounts.credentials import id_in_sql
from doorward.accounts.models import KnownBrowser, UnlockLink, User, canonical_email
from doorward.audit import trail

COOKIE_LASTS: Final = timedelta(days=400)
SECRET_BYTES: Final = 24  # 192 bits
LINK_LASTS: Final = timedelta(minutes=30)
# A family's computer: so many people's proofs in one cookie.
MOST_IN_A_COOKIE: Final = 8
SEEN_EVERY: Final = timedelta(minutes=5)
MOST_LISTED: Final = 50
"""More than these are only counted on as being there: forgetting all others reaches them, too."""


class LinkRefused(Exception):
    """The link was used, is too old, or never was one."""


def find(cookie: str, login: str) -> KnownBrowser | None:
    """Return the browser this cookie proves, if the account of ``login`` knows it."""
    digests = proofs_in(cookie)
    if not digests:
        # Whoever shows no proof knows that themselves: the time saved tells them nothing.
        return None
    found = rows.first(
        KnownBrowser,
        "b",
        "SELECT {columns} FROM accounts_knownbrowser b JOIN accounts_user u ON u.id = b.user_id"
        " WHERE b.digest IN (%s, %s, %s, %s, %s, %s, %s, %s)"
        " AND u.email = %s AND b.revoked_at IS NULL ORDER BY b.seen_at DESC LIMIT 1",
        [*digests, canonical_email(login)],
    )
    return found[0] if found is not None else None


def proofs_in(cookie: str) -> list[str]:
    """Return the proofs in a cookie as the table holds them: none, or always as many."""
    digests = [_digest(proof) for proof in _proofs(cookie)]
    return digests and digests + [""] * (MOST_IN_A_COOKIE - len(digests))


def remember(user: User, cookie: str, *, ip: str, agent: str) -> str:
    """Make this browser known to the person's account and return the cookie it proves it by."""
    known = find(cookie, user.email)
    if known is not None:
        return seen(known, cookie, ip=ip, agent=agent)
    return add(user, cookie, ip=ip, agent=agent)


def add(user: User, cookie: str, *, ip: str, agent: str) -> str:
    """Make a browser known that was not; return the cookie it proves it by."""
    now = timezone.now()
    proof = secrets.token_urlsafe(SECRET_BYTES)
    stamp: Any = connection.ops.adapt_datetimefield_value(now)
    # By hand, as everything a sign-in waits for (bench/README.md).
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO accounts_knownbrowser"
            " (id, user_id, digest, agent, network, created_at, seen_at)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s)",
            [
                *(id_in_sql(uuid7()), id_in_sql(user.pk), _digest(proof), agent[:300]),
                *(lockout.network_of(ip), stamp, stamp),
            ],
        )
    return ".".join([proof, *_proofs(cookie)][:MOST_IN_A_COOKIE])


def seen(known: KnownBrowser, cookie: str, *, ip: str, agent: str) -> str:
    """Note that a known browser was used, at most every five minutes; returns its cookie."""
    now = timezone.now()
    if known.seen_at <= now - SEEN_EVERY:
        KnownBrowser.objects.filter(pk=known.pk).update(
            seen_at=now, agent=agent[:300], network=lockout.network_of(ip)
        )
    return cookie


# -- the list of them, and forgetting -------------------------------------------------------------


def of(user: User) -> list[KnownBrowser]:
    """Return the browsers this person's account knows, the one seen last first, by one query.

    At most ``MOST_LISTED`` and one, which says that there are more.
    """
    return list(_known_to(user).order_by("-seen_at", "-pk")[: MOST_LISTED + 1])


def is_proved(known: KnownBrowser, cookie: str) -> bool:
    """Tell whether this cookie proves that it is this browser's."""
    return known.digest in proofs_in(cookie)


@transaction.atomic
def forget(user: User, browser: UUID, *, ip: str = "", agent: str = "") -> bool:
    """Make one of the person's browsers a stranger to their account; tells whether it was none."""
    if not _known_to(user).filter(pk=browser).update(revoked_at=timezone.now()):
        return False
    _record_forgotten(user, 1, target=str(browser), ip=ip, agent=agent)
    return True


@transaction.atomic
def forget_others(user: User, cookie: str, *, ip: str = "", agent: str = "") -> int:
    """Make every browser but the one with this cookie a stranger; returns how many there were."""
    others = _known_to(user).exclude(digest__in=proofs_in(cookie))
    count = others.update(revoked_at=timezone.now())
    if count:
        _record_forgotten(user, count, ip=ip, agent=agent)
    return count


def _known_to(user: User) -> QuerySet[KnownBrowser]:
    return KnownBrowser.objects.filter(user=user, revoked_at__isnull=True)


def _record_forgotten(user: User, count: int, *, ip: str, agent: str, target: str = "") -> None:
    trail.record(
        "account.browser.forgotten",
        actor=user,
        target=target,
        ip=ip,
        agent=agent,
        kind="known",
        count=count,
    )


# -- the link that makes a browser known ----------------------------------------------------------


def new_link(user: User) -> str:
    """Return a link that makes the browser it is opened in known; it works once."""
    secret = secrets.token_urlsafe(SECRET_BYTES)
    UnlockLink.objects.create(
        user=user, digest=_digest(secret), expires_at=timezone.now() + LINK_LASTS
    )
    return f"{settings.SITE_URL}/login/link/{secret}/"


def is_link(secret: str) -> bool:
    """Tell whether the link would still work; looking at it does not use it up."""
    return UnlockLink.objects.filter(
        digest=_digest(secret),
        used_at__isnull=True,
        expires_at__gt=timezone.now(),
        user__is_active=True,
    ).exists()


@transaction.atomic
def redeem(secret: str, cookie: str, *, ip: str, agent: str) -> str:
    """Use the link up and return the cookie by which this browser is known. Raises LinkRefused.

    Password and second step are still asked; what was counted against strangers stays counted.
    """
    now = timezone.now()
    digest = _digest(secret)
    # One statement over one table: of two clicks at once only one finds it unused. (With a join it
    # would be a subquery, which PostgreSQL does not look at again after waiting for the first.)
    used = UnlockLink.objects.filter(
        digest=digest, used_at__isnull=True, expires_at__gt=now
    ).update(used_at=now)
    if not used:
        raise LinkRefused
    link = UnlockLink.objects.select_related("user").get(digest=digest)
    if not link.user.is_active:
        raise LinkRefused
    trail.record("account.browser.known", actor=link.user, ip=ip, agent=agent, by="link")
    return remember(link.user, cookie, ip=ip, agent=agent)


def _proofs(cookie: str) -> list[str]:
    parts = cookie.split(".")[:MOST_IN_A_COOKIE]
    return [part for part in parts if 20 <= len(part) <= 64 and part.isascii()]


def _digest(secret: str) -> str:
    return hashlib.blake2b(
        secret.encode("utf-8", "surrogatepass"),
        key=settings.FIELD_KEY,
        person=b"doorward-door",
        digest_size=32,
    ).hexdigest()


def forget_old_links(now: datetime) -> int:
    """Delete links that ended a day ago; returns how many."""
    return UnlockLink.objects.filter(expires_at__lt=now - timedelta(days=1)).delete()[0]
