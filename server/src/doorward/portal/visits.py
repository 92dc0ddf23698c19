"""Who is looking at which account, and whether they may act there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property, wraps
from typing import Concatenate, Final, ParamSpec, cast
from uuid import UUID

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _

from doorward.accounts import leaving, members, permissions, signup
from doorward.accounts.models import Account, Membership, User
from doorward.accounts.permissions import Act
from doorward.devices import sharing
from doorward.devices.sharing import Sight

P = ParamSpec("P")
LOOKED_AT: Final = "account"
"""Where a session keeps which account its person looks at."""


@dataclass(frozen=True)
class Visit:
    """A signed-in person at an account of theirs."""

    user: User
    account: Account
    role: str
    places: tuple[Membership, ...] = ()
    """All places of the person, this one among them."""

    def may(self, act: Act) -> bool:
        """Tell whether this person may do this here."""
        return permissions.may(self.role, act)

    def must(self, act: Act) -> None:
        """Raise PermissionDenied unless this person may do this here."""
        if not self.may(act):
            raise PermissionDenied

    @property
    def may_change(self) -> bool:
        """Whether this person may add, rename and remove devices; a viewer may only look."""
        return self.may(Act.DEVICES_CHANGE)

    @property
    def may_decide(self) -> bool:
        """Whether this person decides who belongs to the account."""
        return self.may(Act.MEMBERS_CHANGE)

    @property
    def may_pay(self) -> bool:
        """Whether this person may change what is paid for."""
        return self.may(Act.SUBSCRIPTION_CHANGE)

    def must_change(self) -> None:
        """Raise PermissionDenied unless this person may act."""
        self.must(Act.DEVICES_CHANGE)

    @property
    def place(self) -> Membership:
        """This person's place in the account they look at."""
        return next(place for place in self.places if place.account_id == self.account.pk)

    @cached_property
    def goes_at(self) -> datetime | None:
        """When the account is deleted, where its owner asked for that; nothing for the owner.

        Who asked is shown what stops it, on every page. Takes one query, once; for an owner none.
        """
        return None if self.may_decide else leaving.goes_at(self.account)

    @property
    def elsewhere(self) -> list[Membership]:
        """The person's places in other accounts, to switch to."""
        return [place for place in self.places if place.account_id != self.account.pk]

    @cached_property
    def name(self) -> str:
        """What to call the account, where there are several."""
        return members.names_of([self.place])[self.account.pk]

    @cached_property
    def sight(self) -> Sight:
        """The account as this person may see it: what every read of devices' reports begins with.

        Takes one query, once.
        """
        return sharing.of(self.account, self.user)


Page = Callable[Concatenate[HttpRequest, Visit, P], HttpResponse]


def may(act: Act) -> Callable[[Page[P]], Callable[Concatenate[HttpRequest, P], HttpResponse]]:
    """Let the view answer only signed-in members whose role allows this act; others sign in first.

    Somebody without the right gets the page that says so, before the view does anything.
    """

    def decorate(view: Page[P]) -> Callable[Concatenate[HttpRequest, P], HttpResponse]:
        @wraps(view)
        def guarded(request: HttpRequest, *args: P.args, **kwargs: P.kwargs) -> HttpResponse:
            user = cast(User, request.user)
            visit = visit_of(request, user)
            if visit is None:
                found_own = signup.owns_none(user)
                return render(request, "errors/no_account.html", {"may": found_own}, status=403)
            visit.must(act)
            if _meant_another(request, visit):
                return _looking_elsewhere(request)
            try:
                return view(request, visit, *args, **kwargs)
            except members.NotAllowed:
                # Taken away while the request was under way: as if it had been before.
                raise PermissionDenied from None

        guarded.act = act  # type: ignore[attr-defined]  # read by the test of all routes
        return login_required(guarded)  # type: ignore[return-value]  # wants HttpRequest alone

    return decorate


member = may(Act.LOOK)
"""For pages that every member may see and that change nothing but the person's own."""


def visit_of(request: HttpRequest, user: User) -> Visit | None:
    """Return the visit at the account this session looks at; nothing for who belongs to none.

    A session keeps its account until its person chooses another or no longer belongs to it, so that
    choosing elsewhere moves no open page.
    """
    places = members.places_of(user)
    if not places:
        return None
    kept = request.session.get(LOOKED_AT)
    place = next((place for place in places if str(place.account_id) == kept), None)
    if place is None:
        place = members.begin_at(places)
        if len(places) > 1:
            look_at(request, place.account_id)
    return Visit(user, place.account, place.role, tuple(places))


def look_at(request: HttpRequest, account: UUID) -> None:
    """Have this session look at this account from now on."""
    request.session[LOOKED_AT] = str(account)


def _meant_another(request: HttpRequest, visit: Visit) -> bool:
    # A form of another tab, opened before the person switched accounts here.
    meant = request.POST.get(LOOKED_AT, "") if request.method == "POST" else ""
    return bool(meant) and meant != str(visit.account.pk)


def _looking_elsewhere(request: HttpRequest) -> HttpResponse:
    messages.error(
        request,
        _("Nothing was changed: that page was of another account than the one you look at now."),
    )
    return redirect("/")
