"""Asks again who it is before what weighs much, and leads back to the form afterwards.

allauth keeps the request that was asked about, with all that was typed, the cookies and the
server's environment, in the session's row, and carries it out after the proof. Here nothing of a
request is kept but where its form is: whoever holds a stolen session can't have the owner's proof
carry out what they sent, and a copy of the database tells nobody what was typed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Concatenate, Final, ParamSpec, TypeVar, cast
from urllib.parse import urlencode

from allauth.account.internal.flows import reauthentication
from allauth.core.internal import httpkit
from django.contrib import messages
from django.contrib.auth import REDIRECT_FIELD_NAME
from django.urls import reverse
from django.utils.translation import gettext as _

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponse  # noqa: TID251 - signatures are allauth's

P = ParamSpec("P")
Answer = TypeVar("Answer")

KEPT: Final = reauthentication.STATE_SESSION_KEY
"""Under which allauth kept whole requests, and we keep where something was not done yet."""
LONGEST: Final = 200
"""Characters of an address that are kept: enough for each of ours."""


def is_due(request: HttpRequest) -> bool:
    """Tell whether the person would be asked now."""
    return bool(reauthentication.is_reauthentication_required(request, app=""))


def first(request: HttpRequest, *, form_at: str = "", is_filled_in: bool = False) -> None:
    """Return only when the person has just proved who they are; else they are asked.

    Afterwards they are led to ``form_at``, where the form is: needed where this address has none.
    Where it ``is_filled_in`` there, they are told that only its button is left to press.
    """
    request.form_at = form_at  # type: ignore[attr-defined]  # both are read by suspend
    request.form_is_filled_in = is_filled_in  # type: ignore[attr-defined]
    reauthentication.raise_if_reauthentication_required(request, app="")


def required(
    form_at: str,
) -> Callable[
    [Callable[Concatenate[HttpRequest, P], Answer]],
    Callable[Concatenate[HttpRequest, P], Answer],
]:
    """Have the view answer only who has just proved who they are; others come to ``form_at``."""

    def decorate(
        view: Callable[Concatenate[HttpRequest, P], Answer],
    ) -> Callable[Concatenate[HttpRequest, P], Answer]:
        @wraps(view)
        def asking(request: HttpRequest, /, *args: P.args, **kwargs: P.kwargs) -> Answer:
            first(request, form_at=form_at)
            return view(request, *args, **kwargs)

        return asking

    return decorate


def suspend(request: HttpRequest, redirect_to: str) -> HttpResponse:
    """Lead to where it is asked, and from there to the form: nothing that was sent is kept."""
    form_at = getattr(request, "form_at", "") or request.get_full_path()
    if not request.user.is_authenticated:
        redirect_to = reverse("account_login")
    elif request.method not in {"GET", "HEAD"} or form_at != request.get_full_path():
        filled_in = getattr(request, "form_is_filled_in", False)
        request.session[KEPT] = {"not_done_at": form_at[:LONGEST], "is_filled_in": filled_in}
    else:
        request.session.pop(KEPT, None)
    asked_at = f"{redirect_to}?{urlencode({REDIRECT_FIELD_NAME: form_at})}"
    return cast("HttpResponse", httpkit.redirect(asked_at))


def resume(request: HttpRequest) -> HttpResponse | None:
    """Lead to the form, once it is proved who it is; say so where it has to be done once more."""
    from allauth.account.utils import get_next_redirect_url

    kept = request.session.pop(KEPT, None)
    url = cast(str | None, get_next_redirect_url(request, REDIRECT_FIELD_NAME))
    if not url:
        return None
    # A row written before may hold anything there.
    if isinstance(kept, dict) and kept.get("not_done_at") == url[:LONGEST]:
        if kept.get("is_filled_in"):
            words = _("Thank you. Nothing is saved yet: look once more, then press the button.")
        else:
            words = _("Thank you. Nothing was done yet: now do it again.")
        messages.info(request, words)
    return cast("HttpResponse", httpkit.redirect(url))
