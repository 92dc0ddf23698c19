"""The mails about deleting a person and the accounts they alone own."""

from __future__ import annotations

from datetime import UTC, datetime

from django.conf import settings
from django.utils.translation import gettext as _

from doorward.accounts.member_letters import named, of_whom
from doorward.accounts.models import Account, User
from doorward.accounts.privacy_rows import Deletion
from doorward.notices.letter import Letter


def _day(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def asked(deletion: Deletion) -> Letter:
    """Tell the person by when they can stop it."""
    return Letter(
        kind="account.deletion_asked",
        subject=_("Your account will be deleted on %(day)s")
        % {"day": f"{deletion.due_at:%Y-%m-%d}"},
        lines=[
            _("You asked for it, or somebody signed in as you. Until %(when)s you can stop it.")
            % {"when": _day(deletion.due_at)},
            _("All other sessions were ended. Your devices stay protected until then."),
        ],
        link=f"{settings.SITE_URL}/account/privacy/",
        link_label=_("Sign in to keep the account"),
        closing=(
            _("If it wasn't you, keep the account and choose a new password at once."),
            _("Want a copy first? It is on the same page."),
        ),
    )


def cancelled() -> Letter:
    """Tell the person that nothing was deleted."""
    return Letter(
        kind="account.deletion_cancelled",
        subject=_("Your account stays"),
        lines=[_("The deletion was cancelled. Nothing was deleted.")],
        link=f"{settings.SITE_URL}/password/reset/",
        link_label=_("If it wasn't you, choose a new password at once"),
        closing=(_("If it was you, there is nothing to do."),),
    )


def member(deletion: Deletion, owner: User, account: Account) -> Letter:
    """Tell a member which account will go, and when."""
    return Letter(
        kind="account.deletion_member",
        subject=_("An account you belong to will be deleted"),
        lines=[
            _("%(owner)s asked for it: %(account)s will be deleted on %(when)s.")
            % {
                "owner": named(owner),
                "account": of_whom(account, owner),
                "when": _day(deletion.due_at),
            },
            _("Its devices and reports go with it. How you sign in stays yours."),
        ],
        link=f"{settings.SITE_URL}/account/privacy/",
        link_label=_("Get a copy of what is yours"),
        closing=(_("Only an owner can stop it: ask them."),),
    )


def member_cancelled(account: Account, owner: User) -> Letter:
    """Tell a member that the account stays after all."""
    return Letter(
        kind="account.deletion_member_cancelled",
        subject=_("An account you belong to stays"),
        lines=[
            _("The deletion that was announced to you was cancelled. Nothing was deleted."),
            _("It was about %(account)s.") % {"account": of_whom(account, owner)},
        ],
        closing=(_("There is nothing to do."),),
    )


def member_gone(account: str) -> Letter:
    """Tell a member that the account is gone; ``account`` is its name, or nothing."""
    return Letter(
        kind="account.deletion_member_done",
        subject=_("An account you belonged to was deleted"),
        lines=[
            *([_("It was called “%(name)s”.") % {"name": account}] if account else []),
            _("Its devices and reports are gone. How you sign in stays yours."),
        ],
        link=f"{settings.SITE_URL}/",
        link_label=_("Sign in"),
        closing=(_("There is nothing to do."),),
    )


def receipt(what: list[str], checksum: str, secret: str) -> Letter:
    """Tell the person what is gone, with the link to the receipt."""
    return Letter(
        kind="account.deleted",
        subject=_("Your account was deleted"),
        lines=[
            _("Deleted for good: %(what)s.") % {"what": ", ".join(what)},
            _("The receipt's SHA-256 is %(sum)s.") % {"sum": checksum},
        ],
        link=receipt_link(secret),
        link_label=_("Download the receipt"),
        closing=(
            _("The receipt holds no personal data. Keep it as proof."),
            _("Agents on your computers go on protecting them; uninstall them when you like."),
            _("This mail is the last one, and your address is deleted with it."),
        ),
    )


def receipt_link(secret: str) -> str:
    """Return the mailed address of a receipt."""
    return f"{settings.SITE_URL}/deleted/{secret}/"
