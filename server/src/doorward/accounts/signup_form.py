"""What we add to allauth's sign-up, for pages and for apps alike (ACCOUNT_SIGNUP_FORM_CLASS).

Kept apart from adapter.py: allauth imports this while its own forms are being made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from allauth.core import context
from django import forms
from django.core.exceptions import ValidationError

from doorward.accounts import adapter, letting_in
from doorward.accounts.models import User, canonical_email
from doorward.accounts.password_rules import PasswordRules

if TYPE_CHECKING:
    from django.http import HttpRequest  # noqa: TID251 - the signature is allauth's


class SignupExtras(forms.Form):
    """Checks the password against the address it comes with."""

    def clean(self) -> dict[str, Any]:
        """Refuse a password that contains the address, and too many sign-ups."""
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        email = cleaned.get("email")
        password = cleaned.get("password") or cleaned.get("password1")
        letting_in.underway(context.request).new_password = password
        if email and password:
            try:
                PasswordRules().validate(password, User(email=canonical_email(email)))
            except ValidationError as error:
                # For pages allauth asks the same rules itself, for apps it does not know whom.
                if "password" in self.fields:
                    self.add_error("password", error)
            else:
                # Counted only when the sign-up would succeed, and for taken addresses alike.
                adapter.count_signup(context.request, email)
        if email and getattr(self, "by_passkey", False):
            adapter.count_signup(context.request, email)
        return cleaned

    def signup(self, request: HttpRequest, user: User) -> None:
        """Do nothing more: AccountAdapter.save_user has stored everything."""
