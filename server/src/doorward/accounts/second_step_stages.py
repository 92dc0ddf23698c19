"""What stands between a right password and a session: allauth's stages, and ours around them.

Every way to a session (page, JSON, link, code) passes the same list.
"""

from __future__ import annotations

import secrets
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from allauth.account.adapter import DefaultAccountAdapter
from allauth.account.stages import EmailVerificationStage, LoginStage
from allauth.core.internal.httpkit import headed_redirect_response
from allauth.mfa.stages import AuthenticateStage
from allauth.mfa.webauthn.internal.flows import did_use_passwordless_login
from django.contrib import messages
from django.db import IntegrityError, transaction
from django.utils import timezone
from django.utils.module_loading import import_string
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from doorward.accounts import lockout, second_step_tries, sessions, two_factor
from doorward.accounts.factors import text_messages
from doorward.accounts.letting_in import known_browser, underway
from doorward.accounts.models import SpentSignIn

if TYPE_CHECKING:
    from django.http import HttpRequest  # noqa: TID251 - signatures are allauth's

    from doorward.accounts.models import User

BY_EMAIL: Final = "login_by_code"
INSTEAD: Final = "instead"


class StampStage(LoginStage):  # type: ignore[misc]  # allauth ships no types
    """First of all: notes what the password and factors were when this sign-in began."""

    key = "stamp"

    def handle(self) -> tuple[Any, bool]:
        """Go on."""
        if self.login.user is not None:
            self.state["nonce"] = secrets.token_urlsafe(32)
            self.state["as_of"] = self.login.user.get_session_auth_hash()
            # A sign-in completed in the request it began in can't be completed twice.
            self.request.signing_in_since = self.state["nonce"]
        return None, True


class SecondStepStage(AuthenticateStage):  # type: ignore[misc]  # allauth ships no types
    """Asks for the second step, unless a code from the mail was chosen and given instead."""

    def _should_handle(self, request: HttpRequest) -> bool:
        mailed = self.controller.get_stage(BY_EMAIL)
        chosen = mailed is not None and mailed.state.get(INSTEAD)
        if chosen and self.controller.is_handled(BY_EMAIL):
            return False
        asked = underway(request).asked_of(self.login.user)
        if asked is not None and not asked.by_lasting_way:
            return False
        return bool(super()._should_handle(request))


class ConfirmedStage(EmailVerificationStage):  # type: ignore[misc]  # allauth ships no types
    """Asks for the code that confirms the address, unless it is known to be confirmed."""

    def handle(self) -> tuple[Any, bool]:
        """Go on, or to where the code is typed."""
        asked = underway(self.request).asked_of(self.login.user)
        if asked is not None and asked.is_confirmed:
            return None, True
        answer: tuple[Any, bool] = super().handle()
        return answer


class UnchangedStage(LoginStage):  # type: ignore[misc]  # allauth ships no types
    """Last of all: nothing has changed since, and these steps have not opened already."""

    key = "unchanged"

    def handle(self) -> tuple[Any, bool]:
        """Go on to the session, or back to the beginning."""
        user = self.login.user
        stamp = self.controller.get_stage(StampStage.key)
        began = stamp.state if stamp is not None else {}
        as_of = began.get("as_of", "")
        if user is not None and self._is_first(began) and sessions.let_in(user, as_of):
            return None, True
        messages.error(self.request, _("Something changed meanwhile. Sign in again."))
        return headed_redirect_response("account_login"), False

    def _is_first(self, began: dict[str, str]) -> bool:
        nonce = began.get("nonce", "")
        if not nonce:
            return False
        if getattr(self.request, "signing_in_since", None) == nonce:
            return True
        try:
            with transaction.atomic():
                SpentSignIn.objects.create(nonce=nonce, at=timezone.now())
        except IntegrityError:
            return False
        return True


@cache
def _stages() -> list[type[LoginStage]]:
    # allauth puts its list together anew from settings at every sign-in, and looks each name up.
    from doorward.accounts.recovery_stage import RecoveryStage

    ours: dict[str, type[LoginStage]] = {
        "allauth.mfa.stages.AuthenticateStage": SecondStepStage,
        "allauth.account.stages.EmailVerificationStage": ConfirmedStage,
    }
    theirs = DefaultAccountAdapter().get_login_stages()
    changed = [ours.get(name) or import_string(name) for name in theirs]
    return [StampStage, RecoveryStage, *changed, UnchangedStage]


class SecondStepAnswers:
    """What AccountAdapter answers about the second step."""

    request: HttpRequest

    def get_login_stages(self) -> list[type[LoginStage]]:
        """Return allauth's stages with ours in their places."""
        return _stages()

    def is_login_by_code_required(self, login: Any) -> bool:
        """Tell whether this sign-in takes a code from the mail, as the person chose."""
        if login.user is None or did_use_passwordless_login(self.request, login.user):
            return False
        required: bool = super().is_login_by_code_required(login)  # type: ignore[misc]  # as above
        asked = underway(self.request).asked_of(login.user)
        if asked is not None:
            return required or (asked.by_email and not asked.by_lasting_way)
        return required or two_factor.is_mailed_a_code(login.user)

    def generate_phone_verification_code(self, *, user: User, phone: str) -> str:
        """Return a new code to be texted."""
        return text_messages.draw()

    def send_verification_code_sms(self, user: User, phone: str, code: str, **_more: Any) -> None:
        """Text a code to the person's number, which comes sealed; say so when that fails."""
        browser = known_browser(self.request, user.email)
        if not lockout.allow(*second_step_tries.sent(f"texted {user.pk}", browser=browser)):
            messages.error(self.request, _("Many codes were texted already. Choose another way."))
            return
        try:
            text_messages.send_code(phone, code)
        except text_messages.NotSent:
            messages.error(
                self.request, _("The message could not be sent. Choose another way, or try again.")
            )

    def set_phone_verified(self, user: User, phone: str) -> None:
        """Do nothing: the number was confirmed when it was given."""

    def get_reauthentication_methods(self, user: User) -> list[dict[str, Any]]:
        """Return the ways to prove oneself again, in our words."""
        words = {
            "reauthenticate": gettext_lazy("Use your password"),
            "mfa_reauthenticate": gettext_lazy("Use a code from your app, or a recovery code"),
            "mfa_reauthenticate:webauthn": gettext_lazy("Use a passkey"),
        }
        ways = super().get_reauthentication_methods(user)  # type: ignore[misc]  # as above
        if ways and not user.has_usable_password():
            # The first is asked for: whoever has no password uses their passkey.
            ways.sort(key=lambda way: way["id"] != "mfa_reauthenticate:webauthn")
        return [{**way, "description": words.get(way["id"], way["description"])} for way in ways]
