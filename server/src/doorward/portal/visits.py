"""Who is looking at which account, and whether they may act there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Concatenate, ParamSpec, cast

from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from doorward.accounts import members
from doorward.accounts.models import Account, User

P = ParamSpec("P")


@dataclass(frozen=True)
class Visit:
    """A signed-in person at an account of theirs."""

    user: User
    account: Account
    role: str

    @property
    def may_change(self) -> bool:
        """Whether this person may add, rename and remove devices; a viewer may only look."""
        return self.role in members.MAY_CHANGE_DEVICES

    def must_change(self) -> None:
        """Raise PermissionDenied unless this person may act."""
        if not self.may_change:
            raise PermissionDenied


def member(
    view: Callable[Concatenate[HttpRequest, Visit, P], HttpResponse],
) -> Callable[Concatenate[HttpRequest, P], HttpResponse]:
    """Let the view answer signed-in members only; others sign in first."""

    @wraps(view)
    def guarded(request: HttpRequest, *args: P.args, **kwargs: P.kwargs) -> HttpResponse:
        user = cast(User, request.user)
        try:
            place = members.place_of(user)
        except members.NoAccount:
            return render(request, "errors/no_account.html", status=403)
        return view(request, Visit(user, place.account, place.role), *args, **kwargs)

    return login_required(guarded)  # type: ignore[return-value]  # django-stubs wants HttpRequest alone
