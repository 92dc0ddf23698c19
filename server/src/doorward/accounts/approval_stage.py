"""Where a sign-in asks to be approved: between the right password and the second step's end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from allauth.account.internal.flows.login import record_authentication
from allauth.account.internal.stagekit import stash_login
from django.utils import timezone

from doorward.accounts import approvals, letting_in, two_factor
from doorward.accounts.models import Approval
from doorward.accounts.origin import origin_of
from doorward.accounts.two_factor import Way

if TYPE_CHECKING:
    from django.http import HttpRequest  # noqa: TID251 - signatures are allauth's

ASKED_BY: Final = "approval"
OVER: Final = "over"


class NobodyToAsk(Exception):
    """No session of this person could approve anything."""


def ask(request: HttpRequest, stage: Any) -> Approval:
    """Ask the person's other sessions. Raises NobodyToAsk and approvals.TooManyPrompts.

    ``stage``: the sign-in's second step (SecondStepStage), which waits.
    """
    user = stage.login.user
    if Way.APPROVAL not in two_factor.standing(user).ways:
        raise NobodyToAsk
    origin = origin_of(request)
    browser = letting_in.known_browser(request, user.email)
    approval = approvals.ask(user, ip=origin.ip, agent=origin.agent, browser=browser)
    stage.state[ASKED_BY] = str(approval.pk)
    stash_login(request, stage.login)
    return approval


def asked_by(stage: Any) -> Approval | None:
    """Return what this sign-in asked last; nothing when it asked nobody."""
    asked = stage.state.get(ASKED_BY) if stage is not None else None
    return approvals.find(stage.login.user, UUID(asked)) if asked else None


def state_of(approval: Approval) -> str:
    """Return how it stands: Approval.State, or OVER when nobody answered or went on in time."""
    has_run_out = timezone.now() >= approval.expires_at
    if has_run_out and approval.state in {Approval.State.WAITING, Approval.State.APPROVED}:
        return OVER
    return str(approval.state)


def use(request: HttpRequest, stage: Any) -> bool:
    """Take the second step by what was approved, once; the caller goes on with ``stage.exit()``."""
    approval = asked_by(stage)
    if approval is None:
        return False
    user, origin = stage.login.user, origin_of(request)
    browser = letting_in.known_browser(request, user.email)
    where = {"ip": origin.ip, "agent": origin.agent}
    if not approvals.use(user, approval.pk, browser=browser, **where):
        return False
    record_authentication(request, user, method=Way.APPROVAL.value)
    return True
