"""Takes the personal part out of events, so that the chain still holds and tells of it.

The decision is in docs/adr (what stays of a person's events). Each event keeps when and which, and
the marks its digest is over; whose it was and what else it said go, with the salts, so that nobody
can find them again by trying. One event of its own tells how many were erased and their sum: an
event emptied by anybody else makes ``trail.verify`` fail.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import Final, Literal
from uuid import UUID

from django.db import connection, transaction
from django.db.models import Q

from doorward.audit import trail
from doorward.audit.models import Event

MOST_AT_ONCE: Final = 500
GONE: Final = {
    "who": "account_id = NULL, actor_id = NULL, who_salt = '', who_erased_by",
    "what": "target = '', ip = '', agent = '', detail = '{}', what_salt = '', what_erased_by",
}


class NotSealed(Exception):
    """Another worker is giving these events their place; do it at the next turn."""


@transaction.atomic
def erase(
    erasure: UUID,
    *,
    accounts: Collection[UUID],
    persons: Collection[UUID],
    mentions: Collection[str] = (),
    receipt: str = "",
) -> int:
    """Empty every event of these accounts and persons; returns how many.

    Of other people's events that name one of ``mentions`` (an address, an id), what they said goes,
    and whose they are stays. Done a second time, it finds nothing. Takes part in the caller's
    transaction. Raises NotSealed.
    """
    # Only an event with a place can be emptied.
    trail.seal()
    own = Q(account_id__in=accounts) | Q(actor_id__in=persons)
    named = Q()
    for words in mentions:
        # As the words stand in the detail's JSON, and as they are.
        written = json.dumps(words)[1:-1]
        named |= Q(target__icontains=words) | Q(detail__icontains=written)
    emptied = set(_empty(erasure, own | named if named else own, half="what"))
    # Whose they are goes last: it is what they are found by.
    emptied |= set(_empty(erasure, own, half="who"))
    if not emptied:
        return 0
    sums = trail.Erased()
    touched = Event.objects.filter(Q(who_erased_by=erasure) | Q(what_erased_by=erasure))
    for event in touched.order_by("seq").iterator(chunk_size=2000):
        for half in ("who", "what"):
            if getattr(event, f"{half}_erased_by") == erasure:
                sums.add(event, half)
    trail.record(
        trail.ERASURE, erasure=str(erasure), halves=sums.count, sum=sums.digest(), receipt=receipt
    )
    return len(emptied)


def _empty(erasure: UUID, whose: Q, *, half: Literal["who", "what"]) -> list[int]:
    rows = Event.objects.filter(whose, **{f"{half}_erased_by": None}).exclude(tag=trail.ERASURE)
    found = list(rows.values_list("id", "seq"))
    if any(seq is None for _id, seq in found):
        raise NotSealed
    ids = [row for row, _seq in found]
    for start in range(0, len(ids), MOST_AT_ONCE):
        _take_away(erasure, ids[start : start + MOST_AT_ONCE], half=half)
    return ids


def _take_away(erasure: UUID, ids: Sequence[int], *, half: Literal["who", "what"]) -> None:
    # By hand, since the model refuses updates; triggers let nothing else through.
    by = erasure if connection.vendor == "postgresql" else erasure.hex
    places = ", ".join(["%s"] * len(ids))
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE audit_event SET {GONE[half]} = %s WHERE id IN ({places})",  # nosec B608 # noqa: S608 - our own words
            [by, *ids],
        )
