"""What a person says about themselves."""

from __future__ import annotations

from doorward.accounts.models import User


def describe(user: User, *, name: str, zone: str) -> None:
    """Keep what to call this person and the time zone they read in; "" for either means unknown."""
    user.name = "".join(part for part in name.strip() if part.isprintable())[:120]
    user.zone = zone
    user.save(update_fields=["name", "zone"])
