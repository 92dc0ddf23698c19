"""Proving again who one is: one count for every way, on pages, by apps and at the command line.

Password, app code, recovery code and passkey alike: else whoever holds a stolen session would have
the tries of each way after those of another.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from doorward.accounts import lockout
from doorward.accounts.models import User, canonical_email
from doorward.audit import trail


class TooMany(Exception):
    """Not looked at: proofs failed too often. ``wait`` until one counts again.

    ``here``: in this very session, which ends then; else in all of the person's together.
    """

    def __init__(self, wait: timedelta, *, here: bool) -> None:
        super().__init__("too many")
        self.wait = wait
        self.here = here


@dataclass(frozen=True)
class Counted:
    """A proof that counts as a wrong one, until it is told what became of it."""

    short: tuple[lockout.Window, str]
    day: tuple[lockout.Window, str]
    together: tuple[lockout.Window, str]

    def right(self) -> None:
        """Forget it, and what failed in this session a moment ago: it was right."""
        lockout.reset(self.short)
        # Only this one: what failed earlier in the day stays counted.
        lockout.give_back(self.day, self.together)

    def not_looked_at(self) -> None:
        """Give it back: nobody could look at it, so it was not wrong."""
        lockout.give_back(self.short, self.day, self.together)


def begin(user: User, session: str, *, ip: str = "", agent: str = "", target: str = "") -> Counted:
    """Count a proof before it is looked at.

    By session first (its key, or a name for where there is none): whoever guesses in a stolen one
    ends that one, and takes nothing from its owner's others (ADR 18). Raises TooMany; to end the
    session is the caller's.
    """
    own = f"{user.pk} {session}"
    counted = Counted(
        short=(lockout.REAUTHENTICATION, own),
        day=(lockout.REAUTHENTICATION_DAY, own),
        together=(lockout.REAUTHENTICATION_PERSON, canonical_email(user.email)),
    )
    here = lockout.full(counted.short, counted.day)
    wait = here or lockout.full(counted.together)
    if wait is not None:
        if here is None:
            lockout.give_back(counted.short, counted.day)
        trail.record(
            "account.reauthentication.locked", actor=user, ip=ip, agent=agent, target=target
        )
        raise TooMany(wait, here=here is not None)
    return counted
