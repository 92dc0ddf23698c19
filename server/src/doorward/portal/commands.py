"""Asking a device to do something now, watching how far it is, and taking it back."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Final
from uuid import UUID

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils import timezone
from django.utils.functional import Promise
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_POST, require_safe
from uuid_utils.compat import uuid7

from doorward.accounts.adapter import origin_of
from doorward.accounts.models import Shares
from doorward.accounts.permissions import Act
from doorward.devices import commands, queries
from doorward.devices.models import OPEN, Command, CommandState, Device
from doorward.portal import asked, filters, live, texts, visits
from doorward.portal.visits import Visit
from doorward.reports import queries as reports
from doorward_protocol.messages import MAX_PATH, CommandArgs

SHOWN: Final = 3
"""Commands on the device's own page; its list has the others."""
PAGE: Final = 30
FAST: Final = "every 400ms"
"""How often a page looks while something moves; else as often as every live part."""
EXAMPLES: Final = {
    "windows": "C:\\Users\\you\\Downloads",
    "macos": "/Users/you/Downloads",
}
KINDS: Final = {
    "definitions": "definitions.update",
    "check": "diagnostics.collect",
    "key": "key.rotate",
}
HOW: Final[dict[str, tuple[str | Promise, frozenset[str]]]] = {
    "open": (gettext_lazy("Going on"), frozenset(OPEN)),
    "done": (gettext_lazy("Done"), frozenset({CommandState.DONE})),
    "not": (
        gettext_lazy("Not done"),
        frozenset(set(CommandState.values) - {*OPEN, CommandState.DONE}),
    ),
}
"""By what a list of commands can be narrowed."""


@require_safe
@visits.may(Act.DEVICES_LOOK)
def watch(request: HttpRequest, visit: Visit, device_id: UUID) -> HttpResponse:
    """Answer with the part about commands of the device's page; 204 while nothing is new."""
    device = _find(visit, device_id)
    if request.headers.get("HX-Request") != "true":
        return redirect(_page_of(device))
    inside, tag = _part(request, visit, device)
    if request.headers.get("If-None-Match") == f'"{tag}"':
        return live.tagged(HttpResponse(status=204), tag)
    return live.tagged(HttpResponse(inside()), tag)


def section(request: HttpRequest, visit: Visit, device: Device) -> SafeString:
    """Return the section of the device's page that asks it things and tells how far they are.

    What is asked by stands outside of the part that renews itself: nobody's typing is disturbed.
    """
    more = {word: commands.offers(device, kind) for word, kind in KINDS.items()}
    can_scan = commands.offers(device, "scan.run")
    context = {
        "device": device,
        "part": _drawn(request, visit, device),
        "may_ask": visit.may(Act.DEVICES_COMMAND),
        "offered_scan": can_scan,
        "offered_definitions": more["definitions"],
        "offered_check": more["check"],
        "offered_key": more["key"],
        "offered_more": can_scan or any(more.values()),
        "may_choose": visit.sight.of(device) == Shares.PATHS,
        "is_off": commands.is_switched_off(device),
        "uid": uuid7(),
        "example": EXAMPLES.get(device.os_name.lower(), "/home/you/Downloads"),
    }
    return live.part(request, "portal/commands/ask.html", context)


@require_POST
@visits.may(Act.DEVICES_COMMAND)
def ask(request: HttpRequest, visit: Visit, device_id: UUID) -> HttpResponse:
    """Have the device do what the form says; asked twice by one form, it does it once."""
    device = _find(visit, device_id)
    try:
        kind, args = _wanted(request, visit, device)
        commands.ask(
            device,
            kind,
            args,
            actor=visit.user,
            # A page that stays open has a fresh one for each time it asks.
            uid=_uid(request.POST.get("fresh") or request.POST.get("uid", "")),
            origin=origin_of(request),
        )
    except commands.NotAsked as refused:
        return _refused(request, visit, device, refused)
    if request.headers.get("HX-Request") == "true":
        return HttpResponse(_drawn(request, visit, device))
    return redirect(_page_of(device))


@require_POST
@visits.may(Act.DEVICES_COMMAND)
def cancel(request: HttpRequest, visit: Visit, device_id: UUID, uid: UUID) -> HttpResponse:
    """Take a command back."""
    device = _find(visit, device_id)
    command = _command(visit, device, uid)
    commands.cancel(command, actor=visit.user, origin=origin_of(request))
    if request.headers.get("HX-Request") == "true":
        return HttpResponse(_drawn(request, visit, device))
    back = {
        "list": f"{_page_of(device)}commands/all/",
        "everywhere": "/devices/commands/",
        "command": f"{_page_of(device)}commands/{uid}/",
    }
    return redirect(back.get(request.POST.get("back", ""), _page_of(device)))


@require_safe
@visits.may(Act.DEVICES_LOOK)
def overview(request: HttpRequest, visit: Visit, device_id: UUID) -> HttpResponse:
    """List what was asked of the device in the last months, newest first."""
    return _list(request, visit, _find(visit, device_id))


@require_safe
@visits.may(Act.DEVICES_LOOK)
def everywhere(request: HttpRequest, visit: Visit) -> HttpResponse:
    """List what was asked of all devices in the last months, newest first."""
    return _list(request, visit, None)


def _list(request: HttpRequest, visit: Visit, device: Device | None) -> HttpResponse:
    now = timezone.now()
    before = request.GET.get("before", "")
    if before and not (before.isascii() and before.isdigit() and len(before) < 19):
        raise Http404
    how = filters.one_of(request.GET, "how", HOW)
    kind = filters.one_of(request.GET, "kind", asked.TITLES)
    wanted = commands.Wanted(
        device=device.pk if device is not None else None,
        states=HOW[how][1] if how else frozenset(),
        kinds=frozenset({kind} if kind else ()),
    )
    found = commands.page(visit.account, wanted, before=int(before) if before else None, size=PAGE)
    shown = found[:PAGE]
    how_far = {key: words for key, (words, _states) in HOW.items()}
    return live.answer(
        request,
        "portal/commands/list.html",
        "portal/commands/list_live.html",
        seen=(visit.role, [asked.seen(command) for command in found], now.minute),
        context=lambda: {
            "visit": visit,
            "device": device,
            "asked": [asked.of(each, each.device, visit.sight, now) for each in shown],
            "may_ask": visit.may(Act.DEVICES_COMMAND),
            "filters": [
                filters.by(request.GET, _("How far"), "how", how_far),
                filters.by(request.GET, _("What"), "kind", asked.TITLES),
            ],
            "is_filtered": bool(how or kind),
            "next": filters.link(request.GET, before=str(shown[-1].pk))
            if len(found) > PAGE
            else "",
            "newest": filters.link(request.GET, before=""),
            "is_first": not before,
            "going_on": sum(command.is_open for command in shown) if not before else 0,
        },
    )


@require_safe
@visits.may(Act.DEVICES_LOOK)
def show(request: HttpRequest, visit: Visit, device_id: UUID, uid: UUID) -> HttpResponse:
    """Show one command: what was asked by whom, how far it is, and what the device gave back."""
    device = _find(visit, device_id)
    command = _command(visit, device, uid)
    now = timezone.now()
    return live.answer(
        request,
        "portal/commands/one.html",
        "portal/commands/one_live.html",
        seen=(visit.role, asked.seen(command), reports.version(visit.account), now.minute),
        context=lambda: {
            "visit": visit,
            "device": device,
            "it": asked.of(command, device, visit.sight, now),
            "scan": reports.scan_by_command(visit.sight, device.pk, command.uid)
            if command.kind == "scan.run"
            else None,
            "may_ask": visit.may(Act.DEVICES_COMMAND),
            "report": _readable(command.report) if visit.sight.of(device) != Shares.STATE else "",
        },
    )


def _drawn(request: HttpRequest, visit: Visit, device: Device, error: str = "") -> SafeString:
    draw, _tag = _part(request, visit, device, error)
    return draw()


def _part(
    request: HttpRequest, visit: Visit, device: Device, error: str = ""
) -> tuple[Callable[[], SafeString], str]:
    now = timezone.now()
    newest = commands.of_device(device, most=SHOWN)
    # What is going on; else how the last one went.
    shown = [command for command in newest if command.is_open] or newest[:1]
    is_moving = any(asked.is_moving(command, device, now) for command in shown)
    last = asked.last_seen(device)
    seen = (
        [asked.seen(command) for command in newest],
        visit.role,
        is_moving,
        # Ages in words change by the minute.
        (now - last).total_seconds() // 60 if last and not is_moving else last is None,
        error,
    )
    tag = hashlib.blake2b(repr(seen).encode("utf-8", "replace"), digest_size=12).hexdigest()

    def draw() -> SafeString:
        context = {
            "device": device,
            "asked": [asked.of(command, device, visit.sight, now) for command in shown],
            "may_ask": visit.may(Act.DEVICES_COMMAND),
            "uid": uuid7(),
            "tag": tag,
            "pace": FAST if is_moving else "look-again from:body",
            "error": error,
        }
        return live.part(request, "portal/commands/part.html", context)

    return draw, tag


def _wanted(request: HttpRequest, visit: Visit, device: Device) -> tuple[str, CommandArgs]:
    what = request.POST.get("what", "")
    if what in {"quick", "full"}:
        return "scan.run", CommandArgs(scope="quick" if what == "quick" else "full")
    if what in KINDS:
        return KINDS[what], CommandArgs()
    if what != "folder" or visit.sight.of(device) != Shares.PATHS:
        raise Http404
    return "scan.run", CommandArgs(paths=(request.POST.get("path", "").strip()[: MAX_PATH + 1],))


def _refused(
    request: HttpRequest, visit: Visit, device: Device, refused: commands.NotAsked
) -> HttpResponse:
    match refused:
        case commands.InvalidArgs():
            words = _("Write the whole path, from the root of the device: no .. in it.")
        case commands.NotOffered(is_switched_off=True):
            words = _("Somebody has switched remote actions off on this device.")
        case commands.TooManyWaiting():
            words = _("Too much waits for this device already. Take something back first.")
        case commands.UidTaken():
            words = _("This page was too old. Ask once more.")
        case _:
            words = _("This device does not do that from afar.")
    if request.headers.get("HX-Request") == "true":
        return HttpResponse(_drawn(request, visit, device, words))
    messages.error(request, words)
    return redirect(_page_of(device))


def _readable(report: str) -> str:
    return "\n".join(texts.visible(line) for line in report.splitlines())


def _page_of(device: Device) -> str:
    return f"/devices/{device.pk}/"


def _find(visit: Visit, device_id: UUID) -> Device:
    device = queries.find(visit.account, device_id)
    if device is None:
        raise Http404
    return device


def _command(visit: Visit, device: Device, uid: UUID) -> Command:
    command = commands.find(visit.account, uid)
    if command is None or command.device_id != device.pk:
        raise Http404
    return command


def _uid(text: str) -> UUID | None:
    try:
        return UUID(text) if text else None
    except ValueError:
        raise Http404 from None
