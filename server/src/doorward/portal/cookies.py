"""What a browser keeps for its person: sent back to this host alone, and read by no script."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from django.conf import settings
from django.contrib.sessions.middleware import SessionMiddleware
from django.http import HttpRequest, HttpResponse
from django.utils.cache import patch_vary_headers

YEAR: Final = timedelta(days=365)


def keep(response: HttpResponse, name: str, value: str, *, lasts: timedelta) -> None:
    """Have the browser keep this; `name` is one of the settings, which have the prefix."""
    response.set_cookie(
        name,
        value,
        max_age=int(lasts.total_seconds()),
        secure=settings.SECURE,
        httponly=True,
        samesite="Lax",
    )


class Sessions(SessionMiddleware):
    """Django's sessions; but an answer takes no cookie away that its request did not bring.

    A proof of who one is gives the session a new id. What the same page asked in that moment still
    comes by the old one, and the answer to it may be the later of the two: were it to say that
    there is no such session any more, the browser would throw away the new cookie, which has the
    same name, and its person would be signed out for having proved who they are.
    """

    def process_response(self, request: HttpRequest, response: HttpResponse) -> HttpResponse:
        """Add the session's cookie, or take it away where this request ended the session."""
        if getattr(request.session, "was_not_there", False) and request.session.is_empty():
            patch_vary_headers(response, ("Cookie",))
            return response
        return super().process_response(request, response)
