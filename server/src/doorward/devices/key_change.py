"""A device takes a new key and stays the same device."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from django.db import IntegrityError, transaction
from django.utils import timezone

from doorward.audit import trail
from doorward.devices import clones
from doorward.devices.enrollment import KeyInUse
from doorward.devices.models import Device, Ended
from doorward_protocol import signing
from doorward_protocol.messages import KeyChange

OVERLAP: Final = timedelta(days=7)
"""So long the old key counts too: the device may have crashed before it stored the new one."""


class ChangeRefused(Exception):
    """The new key's owner did not agree, or it was not the device's present key that asked."""


def change(device: Device, request: KeyChange, *, signer: str, address: str) -> datetime:
    """Have the device sign with the new key from now on; returns until when the old one counts.

    `signer` is the thumbprint that signed the request. The same request again changes nothing.
    Raises ChangeRefused and KeyInUse; then all is as it was.
    """
    new = signing.thumbprint(request.jwk)
    if not signing.key_change_is_proved(request.jwk, request.proof, signer):
        raise ChangeRefused
    try:
        return _change(device, request, signer, new, address)
    except IntegrityError:
        raise KeyInUse from None


@transaction.atomic
def _change(device: Device, request: KeyChange, signer: str, new: str, address: str) -> datetime:
    device = Device.objects.select_for_update().get(pk=device.pk)
    if device.thumbprint == new and device.former_key_until is not None:
        return device.former_key_until  # The answer was lost, and the device asks again.
    # The old key may sign for a while, but not choose another successor: whoever stole it would.
    if device.thumbprint != signer or device.revoked_at is not None or new == signer:
        raise ChangeRefused
    now = timezone.now()
    until = now + OVERLAP
    if device.settling_since is not None:
        # The other computer has this key too: it ends, and its holder is told why.
        clones.end_key(device, Ended.COPIED, now)
        clones.settled(device, now)
        until = now + clones.LOST_REPLY
    device.former_thumbprint, device.former_public_key = device.thumbprint, device.public_key
    device.thumbprint, device.public_key = new, request.jwk.x
    device.former_key_until = until
    device.save(
        update_fields=[
            "thumbprint",
            "public_key",
            "former_thumbprint",
            "former_public_key",
            "former_key_until",
            "settling_since",
            "epoch",
            "changed_at",
        ]
    )
    trail.record(
        "device.key.changed",
        account=device.account_id,
        target=str(device.pk),
        ip=address,
        name=device.label,
    )
    return until
