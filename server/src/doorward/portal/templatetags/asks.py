"""What every page of a signed-in person asks."""

from __future__ import annotations

from typing import Any

from django import template

from doorward.accounts.models import User
from doorward.portal import asking

register = template.Library()


@register.inclusion_tag("portal/parts/asks.html", takes_context=True)
def asks(context: template.Context) -> dict[str, Any]:
    """Show what is asked of this person now, and ask again every few seconds."""
    request = context["request"]
    user = request.user
    nothing = asking.Asks([], [])
    found = (
        asking.of(user, page=request.path, session=request.session)
        if isinstance(user, User)
        else nothing
    )
    return {"asks": found, "csrf_token": context.get("csrf_token"), "request": request}
