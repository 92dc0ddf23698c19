"""The activity page: what happened in the account, in plain words, with where from."""

from __future__ import annotations

from typing import Final

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _
from django.views.decorators.http import require_safe

from doorward.accounts.permissions import Act
from doorward.audit import queries
from doorward.audit.models import Event
from doorward.portal import visits
from doorward.portal.visits import Visit

KINDS: Final[dict[str, tuple[Promise, tuple[str, ...]]]] = {
    "": (_("Everything"), ()),
    "signing-in": (
        _("Signing in"),
        (
            "account.login",
            "account.logout",
            "account.browser",
            "account.lock",
            "account.unlock",
            "account.link",
            "account.session",
            "account.reauthentication",
            "account.code",
            "account.reset",
            "account.approval",
            "account.second_step.used",
            "account.second_step.failed",
        ),
    ),
    "changes": (
        _("Changes to the account"),
        (
            "account.password",
            "account.email",
            "account.token",
            "account.second_step.added",
            "account.second_step.removed",
            "account.recovery_codes",
            "account.two_factor",
            "account.recovery",
            "account.passkey",
            "account.created",
            "account.signup",
            "account.export",
            "account.deletion",
        ),
    ),
    "members": (_("Members"), ("account.member", "account.ownership", "account.sharing")),
    "devices": (_("Devices"), ("device.", "protection.")),
}
# Icon and words of each event, by its tag, or by that and its kind where one tag tells of several.
# One that has none yet is shown by its tag: better than not at all.
WORDS: Final[dict[str, tuple[str, Promise]]] = {
    "account.signup": ("home", _("You signed up")),
    "account.signup.taken": ("attention", _("Somebody tried to sign up with your address")),
    "account.created": ("home", _("The account was created")),
    "account.email.confirmed": ("mail", _("Your address was confirmed")),
    "account.email.changed": ("mail", _("The address for signing in was changed")),
    "account.email.restored": ("mail", _("The change of address was taken back")),
    "account.tokens.ended": ("card", _("Tokens for programs ended with a change")),
    "account.second_step.added": ("shield", _("A way to take the second step was added")),
    "account.second_step.removed": ("attention", _("A way to take the second step was removed")),
    "account.second_step.used": ("key", _("The second step was taken")),
    "account.second_step.failed": ("attention", _("The second step failed")),
    "account.recovery_codes.made": ("report", _("New recovery codes were made")),
    "account.login.succeeded": ("key", _("You signed in")),
    "account.login.after_lock": ("attention", _("You signed in after too many wrong passwords")),
    "account.login.failed": ("attention", _("Somebody tried a wrong password")),
    "account.logout": ("leave", _("You signed out")),
    "account.locked": ("attention", _("New browsers had to wait: too many wrong passwords")),
    "account.unlocked": ("key", _("An operator let new browsers try again")),
    "account.link.asked": ("mail", _("A link to sign in from a new browser was asked for")),
    "account.browser.known": ("laptop", _("A new browser got to be known")),
    "account.browser.remembered": ("laptop", _("A browser is not asked for the second step")),
    "account.browser.forgotten": ("laptop", _("A browser is asked for the second step again")),
    "account.browser.forgotten known": (
        "laptop",
        _("A known browser was forgotten: it is a new one again"),
    ),
    "account.approval.asked": ("key", _("A sign-in asked your other browsers to approve it")),
    "account.approval.approved": ("key", _("A sign-in was approved")),
    "account.approval.denied": ("attention", _("A sign-in was refused")),
    "account.approval.mismatched": ("attention", _("A sign-in was refused: another number")),
    "account.recovery.started": (
        "attention",
        _("Somebody began to wait to get in without the second step"),
    ),
    "account.recovery.announced": ("mail", _("You were told again that somebody waits")),
    "account.recovery.used": ("attention", _("Somebody got in after the wait")),
    "account.recovery.stopped": ("shield", _("The wait was stopped")),
    "account.recovery.changed": (
        "shield",
        _("The wait ended: how you sign in was changed"),
    ),
    "account.recovery.unneeded": ("shield", _("The wait ended: a second step was taken")),
    "account.recovery.lapsed": ("shield", _("The wait ended: nobody used it")),
    "account.recovery.refused": ("shield", _("The wait was ended by an operator")),
    "account.session.ended": ("leave", _("A session was ended")),
    "account.sessions.ended": ("leave", _("All other sessions were ended")),
    "account.sessions.stopped": ("leave", _("An operator signed you out everywhere")),
    "account.reset.mailed": ("mail", _("An operator had a link to a new password mailed to you")),
    "account.reauthentication.failed": ("attention", _("A wrong password when asked again")),
    "account.reauthentication.locked": (
        "attention",
        _("Signed out after too many wrong passwords"),
    ),
    "account.code.rejected": ("attention", _("A wrong code was typed")),
    "account.password.changed": ("key", _("The password was changed")),
    "account.password.set": ("key", _("A password was set")),
    "account.password.reset": ("key", _("A new password was chosen by a mailed link")),
    "account.token.made": ("card", _("A token for programs was made")),
    "account.token.revoked": ("card", _("A token for programs was revoked")),
    "account.member.invited": ("mail", _("Somebody was invited")),
    "account.member.withdrawn": ("mail", _("An invitation was withdrawn")),
    "account.member.declined": ("mail", _("An invitation was declined")),
    "account.member.joined": ("account", _("An invitation was accepted")),
    "account.member.role.changed": ("account", _("A member got another role")),
    "account.member.removed": ("leave", _("A member was removed")),
    "account.member.left": ("leave", _("A member left")),
    "account.member.role.got": ("account", _("Your role in an account was changed")),
    "account.member.place.lost": ("leave", _("You were taken out of an account")),
    "account.sharing.changed": ("eye", _("What your devices share was changed")),
    "account.ownership.offered": ("key", _("The account was offered to a new owner")),
    "account.ownership.withdrawn": ("key", _("The offer to a new owner was taken back")),
    "account.ownership.declined": ("key", _("The offer to become owner was declined")),
    "account.ownership.transferred": ("key", _("The account got a new owner")),
    "account.ownership.given": ("key", _("An account you owned has a new owner")),
    "account.export.asked": ("report", _("A copy of everything was asked for")),
    "account.export.ready": ("report", _("A copy of everything was packed")),
    "account.export.fetched": ("report", _("A copy of everything was downloaded")),
    "account.deletion.asked": ("attention", _("Deleting the account was asked for")),
    "account.deletion.cancelled": ("home", _("The account was kept after all")),
    "protection.settings.changed": ("shield", _("Protection settings were changed")),
    "protection.settings.undone": ("shield", _("A change of protection settings was undone")),
    "device.code.made": ("laptop", _("A code to add a device was made")),
    "device.enrolled": ("laptop", _("A device was added")),
    "device.removed": ("laptop", _("A device was removed")),
    "device.left": ("laptop", _("A device took itself out")),
    "device.renamed": ("laptop", _("A device was renamed")),
    "device.cloned": ("attention", _("Two computers use one device's identity")),
    "device.command.asked": ("scan", _("A device was asked to do something")),
    "device.command.canceled": ("scan", _("Something asked of a device was taken back")),
    "device.threat.disputed": ("away", _("A find was said to be wrong")),
    "device.replaced": ("laptop", _("A device took another’s place")),
    "device.clone.settled": ("laptop", _("The warning about a copied device was settled")),
}


@require_safe
@visits.may(Act.OWN)
def overview(request: HttpRequest, visit: Visit) -> HttpResponse:
    """Show what happened, the newest first; an owner sees the whole account's, others their own."""
    kind = request.GET.get("kind", "")
    if kind not in KINDS:
        kind = ""
    found = queries.page(
        person=visit.user.pk,
        account=visit.account.pk if visit.may(Act.ACTIVITY_OF_ALL) else None,
        kinds=KINDS[kind][1],
        before=_number(request.GET.get("before", "")),
    )
    context = {
        "visit": visit,
        "kind": kind,
        "kinds": [(name, words) for name, (words, _tags) in KINDS.items()],
        "lines": [_line(event, visit) for event in found.events],
        "older": f"?kind={kind}&before={found.older}" if found.older else "",
    }
    return render(request, "portal/account/activity.html", context)


def _line(event: Event, visit: Visit) -> dict[str, object]:
    said = queries.detail(event)
    usual = WORDS.get(event.tag, ("home", event.tag))
    icon, words = WORDS.get(f"{event.tag} {said.get('kind', '')}", usual)
    return {
        "icon": icon,
        "words": words,
        "about": str(said.get("after") or said.get("name") or ""),
        "at": event.at,
        "ip": event.ip,
        "agent": event.agent,
        "by_another": event.actor_id is not None and event.actor_id != visit.user.pk,
    }


def _number(text: str) -> int:
    # Anything else begins at the newest. Eighteen digits are more events than there will ever be.
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else 0
