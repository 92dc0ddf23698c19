"""In which time zone a person reads times: the one they chose, else the one their browser says."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Final
from urllib.parse import unquote
from zoneinfo import ZoneInfo, available_timezones

from django.http import HttpRequest, HttpResponse
from django.utils import timezone

COOKIE: Final = "zone"


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
    said = unquote(request.COOKIES.get(COOKIE, ""))
    return said if said in _known() else ""


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
