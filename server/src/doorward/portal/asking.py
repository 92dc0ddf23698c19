"""What every page of a signed-in person asks: a sign-in to approve, a recovery to stop, to stay."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

from django.contrib.sessions.backends.base import SessionBase
from django.utils import timezone

from doorward.accounts import approvals, leaving, lockout, recovery
from doorward.accounts.models import Approval, Recovery, User
from doorward.accounts.privacy_rows import Deletion

SECURITY: Final = "/account/security/"
LATER: Final = "second_step_later"


@dataclass(frozen=True)
class Asks:
    """What is asked now; ``tag`` changes with it."""

    approvals: list[tuple[Approval, str]]
    recoveries: list[tuple[Recovery, bool]]
    deletion: Deletion | None = None
    second_step_is_lost: bool = False

    @property
    def tag(self) -> str:
        """Return what tells this from what was asked before."""
        seen = [str(each.pk) for each, _network in self.approvals]
        seen += [f"{each.pk} {is_open}" for each, is_open in self.recoveries]
        seen += [str(self.deletion.pk)] if self.deletion is not None else []
        seen += ["no second step"] if self.second_step_is_lost else []
        return hashlib.blake2b(repr(seen).encode(), digest_size=8).hexdigest()


def of(user: User, *, page: str, session: SessionBase) -> Asks:
    """Return what is asked of this person now; no query while nothing can be.

    ``page`` is the path of the page that shows it: what that page itself asks is not asked twice.
    """
    now = timezone.now()
    if user.asked_until is None or user.asked_until <= now:
        return Asks([], [])
    return Asks(
        [
            (each, lockout.network_of(each.ip))
            for each in approvals.waiting_for(user, now)
            if str(each.pk) not in page
        ],
        [(each, recovery.is_open(each, now)) for each in recovery.running_for(user)],
        leaving.pending(user),
        # The page on which it is set, and those behind it, say so themselves.
        second_step_is_lost=not page.startswith(SECURITY)
        and session.get(LATER) is not True
        and recovery.lost_their_second_step(user),
    )


def second_step_later(session: SessionBase) -> None:
    """Ask for a new second step no more in this session; the next one asks again."""
    session[LATER] = True
