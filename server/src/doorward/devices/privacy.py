"""What the devices room keeps about people, and how devices are let go with them.

A device that went with its account learns so when it calls next: of each there stays, for half a
year, that its key was removed. It goes on protecting itself and stops reporting.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final

from django.db.models import F, Q
from django.utils import timezone

from doorward.accounts import privacy
from doorward.accounts.privacy import Room, Row, Table, Whose
from doorward.accounts.privacy_tables import moment
from doorward.devices import bell
from doorward.devices.models import Command, Device, Ended, EnrollmentCode, GoneDevice

KEPT: Final = timedelta(days=180)


def of(whose: Whose, prefix: str = "") -> Q:
    """Return which devices are meant: the accounts', and those of this person elsewhere."""
    mine = Q(**{f"{prefix}member": whose.user.pk})
    if whose.accounts:
        mine |= Q(**{f"{prefix}account__in": [account.pk for account in whose.accounts]})
    return mine


def _devices(whose: Whose) -> Iterator[Row]:
    found = Device.objects.filter(of(whose)).select_related("presence").order_by("id")
    for device in found.iterator(chunk_size=500):
        presence = getattr(device, "presence", None)
        yield [
            str(device.pk),
            str(device.account_id),
            device.name,
            device.hostname,
            device.type,
            device.os_name,
            device.os_version,
            device.agent_version,
            device.protection_state or "unknown",
            device.definitions_version,
            moment(device.enrolled_at),
            moment(presence.last_seen if presence else None),
            moment(device.revoked_at),
        ]


def _commands(whose: Whose) -> Iterator[Row]:
    found = Command.objects.filter(of(whose, "device__")).order_by("id")
    for command in found.iterator(chunk_size=500):
        yield [
            str(command.uid),
            str(command.device_id),
            command.kind,
            json.dumps(command.args),
            command.state,
            command.detail,
            moment(command.created_at),
            moment(command.started_at),
            moment(command.ended_at),
        ]


def _foretell(whose: Whose) -> dict[str, int]:
    return {"devices": Device.objects.filter(of(whose), revoked_at__isnull=True).count()}


def _close(whose: Whose) -> None:
    now = timezone.now()
    Device.objects.filter(of(whose), revoked_at__isnull=True).update(
        revoked_at=now, changed_at=now, epoch=F("epoch") + 1, removed_why=Ended.ACCOUNT
    )
    bell.ring()
    mine = Q(made_by=whose.user) | Q(member=whose.user)
    mine |= Q(account__in=whose.accounts)
    EnrollmentCode.objects.filter(mine).delete()


def _erase(whose: Whose, most: int) -> dict[str, int]:
    doomed = list(Device.objects.filter(of(whose)).order_by("id")[:most])
    if not doomed:
        return {}
    now = timezone.now()
    GoneDevice.objects.bulk_create(
        [
            GoneDevice(
                id=device.pk,
                public_key=device.public_key,
                thumbprint=device.thumbprint,
                epoch=device.epoch,
                gone_at=now,
            )
            for device in doomed
        ],
        ignore_conflicts=True,
    )
    Device.objects.filter(pk__in=[device.pk for device in doomed]).delete()
    return {"devices": len(doomed)}


def forget_gone(now: datetime) -> int:
    """Forget keys that were removed half a year ago; returns how many."""
    return GoneDevice.objects.filter(gone_at__lt=now - KEPT).delete()[0]


def register() -> None:
    """Have this room take part."""
    table = Table(
        "devices",
        "Your devices: those of the accounts you alone own, and those you added elsewhere.",
        {
            "id": "the device's number",
            "account": "the account it belongs to",
            "name": "the name you gave it",
            "hostname": "what it calls itself",
            "type": "desktop, laptop, server, phone, tablet or other",
            "os": "its system",
            "os_version": "the system's version",
            "agent_version": "the agent's version",
            "protection": "what it last said about its protection",
            "definitions": "the number of its definitions",
            "added_at": "when it was added",
            "last_seen": "when it last called",
            "removed_at": "when it was removed",
        },
        _devices,
    )
    asked = Table(
        "commands",
        "What was asked of your devices, and how far that is.",
        {
            "id": "the command's number",
            "device": "which device",
            "kind": "what was asked",
            "args": "what it was about",
            "state": "how far it is",
            "detail": "what the device said about it",
            "asked_at": "when it was asked",
            "started_at": "when the device began",
            "ended_at": "when it ended",
        },
        _commands,
    )
    covers = {
        "devices.Device": "removed, then deleted",
        "devices.Command": "goes with its device",
        "devices.Presence": "goes with its device",
        "devices.Payload": "the last bytes sent, which the other tables say; goes with its device",
        "devices.Twin": "goes with its device",
        "devices.EnrollmentCode": "goes when the deleting begins",
        "devices.EnrollmentThrottle": "network addresses of wrong codes, forgotten in an hour",
        "devices.GoneDevice": "a public key of nobody, so that its device learns it was removed",
    }
    privacy.register(
        Room(
            "devices",
            tables=(table, asked),
            covers=covers,
            foretell=_foretell,
            close=_close,
            erase=_erase,
        )
    )
