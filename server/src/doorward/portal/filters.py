"""Narrowing a list by links that can be kept: each value of a filter is an address of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from django.core.exceptions import BadRequest
from django.http import QueryDict
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

PLACES: Final = ("at", "before", "after")
"""Where in a list one is: another filter begins it anew."""


@dataclass(frozen=True)
class Choice:
    """One value of a filter, as the link that sets it."""

    words: str | Promise
    link: str
    is_chosen: bool


@dataclass(frozen=True)
class Filter:
    """One thing a list can be narrowed by."""

    name: str | Promise
    choices: list[Choice]


def one_of(asked: QueryDict, key: str, known: Mapping[str, object]) -> str:
    """Return the filter's value as asked, empty without one. Raises BadRequest for another."""
    value = asked.get(key, "")
    if value and value not in known:
        raise BadRequest(key)
    return value


def link(asked: QueryDict, **changes: str) -> str:
    """Return the address of the same list with these values; an empty one takes its filter away."""
    query = asked.copy()
    for place in PLACES:
        query.pop(place, None)
    for key, value in changes.items():
        query[key] = value
        if not value:
            del query[key]
    return f"?{query.urlencode()}"


def by(
    asked: QueryDict, name: str | Promise, key: str, values: Mapping[str, str | Promise]
) -> Filter:
    """Return the filter with a link for each value, and one for all."""
    chosen = asked.get(key, "")
    choices = [Choice(_("All"), link(asked, **{key: ""}), not chosen)]
    choices += [
        Choice(words, link(asked, **{key: value}), value == chosen)
        for value, words in values.items()
    ]
    return Filter(name, choices)
