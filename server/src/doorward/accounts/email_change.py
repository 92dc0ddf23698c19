"""Changing the address somebody signs in with, and taking that back.

The new address counts once a code mailed to it was typed. Both addresses are told; the one before
gets a link that undoes the change, for 72 hours and once. So a stolen session can't move an account
away from its owner unnoticed.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from allauth.account.models import EmailAddress
from allauth.account.utils import user_pk_to_url_str
from django.conf import settings
from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from doorward.accounts import after_a_change, email_change_letters, link_tokens, lockout, signup
from doorward.accounts.models import AddressChange, User, canonical_email
from doorward.audit import trail
from doorward.notices import letter as post_office

UNDO_LASTS: Final = timedelta(hours=72)
SECRET_BYTES: Final = 24  # 192 bits
KEPT: Final = timedelta(days=30)


class UndoRefused(Exception):
    """The link was used, is too old, or never was one."""


class AddressTaken(Exception):
    """Another account has been confirmed with the address before meanwhile."""


@dataclass(frozen=True)
class Undone:
    """A change that was taken back, and the path at which a new password is chosen now.

    ``path`` is "" for somebody who has none to choose: they sign in by a passkey.
    """

    user: User
    path: str


@transaction.atomic
def changed(
    user: User, *, before: str, after: str, ended: str, ip: str = "", agent: str = ""
) -> None:
    """Keep what the change can be undone by, and tell both addresses.

    ``ended``: what ended by it, in words.
    """
    now = timezone.now()
    secret = secrets.token_urlsafe(SECRET_BYTES)
    before, after = canonical_email(before), canonical_email(after)
    AddressChange.objects.create(
        user=user,
        before=before,
        after=after,
        digest=_digest(secret),
        changed_at=now,
        expires_at=now + UNDO_LASTS,
    )
    trail.record("account.email.changed", actor=user, target=masked(after), ip=ip, agent=agent)
    link = f"{settings.SITE_URL}/email/undo/{secret}/"
    to_before = email_change_letters.to_the_one_before(
        masked(after), link, ended, ip=ip, agent=agent
    )
    post_office.post(to_before, to=before)
    post_office.post(email_change_letters.to_the_new_one(ip=ip, agent=agent), to=after)


def last(user: User) -> AddressChange | None:
    """Return the person's newest change that can still be undone."""
    return _open(timezone.now()).filter(user=user).order_by("-changed_at").first()


def find(secret: str) -> AddressChange | None:
    """Return the change this link undoes, while it does; looking does not use it up."""
    return _open(timezone.now()).filter(digest=_digest(secret), user__is_active=True).first()


@transaction.atomic
def undo(secret: str, *, ip: str = "", agent: str = "") -> Undone:
    """Give the account its address back, end every session and have a new password chosen.

    Ways to take the second step stay as they are: whoever holds only the mailbox must not be able
    to take them away. Raises UndoRefused or AddressTaken; then nothing has changed.
    """
    now = timezone.now()
    digest = _digest(secret)
    # One statement over one table: of two clicks at once only one finds it open.
    if not _open(now).filter(digest=digest).update(undone_at=now):
        raise UndoRefused
    change = AddressChange.objects.get(digest=digest)
    # Locked: whatever else is being changed just now is done before, and ends with the rest.
    user = User.objects.select_for_update().get(pk=change.user_id)
    if not user.is_active:
        raise UndoRefused
    gone = user.email
    _take_back(user, change.before)
    # Those after it began from an address that was never this person's.
    _open(now).filter(user=user, changed_at__gte=change.changed_at).update(undone_at=now)
    chooses = user.has_usable_password()
    if chooses:
        # Whoever changed the address knew it.
        user.set_unusable_password()
        user.save(update_fields=["password"])
    after_a_change.end_what_was_open(user, keep=None, ip=ip, agent=agent)
    lockout.forget_all(user)
    lockout.clear(change.before)
    trail.record("account.email.restored", actor=user, ip=ip, agent=agent)
    path = _path_to_choose(user) if chooses else ""
    told = email_change_letters.restored(path and settings.SITE_URL + path, ip=ip, agent=agent)
    post_office.post(told, to=change.before)
    if gone != change.before:
        post_office.post(email_change_letters.no_longer_yours(), to=gone)
    return Undone(user, path)


def _take_back(user: User, address: str) -> None:
    other = User.objects.filter(email=address).exclude(pk=user.pk).first()
    if other is not None and not signup.give_up(other):
        raise AddressTaken
    if EmailAddress.objects.filter(email=address, verified=True).exclude(user=user).exists():
        raise AddressTaken
    EmailAddress.objects.filter(user=user).delete()
    EmailAddress.objects.create(user=user, email=address, verified=True, primary=True)
    user.email = address
    user.save(update_fields=["email"])


def _path_to_choose(user: User) -> str:
    token = link_tokens.LinkTokens().make_token(user)
    return f"/password/reset/key/{user_pk_to_url_str(user)}-{token}/"


def forget_old(now: datetime) -> int:
    """Delete changes that can't be undone since a month; returns how many."""
    return AddressChange.objects.filter(expires_at__lt=now - KEPT).delete()[0]


def masked(address: str) -> str:
    """Return enough of an address for its owner to know which one is meant."""
    local, _at, domain = address.partition("@")
    return f"{local[:1]}…@{domain}"


def _open(now: datetime) -> QuerySet[AddressChange]:
    return AddressChange.objects.filter(undone_at__isnull=True, expires_at__gt=now)


def _digest(secret: str) -> str:
    return hashlib.blake2b(
        secret.encode("utf-8", "surrogatepass"),
        key=settings.FIELD_KEY,
        person=b"doorward-undo",
        digest_size=32,
    ).hexdigest()
