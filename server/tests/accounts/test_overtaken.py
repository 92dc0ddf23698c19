"""A request that its person's own change has overtaken does nothing: it came too late."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from allauth.account.models import EmailAddress
from allauth.mfa.models import Authenticator
from allauth.mfa.webauthn.internal import flows
from allauth.usersessions.models import UserSession
from django.apps import apps
from django.conf import settings
from django.db import models
from django.test import Client
from server.tests.accounts.second_steps import (
    App,
    add_app,
    is_signed_in,
    signed_in_tab,
    tab,
    type_password,
)
from server.tests.conftest import PASSWORD

from doorward.accounts import remembered, staying_gone
from doorward.accounts.models import (
    Account,
    Membership,
    PersonalToken,
    RememberedBrowser,
    User,
)

pytestmark = pytest.mark.django_db


def passkey_of(user: User, name: str = "stolen") -> Authenticator:
    data = {"name": name, "credential": {"clientExtensionResults": {"credProps": {"rk": True}}}}
    made: Authenticator = Authenticator.objects.create(user=user, type="webauthn", data=data)
    return made


# -- what was removed stays removed ----------------------------------------------------------------


@contextmanager
def removed_before_it_is_named_anew(key: Authenticator) -> Iterator[None]:
    """Have somebody remove the passkey right after a request to rename it has read it."""
    real = flows.rename_authenticator

    def rename(*args: Any) -> None:
        Authenticator.objects.filter(pk=key.pk).delete()
        real(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flows, "rename_authenticator", rename)
        yield


def test_a17_n3_a_passkey_removed_while_a_page_renames_it_does_not_come_back(alice: User) -> None:
    thief = signed_in_tab(alice.email)
    thief.post("/reauthenticate/", {"password": PASSWORD})
    key = passkey_of(alice)
    with removed_before_it_is_named_anew(key):
        answer = thief.post(f"/account/security/webauthn/keys/{key.pk}/edit/", {"name": "mine"})
    assert not Authenticator.objects.exists()
    assert answer.status_code == 404


def test_a17_n3_a_passkey_removed_while_an_app_renames_it_does_not_come_back(alice: User) -> None:
    thief = App()
    thief.call("POST", "auth/login", email=alice.email, password=PASSWORD)
    thief.call("POST", "auth/reauthenticate", password=PASSWORD)
    key = passkey_of(alice)
    path = "account/authenticators/webauthn"
    with removed_before_it_is_named_anew(key):
        answer = thief.call("PUT", path, id=key.pk, name="mine")
    assert not Authenticator.objects.exists()
    assert answer.status_code == 404
    assert answer.json() == {"status": 404}


def rows_that_open(alice: User, account: Account) -> list[models.Model]:
    from django.utils import timezone

    now = timezone.now()
    token = PersonalToken(user=alice, name="x", digest="d", created_at=now, expires_at=now)
    token.save()
    listed = UserSession.objects.create(user=alice, ip="127.0.0.1", session_key="k")
    address = EmailAddress.objects.get(user=alice)
    return [passkey_of(alice), token, listed, address, Membership.objects.get(user=alice), alice]


def test_a26_no_row_that_opens_a_door_is_written_anew_once_it_is_deleted(
    alice: User, alices_account: Account
) -> None:
    for row in rows_that_open(alice, alices_account):
        kind = type(row)
        kind._default_manager.filter(pk=row.pk).delete()
        with pytest.raises(staying_gone.Gone):
            row.save()
        assert not kind._default_manager.filter(pk=row.pk).exists(), kind


def test_a26_a_row_that_is_there_is_saved_as_ever(alice: User, alices_account: Account) -> None:
    for row in rows_that_open(alice, alices_account):
        row.save()


def test_a26_every_model_of_this_room_is_kept_so() -> None:
    every = [*apps.get_app_config("accounts").get_models(), Authenticator, EmailAddress]
    assert [model for model in every if not hasattr(model.save, "__wrapped__")] == []


# -- a browser is remembered only by whom it let in ------------------------------------------------


def waits_to_be_remembered(alice: User, codes: list[str]) -> Client:
    """Return a browser with Alice's password and one of her codes, asked whether to remember it."""
    thief = tab("Thief/1.0")
    type_password(thief, alice.email)
    answer = thief.post("/account/security/authenticate/", {"code": codes[0]})
    assert answer["Location"] == "/account/security/trust/"
    return thief


@pytest.mark.django_db(transaction=True)
def test_n3_a25_a_browser_is_not_remembered_by_a_sign_in_that_a_change_has_overtaken(
    alice: User,
) -> None:
    home = signed_in_tab(alice.email)
    _seed, codes = add_app(home)
    thief = waits_to_be_remembered(alice, codes)
    home.post("/account/security/totp/deactivate/")
    answer = thief.post("/account/security/trust/", {"action": "trust"})
    assert not is_signed_in(thief)
    assert settings.REMEMBERED_COOKIE_NAME not in answer.cookies
    assert not RememberedBrowser.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_n3_a25_a_change_between_signing_in_and_remembering_has_the_last_word(alice: User) -> None:
    home = signed_in_tab(alice.email)
    _seed, codes = add_app(home)
    thief = waits_to_be_remembered(alice, codes)

    def draw(_cookie: str | None) -> str:
        home.post("/account/security/totp/deactivate/")
        return "x" * 43

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(remembered, "secret_in", draw)
        answer = thief.post("/account/security/trust/", {"action": "trust"})
    assert answer["Location"] == "/login/"
    assert not is_signed_in(thief)
    assert settings.REMEMBERED_COOKIE_NAME not in answer.cookies
    assert not RememberedBrowser.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_n3_a_browser_is_remembered_by_a_sign_in_that_nothing_has_overtaken(alice: User) -> None:
    _seed, codes = add_app(signed_in_tab(alice.email))
    browser = waits_to_be_remembered(alice, codes)
    answer = browser.post("/account/security/trust/", {"action": "trust"})
    assert is_signed_in(browser)
    assert remembered.is_remembered(alice, answer.cookies[settings.REMEMBERED_COOKIE_NAME].value)
