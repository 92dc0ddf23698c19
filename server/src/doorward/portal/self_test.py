"""The self-test: what this browser, its clock and its way here are like, and starting it afresh."""

from __future__ import annotations

from datetime import timedelta
from typing import Final
from urllib.parse import urlsplit

from csp.constants import SELF
from csp.decorators import csp_update
from django.conf import settings
from django.contrib import messages
from django.contrib.auth import logout
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_POST, require_safe

from doorward.portal import cookies

VALUE: Final = "here"
_device = urlsplit(settings.DEVICE_URL)
DEVICE_DOOR: Final = f"{_device.scheme}://{_device.netloc}"


@require_safe
@csp_update({"connect-src": [SELF, DEVICE_DOOR]})
def page(request: HttpRequest) -> HttpResponse:
    """Show the page; its script looks at the browser and asks ``answer``."""
    inside = request.user.is_authenticated
    context = {
        "frame": f"portal/help/{'inside' if inside else 'outside'}.html",
        "heading": gettext_lazy("Does this browser work?"),
        "summary": gettext_lazy("It looks by itself. Nothing about it is kept or sent on."),
        "icon": "check",
        "device_door": f"{DEVICE_DOOR}/health/live",
        "device_door_apart": f"{DEVICE_DOOR}" != settings.SITE_URL,
    }
    response = render(request, "portal/help/self-test.html", context)
    cookies.keep(response, settings.SELF_TEST_COOKIE_NAME, VALUE, lasts=timedelta(minutes=10))
    return response


@require_safe
def answer(request: HttpRequest) -> JsonResponse:
    """Tell what the browser sent along, and the time here in milliseconds since 1970."""
    return JsonResponse(
        {
            "cookie": request.COOKIES.get(settings.SELF_TEST_COOKIE_NAME) == VALUE,
            "now": round(timezone.now().timestamp() * 1000),
        }
    )


@require_POST
def clear(request: HttpRequest) -> HttpResponse:
    """Have the browser forget what it keeps of this site, and sign out here.

    That this browser is known stays: during a lock it is what lets the owner in.
    """
    logout(request)
    messages.success(request, _("Cleared. The site starts afresh in this browser."))
    response = redirect("/login/")
    response.headers["Clear-Site-Data"] = '"cache", "storage"'
    response.delete_cookie(settings.CSRF_COOKIE_NAME)
    response.delete_cookie(settings.REMEMBERED_COOKIE_NAME)
    response.delete_cookie(settings.SELF_TEST_COOKIE_NAME)
    return response
