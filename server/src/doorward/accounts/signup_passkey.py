"""Signing up with a passkey instead of a password, and staying able to get in.

The address is confirmed first; then the person makes a passkey, is signed in and is shown recovery
codes. There is no password until they add one.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from allauth.account.internal.flows.login import record_authentication
from allauth.account.internal.flows.reauthentication import raise_if_reauthentication_required
from allauth.account.internal.stagekit import get_pending_stage
from allauth.headless.account.views import ChangePasswordView
from allauth.headless.base.response import ConflictResponse
from allauth.headless.mfa import inputs as mfa_inputs
from allauth.headless.mfa.views import ManageWebAuthnView, SignupWebAuthnView
from allauth.mfa.models import Authenticator
from allauth.mfa.recovery_codes.internal.flows import auto_generate_recovery_codes
from django.core.exceptions import ValidationError
from django.utils.translation import gettext as _

from doorward.accounts.models import User

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponse  # noqa: TID251 - signatures are allauth's


def offer_recovery_codes(request: HttpRequest, user: User) -> None:
    """Make recovery codes for somebody whose passkey was made this moment, and let them be shown.

    Making it with finger or PIN is as good as being asked again who one is.
    """
    passkey = Authenticator.objects.filter(user_id=user.pk, type="webauthn").latest("pk")
    record_authentication(
        request, user, method="mfa", type="webauthn", id=passkey.pk, reauthenticated=True
    )
    auto_generate_recovery_codes(request)


def leaves_a_way_in(user: User, *, without: Collection[int]) -> bool:
    """Tell whether this person can still begin to sign in when these passkeys are gone."""
    if user.has_usable_password():
        return True
    left = Authenticator.objects.filter(user_id=user.pk, type="webauthn").exclude(pk__in=without)
    return any(each.wrap().is_passwordless for each in left)


def only_way_in() -> str:
    """Return the words for why the last passkey can't be removed."""
    return _("It is your only way in. Add a password or another passkey first.")


class DeletePasskeysInput(mfa_inputs.DeleteWebAuthnInput):  # type: ignore[misc]  # no types
    """The passkeys an app wants to remove."""

    def clean_authenticators(self) -> Any:
        """Refuse to remove the only way in."""
        chosen = self.cleaned_data["authenticators"]
        if not leaves_a_way_in(self.user, without=[each.pk for each in chosen]):
            raise ValidationError(only_way_in(), code="only_way_in")
        return chosen


def install() -> None:
    """Have apps follow the same rules as the pages."""
    change = ChangePasswordView.post

    def post(view: Any, request: HttpRequest, *args: Any, **more: Any) -> HttpResponse:
        # Without a password there is none to ask for first: else a stolen session could set one.
        if not request.user.has_usable_password():  # type: ignore[union-attr]  # signed in
            raise_if_reauthentication_required(request, app="allauth.account")
        answer: HttpResponse = change(view, request, *args, **more)
        return answer

    if not getattr(change, "asks_first", False):
        post.asks_first = True  # type: ignore[attr-defined]  # so that it is put on once
        ChangePasswordView.post = post
    handle = SignupWebAuthnView.handle

    def handle_once_begun(view: Any, request: HttpRequest, *args: Any, **more: Any) -> HttpResponse:
        # allauth reads the passkey before it looks whether somebody is signing up, and fails.
        if request.method == "PUT" and get_pending_stage(request) is None:
            refusal: HttpResponse = ConflictResponse(request)
            return refusal
        answer: HttpResponse = handle(view, request, *args, **more)
        return answer

    if not getattr(handle, "looks_first", False):
        handle_once_begun.looks_first = True  # type: ignore[attr-defined]  # put on once, too
        SignupWebAuthnView.handle = handle_once_begun
    ManageWebAuthnView.input_class = {
        **ManageWebAuthnView.input_class,
        "DELETE": DeletePasskeysInput,
    }
