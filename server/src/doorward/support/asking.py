"""Writing to the people who run the service, also while signed out."""

from __future__ import annotations

import secrets
from enum import StrEnum
from typing import Final

from django.conf import settings
from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from doorward.accounts import lockout
from doorward.accounts.models import User, canonical_email
from doorward.audit import card_numbers, trail
from doorward.notices import letter as post_office
from doorward.notices.letter import Letter
from doorward.support.models import Ticket

MOST_CHARACTERS: Final = 4000
# No letters that are read for one another.
_LETTERS: Final = "23456789ABCDEFGHJKMNPQRSTVWXYZ"


class About(StrEnum):
    """What somebody writes about."""

    SIGNING_IN = "signing-in"
    CODE = "code"
    ADDRESS = "address"
    DEVICE = "device"
    OTHER = "other"
    WRONG_FIND = "wrong-find"
    """Written for them by wrong_finds.py; no form offers it."""


class TooMany(Exception):
    """This address or network has written as often as is taken in a day."""


class TooManyAltogether(TooMany):
    """Everybody together has written more than anybody could read: nothing more is taken now."""


def ask(
    *, reply_to: str, about: About, words: str, user: User | None, ip: str, agent: str
) -> Ticket:
    """Store the question and mail it to the people who run the service.

    The writer gets no mail by it: anybody can name anybody's address here. Raises TooMany and
    TooManyAltogether.
    """
    address = canonical_email(reply_to)
    if not lockout.allow(
        (lockout.QUESTION_NETWORK, lockout.network_of(ip)), (lockout.QUESTION, address)
    ):
        raise TooMany
    if not lockout.allow((lockout.QUESTION_ALL, "")):
        lockout.alert("operator.alert.questions")
        raise TooManyAltogether
    with transaction.atomic():
        ticket = _store(address, about, words, user)
        trail.record("support.asked", actor=user, target=ticket.number, ip=ip, agent=agent)
        _mail(ticket)
    return ticket


@transaction.atomic
def note(*, user: User, about: About, words: str) -> Ticket:
    """Store what a signed-in person's act tells the people who run the service, and mail it."""
    ticket = _store(user.email, about, words, user)
    _mail(ticket)
    return ticket


def _store(address: str, about: About, words: str, user: User | None) -> Ticket:
    return Ticket.objects.create(
        number="".join(secrets.choice(_LETTERS) for _sign in range(8)),
        user_id=user.pk if user is not None else None,
        reply_to=address,
        about=about.value,
        words=card_numbers.hide(words)[:MOST_CHARACTERS],
        created_at=timezone.now(),
    )


def _mail(ticket: Ticket) -> None:
    for to in _who_answers():
        post_office.post(_letter(ticket, signed_in=ticket.user_id is not None), to=to)


def _who_answers() -> list[str]:
    if settings.SUPPORT_EMAIL:
        return [settings.SUPPORT_EMAIL]
    operators = User.objects.filter(is_operator=True, is_active=True).order_by("pk")
    return list(operators.values_list("email", flat=True)[:20])


def _letter(ticket: Ticket, *, signed_in: bool) -> Letter:
    who = (
        _("Written by somebody who was signed in.")
        if signed_in
        else _("Written by somebody who was not signed in: the address is not proved.")
    )
    return Letter(
        kind="support.asked",
        subject=_("Question %(number)s: %(about)s")
        % {"number": ticket.number, "about": ticket.about},
        lines=[
            _("Answer to: %(address)s") % {"address": ticket.reply_to},
            who,
            *(line for line in ticket.words.splitlines() if line.strip()),
        ],
    )
