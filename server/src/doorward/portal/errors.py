"""Pages for when something is wrong: each says what happened and what to do next."""

from __future__ import annotations

import structlog
from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string
from uuid_utils.compat import uuid7

from doorward.portal import context

log = structlog.get_logger(__name__)


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


def _plainly(template: str, status: int, **more: str) -> HttpResponse:
    # Without the request: no session, no user, no database, for any of them may be what is broken.
    return HttpResponse(render_to_string(template, {**context.brand(), **more}), status=status)
