"""The words of mails about recovering a lost second step, and about approving a sign-in."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from django.conf import settings
from django.utils import timezone
from django.utils.translation import gettext as _

from doorward.accounts import browser_names
from doorward.notices.letter import Letter


def waiting(
    *, first: bool, by_operators: bool, ready_at: datetime, stop: str, ip: str, agent: str
) -> Letter:
    """Tell that somebody waits to get in without the second step, and how to stop them."""
    if by_operators:
        what = _("Two operators vouch that you lost your second step. You get in without it soon.")
        who = _("They hand you a link that works when the wait is over, with your password.")
    else:
        what = _("Someone with your password says that you lost your second step.")
        who = _where(ip, agent)
    until = _(
        "They have to wait until %(at)s. Until then nothing changes, and you can sign in as always."
    ) % {"at": _moment(ready_at)}
    return Letter(
        kind="account.recovery.started" if first else "account.recovery.reminder",
        subject=(
            _("Someone asks to get in without your second step")
            if first
            else _("Still waiting: someone asks to get in without your second step")
        ),
        lines=[what, until, who],
        link=stop,
        link_label=_("If it isn't you, stop it"),
        closing=(
            _("Any browser that is signed in can stop it too. Then choose a new password."),
            _("If it is you, wait: we write again when the time has come."),
        ),
    )


def ready(link: str, ends_at: datetime) -> Letter:
    """Tell that the wait is over; with the way in, unless operators hand that over."""
    how = (
        _("Open the link, then sign in with your password, and set a new second step.")
        if link
        else _("Open the link that our operators gave you, then sign in with your password.")
    )
    return Letter(
        kind="account.recovery.ready",
        subject=_("You can set a new second step now"),
        lines=[
            _("The wait is over. You get in once without the second step you lost."),
            how,
            _("This works until %(at)s. It removes what you lost and signs you out elsewhere.")
            % {"at": _moment(ends_at)},
        ],
        link=link or f"{settings.SITE_URL}/login/",
        link_label=_("Set a new second step") if link else _("Sign in"),
        closing=(
            _("Don't give the link to anyone, whoever asks for it."),
            _("If it wasn't you who asked, choose a new password: that ends it at once."),
        ),
    )


def ended(ending: str, *, ip: str, agent: str) -> Letter:
    """Tell how the wait ended; ``ending`` is one of models.Recovery.Ending."""
    subject, line = {
        "used": (
            _("Your second step was removed"),
            _("Somebody signed in after the wait, without your second step. The old one is gone."),
        ),
        "stopped": (
            _("Nobody gets in without your second step"),
            _("The recovery of your second step was stopped. Your second step stays as it is."),
        ),
        "changed": (
            _("The recovery of your second step has ended"),
            _("Something about how you sign in was changed meanwhile. Your second step stays."),
        ),
        "unneeded": (
            _("The recovery of your second step has ended"),
            _("You signed in with a second step, so there is nothing to recover any more."),
        ),
        "lapsed": (
            _("The recovery of your second step has ended"),
            _("Nobody used it within a week after the wait. If you need it, begin anew."),
        ),
        "refused": (
            _("The recovery of your second step has ended"),
            _("An operator ended it. Your second step stays as it is."),
        ),
    }[ending]
    alarming: Final = {"used", "stopped"}
    return Letter(
        kind=f"account.recovery.{ending}",
        subject=subject,
        lines=[line, _where(ip, agent)] if ip else [line],
        link=f"{settings.SITE_URL}/password/reset/",
        link_label=(
            _("If it wasn't you who asked, choose a new password at once")
            if ending in alarming
            else _("If you didn't ask for it, choose a new password")
        ),
        closing=(_("If all of this was you, there is nothing to do."),),
    )


def refused_sign_in(*, ip: str, agent: str) -> Letter:
    """Tell that a sign-in was refused from one of the person's own sessions."""
    return Letter(
        kind="account.approval.denied",
        subject=_("You refused a sign-in"),
        lines=[
            _("Someone typed your right password and asked to be let in. You said no."),
            _where(ip, agent),
            _("They did not get in, but they know your password."),
        ],
        link=f"{settings.SITE_URL}/password/reset/",
        link_label=_("Choose a new password"),
        closing=(_("If it was you and you only mistook it, there is nothing to do."),),
    )


def _where(ip: str, agent: str) -> str:
    return _("When: %(at)s. From: %(ip)s, %(browser)s.") % {
        "at": _moment(timezone.now()),
        "ip": ip or "?",
        "browser": browser_names.name_of(agent),
    }


def _moment(when: datetime) -> str:
    return f"{when:%Y-%m-%d %H:%M} UTC"
