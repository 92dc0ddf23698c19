"""What becomes of a member's own devices when the member leaves, or shares more or less of them."""

from __future__ import annotations

from django.utils import timezone

from doorward.accounts.models import Membership, Shares, User
from doorward.accounts.origin import Origin
from doorward.devices import removal
from doorward.devices.models import Device, Ended


def part(place: Membership, devices_stay: bool, actor: User, origin: Origin) -> None:
    """Leave the member's devices to the account, or take them out; in the caller's transaction.

    What a device that stays has reported so far remains hidden, unless all of it was shared: its
    member agreed to no more, and can't be asked again.
    """
    own = Device.objects.filter(account=place.account_id, member=place.user_id)
    if not devices_stay:
        for device in own.filter(revoked_at__isnull=True).select_related("account"):
            removal.take_out(
                device, actor=actor, ip=origin.ip, agent=origin.agent, why=Ended.MEMBER_LEFT
            )
        return
    staying = own.filter(revoked_at__isnull=True)
    now = timezone.now()
    if place.shares == Shares.PATHS:
        staying.update(member=None, changed_at=now)
    else:
        staying.update(member=None, private_until=now, changed_at=now)


def share(place: Membership) -> None:
    """Have pages that are open read the member's devices anew: other things are shared now."""
    Device.objects.filter(account=place.account_id, member=place.user_id).update(
        changed_at=timezone.now()
    )
