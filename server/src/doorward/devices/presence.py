"""Reads and writes what the gateways keep in memory about devices, many at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

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
class Seen:
    """A device that called since the last write, and what it told."""

    presence_id: int
    device_id: UUID
    seq: int
    boot_id: UUID | None
    former_boot_id: UUID | None
    facts: CheckIn | None
    """The call itself where it told something new, else None."""


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
def store(seen: Sequence[Seen], now: datetime) -> None:
    """Write down, in one transaction, that these devices called just before `now`."""
    _store_calls(seen, now)
    for one in seen:
        if one.facts is not None:
            _store_facts(one.device_id, one.facts)


def _store_calls(seen: Sequence[Seen], now: datetime) -> None:
    # Two gateways may both have heard the device; the larger count is the later call.
    stored = connection.ops.adapt_datetimefield_value(now)
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute(
                "UPDATE devices_presence SET last_seen = %s,"
                " seq = GREATEST(devices_presence.seq, news.seq),"
                " boot_id = news.boot_id, former_boot_id = news.former_boot_id"
                " FROM unnest(%s::bigint[], %s::bigint[], %s::uuid[], %s::uuid[])"
                " AS news(id, seq, boot_id, former_boot_id) WHERE devices_presence.id = news.id",
                [
                    stored,
                    [one.presence_id for one in seen],
                    [one.seq for one in seen],
                    [one.boot_id for one in seen],
                    [one.former_boot_id for one in seen],
                ],
            )
        else:
            cursor.executemany(
                "UPDATE devices_presence SET last_seen = %s, seq = MAX(seq, %s),"
                " boot_id = %s, former_boot_id = %s WHERE id = %s",
                [
                    (stored, one.seq, _hex(one.boot_id), _hex(one.former_boot_id), one.presence_id)
                    for one in seen
                ],
            )


def _hex(value: UUID | None) -> str | None:
    return None if value is None else value.hex


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
