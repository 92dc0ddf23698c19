"""A change of the settings before it is saved: what it would do, and saving what was looked at.

Every change goes this way, whatever page it began on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final
from uuid import UUID

from django.contrib import messages
from django.core import signing
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django.views.decorators.http import require_POST, require_safe

from doorward.accounts import asking_again
from doorward.accounts.adapter import origin_of
from doorward.accounts.permissions import Act
from doorward.portal import settings_words, visits
from doorward.portal.visits import Visit
from doorward.protection import merging, policy, schema
from doorward.protection.merging import Layer, State
from doorward.protection.models import LONGEST_WHY
from doorward.protection.policy import Delta, Plan

PAGE: Final = "/protection/"
LOOK_AGAIN_AT: Final = f"{PAGE}look/"
LOOKED_AT_FOR: Final = 3600
"""Seconds in which a change that was looked at can be saved."""
SALT: Final = "protection.change.2"
"""Another one whenever what is signed gets another form: pages open meanwhile are too old then."""
MOST_NAMED: Final = 20
"""Devices that a dry run names; the others it counts."""
KEPT: Final = "change_to_look_at"
"""Where a session keeps a change that was to be saved before it was proved who this is."""
MOST_KEPT: Final = 16 * 1024
"""Characters of a signed change that are kept, and read with each request of the session from then
on; a longer one is filled in once more."""


@dataclass(frozen=True)
class Beside:
    """What is done along with a change of the settings: said before it is saved, and by whom."""

    save_at: str
    title: str
    lines: tuple[str, ...]
    button: str
    carries: Mapping[str, Any]


def look(
    request: HttpRequest,
    visit: Visit,
    plan: Plan,
    *,
    back: str,
    after: str,
    undoes: int | None = None,
    returns_to: int | None = None,
    beside: Beside | None = None,
    why: str = "",
) -> HttpResponse:
    """Show what the change would do, before it is done; ``why`` is already in its field."""
    if not plan.changes_anything and beside is None:
        messages.info(request, _("Nothing was changed: it stands so already."))
        return redirect(after)
    change = {
        "account": str(visit.account.pk),
        "base": plan.before.newest,
        "after": after,
        "back": back,
        "undoes": undoes,
        "returns_to": returns_to,
        "beside": asdict(beside) if beside is not None else None,
        "deltas": [
            {
                "kind": each.kind,
                "subject": str(each.subject) if each.subject is not None else None,
                "after": each.after,
            }
            for each in plan.deltas
        ],
    }
    context = {
        "visit": visit,
        "plan": plan,
        "headline": headline(plan),
        "able": [each.device for each in plan.able[:MOST_NAMED]],
        "more_able": max(0, len(plan.able) - MOST_NAMED),
        "unable": [
            (each.device, [(field.label, why) for field, why in each.cannot])
            for each in plan.unable[:MOST_NAMED]
        ],
        "more_unable": max(0, len(plan.unable) - MOST_NAMED),
        "changes": compared(plan.before, plan.after, plan.deltas),
        "change": signing.dumps(change, salt=SALT, compress=True),
        "back": back,
        "longest": LONGEST_WHY,
        "undoes": undoes,
        "returns_to": returns_to,
        "beside": beside,
        "why": why,
        "save_at": beside.save_at if beside is not None else f"{PAGE}save/",
    }
    return render(request, "portal/protection/look.html", context)


def headline(plan: Plan) -> str:
    """Return in one sentence whom a change reaches: "7 devices change, 2 can't"."""
    if not plan.reached:
        return _("No device changes. It holds for devices that join later.")
    total = len(plan.reached)
    words = ngettext("%(n)d device changes", "%(n)d devices change", total) % {"n": total}
    if plan.unable:
        cannot = len(plan.unable)
        words += ngettext(", %(n)d can’t do all of it", ", %(n)d can’t do all of it", cannot) % {
            "n": cannot
        }
    return f"{words}."


def compared(
    before: State, after: State, deltas: Sequence[Delta]
) -> list[tuple[str, list[tuple[str, str, str]]]]:
    """Return what stands where before and after, in words: of each layer that changes."""
    found = []
    for each in deltas:
        if each.kind == "account":
            lines = rows(before.account, after.account, is_top=True)
            title = _("All devices")
        elif each.kind == "group" and each.subject is not None:
            was, is_now = before.groups.get(each.subject), after.groups.get(each.subject)
            name = (is_now or was).name if (is_now or was) is not None else ""  # type: ignore[union-attr]  # one of them is there
            title = _("Group %(name)s") % {"name": name}
            lines = rows(was.layer if was else Layer(), is_now.layer if is_now else Layer())
            old, new = (was.name if was else _("none")), (is_now.name if is_now else _("removed"))
            if old != new:
                lines.insert(0, (_("Group"), old, new))
        elif each.kind == "device" and each.subject is not None:
            title = _("One device")
            lines = rows(
                Layer(before.own.get(each.subject, {})), Layer(after.own.get(each.subject, {}))
            )
        else:
            continue
        found.append((title, lines))
    moved = [each for each in deltas if each.kind == "place"]
    if moved:
        number = len(moved)
        words = ngettext("%(n)d device moves", "%(n)d devices move", number) % {"n": number}
        found.append((_("Groups"), [(words, "", "")]))
    return found


def rows(before: Layer, after: Layer, *, is_top: bool = False) -> list[tuple[str, str, str]]:
    """Return in what two layers differ, in words: what, before and after."""
    found = []
    for pointer, field in schema.FIELDS.items():
        old, new = _said(before, pointer, is_top), _said(after, pointer, is_top)
        label = field.full_label
        if old != new:
            found.append((label, old, new))
        if (pointer in before.locked) != (pointer in after.locked):
            open_, locked = _("open"), _("locked")
            was = locked if pointer in before.locked else open_
            found.append((label, was, locked if pointer in after.locked else open_))
    return found


def _said(layer: Layer, pointer: str, is_top: bool) -> str:
    field = schema.FIELDS[pointer]
    if not merging.holds(layer.values, pointer):
        # Above the account there is only what the product does by itself.
        return settings_words.value(field, field.default) if is_top else _("inherited")
    value = merging.at(layer.values, pointer)
    if field.kind == "exclusions":
        empty = {"path": "", "sha256": "", "until": None, "note": "", "active": True}
        value = {name: {**empty, **entry} for name, entry in value.items()}
    return settings_words.value(field, value)


@require_POST
@visits.may(Act.PROTECTION_CHANGE)
def save(request: HttpRequest, visit: Visit) -> HttpResponse:
    """Make the change that was looked at; one that protects less asks who is there first."""
    change = looked_at(request, visit)
    if change is None:
        return redirect(PAGE)
    if change["beside"]:
        # Something is done along with it, at an address of its own.
        raise Http404
    deltas = deltas_of(change)
    if policy.plan(visit.account, deltas, undoes=change["undoes"]).weaker:
        prove_first(request, change)
    try:
        version = policy.save(
            visit.account,
            deltas,
            actor=visit.user,
            # Whoever got past the line above has just proved it, if it was needed.
            proven=True,
            why=request.POST.get("why", ""),
            base=change["base"],
            undoes=change["undoes"],
            origin=origin_of(request),
        )
    except (policy.Outdated, policy.Invalid):
        messages.error(request, _changed_meanwhile())
        return redirect(change["after"])
    if version is None:
        messages.info(request, _("Nothing was changed: it stands so already."))
    else:
        number = version.devices
        messages.success(
            request,
            ngettext(
                "Saved as change %(version)d. %(n)d device is told now.",
                "Saved as change %(version)d. %(n)d devices are told now.",
                number,
            )
            % {"version": version.number, "n": number},
        )
    return redirect(change["after"])


def prove_first(request: HttpRequest, change: Mapping[str, Any]) -> None:
    """Return only when the person has just proved who they are; else ask, then show it once more.

    Shown and no more, and only where this request's sender is led: whoever holds a stolen session
    can't have the owner's proof save what they sent, nor lay it before the owner (asking_again.py).
    """
    signed = request.POST.get("change", "")
    if not asking_again.is_due(request):
        request.session.pop(KEPT, None)
    elif len(signed) <= MOST_KEPT:
        why = request.POST.get("why", "")[:LONGEST_WHY]
        request.session[KEPT] = {"change": signed, "why": why}
        form_at = f"{LOOK_AGAIN_AT}?of={_mark_of(signed)}"
        asking_again.first(request, form_at=form_at, is_filled_in=True)
    else:
        asking_again.first(request, form_at=change["back"])


@require_safe
@visits.may(Act.LOOK)
def look_again(request: HttpRequest, visit: Visit) -> HttpResponse:
    """Show the change that was to be saved when it was asked who this is, as it was looked at."""
    kept = request.session.get(KEPT)
    if kept is None or _mark_of(kept["change"]) != request.GET.get("of"):
        return _not_here(request)
    change = _opened(request, kept["change"])
    if change is None:
        del request.session[KEPT]
        return redirect(PAGE)
    if change["account"] != str(visit.account.pk):
        return _not_here(request)
    plan = policy.plan(visit.account, deltas_of(change), undoes=change["undoes"])
    if plan.problems or plan.before.newest != change["base"]:
        messages.error(request, _changed_meanwhile())
        return redirect(change["back"])
    beside = change["beside"]
    return look(
        request,
        visit,
        plan,
        back=change["back"],
        after=change["after"],
        undoes=change["undoes"],
        returns_to=change["returns_to"],
        beside=Beside(**beside) if beside else None,
        why=kept["why"],
    )


def _not_here(request: HttpRequest) -> HttpResponse:
    messages.info(request, _("That change is not here any more. Fill it in once more."))
    return redirect(PAGE)


def _mark_of(signed: str) -> str:
    return hashlib.blake2b(signed.encode(), digest_size=16).hexdigest()


def looked_at(request: HttpRequest, visit: Visit) -> dict[str, Any] | None:
    """Return the change that this person looked at; nothing, and a word about it, when too old."""
    change = _opened(request, request.POST.get("change", ""))
    if change is not None and change["account"] != str(visit.account.pk):
        raise Http404
    return change


def _opened(request: HttpRequest, signed: str) -> dict[str, Any] | None:
    try:
        change: dict[str, Any] = signing.loads(signed, salt=SALT, max_age=LOOKED_AT_FOR)
    except signing.BadSignature:
        messages.error(
            request, _("Nothing was changed: that page was too old. Fill it in once more.")
        )
        return None
    return change


def deltas_of(change: Mapping[str, Any]) -> list[Delta]:
    """Return what a change that was looked at changes."""
    return [
        Delta(each["kind"], UUID(each["subject"]) if each["subject"] else None, each["after"])
        for each in change["deltas"]
    ]


def _changed_meanwhile() -> str:
    return _(
        "Nothing was changed: somebody else changed the settings meanwhile. Look at how they are "
        "now, then change them."
    )
