"""Approving a sign-in from another session: the waiting page there, the question here."""

from __future__ import annotations

from typing import Any, cast
from urllib.parse import urlsplit
from uuid import UUID

from allauth.account.stages import LoginStageController
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.contrib.auth.views import redirect_to_login
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from doorward.accounts import approval_stage, approvals, lockout
from doorward.accounts.adapter import origin_of
from doorward.accounts.models import Approval, User
from doorward.accounts.second_step_stages import SecondStepStage
from doorward.portal import asking

# -- in the browser that signs in ------------------------------------------------------------------


@never_cache
@require_POST
def ask(request: HttpRequest) -> HttpResponse:
    """Ask the person's other sessions, and wait."""
    stage = _stage(request)
    if stage is None:
        return redirect("/login/")
    try:
        approval_stage.ask(request, stage)
    except approval_stage.NobodyToAsk:
        messages.error(request, _("No other browser of yours can approve it. Choose another way."))
        return redirect("mfa_authenticate")
    except approvals.TooManyPrompts as many:
        messages.error(
            request,
            _("Your other browsers were asked often enough. Try again in %(minutes)d min.")
            % {"minutes": many.minutes},
        )
        return redirect("mfa_authenticate")
    return redirect("approval_wait")


@never_cache
@require_safe
def wait(request: HttpRequest) -> HttpResponse:
    """Show the number, and how it stands; a part of the page asks for itself again."""
    stage = _stage(request)
    approval = approval_stage.asked_by(stage)
    if stage is None or approval is None:
        return _away(request, reverse("mfa_authenticate" if stage else "account_login"))
    now = timezone.now()
    context = {
        "approval": approval,
        "state": approval_stage.state_of(approval),
        "seconds": max(0, round((approval.expires_at - now).total_seconds())),
    }
    if request.headers.get("HX-Request") == "true":
        return render(request, "portal/approval/waiting.html", context)
    return render(request, "portal/approval/wait.html", context)


@never_cache
@require_POST
def finish(request: HttpRequest) -> HttpResponse:
    """Go on with the sign-in that was approved; it opens once."""
    stage = _stage(request)
    approval = approval_stage.asked_by(stage)
    if stage is None or approval is None:
        return _away(request, reverse("mfa_authenticate" if stage else "account_login"))
    if not approval_stage.use(request, stage):
        return _away(request, reverse("approval_wait"))
    answer = cast(HttpResponse, stage.exit())
    return _away(request, answer.headers["Location"])


def _stage(request: HttpRequest) -> Any:
    return LoginStageController.enter(request, SecondStepStage.key)


def _away(request: HttpRequest, address: str) -> HttpResponse:
    """Lead to another page, also when a part of this one asked."""
    if request.headers.get("HX-Request") != "true":
        return redirect(address)
    response = HttpResponse(status=204)
    response.headers["HX-Redirect"] = address
    return response


# -- in the session that is asked ------------------------------------------------------------------


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def asks(request: HttpRequest) -> HttpResponse:
    """Answer with what is to be asked of this person now; 204 while it is what the page shows.

    On POST, a new second step is not asked for in this session any more.
    """
    if not request.user.is_authenticated:
        # A part of a page whose session has ended has nothing to put there.
        by_part = request.headers.get("HX-Request") == "true"
        return HttpResponse(status=204) if by_part else redirect_to_login(request.path)
    page = _page_of(request)
    if request.method == "POST":
        asking.second_step_later(request.session)
        if request.headers.get("HX-Request") != "true":
            return redirect("/")
    found = asking.of(request.user, page=page, session=request.session)
    if request.method != "POST" and request.headers.get("If-None-Match") == f'"{found.tag}"':
        return HttpResponse(status=204)
    response = render(request, "portal/parts/asks.html", {"asks": found})
    response.headers["Vary"] = "HX-Request, Cookie"
    return response


def _page_of(request: HttpRequest) -> str:
    try:
        return urlsplit(request.headers.get("HX-Current-URL", "")).path
    except ValueError:
        # Of no page of ours: whatever is asked is shown.
        return ""


@require_http_methods(["GET", "HEAD", "POST"])
@login_required
def answer(request: HttpRequest, approval_id: UUID) -> HttpResponse:
    """Show who asks; on POST let them in by their number, or refuse."""
    user = cast(User, request.user)
    approval = approvals.find(user, approval_id)
    if approval is None:
        raise Http404
    now = timezone.now()
    is_proven = approvals.took_second_step(request, user)
    if request.method == "POST" and approvals.is_waiting(approval, now):
        return _settle(request, user, approval, is_proven=is_proven)
    here = lockout.network_of(origin_of(request).ip)
    there = lockout.network_of(approval.ip)
    context = {
        "approval": approval,
        "waiting": approvals.is_waiting(approval, now),
        "is_proven": is_proven,
        "network": there,
        "same_network": here == there,
        "state": approval_stage.state_of(approval),
    }
    return render(request, "portal/approval/answer.html", context)


def _settle(
    request: HttpRequest, user: User, approval: Approval, *, is_proven: bool
) -> HttpResponse:
    origin = origin_of(request)
    where = {"ip": origin.ip, "agent": origin.agent}
    try:
        if request.POST.get("answer") == "no":
            approvals.deny(user, approval.pk, **where)
            messages.success(
                request,
                _("Refused. They know your password: change it now, unless it was you after all."),
            )
            return redirect("/account/security/")
        number = request.POST.get("number", "")[:20]
        approvals.approve(user, approval.pk, number, is_proven=is_proven, **where)
    except approvals.NotProven:
        messages.error(request, _("Show your second step in this browser first."))
    except approvals.WrongNumber:
        messages.error(
            request, _("That is not the number, so nobody was let in. Begin again over there.")
        )
    except approvals.NotWaiting:
        messages.info(request, _("It has been answered already, or is too old."))
    else:
        messages.success(request, _("Let in. The other browser goes on by itself."))
        return redirect("/")
    return redirect("approval", approval_id=approval.pk)
