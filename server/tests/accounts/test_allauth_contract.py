"""What we lean on in allauth that it does not promise: a new version that breaks it fails here."""

from __future__ import annotations

import inspect
from pathlib import Path

import allauth.account
import allauth.mfa
import pytest
from allauth.account import app_settings, forms
from allauth.account.adapter import DefaultAccountAdapter
from allauth.account.internal import flows
from allauth.core import context
from allauth.core.internal import ratelimit
from allauth.headless.account.inputs import LoginInput, SignupInput
from django.urls import resolve

from doorward.accounts import letters
from doorward.accounts.adapter import CODE_VIEWS, AccountAdapter
from doorward.accounts.signup_form import SignupExtras


def test_there_are_words_for_every_mail_allauth_sends() -> None:
    asked = set()
    for package in (allauth.account, allauth.mfa):
        name = package.__name__.rpartition(".")[2]
        folder = Path(allauth.__file__).parent / "templates" / name / "email"
        asked |= {
            f"{name}/email/{file.name.removesuffix('_subject.txt')}"
            for file in folder.glob("*_subject.txt")
        }
    assert len(asked) > 10
    assert asked <= letters.known()


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("save_user", ["request", "user", "form", "commit"]),
        ("authenticate", ["request", "credentials"]),
        ("reauthenticate", ["user", "password"]),
        ("send_mail", ["template_prefix", "email", "context"]),
        ("send_notification_mail", ["template_prefix", "user", "context", "email"]),
        ("get_client_ip", ["request"]),
    ],
)
def test_allauth_still_asks_us_the_same_questions(name: str, arguments: list[str]) -> None:
    theirs = inspect.signature(getattr(DefaultAccountAdapter, name))
    assert [word for word in theirs.parameters if word != "self"] == arguments
    assert getattr(AccountAdapter, name) is not getattr(DefaultAccountAdapter, name)


def test_pages_and_apps_both_ask_the_adapter_whether_a_password_is_right() -> None:
    for asks in (forms.LoginForm._clean_with_password, LoginInput.clean):
        assert ".authenticate(" in inspect.getsource(asks)
    assert ".reauthenticate(" in inspect.getsource(forms.ReauthenticateForm.clean_password)


def test_the_sign_up_of_pages_and_of_apps_goes_through_our_checks() -> None:
    assert issubclass(forms.SignupForm, SignupExtras)
    assert issubclass(SignupInput, SignupExtras)
    assert "super().clean()" in inspect.getsource(forms.BaseSignupForm.clean)


def test_a_taken_address_is_answered_through_this_function() -> None:
    assert list(inspect.signature(flows.signup.prevent_enumeration).parameters) == [
        "request",
        "email",
        "phone",
    ]


def test_the_request_is_at_hand_where_a_mail_is_asked_for() -> None:
    assert hasattr(context, "request")


def test_the_page_for_too_many_requests_can_be_asked_for() -> None:
    assert list(inspect.signature(ratelimit.respond_429).parameters) == ["request"]


def test_codes_are_typed_at_the_addresses_we_count_at() -> None:
    found = {
        resolve(path).view_name
        for path in ("/confirm-email/", "/_allauth/app/v1/auth/email/verify")
    }
    assert found <= CODE_VIEWS


def test_what_we_count_allauth_does_not_count_again() -> None:
    limits = app_settings.RATE_LIMITS
    left = {action for action, rates in limits.items() if rates}
    assert left == {"manage_email", "reset_password_from_key"}


def test_nobody_signs_in_by_a_mailed_code_or_is_signed_in_by_a_reset() -> None:
    assert not app_settings.LOGIN_BY_CODE_ENABLED
    assert not app_settings.LOGIN_ON_PASSWORD_RESET
    assert not app_settings.LOGIN_ON_EMAIL_CONFIRMATION
