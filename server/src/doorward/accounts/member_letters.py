"""The words of the mails about who belongs to an account."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Final

from django.conf import settings
from django.utils import timezone
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from doorward.accounts import browser_names
from doorward.accounts.models import Account, Role, User
from doorward.accounts.origin import Origin
from doorward.notices.letter import Letter

MAY: Final[dict[Role, Promise]] = {
    Role.OWNER: gettext_lazy("You can do everything in it, and decide who belongs to it."),
    Role.BILLING: gettext_lazy("You can see how things are, and change what is paid for."),
    Role.HELPER: gettext_lazy("You can see how things are, and add, rename and remove devices."),
    Role.VIEWER: gettext_lazy("You can see how things are, and change nothing."),
}
# A name is written by whoever invites, to somebody who doesn't know them: a link in it would be
# read as ours.
_LINK_LIKE: Final = re.compile(r"[/\\:@<>]|\w\.\w|www", re.IGNORECASE)


def named(user: User) -> str:
    """Return how a mail names a person: their address, and their name where it is only a name."""
    name = " ".join(user.name.split())[:60]
    if not name or _LINK_LIKE.search(name):
        return user.email
    return f"{name} ({user.email})"


def invited(*, by: User, role: Role, link: str, lasts: timedelta) -> Letter:
    """Ask somebody to join an account."""
    return Letter(
        kind="account.member.invited",
        subject=_("You are invited to an account at %(product)s") % {"product": _product()},
        lines=[
            _("%(who)s invites you to look after the protection of their devices with them.")
            % {"who": named(by)},
            str(MAY[role]),
        ],
        link=link,
        link_label=_("See the invitation"),
        closing=(
            _("The link works once, for %(hours)d hours. You join only if you say so on its page.")
            % {"hours": lasts.total_seconds() // 3600},
            _("If you don’t know who invites you, there is nothing to do."),
        ),
        useless_after=lasts,
        why=_("You get this because a member invited this address at"),
    )


def joined(account: Account, user: User, role: Role) -> Letter:
    """Tell the owners that somebody has accepted."""
    return _letter(
        "account.member.joined",
        _("%(who)s has joined your account") % {"who": user.email},
        _("%(who)s accepted the invitation and belongs to your account now. Role: %(role)s.")
        % {"who": named(user), "role": role.label},
        link="/account/members/",
        label=_("See who belongs to your account"),
    )


def role_changed(account: Account, user: User, role: Role, *, by: User, origin: Origin) -> Letter:
    """Tell a member what they are now."""
    return _letter(
        "account.member.role.changed",
        _("Your role has changed"),
        _("%(who)s changed your role in %(account)s. It is now: %(role)s.")
        % {"who": named(by), "account": of_whom(account, by), "role": role.label},
        str(MAY[role]),
        _where(origin),
    )


def another_owner(account: Account, user: User, *, by: User, origin: Origin) -> Letter:
    """Tell the owners that there is one more."""
    return _letter(
        "account.member.role.changed",
        _("Your account has another owner"),
        _("%(by)s made %(who)s an owner. They can do everything in the account now.")
        % {"by": named(by), "who": named(user)},
        _where(origin),
        link="/account/members/",
        label=_("See who belongs to your account"),
    )


def removed(account: Account, *, by: User, origin: Origin, devices_stay: bool) -> Letter:
    """Tell somebody that they no longer belong to an account."""
    return _letter(
        "account.member.removed",
        _("You no longer belong to an account"),
        _("%(who)s took you out of %(account)s. You can’t see it any more.")
        % {"who": named(by), "account": of_whom(account, by)},
        _devices(devices_stay),
    )


def left(account: Account, user: User, *, devices_stay: bool) -> Letter:
    """Tell the owners that somebody has left."""
    stay = (
        _("Their devices stay in the account.")
        if devices_stay
        else _("Their devices left the account with them; those places are free.")
    )
    return _letter(
        "account.member.left",
        _("%(who)s has left your account") % {"who": user.email},
        _("%(who)s has left your account and can’t see it any more.") % {"who": named(user)},
        stay,
        link="/account/members/",
        label=_("See who belongs to your account"),
    )


def offered(account: Account, *, giver: User, taker: User, to: User) -> Letter:
    """Tell both that an account is offered to a new owner."""
    if to.pk == taker.pk:
        return _letter(
            "account.ownership.offered",
            _("You are offered an account"),
            _("%(who)s wants to hand their account over to you. You would own it and be the one")
            % {"who": named(giver)}
            + " "
            + _("who decides about its devices, its members and what is paid."),
            _("Nothing changes unless you agree within 72 hours."),
            link="/account/members/",
            label=_("Sign in and answer"),
        )
    return _letter(
        "account.ownership.offered",
        _("You offered your account to somebody"),
        _("You offered your account to %(who)s. It is yours until they agree.")
        % {"who": named(taker)},
        link="/account/members/",
        label=_("If it wasn’t you, take the offer back and change your password"),
    )


def offer_ended(account: Account, *, by: User, taken_back: bool) -> Letter:
    """Tell the other side that nothing comes of an offer."""
    words = (
        _("%(who)s took back the offer to hand their account over to you. Nothing has changed.")
        if taken_back
        else _("%(who)s does not want to take over your account. It stays yours.")
    )
    return _letter(
        "account.ownership.ended", _("Your account stays as it is"), words % {"who": named(by)}
    )


def transferred(account: Account, *, giver: User, taker: User, role: Role, to: User) -> Letter:
    """Tell both that the account has a new owner."""
    words = {"giver": named(giver), "taker": named(taker), "role": role.label}
    line = (
        _("You own the account of %(giver)s now.")
        if to.pk == taker.pk
        else _("%(taker)s agreed and owns your account now. Your role in it: %(role)s.")
    )
    return _letter(
        "account.ownership.transferred",
        _("The account has a new owner"),
        line % words,
        link="/account/members/",
        label=_("See who belongs to the account"),
    )


def of_whom(account: Account, owner: User) -> str:
    """Return how a mail names an account."""
    name = name_of(account)
    if name:
        return _("the account “%(name)s”") % {"name": name}
    return _("the account of %(who)s") % {"who": owner.email}


def name_of(account: Account) -> str:
    """Return the account's name where a mail may say it: nothing that reads like an address."""
    name = " ".join(account.name.split())[:60]
    return "" if _LINK_LIKE.search(name) else name


def _devices(stay: bool) -> str:
    if stay:
        return _("Devices of yours that are in it stay there; what they reported so far is hidden.")
    return _("Devices of yours have left it with you. Add them to an account of your own.")


def _where(origin: Origin) -> str:
    return _("When: %(at)s. From: %(ip)s, %(browser)s.") % {
        "at": timezone.now().strftime("%Y-%m-%d %H:%M UTC"),
        "ip": origin.ip or "?",
        "browser": browser_names.name_of(origin.agent),
    }


def _product() -> str:
    return str(settings.PRODUCT_NAME)


def _letter(kind: str, subject: str, *lines: str, link: str = "", label: str = "") -> Letter:
    return Letter(
        kind=kind,
        subject=subject,
        lines=list(lines),
        link=f"{settings.SITE_URL}{link}" if link else "",
        link_label=label,
    )
