"""What a new person gets: an account of their own, and whatever the upper rooms add to it."""

from __future__ import annotations

from collections.abc import Callable

from allauth.account.models import EmailAddress
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


@transaction.atomic
def give_up(user: User) -> bool:
    """Delete somebody who never confirmed their address, with the account founded for them.

    The address is free to sign up with again. Whoever has confirmed it, ever signed in or is an
    operator is left alone; tells whether anybody was deleted.
    """
    unfinished = User.objects.select_for_update().filter(
        pk=user.pk, last_login__isnull=True, is_operator=False
    )
    if not unfinished.exists() or EmailAddress.objects.filter(user=user, verified=True).exists():
        return False
    trail.record("account.unconfirmed.deleted", actor=user)
    shared = Membership.objects.exclude(user=user).values("account_id")
    Account.objects.filter(memberships__user=user).exclude(pk__in=shared).delete()
    user.delete()
    return True
