"""Two computers that call as one device: noticed, shown with what is known of each, and settled.

Settling gives the one that is kept a key of its own and ends the old one at once, so that the other
computer proves nothing any more. It is told why, and can join anew as a device of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal
from uuid import UUID

from django.db import transaction
from django.db.models import F
from django.utils import timezone
from uuid_utils.compat import uuid7

from doorward.accounts import members
from doorward.accounts.models import User
from doorward.accounts.origin import Origin
from doorward.accounts.permissions import Act
from doorward.audit import trail
from doorward.devices import bell, commands
from doorward.devices.models import Command, Device, Ended, GoneDevice, Presence, Twin

LOST_REPLY: Final = timedelta(minutes=1)
"""So long the old key of a settled copy still counts: the one that is kept may not have heard that
its new one does. The other's calls are refused meanwhile by their count."""

HEARD_EVERYWHERE: Final = timedelta(seconds=2)
"""By then every gateway knows which one is kept; only that one may be told to change its key."""

Which = Literal["current", "other"]


@dataclass(frozen=True)
class Caller:
    """What is known of the computer whose call did not fit."""

    address: str
    boot_id: UUID | None = None
    seq: int = 0
    hostname: str = ""
    os_name: str = ""


class NothingToSettle(Exception):
    """The device is not flagged, or the other computer is not known well enough to be kept."""


@transaction.atomic
def flag(device_id: UUID, caller: Caller, *, by_former_key: bool = False) -> None:
    """Remember that two computers call as this device; the second time changes nothing.

    While a member's choice is carried out it is known already, and not said again.
    """
    now = timezone.now()
    flagged = Device.objects.filter(
        pk=device_id,
        cloned_at__isnull=True,
        settling_since__isnull=True,
        revoked_at__isnull=True,
    ).update(cloned_at=now, changed_at=now)
    if not flagged:
        return
    Twin.objects.update_or_create(
        device_id=device_id,
        defaults={
            "by_former_key": by_former_key,
            "boot_id": caller.boot_id,
            "seq": caller.seq,
            "hostname": caller.hostname,
            "os_name": caller.os_name,
            "address": caller.address,
            "first_seen": now,
        },
    )
    device = Device.objects.get(pk=device_id)
    trail.record(
        "device.cloned",
        account=device.account_id,
        target=str(device.pk),
        ip=caller.address,
        name=device.label,
    )


def flag_former(thumbprint: str, caller: Caller) -> None:
    """Flag the device whose former key was just used, where that tells that there are two."""
    gone = GoneDevice.objects.filter(thumbprint=thumbprint, why=Ended.REINSTALLED).first()
    if gone is not None and gone.device_id is not None:
        flag(gone.device_id, caller, by_former_key=True)


@transaction.atomic
def keep(device: Device, which: Which, *, actor: User, origin: Origin) -> Command | None:
    """Keep one of the two; the other's key ends as soon as the kept one has a new one.

    Returns the command that changes the key: nothing where the other's key has ended already.
    Raises NothingToSettle, and commands.NotAsked when the kept one can't change its key from afar;
    then nothing was done. Raises members.NotAllowed.
    """
    members.must_still(device.account, actor, Act.DEVICES_CHANGE)
    device = Device.objects.select_for_update(no_key=True).get(pk=device.pk)
    twin = Twin.objects.filter(device=device).first()
    if device.cloned_at is None:
        raise NothingToSettle
    now = timezone.now()
    command = None
    if twin is None or not twin.by_former_key:
        if which == "other":
            _turn_over(device, twin)
            # Every gateway reads it anew, and whoever waits for news proves anew who they are.
            device.epoch += 1
        command = commands.ask(
            device, "key.rotate", actor=actor, origin=origin, delay=HEARD_EVERYWHERE
        )
        device.settling_since = now
    elif which == "other":
        # Its key has ended; it can only join anew.
        raise NothingToSettle
    device.cloned_at = None
    device.changed_at = now
    device.save(update_fields=["cloned_at", "settling_since", "changed_at", "epoch"])
    bell.ring()
    trail.record(
        "device.clone.settled",
        account=device.account_id,
        actor=actor,
        target=str(device.pk),
        ip=origin.ip,
        agent=origin.agent,
        name=device.label,
        kept=which,
    )
    return command


def _turn_over(device: Device, twin: Twin | None) -> None:
    """Have the other computer's calls be the ones that count."""
    if twin is None or twin.boot_id is None:
        raise NothingToSettle
    before = Presence.objects.get(device=device)
    # A new row, as when an agent is installed anew: a gateway may be about to write the old one.
    before.delete()
    Presence.objects.create(
        device=device,
        last_seen=before.last_seen,
        boot_id=twin.boot_id,
        former_boot_id=before.boot_id,
        seq=twin.seq,
    )


def end_key(device: Device, why: Ended, now: datetime) -> None:
    """Have the device's present key open nothing any more, and tell its holder why."""
    GoneDevice.objects.create(
        id=uuid7(),
        public_key=device.public_key,
        thumbprint=device.thumbprint,
        epoch=device.epoch,
        gone_at=now,
        why=why,
        device=device,
    )


def settled(device: Device, now: datetime) -> bool:
    """Note that the kept computer has a new key, if that is what is waited for.

    The device is the caller's to save: its epoch ends the other's tokens.
    """
    if device.settling_since is None:
        return False
    device.settling_since = None
    device.epoch += 1
    device.changed_at = now
    Twin.objects.filter(device=device).delete()
    bell.ring()
    return True


@transaction.atomic
def leave_both(device: Device, *, actor: User, origin: Origin) -> None:
    """Take the warning away: the member has looked, and has settled it on the computers.

    Raises members.NotAllowed.
    """
    members.must_still(device.account, actor, Act.DEVICES_CHANGE)
    cleared = Device.objects.filter(pk=device.pk, cloned_at__isnull=False).update(
        cloned_at=None, changed_at=timezone.now(), epoch=F("epoch")
    )
    device.refresh_from_db()
    if cleared:
        Twin.objects.filter(device=device).delete()
        trail.record(
            "device.clone.settled",
            account=device.account_id,
            actor=actor,
            target=str(device.pk),
            ip=origin.ip,
            agent=origin.agent,
            name=device.label,
        )
