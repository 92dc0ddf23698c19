"""Changing the address somebody signs in with, and taking that back (rows 17 and 40, A20, A24)."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import time_machine
from allauth.account.models import EmailAddress
from django.test import Client
from django.utils import timezone
from server.tests.accounts.second_steps import (
    App,
    at_once,
    is_signed_in,
    mails_to,
    newest_code,
    prove_again,
    second_step,
    signed_in_tab,
    tab,
    type_password,
)
from server.tests.asvs.test_second_step import add_app_again, reset_link
from server.tests.conftest import PASSWORD, account_for, person

from doorward.accounts.models import Account, AddressChange, User
from doorward.audit.models import Event
from doorward.notices import outbox

OLD = "alice@example.org"
NEW = "alice@elsewhere.example"
THIRD = "alice@third.example"
CHOSEN = "nine ships in the quiet morning"

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def home(alice: User, alices_account: Account) -> Client:
    browser = signed_in_tab(alice.email)
    # A change of address asks again who it is; here that was just told.
    prove_again(browser, "/account/security/totp/activate/")
    return browser


def move(browser: Client, to: str, settings: Any) -> Any:
    """Change the address, all the way."""
    browser.post("/email/", {"email": to, "action_add": ""})
    return browser.post("/confirm-email/", {"code": newest_code(to, settings)})


def undo_link(address: str, settings: Any) -> str:
    """Return the path that takes the newest change back, as mailed to this address."""
    outbox.send_due(timezone.now())
    found = []
    for file in sorted(
        Path(settings.DATA / "mail").glob("*.eml"), key=lambda f: f.stat().st_mtime_ns
    ):
        text = file.read_text().replace("=\n", "").replace("=3D", "=")
        link = re.search(r"http://localhost:\d+(/email/undo/\S+/)", text)
        if link and f"To: {address}" in text:
            found.append(link[1])
    assert found, f"no link was mailed to {address}"
    return found[-1]


def address_of(alice: User) -> str:
    alice.refresh_from_db()
    rows = list(EmailAddress.objects.filter(user=alice).values_list("email", "verified", "primary"))
    assert rows == [(alice.email, True, True)]
    return alice.email


def test_a_new_address_counts_only_when_its_code_was_typed(
    alice: User, home: Client, settings: Any
) -> None:
    home.post("/email/", {"email": NEW, "action_add": ""})
    assert address_of(alice) == OLD
    home.post("/confirm-email/", {"code": "WRONG"})
    assert address_of(alice) == OLD
    home.post("/confirm-email/", {"code": newest_code(NEW, settings)})
    assert address_of(alice) == NEW
    assert is_signed_in(home)
    assert is_signed_in(signed_in_tab(NEW))
    assert type_password(tab(), OLD).status_code == 200, "the old one is nobody's now"
    assert Event.objects.filter(tag="account.email.changed", actor_id=alice.pk).count() == 1


def test_v6_3_7_both_addresses_are_told(alice: User, home: Client, settings: Any) -> None:
    move(home, NEW, settings)
    assert "Your account signs in with another address now" in mails_to(OLD)
    assert "Your account signs in with this address now" in mails_to(NEW)
    page = home.get("/email/").content.decode()
    assert "can take that back until" in page


def test_v7_5_1_a_change_of_address_asks_again_who_it_is(
    alice: User, home: Client, settings: Any
) -> None:
    with time_machine.travel(timezone.now() + timedelta(minutes=16), tick=True):
        answer = home.post("/email/", {"email": NEW, "action_add": ""})
        assert "/reauthenticate/" in answer["Location"]
        assert mails_to(NEW) == []


def test_a24_the_one_before_takes_the_change_back(alice: User, home: Client, settings: Any) -> None:
    move(home, NEW, settings)
    link = undo_link(OLD, settings)
    owner = tab("Owner/1.0")
    page = owner.get(link)
    assert page.status_code == 200
    assert page["Referrer-Policy"] == "no-referrer"
    assert address_of(alice) == NEW, "looking at a link must not use it up"
    answer = owner.post(link)
    assert address_of(alice) == OLD
    # The thief is out, with their password.
    assert not is_signed_in(home)
    for address in (OLD, NEW):
        browser = tab()
        type_password(browser, address)
        assert not is_signed_in(browser)
    # The owner chooses a new one, here and now.
    form = owner.get(answer["Location"])["Location"]
    assert "Choose a new password" in owner.get(form).content.decode()
    owner.post(form, {"password1": CHOSEN, "password2": CHOSEN})
    browser = tab()
    type_password(browser, OLD, CHOSEN)
    assert is_signed_in(browser)
    assert "Your account has its address back" in mails_to(OLD)
    assert "An account no longer signs in with this address" in mails_to(NEW)
    assert Event.objects.filter(tag="account.email.restored", actor_id=alice.pk).count() == 1


def test_a24_taking_back_waives_no_second_step(alice: User, home: Client, settings: Any) -> None:
    _seed, codes = add_app_again(home)
    move(home, NEW, settings)
    owner = tab()
    answer = owner.post(undo_link(OLD, settings))
    form = owner.get(answer["Location"])["Location"]
    owner.post(form, {"password1": CHOSEN, "password2": CHOSEN})
    type_password(owner, OLD, CHOSEN)
    assert not is_signed_in(owner)
    second_step(owner, codes[0])
    assert is_signed_in(owner)


def test_a24_the_link_works_once_and_for_72_hours(alice: User, home: Client, settings: Any) -> None:
    with time_machine.travel(timezone.now(), tick=False) as clock:
        move(home, NEW, settings)
        link = undo_link(OLD, settings)
        clock.shift(timedelta(hours=72, seconds=1))
        for answer in (tab().get(link), tab().post(link)):
            assert answer.status_code == 410
            assert "This link has ended" in answer.content.decode()
        assert address_of(alice) == NEW
        clock.shift(timedelta(hours=-1))
        assert tab().post(link).status_code == 302
        assert tab().post(link).status_code == 410
        assert address_of(alice) == OLD
    assert tab().get("/email/undo/" + "\ufffd" * 20 + "/").status_code == 410


def test_a24_of_many_clicks_at_once_one_takes_it_back(
    alice: User, home: Client, settings: Any
) -> None:
    move(home, NEW, settings)
    link = undo_link(OLD, settings)
    assert at_once(6, lambda _number: tab().post(link).status_code == 302) == 1
    assert address_of(alice) == OLD


def test_a24_a_thief_who_moves_on_twice_is_taken_back_to_the_first(
    alice: User, home: Client, settings: Any
) -> None:
    move(home, NEW, settings)
    first = undo_link(OLD, settings)
    move(home, THIRD, settings)
    second = undo_link(NEW, settings)
    assert tab().post(first).status_code == 302
    assert address_of(alice) == OLD
    # The thief's own link, back to the thief's address, is void.
    assert tab().post(second).status_code == 410
    assert address_of(alice) == OLD


def test_a20_links_to_choose_a_password_from_before_are_dead(
    alice: User, home: Client, settings: Any
) -> None:
    tab().post("/password/reset/", {"email": OLD})
    link = reset_link()
    move(home, NEW, settings)
    assert "no longer works" in tab().get(link, follow=True).content.decode()


def test_a24_an_address_that_another_account_has_meanwhile_stays_theirs(
    alice: User, home: Client, settings: Any
) -> None:
    move(home, NEW, settings)
    link = undo_link(OLD, settings)
    other = person(OLD, "Somebody")
    account_for(other)
    answer = tab().post(link)
    assert answer.status_code == 409
    assert "The address is in use" in answer.content.decode()
    assert address_of(alice) == NEW
    assert AddressChange.objects.get().undone_at is None
    # A sign-up that was never confirmed is no such account: else a thief could block the way back.
    EmailAddress.objects.filter(user=other).update(verified=False)
    assert tab().post(link).status_code == 302
    assert address_of(alice) == OLD


def test_a08_an_address_that_is_taken_is_answered_like_a_free_one(
    alice: User, home: Client, charlie: User, settings: Any
) -> None:
    free = home.post("/email/", {"email": NEW, "action_add": ""})
    taken = home.post("/email/", {"email": charlie.email, "action_add": ""})
    assert (free.status_code, free["Location"]) == (taken.status_code, taken["Location"])
    # Whoever reads both mailboxes types the code and is told that it is taken; nothing changes.
    home.post("/confirm-email/", {"code": newest_code(charlie.email, settings)})
    assert address_of(alice) == OLD
    charlie.refresh_from_db()
    assert charlie.email == "charlie@example.org"


def test_an_app_changes_the_address_by_the_same_rules(
    alice: User, alices_account: Account, settings: Any
) -> None:
    app = App()
    app.call("POST", "auth/login", email=OLD, password=PASSWORD)
    assert app.call("POST", "account/email", email=NEW).status_code == 401
    assert app.call("POST", "auth/reauthenticate", password=PASSWORD).status_code == 200
    assert app.call("POST", "account/email", email=NEW).status_code == 200
    assert address_of(alice) == OLD
    assert app.call("POST", "auth/email/verify", key=newest_code(NEW, settings)).status_code == 200
    assert address_of(alice) == NEW
    assert tab().post(undo_link(OLD, settings)).status_code == 302
    assert not app.is_signed_in()


def test_signing_up_is_no_change_of_address(settings: Any) -> None:
    browser = tab()
    browser.post("/signup/", {"email": OLD, "password1": CHOSEN})
    browser.post("/confirm-email/", {"code": newest_code(OLD, settings)})
    assert is_signed_in(browser)
    assert not AddressChange.objects.exists()
