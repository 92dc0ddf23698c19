"""The page of exclusions: each one with where it is from, taking one away, and adding one."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any, Final

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from uuid_utils.compat import uuid7

from doorward.portal import before_saving, settings_words
from doorward.portal.settings_form import SectionForm
from doorward.portal.visits import Visit
from doorward.protection import merging, policy
from doorward.protection.merging import Layer, State

AT: Final = "/exclusions"
LASTS: Final[dict[str, tuple[int | None, Promise]]] = {
    "7": (7, gettext_lazy("for a week")),
    "30": (30, gettext_lazy("for 30 days")),
    "365": (365, gettext_lazy("for a year")),
    "": (None, gettext_lazy("until somebody takes it away")),
}


def answer(
    request: HttpRequest,
    visit: Visit,
    form: SectionForm,
    delta: Any,
    standing: State,
    frame: dict[str, Any],
) -> HttpResponse:
    """Show the exclusions; on POST look at what adding one or taking one away would change."""
    if request.method != "POST":
        return _page(request, visit, form, frame)
    values, typed = dict(merging.at(form.own.values, AT) or {}), {}
    locks = set(form.own.locked)
    act = request.POST.get("act", "")
    if act == "add":
        name = str(uuid7())
        typed = {key: request.POST.get(key, "").strip() for key in ("path", "sha256", "note")}
        values[name] = _entry(typed, request.POST.get("lasts", ""))
    elif act == "remove":
        name = request.POST.get("name", "")
        inherited = _inherited(form)
        if name in values:
            del values[name]
        elif name in inherited:
            # What is excluded further up is looked at here: the entry says so, and stays its own.
            values[name] = {"active": False, **_named(inherited[name])}
        else:
            raise Http404
    elif act == "lock" and form.may_lock:
        name = ""
        locks ^= {AT}
    else:
        raise Http404
    layer = Layer(merging.put(form.own.values, AT, values or None), tuple(sorted(locks)))
    plan = policy.plan(visit.account, [delta(layer)])
    if plan.problems:
        wrong = {each.at.removeprefix(f"{AT}/{name}/"): each.words for each in plan.problems}
        known = {"path", "sha256", "note"}
        errors = {key: words for key, words in wrong.items() if key in known}
        rest = [words for key, words in wrong.items() if key not in known]
        return _page(request, visit, form, frame, typed=typed, errors=errors, rest=rest)
    return before_saving.look(request, visit, plan, back=request.path, after=request.path)


def _entry(typed: dict[str, str], lasts: str) -> dict[str, Any]:
    entry: dict[str, Any] = {}
    if typed["path"]:
        entry["path"] = typed["path"]
    if typed["sha256"]:
        entry["sha256"] = re.sub(r"\s", "", typed["sha256"]).lower()
    if typed["note"]:
        entry["note"] = typed["note"]
    days, _words = LASTS.get(lasts, LASTS["7"])
    if days is not None:
        until = timezone.now() + timedelta(days=days)
        entry["until"] = int(until.timestamp()) * 1000
    return entry


def _named(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: entry[key] for key in ("path", "sha256")}


def _inherited(form: SectionForm) -> dict[str, Any]:
    found: dict[str, Any] = merging.effective(form.above)[0]["exclusions"]
    return found


def _page(
    request: HttpRequest,
    visit: Visit,
    form: SectionForm,
    frame: dict[str, Any],
    *,
    typed: dict[str, str] | None = None,
    errors: dict[str, Any] | None = None,
    rest: list[Any] | None = None,
) -> HttpResponse:
    document, _locks = merging.effective([*form.above, form.own])
    inherited = _inherited(form)
    now = timezone.now().timestamp() * 1000
    entries = [
        {
            "name": name,
            "words": settings_words.exclusion(entry),
            "note": entry["note"],
            "is_own": name not in inherited,
            "taken_back": name in inherited and not entry["active"],
            "over": entry["until"] is not None and entry["until"] <= now,
        }
        for name, entry in document["exclusions"].items()
        if entry["active"] or name in inherited
    ]
    locked_above = AT in {pointer for layer in form.above for pointer in layer.locked}
    context = {
        "visit": visit,
        "form": form,
        "entries": entries,
        "locked_above": locked_above,
        "is_locked": AT in form.own.locked,
        "lasts": [(key, words) for key, (_days, words) in LASTS.items()],
        "lasts_chosen": request.POST.get("lasts", "7") if errors else "7",
        "typed": typed or {},
        "errors": errors or {},
        "rest": rest or [],
        "empty": _("Everything is looked at."),
        **frame,
    }
    status = 422 if errors or rest else 200
    return render(request, "portal/protection/exclusions.html", context, status=status)
