"""Tries of a second step: counted before they are looked at, strangers' apart from the owner's.

Whoever knows the password may send wrong codes. They count against strangers' browsers only: a
browser the account knows has a count of its own, and passkeys, which nobody guesses, have one
beside the codes (N1). A browser is known after a whole sign-in, or by a link from the owner's
mailbox; so that many links bring no more guesses, known browsers are bounded together too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from doorward.accounts import lockout

if TYPE_CHECKING:
    from uuid import UUID

    from doorward.accounts.models import KnownBrowser

Windows = tuple[tuple[lockout.Window, str], ...]


def codes(person: UUID | str, *, browser: KnownBrowser | None, ip: str) -> Windows:
    """Return where a code of this person counts; ``browser`` is one their account knows."""
    own = f"second step {person}"
    if browser is not None:
        here = f"{own} {browser.pk}"
        return (
            (lockout.CODE, here),
            (lockout.CODE_HOUR, here),
            (lockout.CODE_DAY, here),
            (lockout.KNOWN_CODES, own),
        )
    return (
        (lockout.CODE, own),
        (lockout.CODE_HOUR, own),
        (lockout.CODE_DAY, own),
        (lockout.CODE_NETWORK, f"second step {lockout.network_of(ip)}"),
    )


def passkeys(*, browser: KnownBrowser | None, ip: str) -> Windows:
    """Return where a passkey counts: not by person, so that no stranger can use that up."""
    if browser is not None:
        return ((lockout.CODE, f"passkey {browser.pk}"),)
    return ((lockout.CODE_NETWORK, f"passkey {lockout.network_of(ip)}"),)


def sent(to: str, *, browser: KnownBrowser | None) -> Windows:
    """Return where a code counts that is sent to somebody, as ``mailed alice@example.org``."""
    if browser is not None:
        here = f"{to} {browser.pk}"
        return (
            (lockout.CODE_HOUR, here),
            (lockout.CODE_DAY, here),
            (lockout.KNOWN_CODES, to),
        )
    return ((lockout.CODE_HOUR, to), (lockout.CODE_DAY, to))


def begin(windows: Windows) -> Callable[[], None]:
    """Count a try; returns what to call when it was right. Raises lockout.Locked."""
    wait = lockout.full(*windows)
    if wait is not None:
        raise lockout.Locked(wait)

    def was_right() -> None:
        right(windows)

    return was_right


def right(windows: Windows) -> None:
    """Give back what a try took that was right, and forget the few wrong ones just before it."""
    short, *longer = windows
    lockout.reset(short)
    lockout.give_back(*longer)
