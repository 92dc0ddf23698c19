"""Headers that every answer of the portal carries."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from django.http import FileResponse, HttpRequest, HttpResponse
from django.utils.http import content_disposition_header

AnyResponse = TypeVar("AnyResponse", HttpResponse, FileResponse)


def as_download(response: AnyResponse, name: str) -> AnyResponse:
    """Have the browser store the answer under this name, and never open it as a page of ours."""
    response.headers["Content-Disposition"] = content_disposition_header(True, name) or "attachment"
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Content-Security-Policy"] = "default-src 'none'; sandbox"
    response.headers["Cache-Control"] = "no-store"
    return response


class SecurityHeaders:
    """Nothing a person saw stays in a cache; no page gets rights in the browser unasked."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Answer with the headers added; a view that set its own keeps it."""
        response = self._get_response(request)
        response.headers.setdefault(
            "Permissions-Policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=()"
        )
        response.headers.setdefault("Cross-Origin-Resource-Policy", "same-origin")
        if not request.path.startswith("/static/"):
            response.headers.setdefault("Cache-Control", "no-store")
        return response
