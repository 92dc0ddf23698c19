"""Reads what happened, for the people it happened to."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import Any, Final
from uuid import UUID

from django.db.models import Q, QuerySet

from doorward.audit.models import Event

PAGE: Final = 30


@dataclass(frozen=True)
class Page:
    """Events, the newest first; ``older`` is where the next page begins, 0 when there is none."""

    events: Sequence[Event]
    older: int


def page(
    *,
    person: UUID,
    account: UUID | None = None,
    kinds: Collection[str] = (),
    before: int = 0,
    size: int = PAGE,
) -> Page:
    """Return what this person did or had done to them, and what happened in ``account`` if given.

    ``kinds`` are beginnings of tags; none means all. ``before`` is another page's ``older``.
    Takes two queries, each along an index of its own: one with "or" would sort everything.
    """
    found = {event.pk: event for event in _rows(Q(actor_id=person), kinds, before, size)}
    if account is not None:
        found |= {event.pk: event for event in _rows(Q(account_id=account), kinds, before, size)}
    newest = sorted(found.values(), key=lambda event: event.pk, reverse=True)
    shown = newest[:size]
    return Page(shown, shown[-1].pk if len(newest) > size else 0)


def detail(event: Event) -> dict[str, Any]:
    """Return what else the event says."""
    found: dict[str, Any] = json.loads(event.detail)
    return found


def _rows(whose: Q, kinds: Collection[str], before: int, size: int) -> QuerySet[Event]:
    rows = Event.objects.filter(whose).order_by("-id")
    if kinds:
        rows = rows.filter(reduce(or_, (Q(tag__startswith=kind) for kind in kinds)))
    if before:
        rows = rows.filter(id__lt=before)
    return rows[: size + 1]
