"""Nobody fills the tables by asking for what costs them nothing."""

from __future__ import annotations

from datetime import timedelta

import pytest
import time_machine
from django.contrib.sessions.models import Session
from django.test import Client
from django.utils import timezone
from server.tests.accounts.second_steps import App, at_once, signed_in_tab, tab
from server.tests.conftest import person

from doorward.accounts import lockout, signup
from doorward.accounts.models import Account, Membership, Role, Throttle, User

PAGE = "/account/security/webauthn/login/"
FOR_APPS = "/_allauth/app/v1/auth/webauthn/login"
BY_SCRIPT = {"X-Requested-With": "XMLHttpRequest"}


def begins(browser: Client, path: str, ip: str = "198.51.100.7") -> int:
    return browser.get(path, headers=BY_SCRIPT, REMOTE_ADDR=ip).status_code


@pytest.mark.django_db
@pytest.mark.parametrize("path", [PAGE, FOR_APPS])
def test_a12_sign_ins_by_passkey_that_are_only_begun_fill_no_table(path: str) -> None:
    most = lockout.PASSKEY_NETWORK.most
    first = tab()
    with time_machine.travel(timezone.now(), tick=False):
        answers = [begins(first, path), *(begins(tab(), path) for _ in range(most + 20))]
        assert answers == [200] * most + [429] * 21
        assert Session.objects.count() == most
        # Another network goes on, and so does who has a session.
        assert begins(tab(), path, "198.51.100.8") == 200
        if path == PAGE:
            assert begins(first, path) == 200
    with time_machine.travel(timezone.now() + timedelta(minutes=5, seconds=1)):
        assert begins(tab(), path) == 200


@pytest.mark.django_db
def test_a12_made_up_sessions_make_no_rows() -> None:
    before = Throttle.objects.count()
    for number in range(12):
        app = App()
        app.token = f"{number:032}"
        assert app.call("POST", "auth/email/verify", key="123456").status_code >= 400
        browser = tab()
        browser.cookies["dw_session"] = f"{number:032}"
        browser.post("/confirm-email/", {"code": "123456"})
        browser.post("/login/code/confirm/", {"code": "123456"})
    tab().post("/confirm-email/", {"code": "123456"})
    assert Throttle.objects.count() == before


@pytest.mark.django_db(transaction=True)
def test_row85_of_ten_accounts_started_at_once_there_is_one() -> None:
    dora = person("dora@example.org", "Dora")
    browser = signed_in_tab(dora.email)

    def start(_number: int) -> bool:
        another = tab()
        another.cookies.update(browser.cookies)
        return bool(another.post("/account/accounts/new/").status_code == 302)

    assert at_once(8, start) == 8
    assert Account.objects.count() == 1


@pytest.mark.django_db
def test_row86_nobody_starts_accounts_without_an_end(alice: User) -> None:
    browser = signed_in_tab(alice.email)
    for _number in range(lockout.FOUNDINGS.most):
        browser.post("/account/accounts/new/")
        # A second click changes nothing, and is not counted.
        browser.post("/account/accounts/new/")
        Membership.objects.filter(user=alice).update(role=Role.VIEWER)
    there = Account.objects.count()
    assert there == lockout.FOUNDINGS.most
    answer = browser.post("/account/accounts/new/", follow=True)
    assert "Try again tomorrow." in answer.content.decode()
    assert Account.objects.count() == there
    # Who signs up is not bound by that.
    signup.found_account(person("new@example.org", "New"))


@pytest.mark.django_db
@pytest.mark.parametrize("address", ["http://[::bad/x", "http://[", "//[x]/", "\x00", "x" * 9000])
def test_row93_an_address_that_is_none_breaks_no_page(
    address: str, alice: User, alices_account: Account
) -> None:
    User.objects.filter(pk=alice.pk).update(asked_until=timezone.now() + timedelta(hours=1))
    browser = signed_in_tab(alice.email)
    answer = browser.get(
        "/account/asks/", headers={"HX-Request": "true", "HX-Current-URL": address}
    )
    assert answer.status_code == 200
