"""A device takes another's place: its name, its member and its settings, and no second seat.

Either a new computer for an old one, as a member says; or the same computer with its agent
installed anew, as that agent says by its mark.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Final
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from doorward.accounts import members
from doorward.accounts.models import Account, User
from doorward.accounts.origin import Origin
from doorward.accounts.permissions import Act
from doorward.audit import trail
from doorward.devices import clones, removal
from doorward.devices.models import Device, Ended

_at_replacing: Final[list[Callable[[Device, Device, User | None], object]]] = []


class CannotReplace(Exception):
    """One of the two is not there any more, or both are the same."""


def at_replacing(act: Callable[[Device, Device, User | None], object]) -> None:
    """Have ``act`` run when a device (first) gives its place to another (second), in one go.

    So its settings move without this room knowing of them.
    """
    if act not in _at_replacing:
        _at_replacing.append(act)


@transaction.atomic
def replace(old: Device, new: Device, *, actor: User, origin: Origin) -> None:
    """Give the old device's place to the new one, and take the old one out.

    The new one is called as the old one, is the same member's, and is told what the old one was
    told. What the old one has reported stays its own. Raises CannotReplace and members.NotAllowed.
    """
    members.must_still(old.account, actor, Act.DEVICES_CHANGE)
    places = Device.objects.select_for_update(no_key=True).filter(
        pk__in=[old.pk, new.pk], account=old.account_id, revoked_at__isnull=True
    )
    found = {device.pk: device for device in places.select_related("account")}
    if len(found) != 2:
        raise CannotReplace
    old, new = found[old.pk], found[new.pk]
    leave(old, actor=actor, origin=origin)
    _succeed(old, new, actor)


def leave(old: Device, *, actor: User | None, origin: Origin) -> None:
    """Take the device out, so that its seat is free for the one that takes its place."""
    removal.take_out(old, actor=actor, ip=origin.ip, agent=origin.agent, why=Ended.REPLACED)


def _succeed(old: Device, new: Device, actor: User | None) -> None:
    now = timezone.now()
    new.name, new.member_id = old.label, old.member_id
    new.changed_at = now
    new.save(update_fields=["name", "member", "changed_at"])
    Device.objects.filter(pk=old.pk).update(replaced_by=new)
    for act in _at_replacing:
        act(old, new, actor)
    trail.record(
        "device.replaced",
        account=new.account_id,
        actor=actor,
        target=str(new.pk),
        name=new.label,
        before=str(old.pk),
    )


def succeed(old: Device, new: Device, *, actor: User | None) -> None:
    """Move what was the old device's to the new one that has just joined in its place."""
    _succeed(old, new, actor)


def same_computer(account: Account, machine: str, member: UUID | None) -> Device | None:
    """Return the device that this computer was before its agent was installed anew.

    Only one of the same member: by a code of one's own, one takes nobody else's place.
    """
    if not machine:
        return None
    return (
        Device.objects.filter(
            account=account, machine=machine, member=member, revoked_at__isnull=True
        )
        .order_by("-enrolled_at")
        .first()
    )


def install_anew(device: Device, now: datetime) -> None:
    """End the key of the installation before: should it call again, there are two of them."""
    clones.end_key(device, Ended.REINSTALLED, now)
