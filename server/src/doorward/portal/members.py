"""Who belongs to the account: invite, roles, what devices share, leaving, handing over."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from django import forms
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from doorward.accounts import asking_again, invitations, members
from doorward.accounts.adapter import origin_of
from doorward.accounts.models import Membership, Role, Shares
from doorward.accounts.permissions import Act
from doorward.devices import queries as devices
from doorward.portal import texts, visits
from doorward.portal.visits import Visit

HERE: Final = "/account/members/"
ROLES: Final[dict[Role, Promise]] = {
    Role.OWNER: gettext_lazy("Everything, and decides who belongs to the account"),
    Role.HELPER: gettext_lazy("Sees how things are; adds, renames and removes devices"),
    Role.BILLING: gettext_lazy("Sees how things are; changes what is paid for"),
    Role.VIEWER: gettext_lazy("Sees how things are and changes nothing"),
}
SHARES: Final[dict[Shares, tuple[Promise, Promise]]] = {
    Shares.STATE: (
        gettext_lazy("Their names and how they are"),
        gettext_lazy(
            "The others see that a device of yours is there, and whether it is protected."
        ),
    ),
    Shares.FINDINGS: (
        gettext_lazy("Also what was found"),
        gettext_lazy("Threats, scans and what was done, without the names and places of files."),
    ),
    Shares.PATHS: (
        gettext_lazy("Everything"),
        gettext_lazy("Also the names and places of the files that were found."),
    ),
}
# A role by which somebody could take money or the whole account.
WEIGHTY: Final = frozenset({Role.OWNER, Role.BILLING})


class InviteForm(forms.Form):
    """Whom to invite, as what."""

    email = forms.EmailField(
        label=gettext_lazy("Their email address"),
        max_length=254,
        widget=forms.EmailInput(attrs={"autocomplete": "off"}),
        help_text=gettext_lazy("We mail them a link. They join only if they say so there."),
    )
    role = forms.ChoiceField(
        label=gettext_lazy("What may they do?"),
        choices=[(role.value, role.label) for role in invitations.ROLES],
        initial=Role.HELPER.value,
    )


@require_safe
@visits.may(Act.MEMBERS_LOOK)
def overview(request: HttpRequest, visit: Visit) -> HttpResponse:
    """Show who belongs to the account, who is invited, and what this person's devices share."""
    people = members.people(visit.account)
    owners = {place.user_id for place in people if place.role == Role.OWNER}
    now = timezone.now()
    context = {
        "visit": visit,
        "people": [(place, Role(place.role).label, ROLES[Role(place.role)]) for place in people],
        "alone": len(people) == 1,
        "waiting": [
            # Of a former owner it opens nothing either, until it is sent again.
            (
                each,
                Role(each.role).label,
                each.expires_at <= now or each.made_by_id not in owners,
            )
            for each in invitations.waiting(visit.account)
        ]
        if visit.may_decide
        else [],
        "offer": members.offer(visit.account),
        "shares": [(value.value, *words) for value, words in SHARES.items()],
        "chosen": visit.place.shares,
        "is_last_owner": visit.role == Role.OWNER and len(owners) == 1,
    }
    return render(request, "portal/members/page.html", context)


# -- inviting ------------------------------------------------------------------------------------


@require_http_methods(["GET", "HEAD", "POST"])
@visits.may(Act.MEMBERS_CHANGE)
def invite(request: HttpRequest, visit: Visit) -> HttpResponse:
    """Ask whom to invite; on POST mail the invitation."""
    form = InviteForm(request.POST or None)
    if request.method == "POST" and form.is_valid() and _invited(request, visit, form):
        messages.success(
            request,
            _("The invitation is on its way to %(address)s.")
            % {"address": texts.shortened(form.cleaned_data["email"], 60)},
        )
        return redirect(HERE)
    context = {
        "visit": visit,
        "form": form,
        "roles": [(role.value, role.label, ROLES[role]) for role in invitations.ROLES],
        "hours": invitations.LASTS.total_seconds() // 3600,
        "shares": SHARES[Shares(visit.place.shares)][0],
    }
    return render(
        request, "portal/members/invite.html", context, status=422 if form.errors else 200
    )


def _invited(request: HttpRequest, visit: Visit, form: InviteForm) -> bool:
    asked = form.cleaned_data
    try:
        invitations.invite(
            visit.account,
            email=asked["email"],
            role=asked["role"],
            actor=visit.user,
            origin=origin_of(request),
        )
    except invitations.NotAnAddress:
        form.add_error("email", _("That is not an email address we can write to."))
    except invitations.AlreadyThere:
        form.add_error("email", _("They belong to this account already."))
    except invitations.AlreadyInvited:
        form.add_error("email", _("They are invited already. Send it again from the members page."))
    except invitations.Full:
        form.add_error(
            None,
            _("An account has at most %(most)d members and invitations. Withdraw or remove one.")
            % {"most": members.MOST_MEMBERS},
        )
    except invitations.TooMany as refused:
        form.add_error(None, _too_many(refused))
    except members.NotAllowed:
        raise PermissionDenied from None
    else:
        return True
    return False


@require_POST
@visits.may(Act.MEMBERS_CHANGE)
def resend(request: HttpRequest, visit: Visit, invitation_id: UUID) -> HttpResponse:
    """Mail the invitation again, with a new link."""
    origin = origin_of(request)
    try:
        invitations.resend(visit.account, invitation_id, actor=visit.user, origin=origin)
    except invitations.InvitationOver:
        raise Http404 from None
    except invitations.TooMany as refused:
        messages.error(request, _too_many(refused))
    except members.NotAllowed:
        raise PermissionDenied from None
    else:
        messages.success(request, _("Sent again. The link in the mail before works no more."))
    return redirect(HERE)


@require_POST
@visits.may(Act.MEMBERS_CHANGE)
def withdraw(request: HttpRequest, visit: Visit, invitation_id: UUID) -> HttpResponse:
    """End an invitation that nobody has answered."""
    origin = origin_of(request)
    try:
        invitations.withdraw(visit.account, invitation_id, actor=visit.user, origin=origin)
    except invitations.InvitationOver:
        raise Http404 from None
    except members.NotAllowed:
        raise PermissionDenied from None
    messages.success(request, _("Withdrawn. Its link opens nothing any more."))
    return redirect(HERE)


def _too_many(refused: invitations.TooMany) -> str:
    hours = -(-int(refused.wait.total_seconds()) // 3600)
    return _("Too many invitations were mailed today. Try again in %(hours)d hours.") % {
        "hours": hours
    }


# -- one member ----------------------------------------------------------------------------------


@require_safe
@visits.may(Act.MEMBERS_CHANGE)
def member(request: HttpRequest, visit: Visit, person_id: UUID) -> HttpResponse:
    """Show one member, and what an owner may change about them."""
    place = _find(visit, person_id)
    context = {
        "visit": visit,
        "place": place,
        "is_you": place.user_id == visit.user.pk,
        "is_owner": place.role == Role.OWNER,
        "role": Role(place.role).label,
        "roles": [(role.value, role.label, words) for role, words in ROLES.items()],
        "shares": SHARES[Shares(place.shares)][0],
        "may_step_down": len(members.owners(visit.account)) > 1,
    }
    return render(request, "portal/members/member.html", context)


@require_POST
@visits.may(Act.MEMBERS_CHANGE)
def change_role(request: HttpRequest, visit: Visit, person_id: UUID) -> HttpResponse:
    """Give a member another role; of weight, only after asking again who it is."""
    place = _find(visit, person_id)
    try:
        role = Role(request.POST.get("role", ""))
    except ValueError:
        raise Http404 from None
    if role in WEIGHTY:
        asking_again.first(request, form_at=f"{HERE}{person_id}/")
    back = redirect(f"{HERE}{person_id}/")
    try:
        members.change_role(
            visit.account, person_id, role, actor=visit.user, origin=origin_of(request)
        )
    except members.OwnersStay:
        messages.error(request, _("An owner gives that up themselves; nobody takes it from them."))
        return back
    except members.LastOwner:
        messages.error(request, _ONLY_OWNER)
        return back
    except (members.NotAllowed, members.NotAMember):
        raise PermissionDenied from None
    messages.success(
        request,
        _("%(name)s: %(role)s, from now on.")
        % {
            "name": _shown(place),
            "role": role.label,
        },
    )
    return redirect(HERE)


@require_http_methods(["GET", "HEAD", "POST"])
@visits.may(Act.MEMBERS_CHANGE)
def remove(request: HttpRequest, visit: Visit, person_id: UUID) -> HttpResponse:
    """Say what removing a member means; on POST, after asking again who it is, do it."""
    place = _find(visit, person_id)
    if place.user_id == visit.user.pk:
        return redirect(f"{HERE}leave/")
    if not members.may_be_removed(place):
        messages.error(request, _("An owner leaves by themselves; nobody removes them."))
        return redirect(f"{HERE}{person_id}/")
    own = devices.number_of(visit.account, place.user_id)
    stay = _devices_stay(request, own)
    if request.method != "POST" or stay is None:
        context = {"visit": visit, "place": place, "devices": own, "unanswered": stay is None}
        return render(
            request,
            "portal/members/remove.html",
            context,
            status=422 if request.method == "POST" else 200,
        )
    asking_again.first(request)
    try:
        members.remove(
            visit.account,
            person_id,
            devices_stay=stay,
            actor=visit.user,
            origin=origin_of(request),
        )
    except (members.NotAllowed, members.NotAMember, members.OwnersStay):
        raise PermissionDenied from None
    messages.success(
        request,
        _("%(name)s no longer belongs to this account.") % {"name": _shown(place)},
    )
    return redirect(HERE)


# -- handing over --------------------------------------------------------------------------------


@require_http_methods(["GET", "HEAD", "POST"])
@visits.may(Act.MEMBERS_CHANGE)
def hand_over(request: HttpRequest, visit: Visit, person_id: UUID) -> HttpResponse:
    """Say what handing the account over means; on POST offer it, after asking again who it is."""
    place = _find(visit, person_id)
    if place.role == Role.OWNER:
        return redirect(f"{HERE}{person_id}/")
    roles = [(role.value, role.label, words) for role, words in ROLES.items() if role != Role.OWNER]
    role_after = request.POST.get("role_after", "")
    if request.method != "POST" or role_after not in {value for value, _label, _words in roles}:
        context = {
            "visit": visit,
            "place": place,
            "roles": roles,
            "wrong": request.method == "POST" and _("Choose what you will be afterwards."),
        }
        return render(
            request,
            "portal/members/hand_over.html",
            context,
            status=422 if request.method == "POST" else 200,
        )
    asking_again.first(request)
    try:
        members.offer_ownership(
            visit.account,
            person_id,
            Role(role_after),
            actor=visit.user,
            origin=origin_of(request),
        )
    except members.TooManyOffers:
        messages.error(request, _("You offered it too often today. Try again tomorrow."))
        return redirect(HERE)
    except (members.NotAllowed, members.NotAMember, members.OwnersStay):
        raise PermissionDenied from None
    messages.success(
        request,
        _("Offered. It stays yours until %(name)s agrees.") % {"name": _shown(place)},
    )
    return redirect(HERE)


@require_POST
@visits.may(Act.OWN)
def take_over(request: HttpRequest, visit: Visit) -> HttpResponse:
    """Agree to own the account, after asking again who it is."""
    waiting = members.offer(visit.account)
    if waiting is None or waiting.taker_id != visit.user.pk:
        raise Http404
    asking_again.first(request, form_at=HERE)
    try:
        members.take_ownership(visit.account, visit.user, origin=origin_of(request))
    except members.NoOffer:
        raise Http404 from None
    messages.success(request, _("The account is yours now."))
    return redirect(HERE)


@require_POST
@visits.may(Act.OWN)
def end_offer(request: HttpRequest, visit: Visit) -> HttpResponse:
    """Take an offer back, or decline it."""
    try:
        members.end_offer(visit.account, visit.user, origin=origin_of(request))
    except members.NoOffer:
        raise Http404 from None
    messages.success(request, _("The account stays with its owner."))
    return redirect(HERE)


# -- one's own -----------------------------------------------------------------------------------


@require_POST
@visits.may(Act.OWN)
def share(request: HttpRequest, visit: Visit) -> HttpResponse:
    """Keep what this person's devices share."""
    try:
        shares = Shares(request.POST.get("shares", ""))
    except ValueError:
        raise Http404 from None
    members.share(visit.place, shares, origin=origin_of(request))
    messages.success(request, _("Saved. It holds at once."))
    return redirect(f"{HERE}#sharing")


@require_http_methods(["GET", "HEAD", "POST"])
@visits.may(Act.OWN)
def leave(request: HttpRequest, visit: Visit) -> HttpResponse:
    """Say what leaving means; on POST leave."""
    own = devices.number_of(visit.account, visit.user.pk)
    stay = _devices_stay(request, own)
    if request.method != "POST" or stay is None:
        only = visit.role == Role.OWNER and len(members.owners(visit.account)) == 1
        context = {"visit": visit, "devices": own, "is_last_owner": only}
        return render(
            request,
            "portal/members/leave.html",
            context,
            status=422 if request.method == "POST" else 200,
        )
    try:
        members.leave(visit.account, visit.user, devices_stay=stay, origin=origin_of(request))
    except members.LastOwner:
        messages.error(request, _ONLY_OWNER)
        return redirect(f"{HERE}leave/")
    except members.NotAMember:
        raise Http404 from None
    messages.success(request, _("You have left that account."))
    return redirect("/account/accounts/")


_ONLY_OWNER: Final = gettext_lazy(
    "You are the only owner. Hand the account over, or make somebody else an owner too, first."
)


def _shown(place: Membership) -> str:
    return texts.shortened(texts.visible(place.user.get_full_name()), 60)


def _devices_stay(request: HttpRequest, own: int) -> bool | None:
    # Who has no devices is not asked.
    answer = request.POST.get("devices", "") if own else "stay"
    return {"stay": True, "leave": False}.get(answer)


def _find(visit: Visit, person: UUID) -> Membership:
    place = members.find(visit.account, person)
    if place is None:
        raise Http404
    return place
