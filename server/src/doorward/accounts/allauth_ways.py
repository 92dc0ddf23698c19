"""Where allauth keeps and checks factors its way, and we have it done ours.

allauth names its factor classes in the modules that use them and offers no setting for them; what
follows puts ours there, once, before the first request. The version is pinned, and
server/tests/accounts/test_allauth_ways.py fails when a name is no longer where we put ours.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

import segno
from allauth.account.utils import user_display, user_pk_to_url_str
from allauth.mfa.adapter import DefaultMFAAdapter
from django.conf import settings
from django.db import transaction
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from doorward.accounts import (
    asking_again,
    counted_tries,
    letting_in,
    remembered,
    sent_codes,
    sessions,
)
from doorward.accounts.factors import sealed_text
from doorward.accounts.models import User
from doorward.accounts.origin import origin_of

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponse  # noqa: TID251 - signatures are allauth's


class MfaAdapter(DefaultMFAAdapter):  # type: ignore[misc]  # allauth ships no types
    """Doorward's answers to what allauth.mfa asks."""

    error_messages = {
        **DefaultMFAAdapter.error_messages,
        "incorrect_code": gettext_lazy("That did not work. Try again with a fresh code."),
        "cannot_generate_recovery_codes": gettext_lazy(
            "Recovery codes stand in for a second step. Set one up first."
        ),
        "unverified_email": gettext_lazy("Confirm your address first."),
    }

    def encrypt(self, text: str) -> str:
        """Return the text as it is stored: sealed."""
        return sealed_text.seal(text)

    def decrypt(self, encrypted_text: str) -> str:
        """Return what was stored."""
        return sealed_text.unseal(encrypted_text)

    def get_totp_issuer(self) -> str:
        """Return the name an authenticator app shows."""
        return str(settings.PRODUCT_NAME)

    def build_totp_svg(self, url: str) -> str:
        """Draw the code an authenticator app scans, without styles of its own."""
        return str(
            segno.make(url, error="m", micro=False).svg_inline(
                omitsize=True, border=2, svgclass=None, lineclass=None, dark="#10303a"
            )
        )

    def generate_authenticator_name(self, user: User, type: Any) -> str:
        """Return what a passkey is called until its owner names it."""
        from allauth.mfa.models import Authenticator

        there = Authenticator.objects.filter(user_id=user.pk, type=type).count()
        return _("Passkey %(number)d") % {"number": there + 1} if there else _("Passkey")

    def get_public_key_credential_rp_entity(self) -> dict[str, str]:
        """Return who passkeys are for: the site's own address, whatever host a request named."""
        host = settings.SITE_URL.partition("://")[2].partition(":")[0]
        return {"id": host, "name": str(settings.PRODUCT_NAME)}

    def get_public_key_credential_user_entity(self, user: User) -> dict[str, Any]:
        """Return whose passkey it is, as their device lists it."""
        return {
            "id": user_pk_to_url_str(user).encode(),
            "display_name": user_display(user),
            "name": user.email,
        }


def is_trusted_browser(request: HttpRequest, user: User) -> bool:
    """Tell whether the person asked not to be asked again in this browser."""
    return remembered.is_remembered(user, request.COOKIES.get(settings.REMEMBERED_COOKIE_NAME))


def trust_browser(request: HttpRequest, user: User, response: HttpResponse) -> None:
    """Remember this browser, if this very request signed the person in and nothing changed since.

    allauth asks for it also where the sign-in was refused: a way taken away meanwhile would be
    waived for 30 days by who has it.
    """
    if getattr(request, "signed_in_now", None) != user.pk:
        return
    origin = origin_of(request)
    secret = remembered.secret_in(request.COOKIES.get(settings.REMEMBERED_COOKIE_NAME))
    with transaction.atomic():
        sessions.must_still_be_in(user)
        remembered.remember(user, secret, ip=origin.ip, agent=origin.agent)
    response.set_cookie(
        settings.REMEMBERED_COOKIE_NAME,
        secret,
        max_age=int(remembered.LASTS.total_seconds()),
        path="/",
        secure=settings.SECURE,
        httponly=True,
        samesite="Lax",
    )


# What follows a change is part of it: allauth would have the change stand alone, and untold, when
# what follows is refused or the server stops in between.
AT_ONCE: Final = SimpleNamespace(atomic=transaction.atomic, on_commit=lambda follow: follow())


def _wrap(authenticator: Any) -> Any:
    from allauth.mfa.webauthn.internal.auth import WebAuthn

    from doorward.accounts.factors.recovery_codes import RecoveryCodes
    from doorward.accounts.factors.totp import Totp

    kinds = {"totp": Totp, "recovery_codes": RecoveryCodes, "webauthn": WebAuthn}
    return kinds[authenticator.type](authenticator)


def install() -> None:
    """Put our factors, remembered browsers and list of sessions where allauth has its own."""
    from allauth.account import forms as account_forms
    from allauth.account.internal.flows import login as login_flows
    from allauth.account.internal.flows import manage_email as email_flows
    from allauth.account.internal.flows import password_reset as reset_flows
    from allauth.account.internal.flows import reauthentication
    from allauth.account.internal.flows import signup as signup_flows
    from allauth.account.stages import LoginStageController
    from allauth.mfa.base import forms as base_forms
    from allauth.mfa.internal.flows import trust
    from allauth.mfa.models import Authenticator
    from allauth.mfa.recovery_codes.internal import auth as recovery_auth
    from allauth.mfa.recovery_codes.internal import flows as recovery_flows
    from allauth.mfa.totp import forms as totp_forms
    from allauth.mfa.totp.internal import auth as totp_auth
    from allauth.mfa.totp.internal import flows as totp_flows
    from allauth.mfa.webauthn import forms as webauthn_forms
    from allauth.mfa.webauthn.internal import auth as webauthn_auth
    from allauth.mfa.webauthn.internal import flows as webauthn_flows
    from allauth.usersessions import signals as usersessions_signals
    from allauth.usersessions.internal.flows import sessions as session_flows
    from allauth.usersessions.models import UserSession, UserSessionManager
    from django.contrib.auth.signals import user_logged_in

    from doorward.accounts.factors import ceremonies, recovery_codes, totp

    # Whatever allauth changes of how somebody signs in, on pages and for apps.
    changing = (
        (email_flows, "add_email", "delete_email", "mark_as_primary"),
        (recovery_flows, "generate_recovery_codes", "view_recovery_codes"),
        (session_flows, "end_sessions"),
        (totp_flows, "activate_totp", "deactivate_totp"),
        (webauthn_flows, "add_authenticator", "rename_authenticator"),
        (webauthn_flows, "remove_authenticator", "remove_authenticators"),
    )
    for place, name, ours in (
        *((place, name, _while_in(place, name)) for place, *names in changing for name in names),
        (recovery_flows, "transaction", AT_ONCE),
        (totp_flows, "transaction", AT_ONCE),
        (Authenticator, "wrap", _wrap),
        (totp_auth, "TOTP", totp.Totp),
        (totp_flows, "TOTP", totp.Totp),
        (totp_auth, "validate_totp_code", totp.proves),
        (totp_auth, "get_totp_secret", totp.pending_seed),
        (recovery_auth, "RecoveryCodes", recovery_codes.RecoveryCodes),
        (recovery_flows, "RecoveryCodes", recovery_codes.RecoveryCodes),
        (base_forms, "check_rate_limit", counted_tries.count_try),
        (totp_forms, "check_rate_limit", counted_tries.count_new_app),
        (webauthn_forms, "check_rate_limit", counted_tries.count_passkey),
        (webauthn_auth, "begin_registration", ceremonies.begin_registration),
        (webauthn_auth, "begin_authentication", ceremonies.begin_authentication),
        (webauthn_auth, "complete_authentication", ceremonies.complete_authentication),
        (webauthn_forms.AddWebAuthnForm, "clean", ceremonies.clean_new),
        (webauthn_forms.SignupWebAuthnForm, "clean", ceremonies.clean_new),
        (webauthn_forms.LoginWebAuthnForm, "clean_credential", ceremonies.clean_signing_in),
        (trust, "is_trusted_browser", is_trusted_browser),
        (trust, "trust_browser", trust_browser),
        (UserSessionManager, "purge_and_list", sessions.purge_and_list),
        (UserSessionManager, "create_from_request", sessions.note),
        (usersessions_signals, "on_user_logged_in", sessions.listed),
        (UserSession, "is_current", sessions.is_current),
        (UserSession, "exists", sessions.is_there),
        (UserSession, "end", sessions.end_listed),
        (
            LoginStageController,
            "get_stages",
            letting_in.get_stages(LoginStageController.get_stages),
        ),
        (
            account_forms.BaseSignupForm,
            "save",
            letting_in.signup_in_one_commit(account_forms.BaseSignupForm.save),
        ),
        (
            signup_flows,
            "prevent_enumeration",
            letting_in.pretending(signup_flows.prevent_enumeration),
        ),
        # In one commit, as where nobody has the address: a wait for the disk can be measured.
        (
            reset_flows,
            "request_password_reset",
            transaction.atomic(reset_flows.request_password_reset),
        ),
        (reauthentication, "suspend_request", asking_again.suspend),
        (reauthentication, "resume_request", asking_again.resume),
        (login_flows, "is_login_rate_limited", letting_in.is_never_limited),
        (login_flows, "resume_login", letting_in.in_one_commit(login_flows.resume_login)),
        *sent_codes.install(),
    ):
        if not hasattr(place, name):
            raise MovedAway(f"{place.__name__}.{name}")
        setattr(place, name, ours)
    # By Django's own name for it: whoever connects first stays.
    user_logged_in.connect(sessions.last_login_is_noted, dispatch_uid="update_last_login")


def _while_in(place: Any, name: str) -> Any:
    theirs = getattr(place, name, None)
    return None if theirs is None else sessions.while_in(theirs)


class MovedAway(RuntimeError):
    """allauth no longer has what we replace: the second step would silently be its own."""
