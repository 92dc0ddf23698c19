"""What ends when somebody changes how they sign in: everything that was opened before.

Who changes a password, a way or an address may do so because somebody else knew the old one. What
that somebody opened with it, or had mailed, must not outlive it. docs/security/two-step.md has the
table of what ends by which change.
"""

from __future__ import annotations

from dataclasses import dataclass

from django.db import transaction

from doorward.accounts import remembered, sessions, tokens
from doorward.accounts.models import UnlockLink, User
from doorward.audit import trail


@dataclass(frozen=True)
class Ended:
    """How much there was to end."""

    sessions: int
    tokens: int


@transaction.atomic
def end_what_was_open(user: User, *, keep: str | None, ip: str = "", agent: str = "") -> Ended:
    """End the person's sessions but ``keep``, tokens, remembered browsers and links, everywhere.

    Raising the epoch, which ending sessions does, also ends sign-ins half done, with the codes
    mailed for them, and links to choose a password (link_tokens.py).
    """
    ended = sessions.end_others(user, keep=keep, ip=ip, agent=agent)
    remembered.forget_all(user)
    UnlockLink.objects.filter(user=user, used_at__isnull=True).delete()
    count = tokens.revoke_all(user)
    if count:
        trail.record("account.tokens.ended", actor=user, ip=ip, agent=agent, count=count)
    return Ended(sessions=ended, tokens=count)
