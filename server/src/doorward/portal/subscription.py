"""The subscription page: what is covered, until when, how many places are taken."""

from __future__ import annotations

from typing import Final

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from doorward.accounts.permissions import Act
from doorward.billing import entitlement
from doorward.devices import seats
from doorward.portal import visits
from doorward.portal.visits import Visit

PLACES_DRAWN: Final = 24
"""More places than this are told as a number only."""


@require_safe
@visits.may(Act.LOOK)
def overview(request: HttpRequest, visit: Visit) -> HttpResponse:
    """Show the account's plan and places."""
    taken = seats.of(visit.account)
    context = {
        "visit": visit,
        "entitlement": entitlement.of(visit.account),
        "seats": taken,
        "places": [number < taken.used for number in range(max(taken.total, taken.used))]
        if max(taken.total, taken.used) <= PLACES_DRAWN
        else [],
    }
    return render(request, "portal/subscription/page.html", context)
