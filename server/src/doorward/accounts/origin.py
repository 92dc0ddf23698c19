"""Where a request came from, as far as we may believe it."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from django.conf import settings

if TYPE_CHECKING:
    from django.http import HttpRequest  # noqa: TID251 - read here, never answered

_KEPT_AT = "came_from"
NOWHERE = "0.0.0.0"  # nosec B104 # noqa: S104 - not an address to listen on: "no address is known"


@dataclass(frozen=True)
class Origin:
    """Where a request came from, as far as we may believe it."""

    ip: str
    agent: str


def origin_of(request: HttpRequest | None) -> Origin:
    """Return the address and browser behind a request.

    X-Forwarded-For counts only as far as our own proxies wrote it (DOORWARD_TRUSTED_PROXIES):
    whatever stands before that, the sender made up.
    """
    if request is None:
        return Origin(ip=NOWHERE, agent="")
    found: Origin | None = getattr(request, _KEPT_AT, None)
    if found is None:
        found = _origin_of(request)
        setattr(request, _KEPT_AT, found)
    return found


def _origin_of(request: HttpRequest) -> Origin:
    return Origin(ip=address_in(request.META), agent=request.META.get("HTTP_USER_AGENT", "")[:300])


def address_in(environ: Mapping[str, Any]) -> str:
    """Return the address behind a request that WSGI describes so."""
    ip = environ.get("REMOTE_ADDR", "")
    if settings.TRUSTED_PROXIES:
        hops = [hop.strip() for hop in environ.get("HTTP_X_FORWARDED_FOR", "").split(",")]
        if len(hops) >= settings.TRUSTED_PROXIES:
            ip = hops[-settings.TRUSTED_PROXIES]
    return _in_one_spelling(ip)


@lru_cache(maxsize=4096)
def _in_one_spelling(ip: str) -> str:
    try:
        return str(ipaddress.ip_address(ip))
    except ValueError:
        return NOWHERE
