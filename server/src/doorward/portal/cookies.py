"""What a browser keeps for its person: sent back to this host alone, and read by no script."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from django.conf import settings
from django.http import HttpResponse

YEAR: Final = timedelta(days=365)


def keep(response: HttpResponse, name: str, value: str, *, lasts: timedelta) -> None:
    """Have the browser keep this; `name` is one of the settings, which have the prefix."""
    response.set_cookie(
        name,
        value,
        max_age=int(lasts.total_seconds()),
        secure=settings.SECURE,
        httponly=True,
        samesite="Lax",
    )
