"""What a passkey was asked for, kept with the challenge: an answer counts for nothing else.

allauth keeps one challenge a session, whatever it was for. So a challenge of somebody's own second
step, for which a touch is enough, could be answered by another person's key where that key alone
signs in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from allauth.core import context
from allauth.mfa.adapter import get_adapter
from allauth.mfa.webauthn import forms as webauthn_forms
from allauth.mfa.webauthn.internal import auth

if TYPE_CHECKING:
    from doorward.accounts.models import User

MAKE: Final = "make"
SIGN_IN: Final = "sign in"
SECOND_STEP: Final = "second step"
AGAIN: Final = "again"
MEANT: Final = "doorward"
"""Under which the challenge's state says what it is for."""

# allauth's own, which do the ceremony itself.
_begin_registration: Final = auth.begin_registration
_begin_authentication: Final = auth.begin_authentication
_complete_authentication: Final = auth.complete_authentication
_clean_new: Final = webauthn_forms.AddWebAuthnForm.clean


def begin_registration(user: User, passwordless: bool) -> Any:
    """Return what the browser makes a passkey by, for this person."""
    options = _begin_registration(user, passwordless)
    _note(MAKE, user)
    return options


def begin_authentication(user: User | None = None) -> Any:
    """Return what the browser proves a passkey by: this person's, or whoever's it is."""
    options = _begin_authentication(user)
    _note(SIGN_IN if user is None else _proof(), user)
    return options


def complete_authentication(user: User, response: Any) -> Any:
    """Return the passkey that proved itself, as this person's second step or when asked again."""
    _must_be_meant(_proof(), user)
    return _complete_authentication(user, response)


def clean_new(form: Any) -> Any:
    """Take a new passkey only for whom it was asked for."""
    if form.cleaned_data.get("credential"):
        _must_be_meant(MAKE, form.user)
    return _clean_new(form)


def clean_signing_in(form: Any) -> Any:
    """Return the passkey that signs in by itself: made for that, and proved by finger or PIN."""
    credential = form.cleaned_data["credential"]
    answer = auth.parse_authentication_response(credential)
    _must_be_meant(SIGN_IN, None)
    if not answer.response.authenticator_data.is_user_verified():
        raise get_adapter().validation_error("incorrect_code")
    user = auth.extract_user_from_response(credential)
    authenticator = _complete_authentication(user, credential)
    if not may_sign_in_alone(authenticator):
        raise get_adapter().validation_error("incorrect_code")
    return authenticator


def may_sign_in_alone(authenticator: Any) -> bool:
    """Tell whether this passkey was made to sign in without a password.

    Some browsers do not say what they made. There it counts whether finger or PIN was shown then.
    """
    passkey = authenticator.wrap()
    if passkey.is_passwordless is None:
        return bool(passkey.authenticator_data.is_user_verified())
    return bool(passkey.is_passwordless)


def _proof() -> str:
    # The same call begins both; only one of them is asked of somebody who is signed in.
    return AGAIN if context.request.user.is_authenticated else SECOND_STEP


def _note(purpose: str, user: User | None) -> None:
    state = auth.get_state() or {}
    auth.set_state({**state, MEANT: [purpose, str(user.pk) if user is not None else ""]})


def _must_be_meant(purpose: str, user: User | None) -> None:
    state = auth.get_state() or {}
    if state.get(MEANT) != [purpose, str(user.pk) if user is not None else ""]:
        raise get_adapter().validation_error("incorrect_code")
