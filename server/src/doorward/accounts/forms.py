"""allauth's forms where their words are not ours (ACCOUNT_FORMS)."""

from __future__ import annotations

from typing import Any, Final

import allauth.account.forms as allauth_forms
import allauth.headless.account.inputs as allauth_inputs
import allauth.mfa.totp.forms as totp_forms
from allauth.account.adapter import get_adapter
from allauth.account.decorators import reauthentication_required
from allauth.headless.account.views import ChangePasswordView
from allauth.headless.usersessions.views import SessionsView
from django import forms
from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.utils.decorators import method_decorator
from django.utils.translation import gettext_lazy as _

from doorward.accounts.models import canonical_email


def typed_address(typed: str) -> str:
    """Return what was typed as an address in its one spelling; stray spaces are no reason to fail.

    An address that can't be one has no account, and is answered like any other wrong pair.
    """
    address = canonical_email("".join(typed.split()))
    try:
        validate_email(address)
    except ValidationError:
        return "nobody@invalid"
    return address


class LoginForm(allauth_forms.LoginForm):  # type: ignore[misc]  # allauth ships no types
    """Signing in: whatever is wrong with address or password, the answer is one and the same."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Plain text, not an email field: "not an address" would be a second kind of answer.
        self.fields["login"] = forms.CharField(
            label=_("Email address"),
            widget=forms.TextInput(
                attrs={
                    "type": "email",
                    "autocomplete": "username webauthn",
                    "inputmode": "email",
                    "autocapitalize": "none",
                    "spellcheck": "false",
                }
            ),
        )
        self.fields["password"].help_text = ""
        if self.is_bound:
            # Back with an error: the password is what is typed anew.
            self.fields["password"].widget.attrs["autofocus"] = True
        for field in self.fields.values():
            # "No NUL characters" would be a second kind of answer too.
            field.validators = []
        self.order_fields(["login", "password"])

    offers_link = False
    """Whether the page offers to mail a link: strangers' browsers have to wait."""

    def clean(self) -> Any:
        """Check the pair, or say how long new browsers have to wait."""
        try:
            return super().clean()
        except ValidationError as error:
            self.offers_link = error.code == "too_many_tries"
            raise

    def clean_login(self) -> str:
        """Return the address in its one spelling."""
        return typed_address(self.cleaned_data["login"])


class NewAddressForm(allauth_forms.AddEmailForm):  # type: ignore[misc]  # allauth ships no types
    """The address that shall take the place of the one there is."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["email"].label = _("New address")


class ChangePasswordForm(allauth_forms.ChangePasswordForm):  # type: ignore[misc]  # no types
    """Changing a password: the current one is asked for, and wrong ones are counted."""

    def clean_oldpassword(self) -> str:
        """Return the current password, if it is that."""
        password: str = self.cleaned_data["oldpassword"]
        if not get_adapter().reauthenticate(self.user, password):
            raise get_adapter().validation_error("enter_current_password")
        return password


class ChangePasswordInput(allauth_inputs.ChangePasswordInput):  # type: ignore[misc]  # no types
    """The same for apps."""

    def clean_current_password(self) -> str:
        """Return the current password, if it is that or there is none yet."""
        password: str = self.cleaned_data["current_password"]
        if password and not get_adapter().reauthenticate(self.user, password):
            raise get_adapter().validation_error("enter_current_password")
        return password


class SignupForm(allauth_forms.SignupForm):  # type: ignore[misc]  # allauth ships no types
    """Signing up, in our words."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["email"].label = _("Email address")


# Where allauth's labels say what a programmer calls the thing.
_LABELS: Final = (
    (allauth_forms.ResetPasswordForm, "email", _("Email address")),
    (allauth_forms.ChangePasswordForm, "oldpassword", _("Your password now")),
    (allauth_forms.ChangePasswordForm, "password1", _("New password")),
    (allauth_forms.ChangePasswordForm, "password2", _("New password once more")),
    (allauth_forms.SetPasswordForm, "password1", _("New password")),
    (allauth_forms.SetPasswordForm, "password2", _("New password once more")),
    (allauth_forms.ResetPasswordKeyForm, "password1", _("New password")),
    (allauth_forms.ResetPasswordKeyForm, "password2", _("New password once more")),
    (allauth_forms.BaseConfirmCodeForm, "code", _("Code")),
    (totp_forms.ActivateTOTPForm, "code", _("Code from the app")),
)


def install() -> None:
    """Have apps' requests checked as the pages' are, and labels say what people say."""
    for form, name, words in _LABELS:
        form.base_fields[name].label = words
    # "Is it still you?": nothing else is on that page.
    allauth_forms.ReauthenticateForm.base_fields["password"].widget.attrs["autofocus"] = True
    from doorward.accounts import signup_passkey

    signup_passkey.install()
    ChangePasswordView.input_class = ChangePasswordInput
    # Else whoever holds a stolen session could end the owner's.
    SessionsView.delete = method_decorator(reauthentication_required)(SessionsView.delete)
