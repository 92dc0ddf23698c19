"""Every way in which a call of the API can end badly, as RFC 9457 writes it."""

from __future__ import annotations

import json
from typing import Any, Final

from django.http import HttpResponse

TITLES: Final[dict[str, tuple[int, str]]] = {
    "bad-request": (400, "The request can't be read"),
    "unauthorized": (401, "The request does not prove who sends it"),
    "reauthentication-required": (403, "Prove again that it is you, then ask again"),
    "forbidden": (403, "This may not be done with this role or token"),
    "not-found": (404, "There is nothing at this address"),
    "method-not-allowed": (405, "This address does not answer this method"),
    "conflict": (409, "This does not fit how things are now"),
    "too-large": (413, "The request is longer than it may be"),
    "invalid": (422, "The request is not as the documentation says"),
    "too-many-requests": (429, "Too many requests"),
    "internal-error": (500, "The server failed"),
    "unavailable": (503, "The server can't answer now"),
}


class Refused(Exception):
    """The call ends here, with this problem."""

    def __init__(self, code: str, detail: str = "", **more: Any) -> None:
        super().__init__(code)
        self.code = code
        self.detail = detail
        self.more = more


def answer(code: str, detail: str = "", **more: Any) -> HttpResponse:
    """Return the problem as it goes over the wire."""
    status, title = TITLES[code]
    content = {
        "type": f"urn:doorward:problem:{code}",
        "title": title,
        "status": status,
        "code": code,
        **({"detail": detail} if detail else {}),
        **more,
    }
    response = HttpResponse(
        json.dumps(content), status=status, content_type="application/problem+json"
    )
    if status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    if status == 503:
        response.headers["Retry-After"] = "5"
    return response
