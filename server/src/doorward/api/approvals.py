"""Approving a sign-in from another session, for apps: beside allauth's own JSON, in its shapes.

The app that signs in asks and shows a number; an app signed in elsewhere lists who asks and sends
the number that its person read there. The pages do the same (portal/approvals.py).
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, cast
from uuid import UUID

from allauth.core.exceptions import ReauthenticationRequired
from allauth.headless.base.views import AuthenticatedAPIView, AuthenticationStageAPIView
from allauth.headless.constants import Client
from allauth.headless.internal.restkit.response import APIResponse
from django.http import HttpRequest, HttpResponse
from django.urls import path
from django.utils import timezone
from django.utils.translation import gettext as _

from doorward.accounts import approval_stage, approvals, lockout
from doorward.accounts.adapter import origin_of
from doorward.accounts.models import Approval, User
from doorward.accounts.second_step_stages import SecondStepStage


class Asking(AuthenticationStageAPIView):  # type: ignore[misc]  # allauth ships no types
    """The app that signs in: asks, looks how it stands, goes on."""

    stage_class = SecondStepStage

    def post(self, request: HttpRequest) -> HttpResponse:
        """Ask the person's other sessions; answers with the number to show."""
        try:
            approval = approval_stage.ask(request, self.stage)
        except approval_stage.NobodyToAsk:
            words = _("No other session of yours can approve it. Choose another way.")
            return _refused(request, "nobody_to_ask", words, HTTPStatus.CONFLICT)
        except approvals.TooManyPrompts as many:
            words = _("Your other sessions were asked often enough. Try again in %(minutes)d min.")
            answer = _refused(
                request,
                "too_many_prompts",
                words % {"minutes": many.minutes},
                HTTPStatus.TOO_MANY_REQUESTS,
            )
            answer.headers["Retry-After"] = str(60 * many.minutes)
            return answer
        return _standing(request, approval)

    def get(self, request: HttpRequest) -> HttpResponse:
        """Answer how it stands."""
        approval = approval_stage.asked_by(self.stage)
        if approval is None:
            return _not_asked(request)
        return _standing(request, approval)

    def put(self, request: HttpRequest) -> HttpResponse:
        """Go on with the sign-in that was approved; it opens once."""
        if not approval_stage.use(request, self.stage):
            words = _("It is not approved, or was used already.")
            return _refused(request, "not_approved", words, HTTPStatus.CONFLICT)
        return cast(HttpResponse, self.respond_next_stage())


class Waiting(AuthenticatedAPIView):  # type: ignore[misc]  # as above
    """An app that is signed in: which sign-ins ask its person."""

    def get(self, request: HttpRequest) -> HttpResponse:
        """List what waits to be answered, the newest first; never the numbers."""
        user = cast(User, request.user)
        found = [
            {
                "id": str(each.pk),
                "browser": each.agent,
                "network": lockout.network_of(each.ip),
                "asked_at": each.asked_at.isoformat(timespec="seconds"),
                "expires_at": each.expires_at.isoformat(timespec="seconds"),
            }
            for each in approvals.waiting_for(user, timezone.now())
        ]
        data = {"may_approve": approvals.took_second_step(request, user), "waiting": found}
        return _answered(request, data)


class Answering(AuthenticatedAPIView):  # type: ignore[misc]  # as above
    """An app that is signed in: lets a sign-in go on by its number, or refuses it."""

    def post(self, request: HttpRequest, approval_id: UUID) -> HttpResponse:
        """Settle it, once: ``{"answer": "yes", "number": "42"}`` or ``{"answer": "no"}``."""
        user, origin = cast(User, request.user), origin_of(request)
        said: dict[str, Any] = self.data or {}
        answer, number = said.get("answer"), said.get("number", "")
        if answer not in {"yes", "no"} or not isinstance(number, str | int):
            words = _("Answer “yes” with the number, or “no”.")
            return _refused(request, "invalid", words, HTTPStatus.BAD_REQUEST)
        try:
            if answer == "no":
                approvals.deny(user, approval_id, ip=origin.ip, agent=origin.agent)
            else:
                approvals.approve(
                    user,
                    approval_id,
                    str(number)[:20],
                    is_proven=approvals.took_second_step(request, user),
                    ip=origin.ip,
                    agent=origin.agent,
                )
        except approvals.NotProven:
            # Answered with the ways to prove it, as for all that is sensitive.
            raise ReauthenticationRequired from None
        except approvals.NotWaiting:
            words = _("It has been answered already, or is too old.")
            return _refused(request, "not_waiting", words, HTTPStatus.CONFLICT)
        except approvals.WrongNumber:
            words = _("That is not the number, so nobody was let in. Begin again over there.")
            return _refused(request, "wrong_number", words, HTTPStatus.BAD_REQUEST)
        return _answered(request, {"state": "denied" if answer == "no" else "approved"})


def _standing(request: HttpRequest, approval: Approval) -> HttpResponse:
    state = approval_stage.state_of(approval)
    data: dict[str, Any] = {"state": state}
    if state == Approval.State.WAITING:
        data["number"] = approval.number
        data["expires_at"] = approval.expires_at.isoformat(timespec="seconds")
    return _answered(request, data)


def _not_asked(request: HttpRequest) -> HttpResponse:
    return _refused(request, "not_asked", _("Nobody was asked yet."), HTTPStatus.NOT_FOUND)


def _answered(request: HttpRequest, data: dict[str, Any]) -> HttpResponse:
    return cast(HttpResponse, APIResponse(request, data=data))


def _refused(request: HttpRequest, code: str, message: str, status: HTTPStatus) -> HttpResponse:
    error = {"code": code, "message": message}
    return cast(HttpResponse, APIResponse(request, errors=[error], status=status))


def _view(kind: Any) -> Any:
    return kind.as_api_view(client=Client.APP)


ADDRESSES = [
    path("_allauth/app/v1/auth/2fa/approval", _view(Asking), name="app_approval"),
    path("_allauth/app/v1/account/approvals", _view(Waiting), name="app_approvals"),
    path(
        "_allauth/app/v1/account/approvals/<uuid:approval_id>",
        _view(Answering),
        name="app_approval_answer",
    ),
]
