"""How a device leaves, and what a member may change about it."""

from __future__ import annotations

from typing import Literal

from django.db import transaction
from django.db.models import F
from django.utils import timezone

from doorward.accounts import lockout, members
from doorward.accounts.models import User
from doorward.accounts.permissions import Act
from doorward.audit import card_numbers, trail
from doorward.devices import bell, seats
from doorward.devices.models import Device, Ended
from doorward_protocol.messages import MAX_NAME


class NameRefused(ValueError):
    """A device's name must hold 1 to 200 characters and none that only steer the text."""


class TakesProof(Exception):
    """It is the sixth in an hour: whoever asks proves again who they are (ASVS 7.5.3)."""


@transaction.atomic
def remove(
    device: Device,
    *,
    actor: User,
    by: Literal["session", "token", "proof"] = "session",
    ip: str = "",
    agent: str = "",
) -> None:
    """Take the device out as this member says. Raises members.NotAllowed and TakesProof.

    By a session or token they are counted: else a stolen one would take out one by one what it may
    not take out at once.
    """
    members.must_still(device.account, actor, Act.DEVICES_CHANGE)
    # For the person, not for each session: a proof gives the session another id, and who has stolen
    # one may have stolen two.
    if by != "proof" and not lockout.allow((lockout.REMOVALS, f"{by} {actor.pk}")):
        raise TakesProof
    take_out(device, actor=actor, ip=ip, agent=agent, why=Ended.REMOVED)


@transaction.atomic
def take_out(
    device: Device, *, actor: User | None, why: Ended, ip: str = "", agent: str = ""
) -> None:
    """Take the device out of the account: its seat is free at once, its tokens end within a second.

    Also when the device is offline: it is told why when it calls again. A second removal changes
    nothing. Whether somebody may do this, the caller has looked.
    """
    seats.lock(device.account)
    now = timezone.now()
    removed = Device.objects.filter(pk=device.pk, revoked_at__isnull=True).update(
        revoked_at=now,
        changed_at=now,
        epoch=F("epoch") + 1,
        cloned_at=None,
        settling_since=None,
        removed_why=why,
    )
    device.refresh_from_db()
    if not removed:
        return
    bell.ring()
    trail.record(
        "device.left" if why == Ended.LEFT else "device.removed",
        account=device.account_id,
        actor=actor,
        target=str(device.pk),
        ip=ip,
        agent=agent,
        name=device.label,
        why=str(why.value),
    )


@transaction.atomic
def rename(device: Device, name: str, *, actor: User, ip: str = "", agent: str = "") -> None:
    """Call the device by another name. Raises NameRefused and members.NotAllowed."""
    members.must_still(device.account, actor, Act.DEVICES_CHANGE)
    chosen = card_numbers.hide(name.strip())
    if not chosen or len(chosen) > MAX_NAME or not chosen.isprintable():
        raise NameRefused
    before = device.label
    device.name = chosen
    device.changed_at = timezone.now()
    device.save(update_fields=["name", "changed_at"])
    trail.record(
        "device.renamed",
        account=device.account_id,
        actor=actor,
        target=str(device.pk),
        ip=ip,
        agent=agent,
        before=before,
        after=chosen,
    )
