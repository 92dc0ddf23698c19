"""What the worker tidies away, and what it leaves."""

from __future__ import annotations

from datetime import timedelta

import pytest
from allauth.account.models import EmailAddress
from django.utils import timezone

from doorward.accounts import signup, sweeps
from doorward.accounts.models import Account, Membership, Role, User


def somebody(email: str, *, hours_ago: int, confirmed: bool = False) -> User:
    user = User.objects.create_user(email, "seven lamps")
    EmailAddress.objects.create(user=user, email=email, verified=confirmed, primary=True)
    User.objects.filter(pk=user.pk).update(created_at=timezone.now() - timedelta(hours=hours_ago))
    return user


@pytest.mark.django_db
def test_an_address_nobody_confirmed_is_free_again_after_a_day() -> None:
    stale = somebody("dora@example.org", hours_ago=25)
    account = signup.found_account(stale)
    fresh = somebody("emil@example.org", hours_ago=23)
    signup.found_account(fresh)
    assert sweeps.forget_unconfirmed(timezone.now()) == 1
    assert set(User.objects.all()) == {fresh}
    assert not Account.objects.filter(pk=account.pk).exists()
    assert Account.objects.count() == 1


@pytest.mark.django_db
def test_who_confirmed_or_came_in_or_operates_stays(alice: User, alices_account: Account) -> None:
    somebody("dora@example.org", hours_ago=500, confirmed=True)
    came_in = somebody("emil@example.org", hours_ago=500)
    User.objects.filter(pk=came_in.pk).update(last_login=timezone.now())
    operator = somebody("olga@example.org", hours_ago=500)
    User.objects.filter(pk=operator.pk).update(is_operator=True)
    assert sweeps.forget_unconfirmed(timezone.now() + timedelta(days=9)) == 0
    assert User.objects.count() == 4


@pytest.mark.django_db
def test_an_account_with_others_in_it_outlives_one_who_never_confirmed(
    alice: User, alices_account: Account
) -> None:
    stale = somebody("dora@example.org", hours_ago=25)
    Membership.objects.create(account=alices_account, user=stale, role=Role.VIEWER)
    assert sweeps.forget_unconfirmed(timezone.now()) == 1
    assert Account.objects.filter(pk=alices_account.pk).exists()
    assert Membership.objects.filter(account=alices_account).count() == 1
