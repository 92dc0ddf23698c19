"""Pages for when something is wrong: each says what to do next."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    """Say that the page was too old to act on and how to go on; nothing was changed."""
    return render(request, "errors/csrf.html", status=403)
