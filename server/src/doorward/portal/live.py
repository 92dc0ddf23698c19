"""Parts of a page that keep themselves up to date: asked for again, and sent only when new."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.template.loader import render_to_string
from django.utils.safestring import SafeString


def answer(
    request: HttpRequest,
    page: str,
    part: str,
    *,
    seen: object,
    context: Callable[[], Mapping[str, Any]],
) -> HttpResponse:
    """Answer with the whole page; to htmx with the live part alone, or 204 when nothing is new.

    ``seen`` is all that the part depends on, cheap to read: while it is the same, the part is
    neither read nor drawn again. ``page`` includes ``{{ live }}`` where the part stands. The part
    carries its tag and sends it in a header, since nothing of a signed-in person may stay in the
    browser's cache.
    """
    tag = hashlib.blake2b(repr(seen).encode("utf-8", "replace"), digest_size=12).hexdigest()
    asked_by_part = request.headers.get("HX-Request") == "true"
    if asked_by_part and request.headers.get("If-None-Match") == f'"{tag}"':
        return tagged(HttpResponse(status=204), tag)
    known = {**context()}
    live = render_to_string(
        "portal/parts/live.html",
        {
            "inside": render_to_string(part, known, request=request),
            "tag": tag,
            "address": request.get_full_path(),
        },
    )
    if asked_by_part:
        return tagged(HttpResponse(live), tag)
    return render(request, page, {**known, "live": live})


def part(request: HttpRequest, template: str, context: Mapping[str, Any]) -> SafeString:
    """Return a part that asks for itself again; it carries its own htmx attributes."""
    return render_to_string(template, {**context}, request=request)


def tagged(response: HttpResponse, tag: str) -> HttpResponse:
    """Return the answer with its tag, for one address that answers people and htmx differently."""
    response.headers["ETag"] = f'"{tag}"'
    response.headers["Vary"] = "HX-Request, Cookie"
    return response
