"""Somebody holds Alice's session and neither her password nor her mailbox."""

from __future__ import annotations

from datetime import timedelta

import time_machine
from allauth.account.models import EmailAddress
from django.core.cache import cache
from django.utils import timezone
from server.tests.accounts.second_steps import App, is_signed_in, signed_in_tab, tab
from server.tests.conftest import PASSWORD

from doorward.accounts import lockout
from doorward.accounts.models import Account, Throttle, User

EVIL = "evil@example.net"


def addresses(user: User) -> list[str]:
    return sorted(EmailAddress.objects.filter(user=user).values_list("email", flat=True))


def test_a24_a_stolen_session_does_not_add_or_change_an_address_on_the_page(
    alice: User, alices_account: Account
) -> None:
    browser = signed_in_tab(alice.email)
    EmailAddress.objects.create(user=alice, email="second@example.org", verified=True)
    with time_machine.travel(timezone.now() + timedelta(minutes=16), tick=False):
        for address, act in (
            (EVIL, "action_add"),
            ("second@example.org", "action_primary"),
            ("second@example.org", "action_remove"),
        ):
            answer = browser.post("/email/", {"email": address, act: ""})
            assert "/reauthenticate/" in answer.headers.get("Location", ""), act
    assert addresses(alice) == ["alice@example.org", "second@example.org"]
    alice.refresh_from_db()
    assert alice.email == "alice@example.org"


def test_a24_a_stolen_session_does_not_add_or_change_an_address_from_an_app(
    alice: User, alices_account: Account
) -> None:
    app = App()
    app.call("POST", "auth/login", email=alice.email, password=PASSWORD)
    assert app.is_signed_in()
    EmailAddress.objects.create(user=alice, email="second@example.org", verified=True)
    with time_machine.travel(timezone.now() + timedelta(minutes=16), tick=False):
        assert app.call("POST", "account/email", email=EVIL).status_code == 401
        second = {"email": "second@example.org"}
        assert app.call("PATCH", "account/email", **second, primary=True).status_code == 401
        assert app.call("DELETE", "account/email", **second).status_code == 401
    assert addresses(alice) == ["alice@example.org", "second@example.org"]


def test_a24_alice_who_proves_herself_adds_an_address(alice: User, alices_account: Account) -> None:
    app = App()
    app.call("POST", "auth/login", email=alice.email, password=PASSWORD)
    with time_machine.travel(timezone.now() + timedelta(minutes=16), tick=True):
        assert app.call("POST", "auth/reauthenticate", password=PASSWORD).status_code == 200
        assert app.call("POST", "account/email", email="new@example.org").status_code == 200


def test_v7_5_2_a_stolen_session_does_not_end_the_owners_sessions(
    alice: User, alices_account: Account
) -> None:
    owners = signed_in_tab(alice.email)
    app = App()
    app.call("POST", "auth/login", email=alice.email, password=PASSWORD)
    with time_machine.travel(timezone.now() + timedelta(minutes=16), tick=True):
        listed = app.call("GET", "auth/sessions").json()["data"]
        others = [each["id"] for each in listed if not each["is_current"]]
        assert len(others) == 1
        assert app.call("DELETE", "auth/sessions", sessions=others).status_code == 401
        assert is_signed_in(owners)
        assert app.call("POST", "auth/reauthenticate", password=PASSWORD).status_code == 200
        assert app.call("DELETE", "auth/sessions", sessions=others).status_code == 200
        assert not is_signed_in(owners)


def test_a12_a_made_up_session_token_buys_no_more_tries_at_a_mailed_code(db: None) -> None:
    browser = tab()
    signed_up = browser.post(
        "/signup/", {"email": "new@example.org", "password1": "orchid lantern meadow fathom"}
    )
    assert signed_up["Location"] == "/confirm-email/"
    tried = [
        browser.post(
            "/confirm-email/",
            {"code": f"WRNG-{number:04}"},
            headers={"X-Session-Token": f"{number:032}"},
        ).status_code
        for number in range(8)
    ]
    # One count for the browser and one for the address.
    assert Throttle.objects.filter(pk__startswith=f"w:{lockout.CODE.name}:").count() == 2, tried


def test_a02_counts_kept_in_the_cache_are_not_pushed_out_by_many_others(db: None) -> None:
    cache.set("counted", 5, 3600)
    for number in range(400):
        cache.set(f"other-{number}", 1, 3600)
    assert cache.get("counted") == 5
