"""The words of mails about a change of address."""

from __future__ import annotations

from django.utils import timezone
from django.utils.translation import gettext as _

from doorward.accounts import browser_names
from doorward.notices.letter import Letter


def to_the_one_before(after: str, link: str, ended: str, *, ip: str, agent: str) -> Letter:
    """Tell the address before, with the link that undoes the change."""
    return Letter(
        kind="account.email.changed",
        subject=_("Your account signs in with another address now"),
        lines=[
            _("From now on your account signs in with %(after)s instead of this address.")
            % {"after": after},
            ended,
            _where(ip, agent),
        ],
        link=link,
        link_label=_("If it wasn't you, take the change back"),
        closing=(
            _("The link works once, for 72 hours. It brings this address back."),
            _("Then everybody is signed out, and you choose a new password."),
            _("If it was you, there is nothing to do. Don't give the link to anyone."),
        ),
    )


def to_the_new_one(*, ip: str, agent: str) -> Letter:
    """Tell the new address that it counts."""
    return Letter(
        kind="account.email.new",
        subject=_("Your account signs in with this address now"),
        lines=[
            _("From now on your account signs in with this address."),
            _("The address before can take that back for 72 hours."),
            _where(ip, agent),
        ],
        closing=(_("If you don't know of any account, somebody mistyped. Ignore this mail."),),
    )


def restored(link: str, *, ip: str, agent: str) -> Letter:
    """Tell the address before that it is back, with the link to choose a password if need be."""
    choose = [_("Your password no longer works, since somebody else may know it.")] if link else []
    return Letter(
        kind="account.email.restored",
        subject=_("Your account has its address back"),
        lines=[
            _("The change of address was taken back. Everybody was signed out."),
            *choose,
            _("Look at the ways to sign in on your security page: remove what you did not add."),
            _where(ip, agent),
        ],
        link=link,
        link_label=_("Choose a new password"),
        closing=((_("The link works once, for one hour."),) if link else ()),
    )


def no_longer_yours() -> Letter:
    """Tell the newer address that it no longer counts."""
    return Letter(
        kind="account.email.taken_back",
        subject=_("An account no longer signs in with this address"),
        lines=[_("The owner of the address before took the change back.")],
        closing=(_("If that surprises you, write to the people who run this service."),),
    )


def _where(ip: str, agent: str) -> str:
    return _("When: %(at)s. From: %(ip)s, %(browser)s.") % {
        "at": timezone.now().strftime("%Y-%m-%d %H:%M UTC"),
        "ip": ip or "?",
        "browser": browser_names.name_of(agent),
    }
