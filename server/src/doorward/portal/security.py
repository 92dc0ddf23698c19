"""The security page: ways to sign in, the second step, recovery codes, remembered browsers."""

from __future__ import annotations

from typing import Any, Final, cast
from uuid import UUID

from allauth.account.internal.flows.login_by_code import LoginCodeVerificationProcess
from allauth.account.internal.stagekit import stash_login
from allauth.account.stages import LoginStageController
from allauth.account.views import ConfirmLoginCodeView
from allauth.mfa.base.views import AuthenticateView
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST, require_safe

from doorward.accounts import asking_again, remembered, sessions, two_factor
from doorward.accounts.adapter import origin_of
from doorward.accounts.factors import text_messages
from doorward.accounts.models import User
from doorward.accounts.second_step_stages import BY_EMAIL, INSTEAD, SecondStepStage
from doorward.accounts.two_factor import Way
from doorward.accounts.two_factor_events import changed_elsewhere

ASKED: Final[str] = SecondStepStage.key
MOST_TRIES: Final = 5
HERE: Final = "/account/security/"


@require_safe
@login_required
def overview(request: HttpRequest) -> HttpResponse:
    """Show how this person signs in, and what can be changed about it."""
    user = cast(User, request.user)
    context = {
        "standing": two_factor.standing(user),
        "remembered": remembered.of(user),
        "remembered_days": remembered.LASTS.days,
        "texts_are_on": text_messages.is_on(),
    }
    return render(request, "portal/security/page.html", context)


@require_POST
@login_required
@asking_again.required(HERE)
@sessions.while_in
def switch_email(request: HttpRequest) -> HttpResponse:
    """Turn the code by email on or off."""
    user = cast(User, request.user)
    wanted = request.POST.get("wanted") == "on"
    origin = origin_of(request)
    if two_factor.choose_email(user, wanted, ip=origin.ip, agent=origin.agent):
        ended = changed_elsewhere(request, user)
        two_factor.tell_of_email(user, wanted, ended.words, ip=origin.ip, agent=origin.agent)
        messages.success(
            request,
            _("From now on we mail you a code when you sign in.")
            if wanted
            else _("We no longer mail you codes."),
        )
    return redirect("/account/security/")


@require_POST
@login_required
@sessions.while_in
def forget_browser(request: HttpRequest, browser_id: UUID) -> HttpResponse:
    """Have the second step asked again in one remembered browser."""
    origin = origin_of(request)
    user = cast(User, request.user)
    if not remembered.forget(user, browser_id, ip=origin.ip, agent=origin.agent):
        raise Http404
    messages.success(request, _("Forgotten. It is asked for the second step again."))
    return redirect("/account/security/")


@require_POST
@login_required
@sessions.while_in
def forget_browsers(request: HttpRequest) -> HttpResponse:
    """Have the second step asked again everywhere."""
    user = cast(User, request.user)
    origin = origin_of(request)
    for browser in remembered.of(user):
        remembered.forget(user, browser.pk, ip=origin.ip, agent=origin.agent)
    messages.success(request, _("All forgotten. Each is asked for the second step again."))
    return redirect("/account/security/")


# -- while signing in ------------------------------------------------------------------------------


class SecondStep(AuthenticateView):  # type: ignore[misc]  # allauth ships no types
    """Asks for the second step: the way used last, and the others beside it."""

    def form_invalid(self, form: Any) -> HttpResponse:
        """Ask again; after five wrong answers begin anew, with the password."""
        tries = self.stage.state["tries"] = self.stage.state.get("tries", 0) + 1
        if tries >= MOST_TRIES:
            messages.error(self.request, _("Too many wrong tries. Begin again."))
            answer: HttpResponse = self.stage.abort()
            return answer
        stash_login(self.request, self.stage.login)
        again: HttpResponse = super().form_invalid(form)
        return again

    def get_context_data(self, **more: Any) -> dict[str, Any]:
        """Add the ways there are."""
        standing = two_factor.standing(self.stage.login.user)
        tried = self.request.POST.get("way", "") or self.request.GET.get("way", "")
        ways = sorted(standing.ways, key=lambda way: way != tried)
        return {
            **super().get_context_data(**more),
            "ways": [way.value for way in ways],
            "number": standing.number,
            "email": _masked(self.stage.login.user.email),
        }


second_step = SecondStep.as_view()


class MailedCode(ConfirmLoginCodeView):  # type: ignore[misc]  # allauth ships no types
    """Takes the code that was mailed; who chose it among others can go back to them."""

    def get_context_data(self, **more: Any) -> dict[str, Any]:
        """Add whether there are other ways."""
        return {
            **super().get_context_data(**more),
            "another_way": bool(self.stage.state.get(INSTEAD)),
            "texted": bool(self.stage.state.get("phone")),
        }


mailed_code = MailedCode.as_view()


@never_cache
@require_POST
def mail_me_a_code(request: HttpRequest) -> HttpResponse:
    """Take the second step by a code from the mail, for somebody who chose that this is a way."""
    stage = LoginStageController.enter(request, ASKED)
    if stage is None or Way.EMAIL not in two_factor.standing(stage.login.user).ways:
        return redirect("/login/")
    controller = stage.controller
    mailed = controller.get_stage(BY_EMAIL)
    controller.state[BY_EMAIL]["handled"] = False
    controller.set_current(BY_EMAIL)
    mailed.state[INSTEAD] = True
    LoginCodeVerificationProcess.initiate(
        request=request, user=stage.login.user, email=stage.login.user.email, stage=mailed
    )
    return redirect("account_confirm_login_code")


@never_cache
@require_POST
def text_me_a_code(request: HttpRequest) -> HttpResponse:
    """Take the second step by a code texted to the person's number."""
    stage = LoginStageController.enter(request, ASKED)
    if stage is None or Way.TEXT not in two_factor.standing(stage.login.user).ways:
        return redirect("/login/")
    kept = text_messages.number_of(stage.login.user)
    if kept is None:
        return redirect("/login/")
    controller = stage.controller
    texted = controller.get_stage(BY_EMAIL)
    controller.state[BY_EMAIL]["handled"] = False
    controller.set_current(BY_EMAIL)
    texted.state[INSTEAD] = True
    LoginCodeVerificationProcess.initiate(
        request=request, user=stage.login.user, phone=kept.sealed, stage=texted
    )
    return redirect("account_confirm_login_code")


@never_cache
@require_POST
def another_way(request: HttpRequest) -> HttpResponse:
    """Go back from the mailed code to the other ways; the code that was mailed no longer counts."""
    stage = LoginStageController.enter(request, BY_EMAIL)
    if stage is None or not stage.state.get(INSTEAD):
        return redirect("/login/")
    stage.state.clear()
    stage.controller.set_handled(BY_EMAIL)
    stage.controller.set_current(ASKED)
    stash_login(request, stage.login)
    return redirect("mfa_authenticate")


def _masked(address: str) -> str:
    """Return enough of an address for its owner to know which mailbox is meant."""
    local, _at, domain = address.partition("@")
    return f"{local[:1]}…@{domain}"
