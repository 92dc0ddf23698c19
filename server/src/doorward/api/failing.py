"""What a call is answered that can't be answered: always a problem (RFC 9457), and no insides."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import wraps
from typing import Any

import structlog
from django.core.exceptions import RequestDataTooBig
from django.db import InterfaceError, OperationalError
from django.http import Http404, HttpRequest, HttpResponse
from django.utils import timezone
from ninja import NinjaAPI
from ninja.errors import AuthenticationError, HttpError, ValidationError

from doorward.accounts import members, sessions
from doorward.api import problems
from doorward.api.problems import Refused
from doorward.reports import queries as reports

log = structlog.get_logger(__name__)


def answer_problems(api: NinjaAPI) -> None:
    """Have the API answer each of its own errors as a problem."""
    api.exception_handler(Refused)(_refused)
    api.exception_handler(members.NotAllowed)(_not_allowed)
    api.exception_handler(AuthenticationError)(_unauthorized)
    api.exception_handler(sessions.Overtaken)(_overtaken)
    api.exception_handler(ValidationError)(_invalid)
    api.exception_handler(reports.InvalidCursor)(_bad_cursor)
    api.exception_handler(HttpError)(_http_error)
    api.exception_handler(Http404)(_missing)


def _refused(_request: HttpRequest, refused: Refused) -> HttpResponse:
    return problems.answer(refused.code, refused.detail, **refused.more)


def _not_allowed(_request: HttpRequest, _error: members.NotAllowed) -> HttpResponse:
    # Taken away while the call was under way: as if it had been before.
    return problems.answer("forbidden", "Your role in this account does not allow this any more.")


def _unauthorized(_request: HttpRequest, _error: AuthenticationError) -> HttpResponse:
    return problems.answer("unauthorized")


def _overtaken(_request: HttpRequest, _error: sessions.Overtaken) -> HttpResponse:
    return problems.answer("unauthorized", "Something changed meanwhile. Sign in again.")


def _invalid(_request: HttpRequest, error: ValidationError) -> HttpResponse:
    # Without what was sent: it may be long, and may be a secret in the wrong place.
    fields = [
        {"at": [_place(part) for part in wrong["loc"]], "problem": str(wrong["msg"])[:200]}
        for wrong in error.errors[:50]
    ]
    return problems.answer("invalid", fields=fields)


def _bad_cursor(_request: HttpRequest, _error: reports.InvalidCursor) -> HttpResponse:
    at = {"at": ["query", "cursor"], "problem": "not a cursor of this list"}
    return problems.answer("invalid", fields=[at])


def _http_error(_request: HttpRequest, error: HttpError) -> HttpResponse:
    known = {status: code for code, (status, _title) in problems.TITLES.items()}
    return problems.answer(known.get(error.status_code, "bad-request"), str(error)[:200])


def _missing(_request: HttpRequest, _error: Http404) -> HttpResponse:
    return problems.answer("not-found")


def _place(part: object) -> str | int:
    return part if isinstance(part, int) else str(part)[:100]


def guarded(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
    """Have the view answer a problem where Django or ninja would answer a page or plain text."""

    @wraps(view)
    def answer(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        begun: datetime = timezone.now()
        try:
            response = view(request, *args, **kwargs)
        except RequestDataTooBig:
            response = problems.answer("too-large")
        except (OperationalError, InterfaceError):
            log.exception("api.unavailable", path=request.path)
            response = problems.answer("unavailable")
        except Exception:
            log.exception("api.failed", path=request.path, begun=begun.isoformat())
            response = problems.answer("internal-error")
        if response.status_code == 405:
            allow = response.headers.get("Allow", "")
            response = problems.answer("method-not-allowed")
            response.headers["Allow"] = allow
        response.headers["Cache-Control"] = "no-store"
        return response

    return answer
