"""The accounts room's deferred work."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from allauth.account.models import EmailAddress
from django.utils import timezone

from doorward.accounts import (
    approvals,
    email_change,
    exports,
    invitations,
    leaving,
    recovery,
    sessions,
    signup,
    unlock,
)
from doorward.accounts.models import RememberedBrowser, SpentSignIn, User

# Whoever has not confirmed an address by then may begin anew; nobody can keep it from its owner.
UNCONFIRMED_KEPT: Final = timedelta(hours=24)
MOST_PER_TURN: Final = 200


def forget_what_is_over(now: datetime) -> int:
    """Delete ended sessions, remembered browsers, finished sign-ins and the like; how many."""
    gone = sessions.forget_ended(now)
    gone += RememberedBrowser.objects.filter(expires_at__lt=now).delete()[0]
    # A sign-in in several steps is given up after 15 minutes (allauth's LOGIN_TIMEOUT).
    spent = SpentSignIn.objects.filter(at__lt=timezone.now() - timedelta(days=1))
    return gone + spent.delete()[0] + email_change.forget_old(now)


def forget_unconfirmed(now: datetime) -> int:
    """Delete people who never confirmed their address, with the account founded for them."""
    confirmed = EmailAddress.objects.filter(verified=True).values("user_id")
    stale = User.objects.filter(
        created_at__lt=now - UNCONFIRMED_KEPT, last_login__isnull=True, is_operator=False
    ).exclude(pk__in=confirmed)[:MOST_PER_TURN]
    return sum(signup.give_up(user) for user in stale)


def forget_recoveries(now: datetime) -> int:
    """Delete recoveries and approvals that ended long ago; returns how many."""
    return recovery.forget_old(now) + approvals.forget_old(now)


SWEEPS = [
    ("recovery", 30.0, recovery.sweep),
    ("recoveries", 3600.0, forget_recoveries),
    ("over", 3600.0, forget_what_is_over),
    ("unconfirmed", 3600.0, forget_unconfirmed),
    ("lockout", 3600.0, unlock.forget_old),
    ("invitations", 3600.0, invitations.forget_old),
    ("exports", 1.0, exports.pack_due),
    ("exports-over", 600.0, exports.forget_old),
    ("deletions", 5.0, leaving.delete_due),
    ("receipts", 3600.0, leaving.forget_mail),
]
