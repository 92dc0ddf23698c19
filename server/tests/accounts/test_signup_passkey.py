"""Signing up with a passkey: no password, and always a way in. A real one is in tests/browser."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
import time_machine
from allauth.account.models import EmailAddress
from allauth.mfa.models import Authenticator
from allauth.mfa.webauthn.internal import auth as webauthn
from django.test import Client
from django.utils import timezone
from server.tests.accounts.second_steps import (
    App,
    is_signed_in,
    mails_to,
    newest_code,
    tab,
    type_password,
)

from doorward.accounts import signup_passkey
from doorward.accounts.models import Account, User

DORA = "dora@example.org"
LONG = "nine ships in the quiet morning"
CREDENTIAL = {"id": "x", "clientExtensionResults": {"credProps": {"rk": True}}}

pytestmark = pytest.mark.django_db(transaction=True)


class Proved:
    """What a computer's key answers when its owner showed a finger."""

    def is_user_verified(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def finger(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand in for the computer's own key: the outside world."""
    monkeypatch.setattr(webauthn, "parse_registration_response", lambda credential: credential)
    monkeypatch.setattr(webauthn, "complete_registration", lambda credential: Proved())
    monkeypatch.setattr(webauthn, "get_credentials", lambda user: [])


def begun(settings: Any, browser: Client | None = None) -> Client:
    """Sign up as far as the passkey."""
    browser = browser or tab()
    answer = browser.post("/signup/passkey/", {"email": DORA})
    assert answer["Location"] == "/confirm-email/", answer.content.decode()
    answer = browser.post("/confirm-email/", {"code": newest_code(DORA, settings)})
    assert answer["Location"] == "/account/security/webauthn/signup/"
    return browser


def signed_up(settings: Any) -> Client:
    browser = begun(settings)
    assert "Make your passkey" in browser.get("/account/security/webauthn/signup/").content.decode()
    answer = browser.post(
        "/account/security/webauthn/signup/",
        {"name": "laptop", "credential": json.dumps(CREDENTIAL)},
    )
    assert answer["Location"] == "/account/security/recovery-codes/", answer.content.decode()
    return browser


def test_a_person_signs_up_with_a_passkey_and_gets_recovery_codes(settings: Any) -> None:
    browser = signed_up(settings)
    page = browser.get("/account/security/recovery-codes/").content.decode()
    assert "Your new codes" in page
    dora = User.objects.get(email=DORA)
    assert not dora.has_usable_password()
    assert Account.objects.filter(memberships__user=dora, memberships__role="owner").count() == 1
    assert Authenticator.objects.filter(user=dora).count() == 2
    security = browser.get("/account/security/").content.decode()
    assert "There is no password that somebody could learn." in security


def test_before_the_address_is_confirmed_no_passkey_is_made(settings: Any) -> None:
    browser = tab()
    browser.post("/signup/passkey/", {"email": DORA})
    answer = browser.get("/account/security/webauthn/signup/")
    assert answer["Location"] == "/signup/"
    answer = browser.post(
        "/account/security/webauthn/signup/",
        {"name": "laptop", "credential": json.dumps(CREDENTIAL)},
    )
    assert not Authenticator.objects.exists()
    assert not is_signed_in(browser)


def test_a13_an_account_without_a_password_opens_by_none(settings: Any) -> None:
    signed_up(settings)
    for password in ("", "!", LONG):
        browser = tab()
        type_password(browser, DORA, password)
        assert not is_signed_in(browser)


def test_a17_a_stolen_session_sets_no_password(settings: Any) -> None:
    browser = signed_up(settings)
    with time_machine.travel(timezone.now() + timedelta(minutes=16), tick=True):
        answer = browser.post("/password/set/", {"password1": LONG, "password2": LONG})
        assert answer["Location"].startswith("/account/security/webauthn/reauthenticate/")
    assert not User.objects.get(email=DORA).has_usable_password()


@pytest.mark.parametrize("credential", [CREDENTIAL, None, "x"])
def test_a40_a_passkey_from_nobody_who_is_signing_up_is_refused(credential: Any) -> None:
    answer = App().call("PUT", "auth/webauthn/signup", name="phone", credential=credential)
    assert answer.status_code == 409
    assert not Authenticator.objects.exists()


def test_a17_a_stolen_session_of_an_app_sets_no_password(settings: Any) -> None:
    app = App()
    app.call("POST", "auth/webauthn/signup", email=DORA)
    app.call("POST", "auth/email/verify", key=newest_code(DORA, settings))
    assert app.call("GET", "auth/webauthn/signup").status_code == 200
    made = app.call("PUT", "auth/webauthn/signup", name="phone", credential=CREDENTIAL)
    assert made.status_code == 200, made.content
    assert app.is_signed_in()
    assert app.call("POST", "account/password/change", new_password=LONG).status_code == 401
    assert not User.objects.get(email=DORA).has_usable_password()
    # Nor does an app take the only way in away.
    key = Authenticator.objects.get(type="webauthn")
    app.call("DELETE", "account/authenticators/webauthn", authenticators=[key.pk])
    assert Authenticator.objects.filter(pk=key.pk).exists()


def test_a_password_is_added_later_and_the_passkey_may_go_then(settings: Any) -> None:
    browser = signed_up(settings)
    key = Authenticator.objects.get(type="webauthn")
    remove = f"/account/security/webauthn/keys/{key.pk}/remove/"
    browser.post(remove)
    assert Authenticator.objects.filter(pk=key.pk).exists()
    assert "It is your only way in." in browser.get("/account/security/").content.decode()
    browser.post("/password/set/", {"password1": LONG, "password2": LONG})
    assert User.objects.get(email=DORA).has_usable_password()
    assert "A password was set" in mails_to(DORA)
    browser.post(remove)
    assert not Authenticator.objects.filter(pk=key.pk).exists()
    other = tab()
    type_password(other, DORA, LONG)
    assert is_signed_in(other)


def test_a08_a_taken_address_is_answered_alike(alice: User, settings: Any) -> None:
    free = tab().post("/signup/passkey/", {"email": DORA})
    taken = tab().post("/signup/passkey/", {"email": alice.email})
    assert (free.status_code, free["Location"]) == (taken.status_code, taken["Location"])
    assert not Authenticator.objects.exists()


def test_v2_4_1_sign_ups_with_a_passkey_are_counted_like_others() -> None:
    answers = [tab().post("/signup/passkey/", {"email": DORA}).status_code for _ in range(4)]
    assert answers == [302, 302, 302, 429]


def test_a_sign_up_left_half_way_can_begin_anew_after_ten_minutes(settings: Any) -> None:
    with time_machine.travel(timezone.now(), tick=False) as clock:
        tab().post("/signup/passkey/", {"email": DORA})
        first = User.objects.get(email=DORA).pk
        # At once it is not: else a stranger could end what is just being made.
        tab().post("/signup/passkey/", {"email": DORA})
        assert User.objects.get(email=DORA).pk == first
        clock.shift(timedelta(minutes=10, seconds=1))
        browser = tab()
        browser.post("/signup/passkey/", {"email": DORA})
        assert User.objects.get(email=DORA).pk != first
        browser.post("/confirm-email/", {"code": newest_code(DORA, settings)})
        assert EmailAddress.objects.get(email=DORA).verified


def test_whoever_can_make_no_passkey_goes_on_with_a_password(settings: Any) -> None:
    begun(settings)
    tab().post("/password/reset/", {"email": DORA})
    from server.tests.asvs.test_second_step import reset_link

    browser = tab()
    form = browser.get(reset_link())["Location"]
    browser.post(form, {"password1": LONG, "password2": LONG})
    type_password(browser, DORA, LONG)
    assert is_signed_in(browser)


def test_of_two_passkeys_removed_at_once_one_stays(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser = signed_up(settings)
    first = Authenticator.objects.get(type="webauthn")
    second = Authenticator.objects.create(user=first.user, type="webauthn", data=first.data)
    other_tab = tab()
    other_tab.cookies = browser.cookies
    looked = signup_passkey.leaves_a_way_in

    def while_the_other_goes(user: User, *, without: list[int]) -> bool:
        monkeypatch.setattr(signup_passkey, "leaves_a_way_in", looked)
        there_are_two = looked(user, without=without)
        other_tab.post(f"/account/security/webauthn/keys/{second.pk}/remove/")
        assert not Authenticator.objects.filter(pk=second.pk).exists()
        return there_are_two

    monkeypatch.setattr(signup_passkey, "leaves_a_way_in", while_the_other_goes)
    browser.post(f"/account/security/webauthn/keys/{first.pk}/remove/")
    assert Authenticator.objects.filter(pk=first.pk).exists()
