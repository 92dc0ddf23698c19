"""Where a person is signed in, and signing out there."""

from __future__ import annotations

from typing import Final, cast
from uuid import UUID

from allauth.account.decorators import reauthentication_required
from django.contrib import messages
from django.contrib.auth import update_session_auth_hash
from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_POST

from doorward.accounts import asking_again, browsers, lockout, session_store, sessions
from doorward.accounts.adapter import browser_proof, origin_of
from doorward.accounts.models import User

HERE: Final = "/account/sessions/"


@require_http_methods(["GET", "HEAD", "POST"])
@login_required
def overview(request: HttpRequest) -> HttpResponse:
    """List the person's sessions and known browsers; on POST end and forget all but this one."""
    if request.method == "POST":
        answer: HttpResponse = _end_others(request)
        return answer
    user = cast(User, request.user)
    found, known, proof = sessions.of(user), browsers.of(user), browser_proof(request)
    context = {
        "sessions": [
            (
                each,
                lockout.network_of(each.ip),
                sessions.is_in(request, each),
            )
            for each in found
        ],
        "known": [
            (each, browsers.is_proved(each, proof)) for each in known[: browsers.MOST_LISTED]
        ],
        "knows_others": any(not browsers.is_proved(each, proof) for each in known),
        "knows_more": len(known) > browsers.MOST_LISTED,
        "most_known": browsers.MOST_LISTED,
        "idle_days": session_store.IDLE.days,
        "absolute_days": session_store.ABSOLUTE.days,
    }
    return render(request, "usersessions/usersession_list.html", context)


@reauthentication_required  # type: ignore[untyped-decorator]  # allauth ships no types
@sessions.while_in
def _end_others(request: HttpRequest) -> HttpResponse:
    user = cast(User, request.user)
    origin = origin_of(request)
    sessions.end_elsewhere(
        user,
        keep=request.session.session_key,
        cookie=browser_proof(request),
        ip=origin.ip,
        agent=origin.agent,
    )
    # Ending raised the epoch that each session must match: this one goes on.
    update_session_auth_hash(request, user)
    messages.success(
        request, _("You are signed out everywhere else, and no other browser is known any more.")
    )
    return redirect("/account/sessions/")


@require_POST
@login_required
@asking_again.required(HERE)
@sessions.while_in
def end(request: HttpRequest, session_id: int) -> HttpResponse:
    """End one session of this person's."""
    origin = origin_of(request)
    if not sessions.end(cast(User, request.user), session_id, ip=origin.ip, agent=origin.agent):
        raise Http404
    messages.success(request, _("Signed out there."))
    return redirect("/account/sessions/")


@require_POST
@login_required
@asking_again.required(HERE)
@sessions.while_in
def forget(request: HttpRequest, browser_id: UUID) -> HttpResponse:
    """Make one known browser a stranger to this person's account."""
    origin = origin_of(request)
    user = cast(User, request.user)
    if not browsers.forget(user, browser_id, ip=origin.ip, agent=origin.agent):
        raise Http404
    messages.success(request, _("Forgotten. That browser is a new one from now on."))
    return redirect("/account/sessions/#known")


@require_POST
@login_required
@asking_again.required(HERE)
@sessions.while_in
def forget_others(request: HttpRequest) -> HttpResponse:
    """Make every known browser but this one a stranger to this person's account."""
    origin = origin_of(request)
    browsers.forget_others(
        cast(User, request.user), browser_proof(request), ip=origin.ip, agent=origin.agent
    )
    messages.success(request, _("Forgotten. Every other browser is a new one from now on."))
    return redirect("/account/sessions/#known")
