"""The protection pages: what devices are told, whether they do it, and changing it.

Every change goes the same way: filled in, looked at (whom it reaches, who can't), then saved.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from django.contrib import messages
from django.core import signing
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from doorward.accounts import asking_again
from doorward.accounts.adapter import origin_of
from doorward.accounts.permissions import Act
from doorward.devices import queries as devices
from doorward.devices import state
from doorward.devices.models import Device
from doorward.portal import exclusions_form, freshness, live, settings_words, visits
from doorward.portal.settings_form import SectionForm
from doorward.portal.visits import Visit
from doorward.protection import merging, policy, queries, schema
from doorward.protection.definitions import rollout
from doorward.protection.merging import Layer, State
from doorward.protection.models import LONGEST_WHY
from doorward.protection.policy import Delta, Plan
from doorward.protection.schema import Section

HERE: Final = "/protection/"
LOOKED_AT_FOR: Final = 3600
"""Seconds in which a change that was looked at can be saved."""
SALT: Final = "protection.change"
MOST_NAMED: Final = 20
"""Devices that a dry run names; the others it counts."""


@require_safe
@visits.may(Act.LOOK)
def overview(request: HttpRequest, visit: Visit) -> HttpResponse:
    """Show what all devices are told, and how far each is with it."""
    now = timezone.now()
    found = list(devices.of_account(visit.account))
    standing = policy.state_of(visit.account)
    sets = rollout.steps()

    def context() -> dict[str, object]:
        shown = found[: devices.PAGE]
        return {
            "visit": visit,
            "devices": [
                (
                    device,
                    state.of(device, now),
                    queries.applied(device),
                    _errors(device),
                    freshness.of(device, sets, now),
                )
                for device in shown
            ],
            "has_more": len(found) > devices.PAGE,
            "count": queries.count(found),
            **_of_account(visit, standing, found),
        }

    seen = [
        (
            *state.seen(device, now),
            *freshness.seen(device),
            device.protection_reasons,
            device.wanted_version,
            device.settings_version,
            device.settings_failed_version,
            device.settings_status,
        )
        for device in found
    ]
    return live.answer(
        request,
        "portal/protection/page.html",
        "portal/protection/live.html",
        seen=(visit.role, seen, standing.newest, sets, now.date()),
        context=context,
    )


def _of_account(visit: Visit, standing: State, everybody: list[Device]) -> dict[str, object]:
    document, _locked = merging.effective([standing.account])
    return {
        "may_change": visit.may(Act.PROTECTION_CHANGE),
        "sections": [
            (
                section,
                settings_words.summary(section, document),
                _how_many_cannot(section, everybody),
            )
            for section in schema.SECTIONS
        ],
        "groups": [
            (key, group.name, len(standing.in_group(key))) for key, group in standing.groups.items()
        ],
        "newest": standing.newest,
    }


def _how_many_cannot(section: Section, everybody: list[Device]) -> str:
    """Return how many devices can do nothing of this; empty when each can do some of it."""
    number = sum(
        all(
            schema.why_not(field, system=each.os_name, capabilities=each.capabilities)
            for field in section.fields
        )
        for each in everybody
    )
    if not number:
        return ""
    if number == len(everybody):
        return _("None of your devices can do this yet")
    return _("%(number)d of %(total)d devices can’t do this") % {
        "number": number,
        "total": len(everybody),
    }


def _errors(device: Device) -> list[str]:
    found = queries.applied(device)
    return [settings_words.error(pointer, code) for pointer, code in found.errors]


# -- one section -----------------------------------------------------------------------------------


@require_http_methods(["GET", "HEAD", "POST"])
@visits.may(Act.PROTECTION_CHANGE)
def account_section(request: HttpRequest, visit: Visit, section: str) -> HttpResponse:
    """Show or change what all devices are told about one thing."""
    standing = policy.state_of(visit.account)
    found = _section(section)
    form = SectionForm(found, standing.account, [], is_top=True, may_lock=True)

    def delta(layer: Layer) -> Delta:
        return Delta("account", None, {"values": layer.values, "locked": sorted(layer.locked)})

    everybody = list(devices.of_account(visit.account))
    frame = {
        "back": HERE,
        "back_words": _("Protection"),
        "of": "",
        "unable": _how_many_cannot(found, everybody),
    }
    return answer_section(request, visit, form, delta, standing, frame)


@require_http_methods(["GET", "HEAD", "POST"])
@visits.may(Act.PROTECTION_CHANGE)
def device_section(
    request: HttpRequest, visit: Visit, device_id: UUID, section: str
) -> HttpResponse:
    """Show or change what one device is told about one thing, beside what it would inherit."""
    device = devices.find(visit.account, device_id)
    if device is None:
        raise Http404
    standing = policy.state_of(visit.account)
    *above, own = standing.layers(device.pk)
    form = SectionForm(_section(section), own, above, is_top=False, may_lock=False)

    def delta(layer: Layer) -> Delta:
        after = {"values": layer.values} if layer.values else None
        return Delta("device", device.pk, after)

    frame = {
        "back": f"/devices/{device.pk}/settings/",
        "back_words": device.label,
        "of": device.label,
        "cannot": _cannot(form.section, device),
    }
    return answer_section(request, visit, form, delta, standing, frame)


def _cannot(section: Section, device: Device) -> str:
    """Return what of a section this device can't do, and why; empty when it can do all of it."""
    found = {
        field: str(schema.why_not(field, system=device.os_name, capabilities=device.capabilities))
        for field in section.fields
    }
    reasons = list(dict.fromkeys(filter(None, found.values())))
    if not reasons:
        return ""
    if all(found.values()):
        # The first field is what the others are about: its reason is reason enough.
        return _("This device can’t: %(why)s") % {"why": reasons[0]}
    # Each reason once, after all that it holds for.
    return "; ".join(
        f"{', '.join(str(field.label) for field in found if found[field] == why)} – {why}"
        for why in reasons
    )


def answer_section(
    request: HttpRequest,
    visit: Visit,
    form: SectionForm,
    delta: Any,
    standing: State,
    frame: dict[str, Any],
) -> HttpResponse:
    """Show the section; on POST look at what the change would do, or say what is wrong with it."""
    if form.section.key == "exclusions":
        return exclusions_form.answer(request, visit, form, delta, standing, frame, look)
    if request.method == "POST":
        layer, filled = form.filled(request.POST)
        if filled.errors:
            return _section_page(request, visit, filled, frame, status=422)
        plan = policy.plan(visit.account, [delta(layer)])
        if plan.problems:
            wrong = {each.at: each.words for each in plan.problems}
            return _section_page(request, visit, filled.with_problems(wrong), frame, status=422)
        return look(request, visit, plan, back=request.path, after=frame["back"])
    return _section_page(request, visit, form, frame)


def _section_page(
    request: HttpRequest,
    visit: Visit,
    form: SectionForm,
    frame: dict[str, Any],
    *,
    status: int = 200,
) -> HttpResponse:
    context = {"visit": visit, "form": form, **frame}
    return render(request, "portal/protection/section.html", context, status=status)


def _section(slug: str) -> Section:
    found = schema.BY_SLUG.get(slug)
    if found is None:
        raise Http404
    return found


# -- looking and saving ----------------------------------------------------------------------------


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
) -> HttpResponse:
    """Show what the change would do, before it is done."""
    if not plan.changes_anything and beside is None:
        messages.info(request, _("Nothing was changed: it stands so already."))
        return redirect(after)
    change = {
        "account": str(visit.account.pk),
        "base": plan.before.newest,
        "after": after,
        "back": back,
        "undoes": undoes,
        "carries": dict(beside.carries) if beside is not None else None,
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
        "save_at": beside.save_at if beside is not None else f"{HERE}save/",
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
        return redirect(HERE)
    if change.get("carries"):
        # Something is done along with it, at an address of its own.
        raise Http404
    deltas = deltas_of(change)
    if policy.plan(visit.account, deltas, undoes=change["undoes"]).weaker:
        asking_again.first(request, form_at=change.get("back", HERE))
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
        messages.error(
            request,
            _(
                "Nothing was changed: somebody else changed the settings meanwhile. Look at how "
                "they are now, then change them."
            ),
        )
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


def looked_at(request: HttpRequest, visit: Visit) -> dict[str, Any] | None:
    """Return the change that this person looked at; nothing, and a word about it, when too old."""
    try:
        change: dict[str, Any] = signing.loads(
            request.POST.get("change", ""), salt=SALT, max_age=LOOKED_AT_FOR
        )
    except signing.BadSignature:
        messages.error(
            request, _("Nothing was changed: that page was too old. Fill it in once more.")
        )
        return None
    if change["account"] != str(visit.account.pk):
        raise Http404
    return change


def deltas_of(change: Mapping[str, Any]) -> list[Delta]:
    """Return what a change that was looked at changes."""
    return [
        Delta(each["kind"], UUID(each["subject"]) if each["subject"] else None, each["after"])
        for each in change["deltas"]
    ]


# -- one device ------------------------------------------------------------------------------------


@require_safe
@visits.may(Act.DEVICES_LOOK)
def device(request: HttpRequest, visit: Visit, device_id: UUID) -> HttpResponse:
    """Show what one device is told, where from, and whether it does it."""
    found = devices.find(visit.account, device_id)
    if found is None:
        raise Http404
    standing = policy.state_of(visit.account)
    layers = standing.layers(found.pk)
    document, _locked = merging.effective(layers)
    now = timezone.now()
    context = {
        "visit": visit,
        "device": found,
        "state": state.of(found, now),
        "applied": queries.applied(found),
        "errors": _errors(found),
        "may_change": visit.may(Act.PROTECTION_CHANGE),
        "sections": [
            (
                section,
                settings_words.summary(section, document),
                section.key in standing.own.get(found.pk, {}),
                _cannot(section, found),
            )
            for section in schema.SECTIONS
        ],
        "groups": [(key, group.name) for key, group in standing.groups.items()],
        "place": standing.places.get(found.pk),
    }
    return render(request, "portal/protection/device.html", context)


@require_POST
@visits.may(Act.PROTECTION_CHANGE)
def place(request: HttpRequest, visit: Visit, device_id: UUID) -> HttpResponse:
    """Look at what moving a device into a group, or out of all, would change."""
    found = devices.find(visit.account, device_id)
    if found is None:
        raise Http404
    standing = policy.state_of(visit.account)
    chosen = request.POST.get("group", "")
    after = None
    if chosen:
        if chosen not in {str(key) for key in standing.groups}:
            raise Http404
        after = {"group": chosen}
    here = f"/devices/{found.pk}/settings/"
    plan = policy.plan(visit.account, [Delta("place", found.pk, after)])
    return look(request, visit, plan, back=here, after=here)
