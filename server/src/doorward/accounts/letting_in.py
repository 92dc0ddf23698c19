"""From a right password to a session in one commit: each costs a wait for the disk.

allauth walks through its stages and calls signals in between; whatever they store, they store
together or not at all. What the try took of the limits is given back last.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from allauth.core.exceptions import ImmediateHttpResponse
from django.contrib.auth import SESSION_KEY
from django.db import transaction

from doorward.accounts import lockout
from doorward.accounts.credentials import Asked, Found
from doorward.accounts.lockout import Try

if TYPE_CHECKING:
    from collections.abc import Callable

    from allauth.account.models import Login
    from allauth.account.stages import LoginStage, LoginStageController
    from django.http import HttpRequest, HttpResponse  # noqa: TID251 - signatures are allauth's

    from doorward.accounts.models import KnownBrowser, User

_KEPT_AT: Final = "signing_in_underway"
_STAGES_AT: Final = "stages_made"


@dataclass
class Underway:
    """What one request knows of the sign-in it serves."""

    # Tries whose password was right, and that still count as failures.
    right: list[Try] = field(default_factory=list)
    # Addresses whose ladder begins anew.
    cleared: list[str] = field(default_factory=list)
    # The browser the person's account knows this one as, by address: asked for once.
    browsers: dict[str, KnownBrowser | None] = field(default_factory=dict)
    # Whose password was right in this very request, and what else is asked of them.
    found: Found | None = None

    def asked_of(self, user: User | None) -> Asked | None:
        """Return what is asked of this person; None when it was not found out in this request."""
        if self.found is None or user is None or self.found.user.pk != user.pk:
            return None
        return self.found.asked


def underway(request: HttpRequest) -> Underway:
    """Return what this request knows of the sign-in it serves."""
    found: Underway | None = getattr(request, _KEPT_AT, None)
    if found is None:
        found = Underway()
        setattr(request, _KEPT_AT, found)
    return found


def settle(request: HttpRequest) -> None:
    """Give back what right passwords took; a second call changes nothing.

    Called by in_one_commit; and by the middleware, should something have come in between.
    """
    found: Underway | None = getattr(request, _KEPT_AT, None)
    if found is None or not (found.right or found.cleared):
        return
    with transaction.atomic(savepoint=False):
        for attempt in found.right:
            lockout.right(attempt)
        for address in found.cleared:
            lockout.clear(address)
    found.right.clear()
    found.cleared.clear()


def is_never_limited(_request: HttpRequest, _login: Login) -> bool:
    """Return False, in allauth's place: mails that confirm are counted when they are sent.

    allauth would look up the address to ask a limit that settings.ACCOUNT_RATE_LIMITS leaves to us
    ("confirm_email").
    """
    return False


def get_stages(
    theirs: Callable[[LoginStageController], list[LoginStage]],
) -> Callable[[LoginStageController], list[LoginStage]]:
    """Return allauth's list of a sign-in's stages, made once for each walk through them.

    It is asked for five times in a sign-in. What the stages remember is kept in the sign-in itself.
    """

    def once(controller: LoginStageController) -> list[LoginStage]:
        made: list[LoginStage] | None = getattr(controller, _STAGES_AT, None)
        if made is None:
            made = theirs(controller)
            setattr(controller, _STAGES_AT, made)
        return made

    return once


def in_one_commit(
    resume_login: Callable[[HttpRequest, Login], HttpResponse],
) -> Callable[[HttpRequest, Login], HttpResponse]:
    """Return allauth's way through the stages of a sign-in, all or nothing."""

    def resumed(request: HttpRequest, login: Login) -> HttpResponse:
        early: ImmediateHttpResponse | None = None
        answer: Any = None
        with transaction.atomic():
            try:
                answer = resume_login(request, login)
            except ImmediateHttpResponse as raised:
                # An answer like others: what was stored before it (a wrong code counted) stays.
                early = raised
            if SESSION_KEY in request.session:
                request.session.save()
            settle(request)
        if early is not None:
            raise early
        return answer  # type: ignore[no-any-return]  # allauth ships no types

    return resumed
