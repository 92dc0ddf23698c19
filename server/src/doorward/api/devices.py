"""Devices over the API: joining by a code, looking, renaming, removing; and who the caller is."""

from __future__ import annotations

from typing import Final, Literal
from uuid import UUID

from django.conf import settings
from django.http import HttpRequest
from django.utils import timezone
from ninja import Router, Status

from doorward.accounts.adapter import origin_of
from doorward.accounts.permissions import Act
from doorward.api import callers, finding, shapes
from doorward.api.problems import Refused
from doorward.billing import entitlement
from doorward.devices import enrollment, queries, removal, seats

router: Final = Router()
Whose = UUID | Literal["none"] | None


@router.get("/me", response={200: shapes.Me, **shapes.ERRORS}, summary="Who you are here")
def me(request: HttpRequest) -> shapes.Me:
    """Return the person, their account and role, and what this call may do."""
    caller = callers.of(request, Act.LOOK)
    return shapes.Me.of(caller, entitlement.of(caller.account), seats.of(caller.account))


@router.post(
    "/devices/codes",
    response={201: shapes.CodeOut, **shapes.WITH_ID},
    summary="Make a code that adds a device",
)
def make_code(request: HttpRequest, member: Whose = None) -> Status[shapes.CodeOut]:
    """Make a code for one device. It works once, within ten minutes.

    The device will be yours; with `member`, another member's (their id) or nobody's own (`none`).
    Whoever it belongs to decides what the others see of it.
    """
    caller, origin = callers.of(request, Act.DEVICES_CHANGE), origin_of(request)
    code, text = enrollment.new_code(
        caller.account,
        caller.user,
        member=finding.member(caller, member).user if isinstance(member, UUID) else None,
        for_all=member == "none",
        ip=origin.ip,
        agent=origin.agent,
    )
    return Status(
        201,
        shapes.CodeOut(
            id=code.pk, code=text, server=settings.DEVICE_URL, expires_at=code.expires_at
        ),
    )


@router.get(
    "/devices/codes/{uuid:code_id}",
    response={200: shapes.CodeStateOut, **shapes.WITH_ID},
    summary="What became of a code",
)
def watch_code(request: HttpRequest, code_id: UUID) -> shapes.CodeStateOut:
    """Tell whether a device has joined by this code."""
    found = queries.code_state(
        callers.of(request, Act.DEVICES_LOOK).account, code_id, timezone.now()
    )
    if found is None:
        raise Refused("not-found")
    return shapes.CodeStateOut.of(code_id, found)


@router.get(
    "/devices",
    response={200: shapes.Page[shapes.DeviceOut], **shapes.ERRORS},
    summary="Your account's devices",
)
def list_devices(
    request: HttpRequest,
    cursor: UUID | None = None,
    limit: shapes.Limit = 50,
) -> shapes.Page[shapes.DeviceOut]:
    """Return devices in the order in which they joined."""
    caller = callers.of(request, Act.DEVICES_LOOK)
    found = queries.page(caller.account, after=cursor, size=limit)
    now = timezone.now()
    return shapes.Page(
        items=[shapes.DeviceOut.of(device, caller.sight, now) for device in found[:limit]],
        next=str(found[limit - 1].pk) if len(found) > limit else None,
    )


@router.get(
    "/devices/{uuid:device_id}",
    response={200: shapes.DeviceOut, **shapes.WITH_ID},
    summary="One device",
)
def show_device(request: HttpRequest, device_id: UUID) -> shapes.DeviceOut:
    """Return one device of your account."""
    caller = callers.of(request, Act.DEVICES_LOOK)
    return shapes.DeviceOut.of(finding.device(caller, device_id), caller.sight, timezone.now())


@router.patch(
    "/devices/{uuid:device_id}",
    response={200: shapes.DeviceOut, **shapes.WITH_ID, **shapes.WITH_BODY},
    summary="Rename a device",
)
def change_device(
    request: HttpRequest, device_id: UUID, change: shapes.DeviceChange
) -> shapes.DeviceOut:
    """Call the device by another name."""
    caller, origin = callers.of(request, Act.DEVICES_CHANGE), origin_of(request)
    device = finding.device(caller, device_id)
    try:
        removal.rename(device, change.name, actor=caller.user, ip=origin.ip, agent=origin.agent)
    except removal.NameRefused:
        raise Refused(
            "invalid",
            "A name has 1 to 200 visible characters.",
            fields=[{"at": ["body", "change", "name"], "problem": "not a name"}],
        ) from None
    return shapes.DeviceOut.of(device, caller.sight, timezone.now())


@router.delete(
    "/devices/{uuid:device_id}",
    response={204: None, **shapes.WITH_ID},
    summary="Remove a device",
)
def remove_device(request: HttpRequest, device_id: UUID) -> Status[None]:
    """Take the device out of the account; its seat is free at once, also when it is offline.

    From the sixth within an hour on, prove again who you are first; no token can.
    """
    caller, origin = callers.of(request, Act.DEVICES_CHANGE), origin_of(request)
    device = finding.device(caller, device_id)
    try:
        removal.remove(device, actor=caller.user, by=caller.by, ip=origin.ip, agent=origin.agent)
    except removal.TakesProof:
        if caller.by == "token":
            words = "Tokens remove 5 devices in an hour: use the page for more."
            raise Refused("forbidden", words) from None
        caller.must_be_fresh()
        removal.remove(device, actor=caller.user, by="proof", ip=origin.ip, agent=origin.agent)
    return Status(204, None)
