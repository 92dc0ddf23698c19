"""Headers that every answer of the portal carries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from csp.constants import HEADER as CSP_HEADER
from csp.middleware import CheckableLazyObject, CSPMiddleware
from csp.utils import build_policy
from django.conf import settings
from django.http import FileResponse, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.utils.http import content_disposition_header

DOWNLOAD: Final = "default-src 'none'; sandbox"
AnyResponse = TypeVar("AnyResponse", HttpResponse, FileResponse)


def as_download(response: AnyResponse, name: str) -> AnyResponse:
    """Have the browser store the answer under this name, and never open it as a page of ours."""
    response.headers["Content-Disposition"] = content_disposition_header(True, name) or "attachment"
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Content-Security-Policy"] = DOWNLOAD
    response.headers["Cache-Control"] = "no-store"
    return response


# Parts of an address that open something: who was mailed it alone may know them (ASVS 14.2.1).
SECRETS: Final = frozenset({"secret", "key", "proof"})
# Not the cookies: who signs out still owns a browser that is known.
FORGET: Final = '"cache", "storage"'
REPORTS: Final = "/policy-reports/"


def signed_out(sender: object, request: HttpRequest | None, **_more: object) -> None:
    """Note that this request ended its session, for the answer's headers."""
    if request is not None:
        request.META["doorward.signed_out"] = True


class ContentPolicy(CSPMiddleware):
    """django-csp's header; one that is the same for every answer is put together once."""

    _made: tuple[object, str] = (None, "")

    def process_response(
        self, request: HttpRequest, response: HttpResponseBase
    ) -> HttpResponseBase:
        """Add the policy of this answer, or the one that holds where an answer asks for nothing."""
        if getattr(request, "_csp_nonce", None) is not None or any(
            name.startswith("_csp") for name in vars(response)
        ):
            return super().process_response(request, response)
        if CSP_HEADER not in response:
            response.headers[CSP_HEADER] = self._usual()
        # As django-csp leaves it: who asks for a nonce now is told that it is too late.
        request.csp_nonce = CheckableLazyObject(self._csp_nonce_post_response)  # type: ignore[attr-defined]  # django-csp's
        return response

    def _usual(self) -> str:
        policy = settings.CONTENT_SECURITY_POLICY
        made_of, text = self._made
        if made_of is not policy:
            text = build_policy()
            self._made = (policy, text)
        return text


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
        response.headers.setdefault("X-Frame-Options", "DENY")
        if not request.path.startswith("/static/"):
            response.headers.setdefault("Cache-Control", "no-store")
        response.headers.setdefault("Reporting-Endpoints", f'policy="{REPORTS}"')
        if "attachment" in response.headers.get("Content-Disposition", ""):
            # Whatever view it is of: a file is stored, and never opened as a page of ours.
            response.headers["Content-Security-Policy"] = DOWNLOAD
        if request.META.get("doorward.signed_out"):
            response.headers["Clear-Site-Data"] = FORGET
        match = request.resolver_match
        if match is not None and not SECRETS.isdisjoint(match.kwargs):
            response.headers["Referrer-Policy"] = "no-referrer"
        return response
