"""What a new person gets: an account of their own, and whatever the upper rooms add to it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Final

from allauth.account.models import EmailAddress
from django.db import transaction
from django.utils import timezone
from uuid_utils.compat import uuid7

from doorward.accounts import lockout
from doorward.accounts.models import Account, Membership, Role, User, canonical_email
from doorward.audit import trail

# As long as a mailed code lasts.
UNFINISHED_KEPT: Final = timedelta(minutes=10)
_at_founding: list[Callable[[Account], object]] = []


def at_founding(act: Callable[[Account], object]) -> None:
    """Have ``act(account)`` run in the transaction that makes an account.

    So billing adds its subscription without accounts knowing of it.
    """
    if act not in _at_founding:
        _at_founding.append(act)


class FoundedTooOften(Exception):
    """This person had several accounts founded today already."""


def found_another(user: User, *, ip: str, agent: str) -> Account:
    """Give somebody who is here already an account they own. Raises FoundedTooOften."""
    if owns_none(user) and not lockout.allow((lockout.FOUNDINGS, str(user.pk))):
        raise FoundedTooOften
    return found_account(user, ip=ip, agent=agent)


@transaction.atomic
def found_account(user: User, *, ip: str = "", agent: str = "") -> Account:
    """Give the person an account they own, complete; a second call changes nothing."""
    # Ten calls at once wait for each other here, and the nine find what the first one founded.
    User.objects.select_for_update(no_key=True).values_list("pk").get(pk=user.pk)
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


class _Undone(Exception):
    """What was only pretended is taken back."""


def pretend(
    owner: User | None,
    password: str | None,
    *,
    ip: str,
    agent: str,
    also: Callable[[User], object],
) -> None:
    """Do the work of a sign-up and keep nothing but an event for the owner of the address.

    So it takes the same time whether or not an address is taken: one hash, the same rows (undone),
    one commit. ``password`` is None where somebody signs up with a passkey; ``also`` is what else
    happens to a new person, called for one who will not have been.
    """
    with transaction.atomic():
        try:
            with transaction.atomic():
                nobody = User(email=f"{uuid7().hex}@nobody.invalid")
                nobody.set_password(password)
                nobody.save()
                found_account(nobody, ip=ip, agent=agent)
                trail.record("account.signup", actor=nobody, ip=ip, agent=agent)
                also(nobody)
                raise _Undone
        except _Undone:
            pass
        trail.record("account.signup.taken", actor=owner, ip=ip, agent=agent)


def make_room(address: str) -> None:
    """Forget a sign-up with a passkey that stopped before the address was confirmed.

    Its owner has no password to go on with. While its code lasts it is left alone: else a stranger
    could end a sign-up that is just being made.
    """
    begun_before = timezone.now() - UNFINISHED_KEPT
    stuck = User.objects.filter(
        email=canonical_email(address), created_at__lt=begun_before, last_login__isnull=True
    ).first()
    if stuck is not None and not stuck.has_usable_password():
        give_up(stuck)


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


def owns_none(user: User) -> bool:
    """Tell whether this person owns no account, and may have one of their own founded."""
    return not Membership.objects.filter(user=user, role=Role.OWNER).exists()
