"""A passkey's answer counts only for what it was asked for, of whom it was asked."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.conf import settings
from django.core.cache import cache
from server.tests.accounts.second_steps import App, is_signed_in, tab
from server.tests.conftest import PASSWORD
from tests.drills.soft_key import PRESENT, PRESENT_AND_VERIFIED, SoftKey

from doorward.accounts.factors import ceremonies
from doorward.accounts.models import Account, User

pytestmark = pytest.mark.django_db(transaction=True)


def asked(app: App, path: str) -> dict[str, Any]:
    data: dict[str, Any] = app.call("GET", path).json()["data"]
    options = data.get("request_options") or data["creation_options"]
    assert isinstance(options, dict)
    return options


def answers(app: App, path: str, key: SoftKey, options: dict[str, Any], flags: int) -> Any:
    key.flags = flags
    return app.call("POST", path, credential=key.proved(options))


def key_of(user: User, *, stays: bool | None, flags: int = PRESENT_AND_VERIFIED) -> SoftKey:
    """Add a passkey to this person; ``stays``: whether it was made to sign in alone."""
    app, key = App(), SoftKey(settings.SITE_URL, stays=stays, flags=flags)
    app.call("POST", "auth/login", email=user.email, password=PASSWORD)
    app.call("POST", "auth/reauthenticate", password=PASSWORD)
    made = key.registered(asked(app, "account/authenticators/webauthn"))
    added = app.call("POST", "account/authenticators/webauthn", name="key", credential=made)
    assert added.status_code == 200, added.content
    return key


def half_way(user: User) -> App:
    app = App()
    answer = app.call("POST", "auth/login", email=user.email, password=PASSWORD)
    assert answer.status_code == 401
    return app


@pytest.fixture(autouse=True)
def no_tries_of_other_tests(db: None) -> None:
    """allauth's own limit of passkeys a minute is kept where no test's end empties it."""
    cache.clear()


def test_a17_a_challenge_of_ones_own_second_step_lets_no_stolen_key_in(
    alice: User, alices_account: Account, charlie: User
) -> None:
    """Charlie has Alice's key in his hand, and can only touch it."""
    stolen, _own = key_of(alice, stays=True), key_of(charlie, stays=True)
    app = half_way(charlie)
    options = asked(app, "auth/webauthn/authenticate")
    for flags in (PRESENT, PRESENT_AND_VERIFIED):
        for path in ("auth/webauthn/login", "auth/webauthn/authenticate"):
            assert answers(app, path, stolen, options, flags).status_code == 400, path
    assert not app.is_signed_in()
    # By the page, too.
    browser = tab()
    browser.post("/login/", {"login": charlie.email, "password": PASSWORD})
    page = browser.get("/account/security/authenticate/")
    stolen.flags = PRESENT
    credential = json.dumps(stolen.proved(page.context["js_data"]["request_options"]))
    browser.post("/account/security/webauthn/login/", {"credential": credential})
    assert not is_signed_in(browser)


def test_a17_a_challenge_to_sign_in_alone_is_no_second_step_and_proves_nothing_again(
    alice: User, alices_account: Account
) -> None:
    key = key_of(alice, stays=True)
    app = half_way(alice)
    second = "auth/webauthn/authenticate"
    options = asked(app, "auth/webauthn/login")
    assert answers(app, second, key, options, PRESENT_AND_VERIFIED).status_code == 400
    options = asked(app, second)
    assert answers(app, second, key, options, PRESENT).status_code == 200
    assert app.is_signed_in()
    # Nor does what was asked while signing in count when asked again, or the other way round.
    again = "auth/webauthn/reauthenticate"
    assert answers(app, again, key, options, PRESENT).status_code == 400
    options = asked(app, again)
    assert answers(app, again, key, options, PRESENT).status_code == 200


@pytest.mark.parametrize(
    ("stays", "made_by", "shown", "lets_in"),
    [
        (True, PRESENT_AND_VERIFIED, PRESENT_AND_VERIFIED, True),
        (True, PRESENT_AND_VERIFIED, PRESENT, False),
        (False, PRESENT_AND_VERIFIED, PRESENT_AND_VERIFIED, False),
        (False, PRESENT, PRESENT_AND_VERIFIED, False),
        (None, PRESENT_AND_VERIFIED, PRESENT_AND_VERIFIED, True),
        (None, PRESENT_AND_VERIFIED, PRESENT, False),
        (None, PRESENT, PRESENT_AND_VERIFIED, False),
    ],
)
def test_a17_only_a_key_made_for_it_and_a_finger_sign_in_alone(
    stays: bool | None,
    made_by: int,
    shown: int,
    lets_in: bool,
    alice: User,
    alices_account: Account,
) -> None:
    key = key_of(alice, stays=stays, flags=made_by)
    app = App()
    options = asked(app, "auth/webauthn/login")
    answer = answers(app, "auth/webauthn/login", key, options, shown)
    assert answer.status_code == (200 if lets_in else 400), answer.content
    assert app.is_signed_in() == lets_in
    browser = tab()
    page = browser.get(
        "/account/security/webauthn/login/", headers={"X-Requested-With": "XMLHttpRequest"}
    )
    credential = json.dumps(key.proved(page.json()["request_options"]))
    answer = browser.post("/account/security/webauthn/login/", {"credential": credential})
    assert answer.status_code == 302
    assert is_signed_in(browser) == lets_in


def test_a17_a_new_passkey_is_taken_only_by_whom_it_was_asked_for(
    alice: User, alices_account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, key = App(), SoftKey(settings.SITE_URL)
    app.call("POST", "auth/login", email=alice.email, password=PASSWORD)
    app.call("POST", "auth/reauthenticate", password=PASSWORD)
    offered = asked(app, "account/authenticators/webauthn")
    made = key.registered(offered)
    # As if it had been asked of somebody else.
    monkeypatch.setattr(ceremonies, "MAKE", "of another")
    path = "account/authenticators/webauthn"
    assert app.call("POST", path, name="key", credential=made).status_code == 400
    monkeypatch.undo()
    assert app.call("POST", path, name="key", credential=made).status_code == 200
