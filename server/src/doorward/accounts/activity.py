"""Writes down what allauth tells of: who signed in and out, changed what, and from where."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from allauth.account import signals
from django.contrib.auth.signals import user_logged_out

from doorward.accounts import browsers, lockout, setup
from doorward.accounts.adapter import origin_of
from doorward.audit import trail

if TYPE_CHECKING:
    from django.http import HttpRequest  # noqa: TID251 - the signature is allauth's

    from doorward.accounts.models import User


def watch() -> None:
    """Have every event of a person's account written down from now on."""
    for signal, tag in (
        (signals.user_logged_in, "account.login.succeeded"),
        (user_logged_out, "account.logout"),
        (signals.password_changed, "account.password.changed"),
        (signals.password_set, "account.password.set"),
        (signals.password_reset, "account.password.reset"),
        (signals.email_verification_code_rejected, "account.code.rejected"),
    ):
        signal.connect(_Told(tag), weak=False, dispatch_uid=f"doorward {tag}")
    for signal in (signals.password_changed, signals.password_set, signals.password_reset):
        signal.connect(_forget_browsers, dispatch_uid="doorward browsers end")
        signal.connect(setup.end_link, dispatch_uid="doorward setup link ends")
    signals.email_confirmed.connect(_confirmed, dispatch_uid="doorward account.email.confirmed")


class _Told:
    """Records one tag whenever its signal is sent."""

    def __init__(self, tag: str) -> None:
        self._tag = tag

    def __call__(self, *, request: HttpRequest, user: User | None, **_more: Any) -> None:
        # Signing out of a session that had ended already has nobody to tell of.
        if user is not None and user.pk is not None:
            _record(self._tag, request, user)


def _forget_browsers(*, request: HttpRequest, user: User, **_more: Any) -> None:
    # Whoever changes a password may do so because somebody else knew it: the browsers in which
    # that somebody signed in are strangers again. What else ends: after_a_change.py.
    lockout.forget_all(user)
    lockout.clear(user.email)
    if request.user.is_authenticated:
        origin = origin_of(request)
        request.known_browser = browsers.remember(  # type: ignore[attr-defined]  # KnownBrowsers
            user, "", ip=origin.ip, agent=origin.agent
        )


def _confirmed(*, request: HttpRequest, email_address: Any, **_more: Any) -> None:
    _record("account.email.confirmed", request, email_address.user)


def _record(tag: str, request: HttpRequest, user: User) -> None:
    origin = origin_of(request)
    trail.record(tag, actor=user, ip=origin.ip, agent=origin.agent)
