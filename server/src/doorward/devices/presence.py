"""Reads and writes what the gateways keep in memory about devices, many at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from django.db import connection, transaction
from django.db.models import F
from django.utils import timezone

from doorward.billing import entitlement
from doorward.devices import commands
from doorward.devices.check_in import DeviceState, remember
from doorward.devices.models import Device, GoneDevice, Presence
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
    settings_version: int
    commanded_at: datetime | None
    removed_why: str
    watched_until: datetime | None


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
    """The states of those devices that there are, removed ones too, by three queries.

    By a fourth where some are not there: one that was deleted with its account is a removed one.
    """
    wanted = list(device_ids)
    rows = Presence.objects.filter(device_id__in=wanted).select_related("device")
    states: dict[UUID, DeviceState] = {}
    accounts: dict[UUID, UUID] = {}
    for row in rows:
        account_id = row.device.account_id
        state = states[row.device_id] = DeviceState(
            device_id=row.device_id,
            account_id=accounts.setdefault(account_id, account_id),
            presence_id=row.pk,
            epoch=row.device.epoch,
            revoked=row.device.revoked_at is not None,
            removed_why=row.device.removed_why,
            watched_until=row.device.watched_until,
            cloned=row.device.cloned_at is not None,
            commanded_at=row.device.commanded_at,
            boot_id=row.boot_id,
            former_boot_id=row.former_boot_id,
            seq=row.seq,
            settings_version=row.device.wanted_version,
        )
        said = _said(row)
        if said is not None:
            remember(state, said)
    for device_id in commands.waiting_for(states):
        states[device_id].has_commands = True
    missing = [device_id for device_id in wanted if device_id not in states]
    if missing:
        states |= _gone(missing)
    entitlements = entitled(state.account_id for state in states.values())
    for state in states.values():
        state.entitlement = entitlements[state.account_id]
    return states


def _gone(device_ids: list[UUID]) -> dict[UUID, DeviceState]:
    return {
        gone.pk: DeviceState(
            device_id=gone.pk,
            account_id=gone.pk,
            presence_id=0,
            epoch=gone.epoch,
            revoked=True,
            removed_why=gone.why,
        )
        for gone in GoneDevice.objects.filter(pk__in=device_ids)
    }


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
    """The device that has this key, and the key; a removed one only where none is there now.

    For a while after a key was changed, the one before it is still the device's.
    """
    device = (
        Device.objects.filter(thumbprint=thumbprint)
        .order_by(F("revoked_at").desc(nulls_first=True))
        .first()
    )
    if device is not None:
        return device, _public_key(device.public_key)
    device = Device.objects.filter(
        former_thumbprint=thumbprint, former_key_until__gt=timezone.now(), revoked_at__isnull=True
    ).first()
    if device is not None:
        return device, _public_key(device.former_public_key)
    gone = GoneDevice.objects.filter(thumbprint=thumbprint).order_by("-gone_at").first()
    if gone is None:
        return None
    # Never stored: it only says that this key was removed.
    removed = Device(
        pk=gone.pk,
        epoch=gone.epoch,
        revoked_at=gone.gone_at,
        removed_why=gone.why,
        thumbprint=gone.thumbprint,
    )
    return removed, _public_key(gone.public_key)


def _public_key(x: str) -> Ed25519PublicKey:
    return public_key_of(Jwk(kty="OKP", crv="Ed25519", x=x))


def changed_since(moment: datetime) -> list[Change]:
    """Every device of which a gateway must know something new since then, and perhaps others."""
    rows = Device.objects.filter(changed_at__gte=moment - LATE_COMMIT).values_list(
        "id",
        "epoch",
        "revoked_at",
        "cloned_at",
        "wanted_version",
        "commanded_at",
        "removed_why",
        "watched_until",
    )
    return [
        Change(
            device_id,
            epoch,
            revoked is not None,
            cloned is not None,
            wanted,
            commanded,
            why,
            watched,
        )
        for device_id, epoch, revoked, cloned, wanted, commanded, why, watched in rows.iterator()
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
    if calls.facts:
        _store_facts(calls.facts)


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


def _store_facts(facts: Mapping[UUID, CheckIn]) -> None:
    # By hand and all at once: after a restart of the server every device tells everything anew.
    is_postgresql = connection.vendor == "postgresql"

    def key(device_id: UUID) -> UUID | str:
        return device_id if is_postgresql else device_id.hex

    with connection.cursor() as cursor:
        cursor.executemany(
            "UPDATE devices_device SET settings_version = %s, settings_status = %s,"
            " settings_errors = %s, settings_failed_version = %s, definitions_version = %s,"
            " definitions_refused = %s, definitions_code = %s,"
            " protection_state = %s, protection_reasons = %s, queue_depth = %s,"
            " queue_dropped = %s WHERE id = %s",
            [
                (
                    call.settings.version,
                    call.settings.status,
                    msgspec.json.encode(call.settings.errors).decode(),
                    call.settings.failed_version,
                    call.definitions.version,
                    call.definitions.refused_version,
                    call.definitions.code,
                    call.protection.state,
                    msgspec.json.encode(call.protection.reasons).decode(),
                    call.queue.depth,
                    call.queue.dropped,
                    key(device_id),
                )
                for device_id, call in facts.items()
            ],
        )
        cursor.executemany(
            "UPDATE devices_device SET hostname = %s, os_name = %s, os_version = %s, type = %s,"
            " agent_version = %s WHERE id = %s",
            [
                (
                    call.device.hostname,
                    call.device.os.name,
                    call.device.os.version,
                    call.device.type,
                    call.device.agent_version,
                    key(device_id),
                )
                for device_id, call in facts.items()
                if call.device is not None
            ],
        )
        cursor.executemany(
            "UPDATE devices_device SET capabilities = %s WHERE id = %s",
            [
                (msgspec.json.encode(call.device.capabilities).decode(), key(device_id))
                for device_id, call in facts.items()
                if call.device is not None and call.device.capabilities is not None
            ],
        )


def _said(row: Presence) -> CheckIn | None:
    """The call whose facts are stored, so that the same facts are not stored again."""
    device = row.device
    try:
        return msgspec.convert(
            {
                "boot_id": row.boot_id,
                "seq": row.seq,
                "settings": {
                    "version": device.settings_version,
                    "status": device.settings_status,
                    "errors": device.settings_errors,
                    "failed_version": device.settings_failed_version,
                },
                "definitions": {
                    "version": device.definitions_version,
                    "refused_version": device.definitions_refused,
                    "code": device.definitions_code,
                },
                "protection": {
                    "state": device.protection_state,
                    "reasons": device.protection_reasons,
                },
                "queue": {"depth": device.queue_depth, "dropped": device.queue_dropped},
                "device": {
                    "hostname": device.hostname,
                    "os": {"name": device.os_name, "version": device.os_version},
                    "type": device.type,
                    "agent_version": device.agent_version,
                    "capabilities": device.capabilities,
                },
            },
            CheckIn,
        )
    except msgspec.ValidationError:
        return None  # It has not called yet, or was stored by an older server.
