"""From a right password to a session in one commit: each costs a wait for the disk.

allauth walks through its stages and calls signals in between; whatever they store, they store
together or not at all. What the try took of the limits is given back last.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from allauth.account.internal.flows.email_verification import get_address_for_user
from allauth.account.internal.flows.manage_email import email_already_exists
from allauth.account.models import EmailAddress
from allauth.account.utils import has_verified_email, setup_user_email
from allauth.core.exceptions import ImmediateHttpResponse
from django.conf import settings
from django.contrib.auth import SESSION_KEY
from django.db import transaction

from doorward.accounts import browsers, lockout, signup, two_factor
from doorward.accounts.credentials import Asked, Found
from doorward.accounts.lockout import Try
from doorward.accounts.models import User, canonical_email
from doorward.accounts.origin import origin_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from allauth.account.models import Login
    from allauth.account.stages import LoginStage, LoginStageController
    from django.http import HttpRequest, HttpResponse  # noqa: TID251 - signatures are allauth's

    from doorward.accounts.models import KnownBrowser

BROWSER_HEADER: Final = "X-Known-Browser"
_KEPT_AT: Final = "signing_in_underway"
_STAGES_AT: Final = "stages_made"


@dataclass(frozen=True)
class Tried:
    """What came of an address and a password, in the request that brought them."""

    email: str
    password: str = field(repr=False)
    # Whose they are; nobody's, or refused unchecked.
    found: Found | None = None
    refusal: Exception | None = None


@dataclass
class Underway:
    """What one request knows of the sign-in it serves."""

    # Tries whose password was right, and that still count as failures.
    right: list[Try] = field(default_factory=list)
    # Addresses whose ladder begins anew.
    cleared: list[str] = field(default_factory=list)
    # The browser the person's account knows this one as, by address: asked for once.
    browsers: dict[str, KnownBrowser | None] = field(default_factory=dict)
    # Whether a sign-in would follow a lock episode, by address: asked for once.
    after_lock: dict[str, bool] = field(default_factory=dict)
    # The address and password this request brought: counted and hashed once, however often asked.
    tried: Tried | None = None
    # What somebody who signs up wants to sign in by; None for a passkey.
    new_password: str | None = None

    def asked_of(self, user: User | None) -> Asked | None:
        """Return what is asked of this person; None when it was not found out in this request."""
        found = self.tried.found if self.tried is not None else None
        if found is None or user is None or found.user.pk != user.pk:
            return None
        return found.asked


def underway(request: HttpRequest) -> Underway:
    """Return what this request knows of the sign-in it serves."""
    found: Underway | None = getattr(request, _KEPT_AT, None)
    if found is None:
        found = Underway()
        setattr(request, _KEPT_AT, found)
    return found


def browser_proof(request: HttpRequest) -> str:
    """Return what the browser (by cookie) or app (by header) shows to prove that it is known."""
    shown = request.COOKIES.get(settings.BROWSER_COOKIE_NAME, "")
    return (shown or request.headers.get(BROWSER_HEADER, ""))[:1000]


def known_browser(request: HttpRequest, email: str) -> KnownBrowser | None:
    """Return the browser that the account of this address knows this one as; asked for once."""
    found = underway(request)
    if email not in found.browsers:
        found.browsers[email] = browsers.find(browser_proof(request), email)
    return found.browsers[email]


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
        with _early_answers() as early, transaction.atomic():
            answer: HttpResponse | None = None
            try:
                answer = resume_login(request, login)
            except ImmediateHttpResponse as raised:
                early.append(raised)
            if SESSION_KEY in request.session:
                request.session.save()
            settle(request)
        return answer  # type: ignore[return-value]  # None only where early raised

    return resumed


def signup_in_one_commit(save: Callable[[Any, HttpRequest], User]) -> Callable[..., User]:
    """Return allauth's storing of a new person, all or nothing."""

    def saved(form: Any, request: HttpRequest) -> User:
        with _early_answers() as early, transaction.atomic():
            user: User | None = None
            try:
                user = save(form, request)
            except ImmediateHttpResponse as raised:
                early.append(raised)
        return user  # type: ignore[return-value]  # None only where early raised

    return saved


def pretending(
    prevent_enumeration: Callable[..., HttpResponse],
) -> Callable[..., HttpResponse]:
    """Return allauth's answer to a taken address, as much work as a sign-up (row 18)."""

    def pretended(
        request: HttpRequest, email: str | None = None, phone: str | None = None
    ) -> HttpResponse:
        origin = origin_of(request)
        owner = User.objects.filter(email=canonical_email(email or "")).first()
        signup.pretend(
            owner,
            underway(request).new_password,
            ip=origin.ip,
            agent=origin.agent,
            also=partial(_ask_about, request),
        )
        return prevent_enumeration(request, email=email, phone=phone)

    return pretended


def _ask_about(request: HttpRequest, person: User) -> None:
    # What allauth asks the database about a new person on the way to the mail with the code.
    setup_user_email(request, person, [EmailAddress(email=person.email)])
    two_factor.is_mailed_a_code(person)
    has_verified_email(person)
    get_address_for_user(person)
    email_already_exists(person.email)


@contextmanager
def _early_answers() -> Iterator[list[ImmediateHttpResponse]]:
    # allauth also answers by raising. That is no failure: what was stored before it (a wrong code
    # counted, a mail) must be committed, so it is raised again only after the commit.
    raised: list[ImmediateHttpResponse] = []
    yield raised
    if raised:
        raise raised[0]
