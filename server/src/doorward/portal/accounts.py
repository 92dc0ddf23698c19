"""The accounts somebody belongs to: which one they look at, and one of their own."""

from __future__ import annotations

from typing import cast
from uuid import UUID

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_POST

from doorward.accounts import members, signup
from doorward.accounts.adapter import origin_of
from doorward.accounts.models import Role, User
from doorward.portal import visits


@require_http_methods(["GET", "HEAD", "POST"])
@login_required
def overview(request: HttpRequest) -> HttpResponse:
    """List the person's accounts; on POST look at another one from now on."""
    user = cast(User, request.user)
    if request.method == "POST":
        return _choose(request, user)
    visit = visits.visit_of(request, user)
    names = members.names_of(visit.places) if visit is not None else {}
    context = {
        "visit": visit,
        "accounts": [
            (
                place,
                names[place.account_id],
                Role(place.role).label,
                place.account_id == visit.account.pk,
            )
            for place in visit.places
        ]
        if visit is not None
        else [],
        "may_found": signup.owns_none(user),
    }
    return render(request, "portal/accounts/page.html", context)


def _choose(request: HttpRequest, user: User) -> HttpResponse:
    try:
        place = members.choose(user, UUID(request.POST.get("to", "")))
    except (ValueError, members.NoAccount):
        raise Http404 from None
    visits.look_at(request, place.account_id)
    return redirect("/")


@require_POST
@login_required
def found(request: HttpRequest) -> HttpResponse:
    """Start an account of their own for somebody who owns none; a second call changes nothing."""
    user, origin = cast(User, request.user), origin_of(request)
    try:
        account = signup.found_another(user, ip=origin.ip, agent=origin.agent)
    except signup.FoundedTooOften:
        messages.error(request, _("You started several accounts today. Try again tomorrow."))
        return redirect("/account/accounts/")
    members.choose(user, account.pk)
    visits.look_at(request, account.pk)
    messages.success(request, _("This account is your own."))
    return redirect("/")
