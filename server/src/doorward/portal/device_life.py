"""When a device exists twice, or another takes its place: what it means, and settling it."""

from __future__ import annotations

from uuid import UUID

from django.contrib import messages
from django.core.exceptions import BadRequest
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods

from doorward.accounts import asking_again
from doorward.accounts.adapter import origin_of
from doorward.accounts.permissions import Act
from doorward.devices import clones, commands, queries, replacing
from doorward.devices.models import Device, Twin
from doorward.portal import devices, texts, visits
from doorward.portal.visits import Visit


@require_http_methods(["GET", "HEAD", "POST"])
@visits.may(Act.DEVICES_CHANGE)
def keep(request: HttpRequest, visit: Visit, device_id: UUID) -> HttpResponse:
    """Say what keeping one of two computers means; on POST have the other's key end."""
    device = _find(visit, device_id)
    here = f"/devices/{device.pk}/"
    which = request.POST.get("keep", "") or request.GET.get("keep", "")
    if which not in {"current", "other"}:
        raise BadRequest("keep")
    twin = Twin.objects.filter(device=device).first()
    if device.cloned_at is None or (which == "other" and (twin is None or twin.by_former_key)):
        messages.info(request, _("Nothing was changed: that is settled already."))
        return redirect(here)
    if request.method != "POST":
        context = {"visit": visit, "device": device, "twin": twin, "which": which}
        return render(request, "portal/devices/keep.html", context)
    try:
        command = clones.keep(
            device,
            "current" if which == "current" else "other",
            actor=visit.user,
            origin=origin_of(request),
        )
    except clones.NothingToSettle:
        messages.info(request, _("Nothing was changed: that is settled already."))
    except commands.NotAsked:
        messages.error(
            request,
            _(
                "This one can’t be given a new key from here. On the other computer run "
                "“unenroll --local”, then add it anew, and say here that it is settled."
            ),
        )
    else:
        if command is None:
            words = _("It is settled. The other computer can only join anew.")
        else:
            words = _("The one you keep gets a key of its own. The other’s ends with that.")
        messages.success(request, words)
    return redirect(here)


@require_http_methods(["GET", "HEAD", "POST"])
@visits.may(Act.DEVICES_CHANGE)
def replace(request: HttpRequest, visit: Visit, device_id: UUID) -> HttpResponse:
    """Have another device take this one's place: one that joins now, or one that is here already.

    The old one is taken out and what it was told may protect less: so it takes a fresh proof.
    """
    old = _find(visit, device_id)
    if request.method != "POST":
        return _page(request, visit, old)
    what = request.POST.get("what", "")
    new = _chosen(request, visit, old) if what == "here" else None
    if what == "here" and new is None:
        return _page(request, visit, old, error=_("Choose the device that takes its place."))
    if what not in {"here", "code"}:
        raise BadRequest("what")
    asking_again.first(request)
    if new is None:
        return devices.show_code(request, visit, replaces=old)
    try:
        replacing.replace(old, new, actor=visit.user, origin=origin_of(request))
    except replacing.CannotReplace:
        raise Http404 from None
    messages.success(
        request,
        _("This device is %(name)s now. The old one is out, and its place is free.")
        % {"name": texts.shortened(texts.visible(old.label), 60)},
    )
    return redirect(f"/devices/{new.pk}/")


def _page(request: HttpRequest, visit: Visit, old: Device, error: str = "") -> HttpResponse:
    others = [each for each in queries.page(visit.account) if each.pk != old.pk]
    # Nearly always it is the one that has just joined.
    others.sort(key=lambda each: each.enrolled_at, reverse=True)
    context = {"visit": visit, "device": old, "others": others, "error": error}
    return render(request, "portal/devices/replace.html", context, status=422 if error else 200)


def _chosen(request: HttpRequest, visit: Visit, old: Device) -> Device | None:
    try:
        found = queries.find(visit.account, UUID(request.POST.get("new", "")))
    except ValueError:
        return None
    return None if found is None or found.pk == old.pk else found


def _find(visit: Visit, device_id: UUID) -> Device:
    device = queries.find(visit.account, device_id)
    if device is None:
        raise Http404
    return device
