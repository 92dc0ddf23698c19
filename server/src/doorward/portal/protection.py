"""The protection pages: what devices are told, whether they do it, and changing it.

Every change goes the same way: filled in here, looked at and saved there (before_saving.py).
"""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from doorward.accounts.permissions import Act
from doorward.devices import queries as devices
from doorward.devices import state
from doorward.devices.models import Device
from doorward.portal import before_saving, exclusions_form, freshness, live, settings_words, visits
from doorward.portal.settings_form import SectionForm
from doorward.portal.visits import Visit
from doorward.protection import merging, policy, queries, schema
from doorward.protection.definitions import rollout
from doorward.protection.merging import Layer, State
from doorward.protection.policy import Delta
from doorward.protection.schema import Section

HERE: Final = "/protection/"


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
        return exclusions_form.answer(request, visit, form, delta, standing, frame)
    if request.method == "POST":
        layer, filled = form.filled(request.POST)
        if filled.errors:
            return _section_page(request, visit, filled, frame, status=422)
        plan = policy.plan(visit.account, [delta(layer)])
        if plan.problems:
            wrong = {each.at: each.words for each in plan.problems}
            return _section_page(request, visit, filled.with_problems(wrong), frame, status=422)
        return before_saving.look(request, visit, plan, back=request.path, after=frame["back"])
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
    return before_saving.look(request, visit, plan, back=here, after=here)
