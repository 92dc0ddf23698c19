"""The protection page: what the devices do by themselves now, and with which definitions."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.views.decorators.http import require_safe

from doorward.accounts.permissions import Act
from doorward.devices import queries, state
from doorward.portal import live, visits
from doorward.portal.visits import Visit


@require_safe
@visits.may(Act.LOOK)
def overview(request: HttpRequest, visit: Visit) -> HttpResponse:
    """Show what each device said last about its own protection; nothing can be switched yet."""
    now = timezone.now()
    found = queries.page(visit.account)

    def context() -> dict[str, object]:
        return {
            "visit": visit,
            "devices": [(device, state.of(device, now)) for device in found[: queries.PAGE]],
            "has_more": len(found) > queries.PAGE,
        }

    seen = [
        (*state.seen(device, now), device.definitions_version, device.protection_reasons)
        for device in found
    ]
    return live.answer(
        request,
        "portal/protection/page.html",
        "portal/protection/live.html",
        seen=(visit.role, seen, now.date()),
        context=context,
    )
