"""The accounts room's deferred work."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.utils import timezone

from doorward.accounts import sessions
from doorward.accounts.models import RememberedBrowser, SpentSignIn


def forget_what_is_over(now: datetime) -> int:
    """Delete ended sessions, remembered browsers and finished sign-ins; returns how many."""
    gone = sessions.forget_ended(now)
    gone += RememberedBrowser.objects.filter(expires_at__lt=now).delete()[0]
    # A sign-in in several steps is given up after 15 minutes (allauth's LOGIN_TIMEOUT).
    spent = SpentSignIn.objects.filter(at__lt=timezone.now() - timedelta(days=1))
    return gone + spent.delete()[0]


SWEEPS = [("over", 3600.0, forget_what_is_over)]
