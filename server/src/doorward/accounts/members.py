"""Who belongs to which account."""

from __future__ import annotations

from typing import Final

from doorward.accounts.models import Account, Membership, Role, User

# Who may add, rename and remove devices; the others only look.
MAY_CHANGE_DEVICES: Final = frozenset({Role.OWNER, Role.HELPER})


class NoAccount(Exception):
    """The person belongs to no account (an operator without one)."""


def account_of(user: User) -> Account:
    """Return the account this person looks at: the one they have belonged to longest.

    Raises NoAccount for a person who belongs to none.
    """
    return place_of(user).account


def place_of(user: User) -> Membership:
    """Return this person's place in the account they look at, by one query. Raises NoAccount."""
    membership = (
        Membership.objects.select_related("account")
        .filter(user=user)
        .order_by("created_at", "account_id")
        .first()
    )
    if membership is None:
        raise NoAccount(str(user.pk))
    return membership
