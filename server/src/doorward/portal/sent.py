"""What a device sends: the last bytes as they came, each field explained, optional ones to switch.

A page may be looked at for long: while somebody does, each of the device's calls is kept.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import islice
from typing import Final
from uuid import UUID

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils import timezone
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_POST, require_safe

from doorward.accounts.adapter import origin_of
from doorward.accounts.models import Shares
from doorward.accounts.permissions import Act
from doorward.devices import payloads, queries
from doorward.devices.models import Device, Payload
from doorward.portal import asked, live, sent_words, visits
from doorward.portal.sent_words import Item
from doorward.portal.visits import Visit
from doorward.protection import merging, policy, schema
from doorward.protection.policy import Delta

TITLES: Final[dict[str, Promise]] = {
    "check-in": gettext_lazy("Its regular call"),
    "reports": gettext_lazy("Its last report"),
    "commands": gettext_lazy("Its last word about something you asked"),
}
NONE_YET: Final[dict[str, Promise]] = {
    "check-in": gettext_lazy("None is kept yet. Have it call, to see one."),
    "reports": gettext_lazy("It has reported nothing since this is kept: no scan, no threat."),
    "commands": gettext_lazy("Nothing was asked of it since this is kept."),
}


@dataclass(frozen=True)
class Shown:
    """One kind of what a device sends, as the page shows it."""

    kind: str
    title: Promise
    none_yet: Promise
    payload: Payload | None = None
    text: str = ""
    as_sent: bool = True
    """Whether the text is the very bytes: signs that can’t be seen are written as JSON does."""
    items: tuple[Item, ...] = ()
    has_more: bool = False


@dataclass(frozen=True)
class Switch:
    """Something that the device tells only while its settings say so."""

    pointer: str
    label: Promise
    is_on: bool
    is_locked: bool


@require_safe
@visits.may(Act.DEVICES_LOOK)
def overview(request: HttpRequest, visit: Visit, device_id: UUID) -> HttpResponse:
    """Show the last bytes of each kind, what each field means, and what can be switched off."""
    device = _find(visit, device_id)
    now = timezone.now()
    kept = payloads.of(device)
    watching = device.watched_until if device.watched_until and device.watched_until > now else None
    return live.answer(
        request,
        "portal/devices/sent.html",
        "portal/devices/sent_live.html",
        seen=(
            visit.role,
            [(each.kind, each.at) for each in kept],
            watching,
            device.wanted_version,
            device.settings_version,
            now.date(),
        ),
        context=lambda: {
            "visit": visit,
            "device": device,
            "shown": [_shown(kind, kept) for kind in payloads.KINDS],
            "switches": _switches(visit, device),
            "watching": watching,
            "is_connected": asked.is_connected(device, now),
            "may_change": visit.may(Act.PROTECTION_CHANGE),
        },
    )


@require_safe
@visits.may(Act.DEVICES_LOOK)
def as_it_came(request: HttpRequest, visit: Visit, device_id: UUID, kind: str) -> HttpResponse:
    """Answer with the very bytes, as a file."""
    device = _find(visit, device_id)
    found = next((each for each in payloads.of(device) if each.kind == kind), None)
    if found is None or not found.body:
        raise Http404
    response = HttpResponse(bytes(found.body), content_type="application/json")
    response.headers["Content-Disposition"] = f'attachment; filename="{found.kind}.json"'
    response.headers["Content-Security-Policy"] = "sandbox; default-src 'none'"
    return response


@require_POST
@visits.may(Act.DEVICES_LOOK)
def watch(request: HttpRequest, visit: Visit, device_id: UUID) -> HttpResponse:
    """Have the device call now, and show each of its calls for a while."""
    device = _find(visit, device_id)
    payloads.watch(device)
    return redirect(f"/devices/{device.pk}/sends/")


@require_POST
@visits.may(Act.PROTECTION_CHANGE)
def switch(request: HttpRequest, visit: Visit, device_id: UUID) -> HttpResponse:
    """Have the device tell something, or not any more; it protects the same either way."""
    device = _find(visit, device_id)
    pointer = request.POST.get("pointer", "")
    if pointer not in sent_words.OPTIONAL.values():
        raise Http404
    on = request.POST.get("on") == "1"
    standing = policy.state_of(visit.account)
    values = merging.put(dict(standing.own.get(device.pk, {})), pointer, on)
    inherited, _locked = merging.effective(standing.layers(device.pk)[:-1])
    if merging.at(inherited, pointer) == on:
        values = merging.put(values, pointer, None)
    here = f"/devices/{device.pk}/sends/"
    try:
        policy.save(
            visit.account,
            [Delta("device", device.pk, {"values": values} if values else None)],
            actor=visit.user,
            proven=False,
            why=_("What it sends"),
            base=standing.newest,
            origin=origin_of(request),
        )
    except policy.Outdated:
        # Saved over it, what somebody else has just changed on this device would be lost.
        messages.error(
            request, _("Nothing was changed: somebody else changed the settings. Try once more.")
        )
        return redirect(here)
    except policy.Invalid:
        messages.error(request, _("This is locked further up and can’t be set otherwise here."))
        return redirect(here)
    words = (
        _("It is told to send that from its next call on.")
        if on
        else _("It is told not to send that any more.")
    )
    messages.success(request, words)
    return redirect(here)


def _shown(kind: str, kept: list[Payload]) -> Shown:
    found = next((each for each in kept if each.kind == kind), None)
    if found is None or not found.body:
        return Shown(kind, TITLES[kind], NONE_YET[kind], found)
    raw = bytes(found.body).decode("utf-8", "replace")
    text = printable(raw)
    try:
        document = json.loads(raw)
    except ValueError:
        document = {}
    most = sent_words.MOST
    items = tuple(islice(sent_words.items(kind, document), most + 1))
    return Shown(
        kind,
        TITLES[kind],
        NONE_YET[kind],
        found,
        text=text,
        as_sent=text == raw,
        items=items[:most],
        has_more=len(items) > most,
    )


def printable(text: str) -> str:
    """Return JSON that means the same, with signs that can't be seen written as JSON's escapes."""
    return "".join(sign if sign.isprintable() else json.dumps(sign)[1:-1] for sign in text)


def _switches(visit: Visit, device: Device) -> list[Switch]:
    layers = policy.state_of(visit.account).layers(device.pk)
    document, _all_locked = merging.effective(layers)
    _inherited, locked = merging.effective(layers[:-1])
    return [
        Switch(
            pointer,
            schema.FIELDS[pointer].label,
            bool(merging.at(document, pointer)),
            pointer in locked,
        )
        for pointer in sent_words.OPTIONAL.values()
    ]


def _find(visit: Visit, device_id: UUID) -> Device:
    device = queries.find(visit.account, device_id)
    # It holds names and places of files: who may not see those sees none of it.
    if device is None or visit.sight.of(device) != Shares.PATHS:
        raise Http404
    return device
