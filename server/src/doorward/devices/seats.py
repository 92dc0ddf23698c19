"""A seat is a lease: a device holds one from the moment it joins until it is removed."""

from __future__ import annotations

from dataclasses import dataclass

from doorward.accounts import members
from doorward.accounts.models import Account
from doorward.billing import entitlement
from doorward.devices.models import Device


class SeatsExhausted(Exception):
    """Every device that the account has paid for is there already."""


@dataclass(frozen=True)
class Seats:
    """How many devices an account has, and how many it may have."""

    used: int
    total: int

    @property
    def left(self) -> int:
        """How many more may join."""
        return max(0, self.total - self.used)


def of(account: Account) -> Seats:
    """The account's seats as they are now. An account that is not covered has none to give."""
    entitled = entitlement.of(account)
    used = Device.objects.filter(account=account, revoked_at__isnull=True).count()
    return Seats(used=used, total=entitled.seats if entitled.covers else 0)


def take(account: Account) -> None:
    """Keep a seat free for the device that the caller stores in the same transaction.

    Whoever comes second waits for that transaction's end, so the last seat is given once. Raises
    SeatsExhausted when none is left.
    """
    lock(account)
    if not of(account).left:
        raise SeatsExhausted


def lock(account: Account) -> None:
    """Let nobody else add or remove devices of the account until this transaction ends.

    The same lock as that of who belongs to the account (accounts/members.py).
    """
    members.lock(account)
