"""Who is looking at which account, and whether they may act there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Concatenate, Final, ParamSpec, cast

from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from doorward.accounts.models import Account, Membership, Role, User

P = ParamSpec("P")
_MAY_CHANGE: Final = {Role.OWNER, Role.HELPER}


@dataclass(frozen=True)
class Visit:
    """A signed-in person at an account of theirs."""

    user: User
    account: Account
    role: str

    @property
    def may_change(self) -> bool:
        """Whether this person may add, rename and remove devices; a viewer may only look."""
        return self.role in _MAY_CHANGE

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
        membership = (
            Membership.objects.select_related("account")
            .filter(user=user)
            .order_by("created_at", "account_id")
            .first()
        )
        if membership is None:
            return render(request, "errors/no_account.html", status=403)
        return view(request, Visit(user, membership.account, membership.role), *args, **kwargs)

    return login_required(guarded)  # type: ignore[return-value]  # django-stubs wants HttpRequest alone
