"""Help: articles anybody may read, signed in or not."""

from __future__ import annotations

from typing import Final

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _
from django.views.decorators.http import require_safe

from doorward.accounts import invitations
from doorward.devices import enrollment, state
from doorward.portal.members import ROLES, SHARES

ARTICLES: Final[dict[str, tuple[Promise, Promise, str]]] = {
    "adding-a-device": (
        _("Add a device"),
        _("What you need, and the two commands on Linux, macOS and Windows."),
        "devices",
    ),
    "states": (
        _("What the states mean"),
        _("Protected, away, unknown, silent: when each is said, and what to do."),
        "shield",
    ),
    "restoring-a-file": (
        _("Put a file back"),
        _("When the agent put away a file that you trust."),
        "away",
    ),
    "what-the-agent-sends": (
        _("What the agent sends"),
        _("Everything it tells this service, and what it never does."),
        "report",
    ),
    "together": (
        _("Look after an account together"),
        _("Who may do what, what the others see of your devices, leaving and handing over."),
        "account",
    ),
    "signing-in": (
        _("Trouble signing in"),
        _("A forgotten password, a code that does not come, an address that changed."),
        "key",
    ),
}


@require_safe
def contents(request: HttpRequest) -> HttpResponse:
    """List the articles."""
    return render(request, "portal/help/contents.html", {**_frame(request), "articles": ARTICLES})


@require_safe
def article(request: HttpRequest, slug: str) -> HttpResponse:
    """Show one article."""
    if slug not in ARTICLES:
        raise Http404
    title, summary, icon = ARTICLES[slug]
    context = {
        **_frame(request),
        "heading": title,
        "summary": summary,
        "icon": icon,
        "fresh": int(state.FRESH.total_seconds() // 60),
        "quiet": int(state.QUIET.total_seconds() // 3600),
        "silent": state.SILENT.days,
        "code_minutes": int(enrollment.CODE_LIFE.total_seconds() // 60),
        "code_tries": enrollment.CODE_TRIES,
        "roles": [(role.label, may) for role, may in ROLES.items()],
        "shares": list(SHARES.values()),
        "invitation_hours": int(invitations.LASTS.total_seconds() // 3600),
    }
    return render(request, f"portal/help/{slug}.html", context)


def _frame(request: HttpRequest) -> dict[str, str]:
    signed_in = request.user.is_authenticated
    return {"frame": "portal/help/inside.html" if signed_in else "portal/help/outside.html"}
