"""Proving again who one is: one count for every way, on pages, by apps and at the command line.

Password, app code, recovery code and passkey alike: else whoever holds a stolen session would have
the tries of each way after those of another.
"""

from __future__ import annotations

from collections.abc import Callable
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


def begin(
    user: User, session: str, *, ip: str = "", agent: str = "", target: str = ""
) -> Callable[[], None]:
    """Count a proof before it is looked at; returns what to call when it was right.

    By session first (its key, or a name for where there is none): whoever guesses in a stolen one
    ends that one, and takes nothing from its owner's others (ADR 18). Raises TooMany; to end the
    session is the caller's.
    """
    own = f"{user.pk} {session}"
    short, day = (lockout.REAUTHENTICATION, own), (lockout.REAUTHENTICATION_DAY, own)
    together = (lockout.REAUTHENTICATION_PERSON, canonical_email(user.email))
    here = lockout.full(short, day)
    wait = here or lockout.full(together)
    if wait is not None:
        if here is None:
            lockout.give_back(short, day)
        trail.record(
            "account.reauthentication.locked", actor=user, ip=ip, agent=agent, target=target
        )
        raise TooMany(wait, here=here is not None)

    def was_right() -> None:
        lockout.reset(short)
        # Only this one: what failed earlier in the day stays counted.
        lockout.give_back(day, together)

    return was_right
