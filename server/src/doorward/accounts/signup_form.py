"""What we add to allauth's sign-up, for pages and for apps alike (ACCOUNT_SIGNUP_FORM_CLASS).

Kept apart from adapter.py: allauth imports this while its own forms are being made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django import forms
from django.core.exceptions import ValidationError

from doorward.accounts.models import User, canonical_email
from doorward.accounts.password_rules import PasswordRules

if TYPE_CHECKING:
    from django.http import HttpRequest  # noqa: TID251 - the signature is allauth's


class SignupExtras(forms.Form):
    """Checks the password against the address it comes with."""

    def clean(self) -> dict[str, Any]:
        """Refuse a password that contains the address; for apps allauth would not look."""
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        password, email = cleaned.get("password"), cleaned.get("email")
        if password and email:
            try:
                PasswordRules().validate(password, User(email=canonical_email(email)))
            except ValidationError as error:
                self.add_error("password", error)
        return cleaned

    def signup(self, request: HttpRequest, user: User) -> None:
        """Do nothing more: AccountAdapter.save_user has stored everything."""
