"""What a person says about themselves."""

from __future__ import annotations

from doorward.accounts.models import User
from doorward.audit import card_numbers


def describe(user: User, *, name: str, zone: str) -> None:
    """Keep what to call this person and the time zone they read in; "" for either means unknown."""
    user.name = plain_name(name)
    user.zone = zone
    user.save(update_fields=["name", "zone"])


def plain_name(name: str) -> str:
    """Return a name as it is kept: what can be seen of it, and no card number."""
    return card_numbers.hide("".join(part for part in name.strip() if part.isprintable()))[:120]
