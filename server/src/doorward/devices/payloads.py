"""What a device sent last, byte for byte, for whoever wants to see what leaves their computer.

Kept are the last call that told something new, the last report and the last word about a command.
While somebody looks, every call is kept.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal
from uuid import UUID

import zstandard
from django.db import transaction
from django.utils import timezone

from doorward.devices import bell
from doorward.devices.models import Device, Payload

Kind = Literal["check-in", "reports", "commands"]

KINDS: Final[tuple[Kind, ...]] = ("check-in", "reports", "commands")
LONGEST: Final = 64 * 1024
"""Bytes kept of one kind; of a longer one its length alone."""
WATCHED_FOR: Final = timedelta(minutes=5)


@dataclass(frozen=True)
class Sent:
    """What a device sent, as it came: packed, if `was_packed`."""

    device_id: UUID
    kind: Kind
    body: bytes
    at: datetime
    was_packed: bool = False
    length: int = 0
    """How long it was, where it is too long for its body to be kept."""


@transaction.atomic
def store(sent: Sequence[Sent]) -> None:
    """Keep these as the last of their kind; what a device that is gone sent is dropped."""
    there = set(
        Device.objects.filter(pk__in={each.device_id for each in sent}).values_list("pk", flat=True)
    )
    Payload.objects.bulk_create(
        [
            Payload(
                device_id=each.device_id,
                kind=each.kind,
                body=each.body if max(each.length, len(each.body)) <= LONGEST else b"",
                length=each.length or len(each.body),
                was_packed=each.was_packed,
                at=each.at,
            )
            for each in sent
            if each.device_id in there
        ],
        batch_size=200,
        update_conflicts=True,
        unique_fields=["device", "kind"],
        update_fields=["body", "length", "was_packed", "at"],
    )


def watch(device: Device) -> None:
    """Have the device call at once, if it is connected, and keep each of its calls for a while."""
    now = timezone.now()
    Device.objects.filter(pk=device.pk).update(watched_until=now + WATCHED_FOR, changed_at=now)
    bell.ring()


def of(device: Device) -> list[Payload]:
    """Return what is kept of the device, by kind, unpacked; never from a former member's time."""
    found = Payload.objects.filter(device=device)
    if device.private_until is not None:
        found = found.filter(at__gte=device.private_until)
    for each in found:
        each.body = _unpacked(bytes(each.body))
    order: dict[str, int] = {kind: place for place, kind in enumerate(KINDS)}
    return sorted(found, key=lambda each: order.get(each.kind, len(order)))


def _unpacked(body: bytes) -> bytes:
    # By their first bytes: no JSON begins like these.
    try:
        if body.startswith(b"\x28\xb5\x2f\xfd"):
            return zstandard.ZstdDecompressor().decompress(body, max_output_size=LONGEST)
        if body.startswith(b"\x1f\x8b"):
            return zlib.decompressobj(wbits=31).decompress(body, LONGEST)
    except (zstandard.ZstdError, zlib.error):
        return b""  # It was read when it came: the page says that it can't be shown.
    return body
