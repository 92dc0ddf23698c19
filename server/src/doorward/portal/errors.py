"""Pages for when something is wrong: each says what happened and what to do next."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit

import structlog
from django.contrib.auth import REDIRECT_FIELD_NAME
from django.contrib.auth.views import redirect_to_login
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.template.loader import render_to_string
from uuid_utils.compat import uuid7

from doorward.accounts.adapter import is_headless_path
from doorward.accounts.hashing import Busy
from doorward.portal import context

log = structlog.get_logger(__name__)
UNSENT: Final = "unsent"


def bad_request(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    """Say that the address or form could not be understood."""
    return _plainly("errors/400.html", 400)


def forbidden(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    """Say that this person may not do this here."""
    return _plainly("errors/403.html", 403)


def not_found(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    """Say that nothing is here, the same for what never was and for what belongs to others."""
    return _plainly("errors/404.html", 404)


def server_error(request: HttpRequest) -> HttpResponse:
    """Say that the mistake is ours, with a number under which the log knows it."""
    number = str(uuid7())
    log.error("portal.error.shown", number=number, path=request.path)
    return _plainly("errors/500.html", 500, number=number)


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    """Say that the page was too old to act on and how to go on; nothing was changed."""
    return _plainly("errors/csrf.html", 403)


def explain_wrong_method(
    get_response: Callable[[HttpRequest], HttpResponse],
) -> Callable[[HttpRequest], HttpResponse]:
    """Give a browser that opened what only a button may send a page, not a blank window.

    One gets there by signing in after a session ended under an open page.
    """

    def answer(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        if response.status_code != 405 or response.streaming or response.content:
            return response
        if "text/html" not in request.headers.get("Accept", ""):
            return response
        page = _plainly("errors/405.html", 405)
        page["Allow"] = response.get("Allow", "")
        return page

    return answer


def tell_the_signed_out(
    get_response: Callable[[HttpRequest], HttpResponse],
) -> Callable[[HttpRequest], HttpResponse]:
    """Lead from a page that was left open while its session ended to signing in, and back to it.

    Where a form was sent there, the sign-in page says that this has not been done.
    """

    def answer(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        if not _leads_to_sign_in(request, response):
            return response
        if request.method == "POST":
            response["Location"] = f"{_sign_in(_page_of(request))}&{UNSENT}=yes"
        if request.headers.get("HX-Request") == "true":
            # Asked by a part of a page: the whole page goes there, and back to the whole page.
            there = response["Location"]
            response["HX-Redirect"] = (
                there if request.method == "POST" else _sign_in(_page_of(request))
            )
            response.status_code = HTTPStatus.NO_CONTENT
            del response["Location"], response["Content-Length"]
        return response

    return answer


def _leads_to_sign_in(request: HttpRequest, response: HttpResponse) -> bool:
    to: str = response.get("Location", "")
    # Nearly every form is answered by a redirect: what tells most of them apart comes first.
    return f"?{REDIRECT_FIELD_NAME}=" in to and to == _sign_in(request.get_full_path())


def was_unsent(request: HttpRequest) -> bool:
    """Tell whether one of our own pages led here by a form that was not done.

    Browsers say who led there; a link from elsewhere shows nothing.
    """
    told = UNSENT in request.GET or UNSENT in request.POST
    return told and request.headers.get("Sec-Fetch-Site") == "same-origin"


def _sign_in(after: str) -> str:
    return redirect_to_login(after).url


def _page_of(request: HttpRequest) -> str:
    # Where the form was; its own address may take nothing but forms.
    page = urlsplit(request.headers.get("Referer", ""))
    if f"{page.scheme}://{page.netloc}" == f"{request.scheme}://{request.get_host()}":
        return page.path
    return request.get_full_path()


class WaitForHashes:
    """Say that there is too much to do where a password could not be checked in time."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Answer."""
        return self.get_response(request)

    def process_exception(self, request: HttpRequest, failure: Exception) -> HttpResponse | None:
        """Return an answer for this failure alone."""
        if not isinstance(failure, Busy):
            return None
        log.warning("portal.hash.busy", why=str(failure))
        if is_headless_path(request):
            response: HttpResponse = JsonResponse({"status": 503}, status=503)
        else:
            response = _plainly("errors/503.html", 503)
        response["Retry-After"] = "10"
        return response


def _plainly(template: str, status: int, **more: str) -> HttpResponse:
    # Without the request: no session, no user, no database, for any of them may be what is broken.
    return HttpResponse(render_to_string(template, {**context.brand(), **more}), status=status)
