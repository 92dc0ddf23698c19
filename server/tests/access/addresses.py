"""Every address the people's door answers, as the resolver knows them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.urls import URLPattern, get_resolver

APPS = "_allauth/app/v1/"


def every_address() -> Iterator[tuple[str, str, Any]]:
    """Return name with namespaces, route and view of each; one named twice only as it answers."""
    seen: set[str] = set()
    for name, route, view in _within(get_resolver().url_patterns, "", ()):
        if name not in seen:
            seen.add(name)
            yield name, route, view


def _within(
    patterns: list[Any], before: str, spaces: tuple[str, ...]
) -> Iterator[tuple[str, str, Any]]:
    for each in patterns:
        route = before + str(each.pattern)
        if isinstance(each, URLPattern):
            yield ":".join((*spaces, each.name or route)), route, each.callback
        else:
            inside = (*spaces, each.namespace) if each.namespace else spaces
            yield from _within(each.url_patterns, route, inside)
