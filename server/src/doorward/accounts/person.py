"""What a person says about themselves."""

from __future__ import annotations

from typing import Final

from doorward.accounts.models import User
from doorward.audit import card_numbers

# Not to be seen themselves, but several scripts and pictures are not written right without them.
JOINERS: Final = ("\u200c", "\u200d")


def describe(user: User, *, name: str, zone: str) -> None:
    """Keep what to call this person and the time zone they read in; "" for either means unknown."""
    user.name = plain_name(name)
    user.zone = zone
    user.save(update_fields=["name", "zone"])


def plain_name(name: str) -> str:
    """Return a name as it is kept: what can be seen of it, and no card number."""
    seen = "".join(part for part in name.strip() if part.isprintable() or part in JOINERS)
    # Nothing but joiners is nothing to be seen.
    return card_numbers.hide(seen)[:120] if seen.strip("".join(JOINERS)) else ""
