"""Changing the address somebody signs in with, and the page that takes that back."""

from __future__ import annotations

from typing import Any, cast

from allauth.account.views import EmailView
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.decorators import method_decorator
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from doorward.accounts import email_change
from doorward.accounts.adapter import origin_of
from doorward.accounts.models import User


@method_decorator(login_required, name="dispatch")
class Address(EmailView):  # type: ignore[misc]  # allauth ships no types
    """Shows the address and takes a new one, which counts once its code was typed."""

    def get_context_data(self, **more: Any) -> dict[str, Any]:
        """Add the last change, while it can be taken back."""
        user = cast(User, self.request.user)
        return {**super().get_context_data(**more), "last_change": email_change.last(user)}


address = Address.as_view()


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def undo(request: HttpRequest, secret: str) -> HttpResponse:
    """Show what the link does; on POST, once, take the change of address back.

    Looking must not use it up: mail programs look at links before their owners do.
    """
    if request.method != "POST":
        return _page(request, "ask" if email_change.find(secret) else "ended")
    origin = origin_of(request)
    try:
        undone = email_change.undo(secret, ip=origin.ip, agent=origin.agent)
    except email_change.UndoRefused:
        return _page(request, "ended")
    except email_change.AddressTaken:
        return _page(request, "taken")
    if undone.path:
        messages.success(
            request, _("Your address is back and everybody is signed out. Choose a new password.")
        )
        return _unkept(redirect(undone.path))
    messages.success(request, _("Your address is back and everybody is signed out."))
    return _unkept(redirect("/login/"))


def _page(request: HttpRequest, state: str) -> HttpResponse:
    status = {"ask": 200, "ended": 410, "taken": 409}[state]
    page = render(request, "portal/email_change/undo.html", {"state": state}, status=status)
    return _unkept(page)


def _unkept(response: HttpResponse) -> HttpResponse:
    # The secret stands in the address: nobody else may read it there.
    response.headers["Referrer-Policy"] = "no-referrer"
    return response
