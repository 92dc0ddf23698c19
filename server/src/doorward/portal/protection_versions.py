"""Every change of the settings: who, when, why, what stood there before, and taking it back.

Any two moments can be laid beside each other, and everything put back to the earlier one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_POST, require_safe

from doorward.accounts.permissions import Act
from doorward.portal import before_saving, texts, visits
from doorward.portal.protection import HERE
from doorward.portal.visits import Visit
from doorward.protection import history, policy, queries
from doorward.protection.merging import Layer
from doorward.protection.models import SettingsVersion

LONGEST: Final = 9
MOST_OFFERED: Final = 200
"""Changes to choose from when two are compared; an older one is reached from its own page."""
MOST_NAMED: Final = 20
"""Changes between the two that are named, the newest of them."""


@require_safe
@visits.may(Act.LOOK)
def overview(request: HttpRequest, visit: Visit) -> HttpResponse:
    """List the changes, the newest first."""
    before = _number(request.GET.get("before", "")) or 0
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
    standing = policy.state_of(visit.account)
    names = {str(key): group.name for key, group in standing.groups.items()}
    context = {
        "visit": visit,
        "version": found,
        "where": where(found),
        "changes": [_compared(each, names) for each in found.changes],
        "may_change": visit.may(Act.PROTECTION_CHANGE),
        "later": standing.newest - found.number,
        "newest": standing.newest,
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
    return before_saving.look(request, visit, plan, back=here, after=after, undoes=found.number)


@require_safe
@visits.may(Act.LOOK)
def compare(request: HttpRequest, visit: Visit) -> HttpResponse:
    """Lay any two versions beside each other; without a choice, the last one and that before it."""
    offered = queries.offered(visit.account, MOST_OFFERED)
    newest = offered[0].number if offered else 0
    older, newer = _two(request, newest)
    standing = policy.state_of(visit.account)
    found = history.between(visit.account, older, newer)
    names = {str(key): group.name for key, group in standing.groups.items()}
    changes: dict[str, list[tuple[str, str, str]]] = {}
    for each in found.differences:
        change = {
            "kind": each.kind,
            "name": each.name,
            "before": each.before,
            "after": each.after,
        }
        title, lines = _compared(change, found.groups | names)
        changes.setdefault(title, []).extend(lines)
    there = {each.number: each for each in offered}
    choices: list[tuple[int, SettingsVersion | None]] = [(each.number, each) for each in offered]
    choices += [(one, None) for one in sorted({older, newer} - {0, *there}, reverse=True)]
    context = {
        "visit": visit,
        "choices": [*choices, (0, None)],
        "older": older,
        "newer": newer,
        "newest": newest,
        "changes": list(changes.items()),
        "may_change": visit.may(Act.PROTECTION_CHANGE),
        "since": newest - newer,
        "between": range(newer, max(older, newer - MOST_NAMED), -1) if newer - older > 1 else (),
    }
    return render(request, "portal/protection/compare.html", context)


def _two(request: HttpRequest, newest: int) -> tuple[int, int]:
    """Return the two chosen versions, the older first. Raises Http404 for what never was."""
    said = request.GET.get("older"), request.GET.get("newer")
    chosen = [
        usual if text is None else _number(text)
        for text, usual in zip(said, (max(0, newest - 1), newest), strict=True)
    ]
    found = sorted(newest + 1 if each is None else each for each in chosen)
    if found[1] > newest:
        raise Http404
    return found[0], found[1]


@require_POST
@visits.may(Act.PROTECTION_CHANGE)
def go_back(request: HttpRequest, visit: Visit, number: int) -> HttpResponse:
    """Look at what putting everything back to how it stood after a change would do."""
    newest = policy.state_of(visit.account).newest
    if number >= newest:
        raise Http404
    here = f"{HERE}versions/compare/?older={number}&newer={newest}"
    try:
        deltas = history.going_back(visit.account, number)
    except policy.CannotUndo as problem:
        messages.error(request, str(problem))
        return redirect(here)
    # The first of those that go; the reason says that the ones after it go too.
    undoes = number + 1
    plan = policy.plan(visit.account, deltas, undoes=undoes)
    if plan.problems:
        messages.error(
            request,
            _("It can’t be put back as it was: %(why)s") % {"why": plan.problems[0].words},
        )
        return redirect(here)
    return before_saving.look(
        request,
        visit,
        plan,
        back=here,
        after=f"{HERE}versions/",
        undoes=undoes,
        returns_to=number,
    )


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= LONGEST else None


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


def _compared(
    change: Mapping[str, Any], groups: Mapping[str, str]
) -> tuple[str, list[tuple[str, str, str]]]:
    """Say one change in words; `groups` has the names of groups by their ids."""
    name = texts.shortened(texts.visible(change["name"]), 60)
    before, after = change["before"] or {}, change["after"] or {}
    if change["kind"] == "place":
        return name, [(_("Group"), _group(before, groups), _group(after, groups))]
    rows = before_saving.rows(_layer(before), _layer(after), is_top=change["kind"] == "account")
    if change["kind"] == "group" and before.get("name") != after.get("name"):
        old = before.get("name") or _("none")
        rows.insert(0, (_("Group"), old, after.get("name") or _("removed")))
    if change["kind"] == "group":
        name = _("Group %(name)s") % {"name": name}
    return name or _("All devices"), rows


def _group(place: Mapping[str, str], groups: Mapping[str, str]) -> str:
    if not place:
        return _("in none")
    named = groups.get(place["group"])
    return texts.shortened(texts.visible(named), 60) if named else _("one that is gone")


def _layer(said: dict[str, Any]) -> Layer:
    return Layer(said.get("values", {}), tuple(said.get("locked", ())))


def _find(visit: Visit, number: int) -> SettingsVersion:
    found = queries.version(visit.account, number) if number < 2**31 else None
    if found is None:
        raise Http404
    return found
