"""In which time zone a person reads times: the one they chose, else the one their browser says."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from zoneinfo import ZoneInfo, available_timezones

from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.middleware.csrf import get_token
from django.utils import timezone
from django.views.decorators.http import require_http_methods

from doorward.portal import cookies


@cache
def names() -> tuple[str, ...]:
    """Return every zone a person may choose, by the names people know: Area/City and UTC."""
    places = (
        "Africa/", "America/", "Antarctica/", "Arctic/", "Asia/", "Atlantic/", "Australia/",
        "Europe/", "Indian/", "Pacific/",
    )  # fmt: skip
    return ("UTC", *sorted(name for name in available_timezones() if name.startswith(places)))


@cache
def _known() -> frozenset[str]:
    return frozenset(available_timezones())


def browsers(request: HttpRequest) -> str:
    """Return the zone this browser says it is in, or "" when it says none we know."""
    said = request.COOKIES.get(settings.ZONE_COOKIE_NAME, "")
    return said if said in _known() else ""


@require_http_methods(["GET", "HEAD", "POST"])
def told(request: HttpRequest) -> HttpResponse:
    """Keep which zone this browser is in; on GET hand out the token that telling it takes.

    Each page says which zone we know of, and its script tells another once (portal.js). The token
    is asked for only then: else every page would hold one, also those that have nothing to send.
    """
    if request.method != "POST":
        return JsonResponse({"token": get_token(request)})
    zone = request.POST.get("zone", "")
    if zone not in _known():
        return HttpResponse(status=422)
    answer = HttpResponse(status=204)
    cookies.keep(answer, settings.ZONE_COOKIE_NAME, zone, lasts=cookies.YEAR)
    return answer


class PersonsZone:
    """Every time on a page is in the zone of the person who reads it."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Answer with that zone in force, and with none afterwards."""
        chosen = request.user.zone if request.user.is_authenticated else ""
        zone = chosen if chosen in _known() else browsers(request)
        if zone:
            timezone.activate(ZoneInfo(zone))
        try:
            return self._get_response(request)
        finally:
            timezone.deactivate()
