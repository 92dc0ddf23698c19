"""The mailed way around a lock: ask for a link, open it, and this browser is known."""

from __future__ import annotations

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_POST

from doorward.accounts import browsers, unlock
from doorward.accounts.adapter import browser_proof, origin_of, set_browser_cookie


@require_POST
def ask(request: HttpRequest) -> HttpResponse:
    """Mail a link to whoever owns the address; the page is the same where nobody does."""
    address = request.POST.get("email", "")[:254]
    origin = origin_of(request)
    if "@" in address and address.isprintable():
        unlock.ask_for_link(address, ip=origin.ip, agent=origin.agent)
    return render(request, "portal/unlock/asked.html", {"address": address})


@require_http_methods(["GET", "HEAD", "POST"])
def redeem(request: HttpRequest, secret: str) -> HttpResponse:
    """Show what the link does; on POST, once, make this browser known.

    Looking must not use it up: mail programs look at links before their owners do.
    """
    if request.method != "POST":
        works = browsers.is_link(secret)
        return _unkept(
            render(
                request, "portal/unlock/link.html", {"works": works}, status=200 if works else 410
            )
        )
    origin = origin_of(request)
    try:
        proof = browsers.redeem(secret, browser_proof(request), ip=origin.ip, agent=origin.agent)
    except browsers.LinkRefused:
        return _unkept(render(request, "portal/unlock/link.html", {"works": False}, status=410))
    messages.success(request, _("This browser may sign in now."))
    response = redirect("/login/")
    set_browser_cookie(response, proof)
    return _unkept(response)


def _unkept(response: HttpResponse) -> HttpResponse:
    # The secret stands in the address: nobody else may read it there.
    response.headers["Referrer-Policy"] = "no-referrer"
    return response
