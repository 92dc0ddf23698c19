"""What the support room keeps about people, and how it forgets it."""

from __future__ import annotations

from collections.abc import Iterator

from django.db.models import Q

from doorward.accounts import privacy
from doorward.accounts.privacy import Room, Row, Table, Whose
from doorward.accounts.privacy_tables import moment
from doorward.support.models import Ticket


def _tickets(whose: Whose) -> Iterator[Row]:
    # Those written while signed in: an address alone proves nobody.
    for each in Ticket.objects.filter(user_id=whose.user.pk).order_by("created_at"):
        yield [
            each.number,
            each.reply_to,
            each.about,
            each.words,
            moment(each.created_at),
            moment(each.closed_at),
        ]


def _erase(whose: Whose, most: int) -> dict[str, int]:
    theirs = Q(user_id=whose.user.pk) | Q(reply_to__iexact=whose.user.email)
    theirs |= Q(words__icontains=whose.user.email)
    doomed = list(Ticket.objects.filter(theirs).values_list("pk", flat=True)[:most])
    gone = Ticket.objects.filter(pk__in=doomed).delete()[0]
    return {"tickets": gone} if gone else {}


def register() -> None:
    """Have this room take part."""
    table = Table(
        "tickets",
        "What you wrote to those who run the service.",
        {
            "number": "the ticket's number",
            "reply_to": "where to answer",
            "about": "what it was about",
            "words": "what you wrote",
            "written_at": "when",
            "closed_at": "when it was closed",
        },
        _tickets,
    )
    covers = {"support.Ticket": "those of the person, to the address or naming it go"}
    privacy.register(Room("support", tables=(table,), covers=covers, erase=_erase))
