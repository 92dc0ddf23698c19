"""Small files that browsers ask for: the app's manifest, its worker, and the operator's colors."""

from __future__ import annotations

import json
import re
from typing import Final

from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.template.loader import render_to_string
from django.templatetags.static import static
from django.views.decorators.http import require_safe

from doorward.portal import context

_COLOR: Final = re.compile(r"#[0-9a-fA-F]{6}")
DUSK_RAISED: Final = "#1c424d"
"""The lightest ground of the rail (tokens.css); what is seen on it is seen on all of the rail."""
_DAY: Final = "public, max-age=86400"


@require_safe
def manifest(request: HttpRequest) -> HttpResponse:
    """Describe the installable app."""
    sizes = {"icon-192": "192x192", "icon-512": "512x512"}
    icons = [
        {"src": static(f"portal/{name}.png"), "sizes": size, "type": "image/png"}
        for name, size in sizes.items()
    ]
    icons.append(
        {
            "src": static("portal/icon-maskable.png"),
            "sizes": "512x512",
            "type": "image/png",
            "purpose": "maskable",
        }
    )
    answer = JsonResponse(
        {
            "name": settings.PRODUCT_NAME,
            "short_name": settings.PRODUCT_NAME,
            "id": "/",
            "start_url": "/",
            "scope": "/",
            "display": "standalone",
            "background_color": "#10303a",
            "theme_color": "#10303a",
            "icons": icons,
        },
        content_type="application/manifest+json",
    )
    answer.headers["Cache-Control"] = _DAY
    return answer


@require_safe
def worker(request: HttpRequest) -> HttpResponse:
    """Send the worker that shows the offline page; it keeps nothing of any person."""
    names = ("tokens.css", "base.css", "components.css", "icons.svg", "portal.js")
    kept = ["/offline/", *(static(f"portal/{name}") for name in names)]
    script = render_to_string("portal/worker.js", {"kept": json.dumps(kept)})
    answer = HttpResponse(script, content_type="text/javascript; charset=utf-8")
    answer.headers["Cache-Control"] = "no-cache"
    return answer


@require_safe
def offline(request: HttpRequest) -> HttpResponse:
    """Show what the worker keeps for when there is no connection."""
    page = render_to_string("errors/offline.html", context.brand())
    answer = HttpResponse(page)
    answer.headers["Cache-Control"] = "no-cache"
    return answer


@require_safe
def theme(request: HttpRequest) -> HttpResponse:
    """Send the operator's accent color, with text in a color that can be read on it."""
    answer = HttpResponse(brand_css(settings.BRAND_COLOR), content_type="text/css; charset=utf-8")
    answer.headers["Cache-Control"] = _DAY
    return answer


def brand_css(color: str) -> str:
    """Return the tokens for an accent color ``#rrggbb``; nothing for any other text."""
    if not _COLOR.fullmatch(color):
        return ""
    # One of these has 4.5:1 on any color; the first that has is taken.
    on = next(text for text in ("#14282d", "#ffffff", "#000000") if contrast(color, text) >= 4.5)
    lit = f"color-mix(in srgb, {color} 88%, {'black' if on == '#ffffff' else 'white'})"
    return (
        f":root {{ --brand-lamp: {color}; --brand-lamp-lit: {lit};"
        f" --brand-on-lamp: {on}; --brand-mark: {color}; --brand-far: {_seen_afar(color)}; }}\n"
    )


def _seen_afar(color: str) -> str:
    """Return the color, lightened until it can be seen on the lightest part of the rail."""
    parts = [int(color[at : at + 2], 16) for at in (1, 3, 5)]
    lighter = color
    for step in range(1, 21):
        if contrast(lighter, DUSK_RAISED) >= 4.5:
            break
        lighter = "#" + "".join(f"{round(part + (255 - part) * step / 20):02x}" for part in parts)
    return lighter


def contrast(one: str, other: str) -> float:
    """Return how far two colors stand apart (WCAG 2.2), 1 to 21."""
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def luminance(color: str) -> float:
    """Return the relative luminance of ``#rrggbb`` (WCAG 2.2), 0 to 1."""
    parts = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
