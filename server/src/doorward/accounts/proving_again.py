"""Proving again who one is: one count for every way, on pages, by apps and at the command line.

Password, app code, recovery code and passkey alike: else whoever holds a stolen session would have
the tries of each way after those of another.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from doorward.accounts import lockout
from doorward.accounts.models import User
from doorward.audit import trail


class TooMany(Exception):
    """Not looked at: this person's proofs failed too often. ``wait`` until one counts again."""

    def __init__(self, wait: timedelta) -> None:
        super().__init__("too many")
        self.wait = wait


def begin(user: User, *, ip: str = "", agent: str = "", target: str = "") -> Callable[[], None]:
    """Count a proof before it is looked at; returns what to call when it was right.

    Raises TooMany; a session that asks ends then, which is the caller's.
    """
    short = (lockout.REAUTHENTICATION, str(user.pk))
    day = (lockout.REAUTHENTICATION_DAY, str(user.pk))
    wait = lockout.full(short, day)
    if wait is not None:
        trail.record(
            "account.reauthentication.locked", actor=user, ip=ip, agent=agent, target=target
        )
        raise TooMany(wait)

    def was_right() -> None:
        lockout.reset(short)
        # Only this one: what failed earlier in the day stays counted.
        lockout.give_back(day)

    return was_right
