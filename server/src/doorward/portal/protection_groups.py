"""Groups of devices that are told something together: make, rename, fill, tell, remove."""

from __future__ import annotations

from uuid import UUID

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_http_methods, require_safe
from uuid_utils.compat import uuid7

from doorward.accounts.permissions import Act
from doorward.devices import queries as devices
from doorward.portal import before_saving, protection, settings_words, visits
from doorward.portal.protection import HERE
from doorward.portal.settings_form import SectionForm
from doorward.portal.visits import Visit
from doorward.protection import merging, policy, schema
from doorward.protection.merging import GroupLayer, Layer, State
from doorward.protection.models import LONGEST_GROUP
from doorward.protection.policy import Delta


@require_safe
@visits.may(Act.LOOK)
def show(request: HttpRequest, visit: Visit, group_id: UUID) -> HttpResponse:
    """Show what a group is told, and which devices are in it."""
    standing, group = _find(visit, group_id)
    document, _locked = merging.effective([standing.account, group.layer])
    inside = set(standing.in_group(group_id))
    context = {
        "visit": visit,
        "group_id": group_id,
        "group": group,
        "may_change": visit.may(Act.PROTECTION_CHANGE),
        "may_command": visit.may(Act.DEVICES_COMMAND),
        "sections": [
            (section, settings_words.summary(section, document), section.key in group.layer.values)
            for section in schema.SECTIONS
        ],
        "devices": [each for each in devices.of_account(visit.account) if each.pk in inside],
    }
    return render(request, "portal/protection/group.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
@visits.may(Act.PROTECTION_CHANGE)
def new(request: HttpRequest, visit: Visit) -> HttpResponse:
    """Ask for a name and devices of a new group."""
    standing = policy.state_of(visit.account)
    key = UUID(str(uuid7()))
    return _edit(request, visit, standing, key, GroupLayer("", Layer()), is_new=True)


@require_http_methods(["GET", "HEAD", "POST"])
@visits.may(Act.PROTECTION_CHANGE)
def edit(request: HttpRequest, visit: Visit, group_id: UUID) -> HttpResponse:
    """Change a group's name and which devices are in it."""
    standing, group = _find(visit, group_id)
    return _edit(request, visit, standing, group_id, group, is_new=False)


def _edit(
    request: HttpRequest,
    visit: Visit,
    standing: State,
    key: UUID,
    group: GroupLayer,
    *,
    is_new: bool,
) -> HttpResponse:
    everybody = list(devices.of_account(visit.account))
    chosen = {device for device, place in standing.places.items() if place == key}
    name, wrong = group.name, []
    if request.method == "POST":
        name = request.POST.get("name", "").strip()
        posted = set(request.POST.getlist("devices"))
        chosen = {each.pk for each in everybody if str(each.pk) in posted}
        layer = group.layer
        after = {"name": name, "values": layer.values, "locked": sorted(layer.locked)}
        deltas = [Delta("group", key, after)]
        deltas += [Delta("place", device, {"group": str(key)}) for device in sorted(chosen)]
        left = set(standing.in_group(key)) - chosen
        deltas += [Delta("place", device, None) for device in sorted(left)]
        plan = policy.plan(visit.account, deltas)
        if not plan.problems:
            back = f"{HERE}groups/{key}/"
            return before_saving.look(request, visit, plan, back=request.path, after=back)
        wrong = [each.words for each in plan.problems]
    context = {
        "visit": visit,
        "group_id": key,
        "is_new": is_new,
        "name": name,
        "longest": LONGEST_GROUP,
        "wrong": wrong,
        "devices": [
            (each, each.pk in chosen, _elsewhere(standing, each.pk, key)) for each in everybody
        ],
    }
    return render(
        request, "portal/protection/group_edit.html", context, status=422 if wrong else 200
    )


def _elsewhere(standing: State, device: UUID, group: UUID) -> str:
    place = standing.places.get(device)
    if place is None or place == group or place not in standing.groups:
        return ""
    return standing.groups[place].name


@require_http_methods(["GET", "HEAD", "POST"])
@visits.may(Act.PROTECTION_CHANGE)
def remove(request: HttpRequest, visit: Visit, group_id: UUID) -> HttpResponse:
    """Look at what removing a group would change; its devices stay."""
    _find(visit, group_id)
    plan = policy.plan(visit.account, [Delta("group", group_id, None)])
    return before_saving.look(request, visit, plan, back=f"{HERE}groups/{group_id}/", after=HERE)


@require_http_methods(["GET", "HEAD", "POST"])
@visits.may(Act.PROTECTION_CHANGE)
def section(request: HttpRequest, visit: Visit, group_id: UUID, section: str) -> HttpResponse:
    """Show or change what a group is told about one thing."""
    standing, group = _find(visit, group_id)
    found = schema.BY_SLUG.get(section)
    if found is None:
        raise Http404
    form = SectionForm(found, group.layer, [standing.account], is_top=False, may_lock=True)

    def delta(layer: Layer) -> Delta:
        after = {"name": group.name, "values": layer.values, "locked": sorted(layer.locked)}
        return Delta("group", group_id, after)

    frame = {"back": f"{HERE}groups/{group_id}/", "back_words": group.name, "of": group.name}
    return protection.answer_section(request, visit, form, delta, standing, frame)


def _find(visit: Visit, group_id: UUID) -> tuple[State, GroupLayer]:
    standing = policy.state_of(visit.account)
    group = standing.groups.get(group_id)
    if group is None:
        raise Http404
    return standing, group
