"""N3, A25: each change of how somebody signs in, times each thing that was opened before it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from allauth.mfa.models import Authenticator
from allauth.mfa.webauthn.internal import auth as webauthn
from django.test import Client
from server.tests.accounts.second_steps import (
    App,
    add_app,
    is_signed_in,
    mails_to,
    newest_code,
    second_step,
    signed_in_tab,
    tab,
    type_password,
)
from server.tests.asvs.test_second_step import reset_link
from server.tests.conftest import PASSWORD

from doorward.accounts import browsers, email_change, remembered, tokens
from doorward.accounts.models import Account, AddressChange, User

NEW = "nine ships in the quiet morning"
NEW_ADDRESS = "alice@elsewhere.example"

pytestmark = pytest.mark.django_db(transaction=True)


@dataclass
class Before:
    """What was open before the change, in other hands."""

    alice: User
    seed: str
    session: Client
    app: App
    token: str
    remembered: str
    reset_link: str
    unlock_link: str
    half_way: Client
    code: str = ""


def at_home(alice: User, monkeypatch: pytest.MonkeyPatch) -> tuple[Client, str, list[str]]:
    """Alice's own browser, signed in, once she has an app and a key; the app's seed and codes."""
    # The computer's own key is the outside world here; tests/browser has a real one.
    monkeypatch.setattr(webauthn, "parse_registration_response", lambda credential: credential)
    monkeypatch.setattr(webauthn, "complete_registration", lambda credential: credential)
    monkeypatch.setattr(webauthn, "get_credentials", lambda user: [])
    home = signed_in_tab(alice.email)
    seed, codes = add_app(home)
    Authenticator.objects.create(
        user=alice,
        type="webauthn",
        data={"name": "old key", "credential": {}},
    )
    return home, seed, codes


def opened(alice: User, seed: str, codes: list[str], home: Client) -> Before:
    """Open everything there is, elsewhere than in the browser that makes the change."""
    elsewhere = tab("Elsewhere/1.0")
    type_password(elsewhere, alice.email)
    second_step(elsewhere, codes[0], remember=True)
    app = App()
    app.call("POST", "auth/login", email=alice.email, password=PASSWORD)
    app.call("POST", "auth/2fa/authenticate", code=codes[1])
    half_way = tab("HalfWay/1.0")
    type_password(half_way, alice.email)
    tab().post("/password/reset/", {"email": alice.email})
    alice.refresh_from_db()
    before = Before(
        alice=alice,
        seed=seed,
        session=elsewhere,
        app=app,
        token=tokens.create(alice, name="script", scopes=["devices:read"], days=1)[1],
        remembered=elsewhere.cookies["dw_remembered"].value,
        reset_link=reset_link(),
        unlock_link=browsers.new_link(alice).rstrip("/").rpartition("/")[2],
        half_way=half_way,
        code=codes[2],
    )
    for name, works in TOKENS.items():
        if name != "a sign-in half done":
            assert works(before), f"{name} does not even work before the change"
    return before


def completes(before: Before) -> bool:
    second_step(before.half_way, before.code)
    return is_signed_in(before.half_way)


TOKENS: dict[str, Callable[[Before], bool]] = {
    "a session": lambda before: is_signed_in(before.session),
    "an app's session token": lambda before: before.app.is_signed_in(),
    "a token for programs": lambda before: (
        tab()
        .get("/api/v1/devices", headers={"Authorization": f"Bearer {before.token}"})
        .status_code
        == 200
    ),
    "a remembered browser": lambda before: remembered.is_remembered(
        before.alice, before.remembered
    ),
    "a link to choose a password": lambda before: (
        "no longer works" not in tab().get(before.reset_link, follow=True).content.decode()
    ),
    "a link to be let in": lambda before: browsers.is_link(before.unlock_link),
    "a sign-in half done": completes,
}


def change_password(home: Client, _alice: User, _settings: Any) -> None:
    home.post("/password/change/", {"oldpassword": PASSWORD, "password1": NEW, "password2": NEW})


def reset_password(_home: Client, alice: User, _settings: Any) -> None:
    browser = tab()
    browser.post("/password/reset/", {"email": alice.email})
    form = browser.get(reset_link())["Location"]
    browser.post(form, {"password1": NEW, "password2": NEW})


def remove_app(home: Client, _alice: User, _settings: Any) -> None:
    home.post("/account/security/totp/deactivate/")


def add_passkey(home: Client, _alice: User, _settings: Any) -> None:
    home.get("/account/security/webauthn/add/")
    home.post("/account/security/webauthn/add/", {"name": "key", "credential": '{"id": "x"}'})


def remove_passkey(home: Client, alice: User, _settings: Any) -> None:
    key = Authenticator.objects.get(user=alice, type="webauthn")
    home.post(f"/account/security/webauthn/keys/{key.pk}/remove/")


def make_new_codes(home: Client, _alice: User, _settings: Any) -> None:
    home.post("/account/security/recovery-codes/generate/")


def turn_mailed_codes_on(home: Client, _alice: User, _settings: Any) -> None:
    home.post("/account/security/email/", {"wanted": "on"})


def change_address(home: Client, _alice: User, settings: Any) -> None:
    home.post("/email/", {"email": NEW_ADDRESS, "action_add": ""})
    home.post("/confirm-email/", {"code": newest_code(NEW_ADDRESS, settings)})


def take_address_back(_home: Client, alice: User, _settings: Any) -> None:
    secret = "s" * 32
    AddressChange.objects.filter(user=alice).update(digest=email_change._digest(secret))
    assert tab().post(f"/email/undo/{secret}/").status_code == 302


CHANGES: dict[str, tuple[Callable[[Client, User, Any], None], bool]] = {
    "the password is changed": (change_password, True),
    "the password is reset": (reset_password, False),
    "the app is removed": (remove_app, True),
    "a passkey is added": (add_passkey, True),
    "a passkey is removed": (remove_passkey, True),
    "new recovery codes are made": (make_new_codes, True),
    "mailed codes are turned on": (turn_mailed_codes_on, True),
    "the address is changed": (change_address, True),
    "the address is taken back": (take_address_back, False),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a25_n3_a_change_ends_everything_that_was_open(
    change: str,
    alice: User,
    alices_account: Account,
    settings: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    act, stays = CHANGES[change]
    home, seed, codes = at_home(alice, monkeypatch)
    if act is take_address_back:
        change_address(home, alice, settings)
        alice.refresh_from_db()
    before = opened(alice, seed, codes, home)
    told = len(mails_to(alice.email))
    act(home, alice, settings)
    left = [name for name, works in TOKENS.items() if works(before)]
    assert left == []
    # Who made the change goes on, except where it was made by a mailed link.
    assert is_signed_in(home) is stays
    assert len(mails_to("alice@example.org")) + len(mails_to(alice.email)) > told


def test_a25_setting_up_an_app_ends_what_the_password_alone_opened(
    alice: User, alices_account: Account
) -> None:
    home, cafe = signed_in_tab(alice.email), signed_in_tab(alice.email)
    app = App()
    app.call("POST", "auth/login", email=alice.email, password=PASSWORD)
    _token, text = tokens.create(alice, name="script", scopes=["devices:read"], days=1)
    tab().post("/password/reset/", {"email": alice.email})
    link = reset_link()
    add_app(home)
    assert is_signed_in(home)
    assert not is_signed_in(cafe)
    assert not app.is_signed_in()
    assert tokens.find(text) is None
    assert "no longer works" in tab().get(link, follow=True).content.decode()


def test_a25_the_person_is_told_that_their_tokens_ended(
    alice: User, alices_account: Account
) -> None:
    home = signed_in_tab(alice.email)
    tokens.create(alice, name="script", scopes=["devices:read"], days=1)
    home.post("/password/change/", {"oldpassword": PASSWORD, "password1": NEW, "password2": NEW})
    assert "Your token for programs ended with it" in home.get("/account/").content.decode()


def test_a_token_of_an_app_is_dead_once_it_was_given_another(
    alice: User, alices_account: Account
) -> None:
    """Rotation is honored: after each step up only the newest session token opens anything."""
    app = App()
    app.call("POST", "auth/login", email=alice.email, password=PASSWORD)
    seen = [app.token]
    assert app.call("POST", "auth/reauthenticate", password=PASSWORD).status_code == 200
    seen.append(app.token)
    changed = app.call(
        "POST", "account/password/change", current_password=PASSWORD, new_password=NEW
    )
    assert changed.status_code == 200, changed.content
    seen.append(app.token)
    assert len(set(seen)) == 3
    assert app.is_signed_in()
    for old in seen[:-1]:
        thief = App()
        thief.token = old
        assert not thief.is_signed_in()
