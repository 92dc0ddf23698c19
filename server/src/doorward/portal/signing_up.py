"""Signing up: the code's page, the passkey instead of a password, and a password added later."""

from __future__ import annotations

from typing import Any, Final, cast

from allauth.account.decorators import reauthentication_required
from allauth.account.views import ConfirmEmailVerificationCodeView
from allauth.account.views import password_set as allauths_password_set
from allauth.mfa.webauthn.views import RemoveWebAuthnView, SignupWebAuthnView
from django.contrib import messages
from django.contrib.auth.decorators import login_not_required, login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache

from doorward.accounts import signup_passkey
from doorward.accounts.models import User


class ConfirmAddress(ConfirmEmailVerificationCodeView):  # type: ignore[misc]  # no types
    """Takes the code that was mailed to a new address."""

    def _verify_form_invalid(self, form: Any) -> HttpResponse:
        if self._process.record_invalid_attempt():
            again: HttpResponse = super(ConfirmEmailVerificationCodeView, self).form_invalid(form)
            return again
        if self.request.user.is_authenticated:
            messages.error(
                self.request,
                _("Three wrong codes, so that one has ended. Ask for a new one here."),
            )
            return redirect("/email/")
        # The same for an address that is taken: there the code could never have been right.
        messages.error(
            self.request,
            _(
                "Three wrong codes, so that one has ended. "
                "Create your account again, and we mail you a new one."
            ),
        )
        return redirect("/signup/")


@login_not_required
def confirm_address(request: HttpRequest) -> HttpResponse:
    """Ask for the code that was mailed to a new address."""
    answer: HttpResponse = ConfirmAddress.as_view()(request)
    return answer


class MakePasskey(SignupWebAuthnView):  # type: ignore[misc]  # allauth ships no types
    """Makes the passkey somebody signs up with, signs them in and shows recovery codes."""

    def form_valid(self, form: Any) -> HttpResponse:
        """Go on to the recovery codes, once signed in."""
        answer: HttpResponse = super().form_valid(form)
        if not self.request.user.is_authenticated:
            return answer
        signup_passkey.offer_recovery_codes(self.request, cast(User, self.request.user))
        return redirect("mfa_view_recovery_codes")


make_passkey: Final = never_cache(MakePasskey.as_view())
set_password: Final = login_required(reauthentication_required(allauths_password_set))


class RemovePasskey(RemoveWebAuthnView):  # type: ignore[misc]  # allauth ships no types
    """Removes a passkey, unless it is the only way in."""

    def form_valid(self, form: Any) -> HttpResponse:
        """Remove it, or say what to do first."""
        user = cast(User, self.request.user)
        if not signup_passkey.leaves_a_way_in(user, without=[self.get_object().pk]):
            messages.error(self.request, signup_passkey.only_way_in())
            return redirect("/account/security/")
        answer: HttpResponse = super().form_valid(form)
        return answer


remove_passkey: Final = RemovePasskey.as_view()
