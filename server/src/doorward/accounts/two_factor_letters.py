"""The words of mails about the second step that allauth does not send."""

from __future__ import annotations

from django.conf import settings
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from doorward.accounts import browser_names
from doorward.notices.letter import Letter


def email_code(wanted: bool, ended: str, *, ip: str, agent: str) -> Letter:
    """Tell that the code by email was turned on or off."""
    if wanted:
        subject = _("Codes by email are on")
        line = _("Signing in now also asks for a code that we send to this address.")
    else:
        subject = _("Codes by email are off")
        line = _("Signing in no longer asks for a code from this address.")
    return _told("account.second_step.email", subject, [line, ended], ip, agent)


def text_messages(there: bool, ended: str, *, ip: str, agent: str) -> Letter:
    """Tell that codes can be texted to a number, or no longer."""
    if there:
        subject = _("Codes can be texted to a number")
        line = _("A mobile number was confirmed. Signing in can ask for a code texted to it.")
    else:
        subject = _("Codes are no longer texted")
        line = _("Your mobile number was forgotten. It is no longer a way to sign in.")
    return _told("account.second_step.sms", subject, [line, ended], ip, agent)


def recovery_code_used(left: int, *, ip: str, agent: str) -> Letter:
    """Tell that a recovery code was used, and how many are left."""
    more = (
        ngettext("%(left)d is left.", "%(left)d are left.", left) % {"left": left}
        if left
        else _("None is left: make new ones on the security page.")
    )
    lines = [_("One of your recovery codes was used. It no longer works."), more]
    return _told("account.recovery_code.used", _("A recovery code was used"), lines, ip, agent)


def failed(*, ip: str, agent: str) -> Letter:
    """Tell that somebody had the right password and failed at the second step."""
    lines = [
        _("Someone typed your right password, but then a wrong code. They did not get in."),
        _("If it was you, nothing is lost. If it wasn’t, your password is known to somebody."),
    ]
    subject = _("Someone knows your password, or you mistyped a code")
    return _told("account.second_step.failed", subject, lines, ip, agent)


def _told(kind: str, subject: str, lines: list[str], ip: str, agent: str) -> Letter:
    where = _("When: %(at)s. From: %(ip)s, %(browser)s.") % {
        "at": timezone.now().strftime("%Y-%m-%d %H:%M UTC"),
        "ip": ip or "?",
        "browser": browser_names.name_of(agent),
    }
    return Letter(
        kind=kind,
        subject=subject,
        lines=[*lines, where],
        link=f"{settings.SITE_URL}/password/reset/",
        link_label=_("If it wasn't you, choose a new password at once"),
        closing=(_("If it was you, there is nothing to do."),),
    )
