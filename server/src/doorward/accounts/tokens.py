"""Personal access tokens: what a person gives a script instead of their password."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Collection
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from django.conf import settings
from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from doorward.accounts import members, sessions
from doorward.accounts.models import Account, PersonalToken, User
from doorward.accounts.permissions import Act
from doorward.audit import card_numbers, trail

PREFIX: Final = "dwp_"
# 24 random bytes: 192 bits, as 32 characters.
SECRET_BYTES: Final = 24
LONGEST_LIFE_DAYS: Final = 366
MOST_PER_PERSON: Final = 50
# Writing at each use would make every read a write.
TOUCHED_EVERY: Final = timedelta(minutes=5)


class Scope(StrEnum):
    """What a token may do; its owner's role bounds it further at each use."""

    DEVICES_READ = "devices:read"
    DEVICES_WRITE = "devices:write"
    COMMANDS_WRITE = "commands:write"
    SETTINGS_WRITE = "settings:write"
    REPORTS_READ = "reports:read"
    MEMBERS_READ = "members:read"


class TokenRefused(ValueError):
    """A token like this is not made; the text says why."""


@transaction.atomic
def create(
    user: User,
    *,
    name: str,
    scopes: Collection[str],
    days: int,
    account: Account | None = None,
    ip: str = "",
    agent: str = "",
) -> tuple[PersonalToken, str]:
    """Make a token and return it with its text, which is shown once and kept nowhere.

    It opens ``account`` alone, and ends when the person no longer belongs to it; without one, the
    account they have belonged to longest. Raises TokenRefused, members.NotAllowed and
    sessions.Overtaken.
    """
    chosen = [scope for scope in Scope if scope in set(scopes)]
    label = card_numbers.hide(name.strip())
    if not chosen or len(chosen) != len(set(scopes)):
        raise TokenRefused("choose at least one of the scopes there are")
    if not 1 <= days <= LONGEST_LIFE_DAYS:
        raise TokenRefused(f"a token lasts from 1 to {LONGEST_LIFE_DAYS} days")
    if not 1 <= len(label) <= 80 or not label.isprintable():
        raise TokenRefused("a name has 1 to 80 characters, all of them visible")
    if account is not None:
        # Who leaves meanwhile leaves no token behind that opens the account when they come back.
        members.must_still(account, user, Act.OWN)
    # It locks the person: two at once are counted one after the other.
    sessions.must_still_be_in(user)
    if len(of(user)) >= MOST_PER_PERSON:
        raise TokenRefused(f"you have {MOST_PER_PERSON} tokens already; revoke one first")
    text = PREFIX + secrets.token_urlsafe(SECRET_BYTES)
    now = timezone.now()
    token = PersonalToken.objects.create(
        user=user,
        account=account,
        name=label,
        digest=_digest(text),
        scopes=" ".join(chosen),
        created_at=now,
        expires_at=now + timedelta(days=days),
    )
    trail.record(
        "account.token.made",
        actor=user,
        target=str(token.pk),
        ip=ip,
        agent=agent,
        name=label,
        scopes=chosen,
    )
    return token, text


def of(user: User) -> list[PersonalToken]:
    """Return the person's tokens that still work, newest first."""
    return list(_alive(timezone.now()).filter(user=user).order_by("-created_at"))


def find(text: str) -> PersonalToken | None:
    """Return the token behind this text while it works and its owner may sign in."""
    if not text.startswith(PREFIX) or len(text) > 100 or not text.isascii():
        return None
    now = timezone.now()
    token = (
        _alive(now)
        .select_related("user")
        .filter(digest=_digest(text), user__is_active=True)
        .first()
    )
    if token is None:
        return None
    _touch(token, now)
    return token


@transaction.atomic
def revoke(token: PersonalToken, *, actor: User, ip: str = "", agent: str = "") -> None:
    """End the token: the next request with it is refused. A second call changes nothing."""
    sessions.must_still_be_in(actor)
    ended = PersonalToken.objects.filter(pk=token.pk, revoked_at__isnull=True).update(
        revoked_at=timezone.now()
    )
    if ended:
        trail.record(
            "account.token.revoked",
            actor=actor,
            target=str(token.pk),
            ip=ip,
            agent=agent,
            name=token.name,
        )


def revoke_all(user: User) -> int:
    """End every token of this person; returns how many still worked."""
    now = timezone.now()
    return _alive(now).filter(user=user).update(revoked_at=now)


def _alive(now: datetime) -> QuerySet[PersonalToken]:
    return PersonalToken.objects.filter(revoked_at__isnull=True, expires_at__gt=now)


def _touch(token: PersonalToken, now: datetime) -> None:
    before = now - TOUCHED_EVERY
    if token.last_used_at is None or token.last_used_at <= before:
        stale = Q(last_used_at__isnull=True) | Q(last_used_at__lte=before)
        PersonalToken.objects.filter(stale, pk=token.pk).update(last_used_at=now)


def _digest(text: str) -> str:
    # Keyed by a key that is not in the database; the text itself has too many bits to be guessed.
    return hashlib.blake2b(
        text.encode(), key=settings.FIELD_KEY, person=b"doorward-token", digest_size=32
    ).hexdigest()
