"""Where a person is signed in, and signing out there."""

from __future__ import annotations

from typing import Final, cast

from allauth.account.decorators import reauthentication_required
from django.contrib import messages
from django.contrib.auth import update_session_auth_hash
from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_POST

from doorward.accounts import asking_again, lockout, session_store, sessions
from doorward.accounts.adapter import origin_of
from doorward.accounts.models import User

HERE: Final = "/account/sessions/"


@require_http_methods(["GET", "HEAD", "POST"])
@login_required
def overview(request: HttpRequest) -> HttpResponse:
    """List the person's sessions; on POST end all but this one."""
    if request.method == "POST":
        answer: HttpResponse = _end_others(request)
        return answer
    user = cast(User, request.user)
    found = sessions.of(user)
    context = {
        "sessions": [
            (
                each,
                lockout.network_of(each.ip),
                sessions.is_in(request, each),
            )
            for each in found
        ],
        "idle_days": session_store.IDLE.days,
        "absolute_days": session_store.ABSOLUTE.days,
    }
    return render(request, "usersessions/usersession_list.html", context)


@reauthentication_required  # type: ignore[untyped-decorator]  # allauth ships no types
@sessions.while_in
def _end_others(request: HttpRequest) -> HttpResponse:
    user = cast(User, request.user)
    origin = origin_of(request)
    sessions.end_others(user, keep=request.session.session_key, ip=origin.ip, agent=origin.agent)
    # Ending raised the epoch that each session must match: this one goes on.
    update_session_auth_hash(request, user)
    messages.success(request, _("You are signed out everywhere else."))
    return redirect("/account/sessions/")


@require_POST
@login_required
@asking_again.required(HERE)
def end(request: HttpRequest, session_id: int) -> HttpResponse:
    """End one session of this person's."""
    origin = origin_of(request)
    if not sessions.end(cast(User, request.user), session_id, ip=origin.ip, agent=origin.agent):
        raise Http404
    messages.success(request, _("Signed out there."))
    return redirect("/account/sessions/")
