"""Several devices at once: chosen from the list or by their group, then asked, moved or removed."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from django.contrib import messages
from django.core.exceptions import BadRequest
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext
from django.views.decorators.http import require_POST, require_safe

from doorward.accounts import asking_again
from doorward.accounts.adapter import origin_of
from doorward.accounts.permissions import Act
from doorward.devices import commands, queries, removal, state
from doorward.devices.models import Device
from doorward.portal import before_saving, visits
from doorward.portal.visits import Visit
from doorward.protection import policy
from doorward.protection.policy import Delta
from doorward_protocol.messages import CommandArgs

HERE: Final = "/devices/choose/"
MOST: Final = 200
"""Devices that are acted on at once."""
ALL: Final = "all"
"""In the place of a group: every device that is listed is chosen."""
SCANS: Final = {"quick": CommandArgs(scope="quick"), "full": CommandArgs(scope="full")}
NEEDS: Final = {
    "quick": Act.DEVICES_COMMAND,
    "full": Act.DEVICES_COMMAND,
    "move": Act.PROTECTION_CHANGE,
    "remove": Act.DEVICES_CHANGE,
}
TOO_MANY: Final = gettext_lazy("Choose at most 200 devices at once.")


@require_safe
@visits.may(Act.DEVICES_COMMAND)
def choose(request: HttpRequest, visit: Visit) -> HttpResponse:
    """List devices to choose from; of a named group, or of all, they are chosen already."""
    return _page(request, visit)


def _page(request: HttpRequest, visit: Visit, error: str = "") -> HttpResponse:
    now = timezone.now()
    standing = policy.state_of(visit.account)
    group = request.GET.get("group", "")
    if group not in {"", ALL, *(str(key) for key in standing.groups)}:
        raise Http404
    everybody = list(queries.of_account(visit.account)[: MOST + 1])
    posted = set(request.POST.getlist("item"))
    context = {
        "visit": visit,
        "devices": [
            (
                device,
                state.of(device, now),
                _is_chosen(device, standing.places.get(device.pk), group, posted),
                standing.groups[standing.places[device.pk]].name
                if device.pk in standing.places
                else "",
            )
            for device in everybody[:MOST]
        ],
        "has_more": len(everybody) > MOST,
        "most": MOST,
        "groups": [(key, each.name) for key, each in standing.groups.items()],
        "group": group,
        "may_command": visit.may(Act.DEVICES_COMMAND),
        "may_move": visit.may(Act.PROTECTION_CHANGE),
        "error": error,
    }
    return render(request, "portal/devices/choose.html", context, status=422 if error else 200)


def _is_chosen(device: Device, place: UUID | None, group: str, posted: set[str]) -> bool:
    return str(device.pk) in posted or group == ALL or (bool(group) and str(place) == group)


@require_POST
@visits.may(Act.DEVICES_COMMAND)
def act(request: HttpRequest, visit: Visit) -> HttpResponse:
    """Do it to all that were chosen; removing them asks once more, and takes a fresh proof."""
    what = request.POST.get("what", "")
    if what not in NEEDS:
        raise BadRequest("what")
    visit.must(NEEDS[what])
    chosen = _chosen(request, visit)
    if not chosen:
        return _page(request, visit, error=_("Choose at least one device."))
    if len(chosen) > MOST:
        return _page(request, visit, error=str(TOO_MANY))
    if what == "move":
        return _move(request, visit, chosen)
    if what == "remove":
        return _remove(request, visit, chosen)
    return _scan(request, visit, chosen, SCANS[what])


def _scan(
    request: HttpRequest, visit: Visit, chosen: list[Device], args: CommandArgs
) -> HttpResponse:
    asked, refused = 0, []
    for device in chosen:
        try:
            commands.ask(device, "scan.run", args, actor=visit.user, origin=origin_of(request))
            asked += 1
        except commands.NotAsked:
            refused.append(device.label)
    if asked:
        words = ngettext("%(n)d device is asked.", "%(n)d devices are asked.", asked)
        messages.success(request, words % {"n": asked})
    if refused:
        words = ngettext(
            "%(n)d can’t be asked from here: its agent is too old, or that is switched off.",
            "%(n)d can’t be asked from here: their agents are too old, or that is switched off.",
            len(refused),
        )
        messages.error(request, words % {"n": len(refused)})
    return redirect("/devices/commands/")


def _move(request: HttpRequest, visit: Visit, chosen: list[Device]) -> HttpResponse:
    standing = policy.state_of(visit.account)
    group = request.POST.get("group", "")
    if group and group not in {str(key) for key in standing.groups}:
        raise Http404
    after = {"group": group} if group else None
    plan = policy.plan(visit.account, [Delta("place", each.pk, after) for each in chosen])
    done = f"/protection/groups/{group}/" if group else "/protection/"
    return before_saving.look(request, visit, plan, back=HERE, after=done)


def _remove(request: HttpRequest, visit: Visit, chosen: list[Device]) -> HttpResponse:
    if request.POST.get("sure") != "1":
        context = {"visit": visit, "chosen": chosen}
        return render(request, "portal/devices/remove_many.html", context)
    # Whoever only has the open browser takes nobody's devices out.
    asking_again.first(request, form_at=HERE)
    origin = origin_of(request)
    for device in chosen:
        removal.remove(device, actor=visit.user, by="proof", ip=origin.ip, agent=origin.agent)
    words = ngettext(
        "%(n)d device is removed. Its place is free.",
        "%(n)d devices are removed. Their places are free.",
        len(chosen),
    )
    messages.success(request, words % {"n": len(chosen)})
    return redirect("/devices/")


def _chosen(request: HttpRequest, visit: Visit) -> list[Device]:
    try:
        ids = {UUID(text) for text in request.POST.getlist("item")[: MOST + 1]}
    except ValueError:
        raise Http404 from None
    found = queries.of_account(visit.account).select_related("account").filter(pk__in=ids)
    return list(found)
