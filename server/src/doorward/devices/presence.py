"""Reads and writes what the gateways keep in memory about devices, many at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from django.db import connection, transaction
from django.db.models import F
from django.utils import timezone

from doorward.audit import trail
from doorward.billing import entitlement
from doorward.devices.check_in import DeviceState
from doorward.devices.models import Device, Presence
from doorward_protocol.messages import CheckIn, Entitled, Jwk
from doorward_protocol.signing import public_key_of

LATE_COMMIT: Final = timedelta(seconds=30)
"""A change counts from when it was written but shows when it is committed: look back this far."""


@dataclass(frozen=True)
class Change:
    """What a gateway must know about a device that changed elsewhere."""

    device_id: UUID
    epoch: int
    revoked: bool
    cloned: bool


@dataclass(frozen=True)
class Calls:
    """What a gateway heard since the last write."""

    seen: Sequence[tuple[int, int]]
    """Each device that called: its presence's id, and its count of calls."""
    started: Sequence[tuple[int, UUID | None, UUID | None]]
    """Those that started anew: the presence's id, this start's id and the one's before."""
    facts: Mapping[UUID, CheckIn]
    """Those that told something new, by the device's id: the call that told it."""


def load(device_ids: Iterable[UUID]) -> dict[UUID, DeviceState]:
    """The states of those devices that there are, removed ones too, by two queries."""
    rows = Presence.objects.filter(device_id__in=list(device_ids)).select_related("device")
    states = {
        row.device_id: DeviceState(
            device_id=row.device_id,
            account_id=row.device.account_id,
            presence_id=row.pk,
            epoch=row.device.epoch,
            revoked=row.device.revoked_at is not None,
            cloned=row.device.cloned_at is not None,
            boot_id=row.boot_id,
            former_boot_id=row.former_boot_id,
            seq=row.seq,
        )
        for row in rows
    }
    entitlements = entitled(state.account_id for state in states.values())
    for state in states.values():
        state.entitlement = entitlements[state.account_id]
    return states


def entitled(account_ids: Iterable[UUID]) -> dict[UUID, Entitled]:
    """What each account has paid for, as its devices are told."""
    return {
        account_id: Entitled(
            state=found.state,
            until=None if found.until is None else int(found.until.timestamp() * 1000),
        )
        for account_id, found in entitlement.of_many(account_ids).items()
    }


def by_key(thumbprint: str) -> tuple[Device, Ed25519PublicKey] | None:
    """The device that has this key, and the key; a removed one only where none is there now."""
    device = (
        Device.objects.filter(thumbprint=thumbprint)
        .order_by(F("revoked_at").desc(nulls_first=True))
        .first()
    )
    if device is None:
        return None
    return device, public_key_of(Jwk(kty="OKP", crv="Ed25519", x=device.public_key))


def changed_since(moment: datetime) -> list[Change]:
    """Every device that was removed, renewed or flagged since, and perhaps some a little before."""
    rows = Device.objects.filter(changed_at__gte=moment - LATE_COMMIT).values_list(
        "id", "epoch", "revoked_at", "cloned_at"
    )
    return [
        Change(device_id, epoch, revoked_at is not None, cloned_at is not None)
        for device_id, epoch, revoked_at, cloned_at in rows.iterator()
    ]


@transaction.atomic
def store(calls: Calls, now: datetime) -> None:
    """Write down, in one transaction, that these devices called just before `now`.

    Two gateways may both have heard a device; the larger count is the later call.
    """
    _store_seen(calls.seen, connection.ops.adapt_datetimefield_value(now))
    for presence_id, boot_id, former_boot_id in calls.started:
        Presence.objects.filter(pk=presence_id).update(
            boot_id=boot_id, former_boot_id=former_boot_id
        )
    for device_id, call in calls.facts.items():
        _store_facts(device_id, call)


def _store_seen(seen: Sequence[tuple[int, int]], now: datetime | str | None) -> None:
    # One statement for all of them. With one for each, this thread and the one that answers devices
    # would hand Python's lock to and fro at every row.
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute(
                "UPDATE devices_presence SET last_seen = %s,"
                " seq = GREATEST(devices_presence.seq, news.seq)"
                " FROM unnest(%s::bigint[], %s::bigint[]) AS news(id, seq)"
                " WHERE devices_presence.id = news.id",
                [now, [presence_id for presence_id, _ in seen], [seq for _, seq in seen]],
            )
        else:
            cursor.execute(
                "UPDATE devices_presence SET last_seen = %s,"
                " seq = MAX(devices_presence.seq, news.value ->> 1)"
                " FROM json_each(%s) AS news WHERE devices_presence.id = news.value ->> 0",
                [now, msgspec.json.encode(seen).decode()],
            )


def _store_facts(device_id: UUID, call: CheckIn) -> None:
    fields: dict[str, Any] = {
        "settings_version": call.settings.version,
        "settings_status": call.settings.status,
        "settings_errors": [
            {"pointer": error.pointer, "code": error.code} for error in call.settings.errors
        ],
        "definitions_version": call.definitions.version,
        "protection_state": call.protection.state,
        "protection_reasons": list(call.protection.reasons),
        "queue_depth": call.queue.depth,
        "queue_dropped": call.queue.dropped,
    }
    if call.device is not None:
        fields |= {
            "hostname": call.device.hostname,
            "os_name": call.device.os.name,
            "os_version": call.device.os.version,
            "type": call.device.type,
            "agent_version": call.device.agent_version,
        }
    Device.objects.filter(pk=device_id).update(**fields)


@transaction.atomic
def flag_clone(device_id: UUID, *, address: str) -> None:
    """Remember that two devices use this one's key; the second time changes nothing."""
    now = timezone.now()
    flagged = Device.objects.filter(pk=device_id, cloned_at__isnull=True).update(
        cloned_at=now, changed_at=now
    )
    if flagged:
        device = Device.objects.get(pk=device_id)
        trail.record(
            "device.cloned",
            account=device.account_id,
            target=str(device.pk),
            ip=address,
            name=device.label,
        )
