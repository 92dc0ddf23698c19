"""What a new person gets: an account of their own, and whatever the upper rooms add to it."""

from __future__ import annotations

from collections.abc import Callable

from django.db import transaction

from doorward.accounts.models import Account, Membership, Role, User
from doorward.audit import trail

_at_founding: list[Callable[[Account], object]] = []


def at_founding(act: Callable[[Account], object]) -> None:
    """Have ``act(account)`` run in the transaction that makes an account.

    So billing adds its subscription without accounts knowing of it.
    """
    if act not in _at_founding:
        _at_founding.append(act)


@transaction.atomic
def found_account(user: User, *, ip: str = "", agent: str = "") -> Account:
    """Give the person an account they own, complete; a second call changes nothing."""
    held = Membership.objects.select_related("account").filter(user=user, role=Role.OWNER).first()
    if held is not None:
        return held.account
    account = Account.objects.create(name=user.name)
    Membership.objects.create(account=account, user=user, role=Role.OWNER)
    for act in _at_founding:
        act(account)
    trail.record(
        "account.created", account=account, actor=user, target=str(account.pk), ip=ip, agent=agent
    )
    return account
