"""Pages for a lost second step: the ways there are, waiting, stopping the wait, and getting in."""

from __future__ import annotations

from typing import Any, cast
from uuid import UUID

from allauth.account.stages import LoginStageController
from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from doorward.accounts import recovery, recovery_stage, sessions, two_factor
from doorward.accounts.adapter import origin_of
from doorward.accounts.models import Recovery, User
from doorward.accounts.recovery_stage import LINK_SEEN, RecoveryStage
from doorward.accounts.two_factor import Way

# -- while signing in, after the right password ----------------------------------------------------


@never_cache
@require_safe
def choose(request: HttpRequest) -> HttpResponse:
    """Show what can be done without the second step, the quickest way first; and what waits."""
    stage = recovery_stage.pending(request)
    if stage is None:
        return redirect("/login/")
    user = stage.login.user
    ways = two_factor.standing(user).ways
    now = timezone.now()
    running = recovery.running_for(user)
    context = {
        "has_codes": Way.RECOVERY in ways,
        "can_be_approved": Way.APPROVAL in ways,
        "waits": [(each, recovery.is_open(each, now)) for each in running],
        "may_begin": not any(each.kind == Recovery.Kind.MAILBOX for each in running),
        "hours": settings.RECOVERY_DELAY_HOURS,
        "back": stage.urlname,
    }
    return render(request, "portal/recovery/choose.html", context)


@never_cache
@require_POST
def begin(request: HttpRequest) -> HttpResponse:
    """Begin the wait; whoever was here before has begun it already."""
    stage = recovery_stage.pending(request)
    if stage is None:
        return redirect("/login/")
    if not recovery_stage.is_unchanged(stage):
        messages.error(request, _("Something changed meanwhile. Sign in again."))
        return cast(HttpResponse, stage.abort())
    origin = origin_of(request)
    try:
        recovery.begin(stage.login.user, ip=origin.ip, agent=origin.agent)
    except recovery.TooMany:
        messages.error(
            request, _("This was begun and stopped several times today. Try again tomorrow.")
        )
    except recovery.NoSecondStep:
        messages.error(request, _("Only your password is asked. Sign in again."))
    return redirect("recovery")


@never_cache
@require_POST
def send_again(request: HttpRequest) -> HttpResponse:
    """Mail the way in once more, for somebody whose wait is over."""
    stage = recovery_stage.pending(request)
    if stage is None:
        return redirect("/login/")
    if recovery.send_link_again(stage.login.user):
        messages.success(request, _("The link is on its way again."))
    else:
        messages.error(request, _("We sent it several times today. Look in the junk folder too."))
    return redirect("recovery")


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def enter(request: HttpRequest) -> HttpResponse:
    """Say what getting in removes; on POST remove it and let the person in, once."""
    stage: Any = LoginStageController.enter(request, RecoveryStage.key)
    if stage is None:
        return redirect("/login/")
    if request.method != "POST":
        found = stage.found()
        if found is None:
            return cast(HttpResponse, stage.leave())
        standing = two_factor.standing(stage.login.user)
        context = {"standing": standing, "ends_at": found.ends_at}
        return render(request, "portal/recovery/enter.html", context)
    if request.POST.get("instead"):
        return cast(HttpResponse, stage.leave())
    try:
        answer = stage.enter()
    except recovery.NotOpen:
        messages.error(request, _("This has ended meanwhile. Sign in again."))
        return cast(HttpResponse, stage.abort())
    messages.success(request, _("You are in. Now set up a new second step."))
    return cast(HttpResponse, answer)


# -- the addresses in mails ------------------------------------------------------------------------


@require_http_methods(["GET", "HEAD", "POST"])
def open_by_link(request: HttpRequest, recovery_id: UUID, proof: str) -> HttpResponse:
    """Say how it stands; on POST, when the wait is over, let this browser go on to the password.

    Looking must not use anything up: mail programs look at links before their owners do.
    """
    found = recovery.by_open_link(recovery_id, proof)
    is_open = found is not None and recovery.is_open(found, timezone.now())
    if request.method != "POST" or found is None or not is_open:
        context = {"found": found, "is_open": is_open}
        status = 200 if found is not None else 410
        return _unkept(render(request, "portal/recovery/open.html", context, status=status))
    if request.user.is_authenticated:
        messages.info(request, _("You are signed in: set up a new second step here."))
        return _unkept(redirect("/account/security/"))
    request.session[LINK_SEEN] = str(found.pk)
    stage = recovery_stage.pending(request)
    if stage is not None and stage.login.user.pk == found.user_id:
        return _unkept(cast(HttpResponse, recovery_stage.go_to_recovery(request, stage)))
    messages.info(request, _("Now sign in with your password."))
    return _unkept(redirect("/login/"))


@require_http_methods(["GET", "HEAD", "POST"])
def stop_by_link(request: HttpRequest, recovery_id: UUID, proof: str) -> HttpResponse:
    """Say what waits; on POST stop it, without any further proof: stopping opens nothing."""
    found = recovery.by_stop_link(recovery_id, proof)
    stopped = False
    if request.method == "POST" and found is not None:
        origin = origin_of(request)
        stopped = recovery.stop(found, by="mail", ip=origin.ip, agent=origin.agent)
        found = None
    context = {"found": found, "stopped": stopped}
    status = 200 if found is not None or stopped else 410
    return _unkept(render(request, "portal/recovery/stop.html", context, status=status))


# -- in a signed-in session ------------------------------------------------------------------------


@require_POST
@login_required
@sessions.while_in
def stop(request: HttpRequest) -> HttpResponse:
    """Stop whatever waits for this person, from any of their sessions."""
    user = cast(User, request.user)
    origin = origin_of(request)
    stopped = [
        recovery.stop(each, by="session", ip=origin.ip, agent=origin.agent)
        for each in recovery.running_for(user)
    ]
    if any(stopped):
        messages.success(
            request,
            _("Stopped. If it wasn’t you who asked, somebody knows your password: change it."),
        )
        return redirect("/account/security/")
    messages.info(request, _("Nothing waits any more."))
    return redirect("/")


def _unkept(response: HttpResponse) -> HttpResponse:
    # The proof stands in the address: nobody else may read it there.
    response.headers["Referrer-Policy"] = "no-referrer"
    return response
