"""Who belongs to which account."""

from __future__ import annotations

from doorward.accounts.models import Account, User


class NoAccount(Exception):
    """The person belongs to no account (an operator without one)."""


def account_of(user: User) -> Account:
    """Return the account this person looks at: the one they have belonged to longest.

    Raises NoAccount for a person who belongs to none.
    """
    account = (
        Account.objects.filter(memberships__user=user)
        .order_by("memberships__created_at", "pk")
        .first()
    )
    if account is None:
        raise NoAccount(str(user.pk))
    return account
