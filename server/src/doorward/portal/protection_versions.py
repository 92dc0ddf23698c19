"""Every change of the settings: who, when, why, what stood there before, and taking it back."""

from __future__ import annotations

from typing import Any, Final

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_POST, require_safe

from doorward.accounts.permissions import Act
from doorward.portal import protection, texts, visits
from doorward.portal.protection import HERE
from doorward.portal.visits import Visit
from doorward.protection import policy, queries
from doorward.protection.merging import Layer
from doorward.protection.models import SettingsVersion

LONGEST: Final = 9


@require_safe
@visits.may(Act.LOOK)
def overview(request: HttpRequest, visit: Visit) -> HttpResponse:
    """List the changes, the newest first."""
    text = request.GET.get("before", "")
    before = int(text) if text.isascii() and text.isdigit() and len(text) <= LONGEST else 0
    found, older = queries.versions(visit.account, before=before)
    context = {
        "visit": visit,
        "versions": [(each, where(each)) for each in found],
        "older": older,
        "is_first": not before,
    }
    return render(request, "portal/protection/versions.html", context)


@require_safe
@visits.may(Act.LOOK)
def show(request: HttpRequest, visit: Visit, number: int) -> HttpResponse:
    """Show one change: what stood there before and after."""
    found = _find(visit, number)
    context = {
        "visit": visit,
        "version": found,
        "where": where(found),
        "changes": [_compared(each) for each in found.changes],
        "may_change": visit.may(Act.PROTECTION_CHANGE),
        "later": policy.state_of(visit.account).newest - found.number,
    }
    return render(request, "portal/protection/version.html", context)


@require_POST
@visits.may(Act.PROTECTION_CHANGE)
def undo(request: HttpRequest, visit: Visit, number: int) -> HttpResponse:
    """Look at what taking the change back would do."""
    found = _find(visit, number)
    here = f"{HERE}versions/{found.number}/"
    try:
        deltas = policy.undoing(visit.account, found)
    except policy.CannotUndo as problem:
        messages.error(request, str(problem))
        return redirect(here)
    plan = policy.plan(visit.account, deltas, undoes=found.number)
    if plan.problems:
        messages.error(
            request,
            _("It can’t be taken back as it was: %(why)s") % {"why": plan.problems[0].words},
        )
        return redirect(here)
    after = f"{HERE}versions/"
    return protection.look(request, visit, plan, back=here, after=after, undoes=found.number)


def where(version: SettingsVersion) -> str:
    """Return in a few words what a change was about."""
    kinds = {each["kind"] for each in version.changes}
    names = list(dict.fromkeys(each["name"] for each in version.changes if each["kind"] != "place"))
    if kinds == {"place"}:
        return _("Which group devices are in")
    if "account" in kinds:
        return _("All devices")
    named = texts.shortened(texts.visible(", ".join(name for name in names if name)), 80)
    if "group" in kinds:
        return _("Group %(name)s") % {"name": named}
    return named


def _compared(change: dict[str, Any]) -> tuple[str, list[tuple[str, str, str]]]:
    name = texts.shortened(texts.visible(change["name"]), 60)
    before, after = change["before"] or {}, change["after"] or {}
    if change["kind"] == "place":
        if before.get("group") and after.get("group"):
            moved = (_("Group"), _("another"), _("this one"))
        else:
            inside, none = _("in a group"), _("in none")
            moved = (_("Group"), inside if before else none, inside if after else none)
        return name, [moved]
    rows = protection.rows(_layer(before), _layer(after), is_top=change["kind"] == "account")
    if change["kind"] == "group" and before.get("name") != after.get("name"):
        old = before.get("name") or _("none")
        rows.insert(0, (_("Group"), old, after.get("name") or _("removed")))
    return name or _("All devices"), rows


def _layer(said: dict[str, Any]) -> Layer:
    return Layer(said.get("values", {}), tuple(said.get("locked", ())))


def _find(visit: Visit, number: int) -> SettingsVersion:
    found = queries.version(visit.account, number) if number < 2**31 else None
    if found is None:
        raise Http404
    return found
