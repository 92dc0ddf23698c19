"""The devices pages: list, one device, add, rename, remove."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit
from uuid import UUID

import segno
from django import forms
from django.conf import settings
from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from doorward.accounts import asking_again, members
from doorward.accounts.adapter import origin_of
from doorward.accounts.models import Membership, User
from doorward.accounts.permissions import Act
from doorward.devices import clones, enrollment, queries, removal, seats, state
from doorward.devices.models import Device, Twin
from doorward.portal import commands as asking
from doorward.portal import freshness, live, texts, visits
from doorward.portal.visits import Visit
from doorward.protection.definitions import rollout
from doorward.reports import queries as reports
from doorward.reports.models import Detection
from doorward_protocol.messages import MAX_NAME

RECENT_SHOWN: Final = 5
FOR_ALL: Final = "account"
"""A device that is nobody's own."""


@require_safe
@visits.may(Act.DEVICES_LOOK)
def list_devices(request: HttpRequest, visit: Visit) -> HttpResponse:
    """Show the account's devices with state and age, a page at a time."""
    now = timezone.now()
    after = _uuid(request.GET.get("after", ""))
    found = queries.page(visit.account, after=after)
    shown = found[: queries.PAGE]

    def context() -> dict[str, object]:
        reported = reports.of_devices(visit.sight, [device.pk for device in shown])
        return {
            "visit": visit,
            "devices": [
                (device, state.of(device, now), reported[device.pk], visit.sight.of(device))
                for device in shown
            ],
            "seats": seats.of(visit.account),
            "next": shown[-1].pk if len(found) > queries.PAGE else None,
            "is_first": after is None,
        }

    seen = (
        reports.version(visit.account),
        visit.role,
        [state.seen(device, now) for device in found],
        now.date(),
    )
    return live.answer(
        request,
        "portal/devices/list.html",
        "portal/devices/list_live.html",
        seen=seen,
        context=context,
    )


@require_safe
@visits.may(Act.DEVICES_LOOK)
def show(request: HttpRequest, visit: Visit, device_id: UUID) -> HttpResponse:
    """Show one device: how it is, what it is, what it reported last."""
    device = _find(visit, device_id)
    now = timezone.now()
    scans = reports.ScanFilter(device=device.pk)
    sets = rollout.steps()

    def context() -> dict[str, object]:
        threats, more_open = _newest_threats(visit, device)
        return {
            "visit": visit,
            "device": device,
            "state": state.of(device, now),
            "shared": visit.sight.of(device),
            "whose": _whose(visit, device),
            "start": start_command(device),
            "definitions": freshness.of(device, sets, now),
            "rules": _rules(),
            "twin": Twin.objects.filter(device=device).first() if device.cloned_at else None,
            "threats": threats,
            "more_open": more_open,
            "scans": reports.scans(visit.sight, scans, limit=RECENT_SHOWN).rows,
            "asked": lambda: asking.section(request, visit, device),
        }

    seen = (
        reports.version(visit.account),
        visit.role,
        state.seen(device, now),
        # What a device says of itself is written behind, without a new changed_at.
        device.protection_state,
        device.protection_reasons,
        *freshness.seen(device),
        sets,
        device.queue_depth,
        device.queue_dropped,
        device.settling_since,
        now.date(),
    )
    return live.answer(
        request,
        "portal/devices/device.html",
        "portal/devices/device_live.html",
        seen=seen,
        context=context,
    )


def _newest_threats(visit: Visit, device: Device) -> tuple[list[Detection], bool]:
    """What is still there first, then the newest of the others; and if more are still there."""
    left = reports.ThreatFilter(device=device.pk, is_open=True)
    settled = reports.ThreatFilter(device=device.pk, is_open=False)
    still = reports.threats(visit.sight, left, limit=RECENT_SHOWN + 1).rows
    others = reports.threats(visit.sight, settled, limit=RECENT_SHOWN).rows
    return [*still, *others][:RECENT_SHOWN], len(still) > RECENT_SHOWN


# -- adding ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Way:
    """How one system's users run the agent."""

    system: str
    word: str
    enroll: str
    start: str


def commands(code: str) -> list[Way]:
    """Return the exact commands for each system, in the words its shell understands."""
    server = settings.DEVICE_URL
    address = urlsplit(server)
    # The agent refuses plain http to another machine unless it is told that this is meant.
    if address.scheme == "http" and address.hostname not in {"localhost", "127.0.0.1", "::1"}:
        server += " --insecure-http"
    here, windows = "./doorward agent", "py doorward agent"
    enroll = f"enroll --server {server} --code {code}"
    return [
        Way("linux", "Linux", f"{here} {enroll}", f"{here} run"),
        Way("macos", "macOS", f"{here} {enroll}", f"{here} run"),
        Way("windows", "Windows", f"{windows} {enroll}", f"{windows} run"),
    ]


def start_command(device: Device) -> str:
    """Return what starts the agent of a device that has joined, as its system's users type it."""
    return f"{launcher_of(device)} agent run"


def launcher_of(device: Device) -> str:
    """Return how this program is started on the device's system."""
    return "py doorward" if device.os_name == "windows" else "./doorward"


@require_http_methods(["GET", "HEAD", "POST"])
@visits.may(Act.DEVICES_CHANGE)
def add(request: HttpRequest, visit: Visit) -> HttpResponse:
    """Say how a device joins; on POST make the code, shown in this one answer and kept nowhere."""
    people = members.people(visit.account)
    context = {"visit": visit, "seats": seats.of(visit.account), "people": people}
    if request.method != "POST":
        return render(request, "portal/devices/add.html", context)
    member, for_all = _chosen(request.POST.get("whose", ""), visit, people)
    return show_code(request, visit, member=member, for_all=for_all)


def show_code(
    request: HttpRequest,
    visit: Visit,
    *,
    member: User | None = None,
    for_all: bool = False,
    replaces: Device | None = None,
) -> HttpResponse:
    """Make a code and show it, in this one answer, with the commands that use it."""
    origin = origin_of(request)
    code, text = enrollment.new_code(
        visit.account,
        visit.user,
        member=member,
        for_all=for_all,
        replaces=replaces,
        ip=origin.ip,
        agent=origin.agent,
    )
    ways = commands(text)
    context = {
        "visit": visit,
        "replaces": replaces,
        "code": text,
        "ways": ways,
        "qr": SafeString(  # nosec B703 # drawn by segno from ASCII of ours; no part of it comes from a person
            segno.make(ways[0].enroll, error="m", micro=False).svg_inline(
                omitsize=True, border=2, svgclass=None, lineclass=None, dark="#10303a"
            )
        ),
        "expires_at": code.expires_at,
        "waiting": _waiting(request, visit, code.pk),
    }
    return render(request, "portal/devices/code.html", context)


@require_safe
@visits.may(Act.DEVICES_CHANGE)
def watch_code(request: HttpRequest, visit: Visit, code_id: UUID) -> HttpResponse:
    """Tell the page that shows a code what became of it: waiting, connected or run out."""
    if request.headers.get("HX-Request") != "true":
        return redirect("/devices/add/")
    return HttpResponse(_waiting(request, visit, code_id))


def _chosen(text: str, visit: Visit, people: list[Membership]) -> tuple[User | None, bool]:
    if text == FOR_ALL:
        return None, True
    for place in people:
        if text == str(place.user_id):
            return place.user, False
    # Left out, or somebody who has just left: it is the person's own, who shares what they chose.
    return visit.user, False


def _whose(visit: Visit, device: Device) -> Membership | None:
    if device.member_id is None:
        return None
    return members.find(visit.account, device.member_id)


def _waiting(request: HttpRequest, visit: Visit, code_id: UUID) -> SafeString:
    now = timezone.now()
    found = queries.code_state(visit.account, code_id, now)
    if found is None:
        raise Http404
    context = {
        "visit": visit,
        "code_id": code_id,
        "found": found,
        "state": state.of(found.device, now) if found.device else None,
    }
    return live.part(request, "portal/devices/waiting.html", context)


# -- changing ----------------------------------------------------------------------------------


class NameForm(forms.Form):
    """A device's name."""

    name = forms.CharField(
        label=gettext_lazy("Name"),
        max_length=MAX_NAME,
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
        help_text=gettext_lazy("What everybody in this account calls it."),
    )


@require_http_methods(["GET", "HEAD", "POST"])
@visits.may(Act.DEVICES_CHANGE)
def rename(request: HttpRequest, visit: Visit, device_id: UUID) -> HttpResponse:
    """Let a member call the device by another name."""
    device = _find(visit, device_id)
    form = NameForm(request.POST or None, initial={"name": texts.visible(device.label)})
    if request.method == "POST" and form.is_valid():
        origin = origin_of(request)
        try:
            removal.rename(
                device,
                form.cleaned_data["name"],
                actor=visit.user,
                ip=origin.ip,
                agent=origin.agent,
            )
        except removal.NameRefused:
            form.add_error(
                "name", _("Use letters, digits and signs that can be seen, at most 200 of them.")
            )
        else:
            messages.success(
                request,
                _("It is called %(name)s now.") % {"name": texts.shortened(device.label, 60)},
            )
            return redirect(f"/devices/{device.pk}/")
    return render(
        request,
        "portal/devices/rename.html",
        {"visit": visit, "device": device, "form": form},
        status=422 if form.errors else 200,
    )


@require_http_methods(["GET", "HEAD", "POST"])
@visits.may(Act.DEVICES_CHANGE)
def remove(request: HttpRequest, visit: Visit, device_id: UUID) -> HttpResponse:
    """Say what removing the device costs; on POST do it. One of many takes a fresh proof."""
    device = _find(visit, device_id)
    if request.method != "POST":
        return render(request, "portal/devices/remove.html", {"visit": visit, "device": device})
    origin = origin_of(request)
    try:
        removal.remove(device, actor=visit.user, by="session", ip=origin.ip, agent=origin.agent)
    except removal.TakesProof:
        asking_again.first(request)
        removal.remove(device, actor=visit.user, by="proof", ip=origin.ip, agent=origin.agent)
    messages.success(
        request,
        _("%(name)s is removed. Its place is free.")
        % {"name": texts.shortened(texts.visible(device.label), 60)},
    )
    return redirect("/devices/")


@require_POST
@visits.may(Act.DEVICES_CHANGE)
def settle_copy(request: HttpRequest, visit: Visit, device_id: UUID) -> HttpResponse:
    """Take the warning about a copied identity away."""
    device = _find(visit, device_id)
    origin = origin_of(request)
    clones.leave_both(device, actor=visit.user, origin=origin)
    return redirect(f"/devices/{device.pk}/")


def _find(visit: Visit, device_id: UUID) -> Device:
    device = queries.find(visit.account, device_id)
    if device is None:
        raise Http404
    return device


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text) if text else None
    except ValueError:
        raise Http404 from None


def _rules() -> dict[str, int]:
    return {
        "fresh": int(state.FRESH.total_seconds() // 60),
        "quiet": int(state.QUIET.total_seconds() // 3600),
        "silent": state.SILENT.days,
    }
