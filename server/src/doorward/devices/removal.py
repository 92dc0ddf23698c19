"""How a device leaves, and what a member may change about it."""

from __future__ import annotations

from django.db import transaction
from django.db.models import F
from django.utils import timezone

from doorward.accounts.models import User
from doorward.audit import trail
from doorward.devices import bell, seats
from doorward.devices.models import Device
from doorward_protocol.messages import MAX_NAME


class NameRefused(ValueError):
    """A device's name must hold 1 to 200 characters and none that only steer the text."""


@transaction.atomic
def remove(
    device: Device, *, actor: User | None, ip: str = "", agent: str = "", by_itself: bool = False
) -> None:
    """Take the device out of the account: its seat is free at once, its tokens end within a second.

    Also when the device is offline. A second removal changes nothing. `by_itself` says that the
    device asked for it.
    """
    seats.lock(device.account)
    now = timezone.now()
    removed = Device.objects.filter(pk=device.pk, revoked_at__isnull=True).update(
        revoked_at=now, changed_at=now, epoch=F("epoch") + 1, cloned_at=None
    )
    device.refresh_from_db()
    if not removed:
        return
    bell.ring()
    trail.record(
        "device.left" if by_itself else "device.removed",
        account=device.account_id,
        actor=actor,
        target=str(device.pk),
        ip=ip,
        agent=agent,
        name=device.label,
    )


@transaction.atomic
def rename(device: Device, name: str, *, actor: User, ip: str = "", agent: str = "") -> None:
    """Call the device by another name. Raises NameRefused."""
    chosen = name.strip()
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


@transaction.atomic
def settle_clone(device: Device, *, actor: User, ip: str = "", agent: str = "") -> None:
    """Take the warning about a copy away: the member has looked and says it is settled."""
    settled = Device.objects.filter(pk=device.pk, cloned_at__isnull=False).update(
        cloned_at=None, changed_at=timezone.now()
    )
    device.refresh_from_db()
    if settled:
        trail.record(
            "device.clone.settled",
            account=device.account_id,
            actor=actor,
            target=str(device.pk),
            ip=ip,
            agent=agent,
        )
