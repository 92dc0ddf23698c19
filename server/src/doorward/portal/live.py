"""Parts of a page that keep themselves up to date: asked for again, sent only when changed."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any, Final

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.template.loader import render_to_string

# The browser lets ages walk by itself; an older age alone is no news.
_AGES: Final = re.compile(r"<span data-ago>[^<]*</span>")
_CSRF: Final = re.compile(r'name="csrfmiddlewaretoken" value="[^"]*"')


def answer(
    request: HttpRequest, page: str, part: str, context: Mapping[str, Any], *, status: int = 200
) -> HttpResponse:
    """Answer with the whole page; to htmx with the live part alone, or 204 when it has not changed.

    ``page`` includes ``{{ live }}`` where the part stands. The part carries its tag and sends it
    in a header, since nothing of a signed-in person may stay in the browser's cache.
    """
    inside = render_to_string(part, {**context}, request=request)
    tag = tag_of(inside)
    asked_by_part = request.headers.get("HX-Request") == "true"
    if asked_by_part and request.headers.get("If-None-Match") == f'"{tag}"':
        return _tagged(HttpResponse(status=204), tag)
    live = render_to_string(
        "portal/parts/live.html",
        {"inside": inside, "tag": tag, "address": request.get_full_path()},
    )
    if asked_by_part:
        return _tagged(HttpResponse(live), tag)
    return render(request, page, {**context, "live": live}, status=status)


def part(request: HttpRequest, template: str, context: Mapping[str, Any]) -> str:
    """Return a part that asks for itself again; it carries its own htmx attributes."""
    return render_to_string(template, {**context}, request=request)


def tag_of(inside: str) -> str:
    """Return the fingerprint of what a part says, ages aside."""
    told = _CSRF.sub("", _AGES.sub("", inside))
    return hashlib.blake2b(told.encode("utf-8", "replace"), digest_size=12).hexdigest()


def _tagged(response: HttpResponse, tag: str) -> HttpResponse:
    response.headers["ETag"] = f'"{tag}"'
    response.headers["Vary"] = "HX-Request, Cookie"
    return response
