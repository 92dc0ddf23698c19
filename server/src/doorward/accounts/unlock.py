"""What the owner is told of a lock, and the mailed way around it."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from django.db import transaction
from django.utils import timezone
from uuid_utils.compat import uuid7

from doorward.accounts import browsers, letters, lockout
from doorward.accounts.models import User, canonical_email
from doorward.audit import trail
from doorward.notices import letter as post_office

LINK: Final = "link"
KEPT_FOR_OWNERS: Final = frozenset({LINK, "reset"})
"""What only the owner of an address can want; with a sign-up nobody is an owner yet."""


@transaction.atomic
def tell_of_lock(login: str, user: User | None, *, failures: int, ip: str, agent: str) -> None:
    """Tell the owner that somebody is guessing: one mail in 6 hours, three in a day at most.

    For an address without an account the same is counted and written, and what was written is
    undone: no answer takes longer than another, and both are one commit.
    """
    key = canonical_email(login)
    if not lockout.allow((lockout.LOCK_MAIL, key), (lockout.LOCK_MAIL_DAY, key)):
        return
    owner = user if user is not None and user.is_active else None
    told = owner or User(email=f"{uuid7().hex}@nobody.invalid")
    # By hand: an atomic block left by an exception takes a statement more than one that is kept.
    written = transaction.savepoint()
    context = {
        "count": failures,
        "link_url": browsers.new_link(told),
        "timestamp": timezone.now(),
        # As much as tells where from: of IPv6 the network, for the address is one device's.
        "ip": lockout.network_of(ip),
        "user_agent": agent,
    }
    trail.record("account.locked", actor=told, ip=ip, agent=agent, failures=failures)
    post_office.post(letters.of("account/email/locked", context), to=told.email)
    if owner is None:
        transaction.savepoint_rollback(written)
    else:
        transaction.savepoint_commit(written)


@transaction.atomic
def ask_for_link(address: str, *, ip: str, agent: str) -> None:
    """Mail a link that makes a browser known to whoever owns the address; or that nobody does.

    Beyond what is mailed to one address or asked from one network, nothing happens, silently.
    """
    email = canonical_email(address)
    if not may_mail(LINK, email, ip=ip):
        return
    user = User.objects.filter(email=email, is_active=True).first()
    if user is None:
        told = letters.of("account/email/unknown_account", {"signup_url": letters.signup_url()})
    else:
        trail.record("account.link.asked", actor=user, ip=ip, agent=agent)
        told = letters.of("account/email/login_link", {"link_url": browsers.new_link(user)})
    post_office.post(told, to=email)


def may_mail(purpose: str, address: str, *, ip: str) -> bool:
    """Count a mail that somebody who isn't signed in causes; False when there were too many.

    Of what one address is mailed, one network causes less than all: the last is kept for another,
    so that a stranger does not use up the owner's. The way in is mailed beyond that while no link
    to it works that was mailed before, however many networks a stranger asks from.
    """
    key, network = f"{purpose} {canonical_email(address)}", lockout.network_of(ip)
    to_address = ((lockout.MAIL_HOUR, key), (lockout.MAIL_DAY, key))
    by_network = [(lockout.MAIL_NETWORK, f"{purpose} {network}")]
    if purpose not in KEPT_FOR_OWNERS:
        return lockout.allow(*by_network, *to_address)
    pair = f"{key} {network}"
    by_network += [(lockout.MAIL_PAIR, pair), (lockout.MAIL_PAIR_DAY, pair)]
    return lockout.allow(*by_network, *to_address) or (
        purpose == LINK and lockout.allow(*by_network, (lockout.MAIL_KEPT, key))
    )


def by_operator(address: str) -> bool:
    """Let strangers' browsers try again at once; tells whether anything was counted."""
    email = canonical_email(address)
    user = User.objects.filter(email=email).first()
    cleared = lockout.clear(email)
    trail.record("account.unlocked", actor=user, target="operator", cleared=cleared)
    return cleared


def forget_old(now: datetime) -> int:
    """Delete what is over: counts, marks and links that can't be used any more."""
    return lockout.forget_old(now) + browsers.forget_old_links(now)
