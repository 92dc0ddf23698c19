"""The words of every mail about a person's account: plain, short, and what to do next."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Final

from django.conf import settings
from django.utils.translation import gettext as _

from doorward.accounts import browser_names
from doorward.notices.letter import Letter

CODE_LASTS: Final = timedelta(minutes=10)
LINK_LASTS: Final = timedelta(hours=1)
BROWSER_LINK_LASTS: Final = timedelta(minutes=30)
Context = dict[str, Any]


class NoSuchLetter(KeyError):
    """allauth asks for a mail we have no words for."""


def of(prefix: str, context: Context) -> Letter:
    """Return the letter for what allauth calls by ``prefix``. Raises NoSuchLetter."""
    write = _LETTERS.get(prefix)
    if write is None:
        raise NoSuchLetter(prefix)
    return write(prefix.replace("/email/", "."), context)


def known() -> frozenset[str]:
    """Return every prefix there are words for."""
    return frozenset(_LETTERS)


def _confirm_signup(kind: str, context: Context) -> Letter:
    return Letter(
        kind=kind,
        subject=_("Your code for %(name)s") % {"name": settings.PRODUCT_NAME},
        lines=[_("Type this code to confirm your address. It works for 10 minutes.")],
        code=context["code"],
        closing=(
            _("If you didn't ask for it, someone may have mistyped their address."),
            _("You can ignore this mail. Don't give the code to anyone."),
        ),
        useless_after=CODE_LASTS,
    )


def _already_exists(kind: str, context: Context) -> Letter:
    return Letter(
        kind=kind,
        subject=_("You already have an account"),
        lines=[
            _("Someone, probably you, tried to create an account with this address."),
            _("You already have one, so nothing was changed. You can sign in as before."),
        ],
        link=context["password_reset_url"],
        link_label=_("If you forgot your password, choose a new one"),
        closing=(_("If it wasn't you, there is nothing to do."),),
    )


def _unknown_account(kind: str, context: Context) -> Letter:
    return Letter(
        kind=kind,
        subject=_("There is no account with this address"),
        lines=[
            _("Someone, probably you, asked for a way into an account with this address."),
            _("There is none. You may have used another address, or not signed up yet."),
        ],
        link=context["signup_url"],
        link_label=_("Create an account"),
        closing=(_("If it wasn't you, there is nothing to do."),),
    )


def _reset_link(kind: str, context: Context) -> Letter:
    return Letter(
        kind=kind,
        subject=_("Choose a new password"),
        lines=[_("Someone, probably you, asked to choose a new password for your account.")],
        link=context["password_reset_url"],
        link_label=_("Choose a new password"),
        closing=(
            _("The link works once, for one hour. A newer one replaces it."),
            _("If it wasn't you, ignore this mail. Your password stays as it is."),
        ),
        useless_after=LINK_LASTS,
    )


def _reset_code(kind: str, context: Context) -> Letter:
    return Letter(
        kind=kind,
        subject=_("Your code to choose a new password"),
        lines=[_("Type this code where you asked for a new password. It works for 10 minutes.")],
        code=context["code"],
        closing=(_("If it wasn't you, ignore this mail. Your password stays as it is."),),
        useless_after=CODE_LASTS,
    )


def _login_code(kind: str, context: Context) -> Letter:
    return Letter(
        kind=kind,
        subject=_("Your code to sign in"),
        lines=[_("Type this code in the browser you are signing in with.")],
        code=context["code"],
        closing=(
            _("It works for 10 minutes. Don't give it to anyone, whoever asks for it."),
            _("If you aren't signing in, someone knows your password: choose a new one."),
        ),
        useless_after=CODE_LASTS,
    )


def _locked(kind: str, context: Context) -> Letter:
    return Letter(
        kind=kind,
        subject=_("Someone is trying to sign in as you"),
        lines=[
            _("%(count)d wrong passwords were tried for your account. New browsers have to wait.")
            % {"count": context["count"]},
            _("Browsers you have signed in with before work as always."),
            _where_from(context),
        ],
        link=context["link_url"],
        link_label=_("If it was you, let this browser in"),
        closing=(
            _("The link works once, for 30 minutes. You still need your password."),
            _("If it wasn't you, there is nothing to do: the wrong passwords did not get in."),
        ),
    )


def _login_link(kind: str, context: Context) -> Letter:
    return Letter(
        kind=kind,
        subject=_("Your link to sign in from this browser"),
        lines=[_("Open this link in the browser you want to sign in with.")],
        link=context["link_url"],
        link_label=_("Let this browser in"),
        closing=(
            _("The link works once, for 30 minutes. You still need your password."),
            _("If you didn't ask for it, ignore this mail."),
        ),
        useless_after=BROWSER_LINK_LASTS,
    )


def _told(subject: Callable[[], str], *said: Callable[[Context], str]) -> Callable[..., Letter]:
    """Return the writer of a letter that tells what has just changed, and from where."""

    def write(kind: str, context: Context) -> Letter:
        return Letter(
            kind=kind,
            subject=subject(),
            lines=[
                *(line(context) for line in said),
                *([context["ended"]] if context.get("ended") else []),
                _where_from(context),
            ],
            link=f"{settings.SITE_URL}/password/reset/",
            link_label=_("If it wasn't you, choose a new password at once"),
            closing=(_("If it was you, there is nothing to do."),),
        )

    return write


def _where_from(context: Context) -> str:
    at = context.get("timestamp")
    return _("When: %(at)s. From: %(ip)s, %(browser)s.") % {
        "at": at.strftime("%Y-%m-%d %H:%M UTC") if isinstance(at, datetime) else "?",
        "ip": context.get("ip") or "?",
        "browser": browser_names.name_of(context.get("user_agent") or ""),
    }


_LETTERS: Final[dict[str, Callable[..., Letter]]] = {
    "account/email/email_confirmation_signup": _confirm_signup,
    "account/email/email_confirmation": _confirm_signup,
    "account/email/account_already_exists": _already_exists,
    "account/email/unknown_account": _unknown_account,
    "account/email/password_reset_key": _reset_link,
    "account/email/password_reset_code": _reset_code,
    "account/email/login_code": _login_code,
    "account/email/locked": _locked,
    "account/email/login_link": _login_link,
    "account/email/new_browser": _told(
        lambda: _("You signed in from a new browser"),
        lambda _c: _("Somebody signed in to your account from a browser it did not know."),
    ),
    "account/email/after_lock": _told(
        lambda: _("You signed in after wrong passwords were tried"),
        lambda c: (
            _("Somebody signed in to your account, from a browser it knew.")
            if c.get("known_browser")
            else _("Somebody signed in to your account from a browser it did not know.")
        ),
        lambda _c: _("Before, so many wrong passwords were tried that new browsers had to wait."),
    ),
    "account/email/password_changed": _told(
        lambda: _("Your password was changed"), lambda _c: _("Your password was changed.")
    ),
    "account/email/password_reset": _told(
        lambda: _("Your password was changed"),
        lambda _c: _("A new password was chosen by the link we sent you."),
    ),
    "account/email/password_set": _told(
        lambda: _("A password was set"), lambda _c: _("Your account now has a password.")
    ),
    "account/email/email_changed": _told(
        lambda: _("Your address was changed"),
        lambda c: _("Your account's address is now %(to)s.") % {"to": c.get("to_email", "")},
    ),
    "account/email/email_confirm": _told(
        lambda: _("Your address was confirmed"), lambda _c: _("Your address was confirmed.")
    ),
    "account/email/email_deleted": _told(
        lambda: _("An address was removed"),
        lambda c: (
            _("%(gone)s no longer belongs to your account.") % {"gone": c.get("deleted_email", "")}
        ),
    ),
    "mfa/email/totp_activated": _told(
        lambda: _("Your authenticator app was added"),
        lambda _c: _("Signing in now also asks for a code from your authenticator app."),
    ),
    "mfa/email/totp_deactivated": _told(
        lambda: _("Your authenticator app was removed"),
        lambda _c: _("Signing in no longer asks for a code from your authenticator app."),
    ),
    "mfa/email/webauthn_added": _told(
        lambda: _("A passkey was added"), lambda _c: _("A new passkey can now sign in.")
    ),
    "mfa/email/webauthn_removed": _told(
        lambda: _("A passkey was removed"), lambda _c: _("A passkey can no longer sign in.")
    ),
    "mfa/email/recovery_codes_generated": _told(
        lambda: _("You have new recovery codes"),
        lambda _c: _("New recovery codes were made; the old ones no longer work."),
    ),
}


def signup_url() -> str:
    """Return the address of the sign-up page."""
    return f"{settings.SITE_URL}/signup/"
