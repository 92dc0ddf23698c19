"""What a person sees of an account's devices: of another member's, only what that member shares.

A device belongs to the member who added it, or to the account itself. Its member decides what the
others see of it: its name and state (always), what was found on it, and the files by name and
place. Pages and API read through a ``Sight``; a server's own work reads the whole account.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from uuid import UUID

from django.db.models import F, OuterRef, Q, Subquery

from doorward.accounts.models import Account, Membership, Shares, User
from doorward.devices.models import Device


@dataclass(frozen=True)
class Sight:
    """An account as one person may see it.

    ``others`` says, of each member other than this person who has devices here, what they share;
    of one who has left it is name and state.
    """

    account: Account
    person: UUID
    others: Mapping[UUID, Shares] = field(default_factory=dict)
    some_are_private: bool = False
    """Whether a device's former member took what it had reported so far with them."""

    def of(self, device: Device) -> Shares:
        """Return how much of this device is seen."""
        if device.member_id is None or device.member_id == self.person:
            return Shares.PATHS
        return self.others.get(device.member_id, Shares.STATE)

    def is_own(self, device: Device) -> bool:
        """Tell whether the device is this person's."""
        return device.member_id == self.person

    @property
    def is_whole(self) -> bool:
        """Tell whether nothing is hidden."""
        return not self.hidden and not self.without_paths and not self.some_are_private

    @property
    def hides_findings(self) -> bool:
        """Tell whether there may be finds that this person is not shown: none seen is not none."""
        return bool(self.hidden) or self.some_are_private

    @property
    def hidden(self) -> list[UUID]:
        """Members whose devices show their state alone."""
        return [who for who, shares in self.others.items() if shares == Shares.STATE]

    @property
    def without_paths(self) -> list[UUID]:
        """Members whose devices show what was found, but not in which files."""
        return [who for who, shares in self.others.items() if shares == Shares.FINDINGS]

    def condition(self, device: str = "device__", *, received: str = "received_at") -> Q | None:
        """Return which rows with a device are seen at all; nothing when all of them are."""
        if not self.hidden and not self.some_are_private:
            return None
        member = f"{device}member"
        seen = Q(**{f"{member}__isnull": True}) | ~Q(**{f"{member}__in": self.hidden})
        if self.some_are_private:
            until = f"{device}private_until"
            seen &= Q(**{f"{until}__isnull": True}) | Q(**{f"{received}__gte": F(until)})
        return seen


Seen = Account | Sight
"""The whole account, for the server's own work; or as somebody sees it, for pages and the API."""


def of(account: Account, person: User) -> Sight:
    """Return the account as this person sees it now, by one query."""
    theirs = Membership.objects.filter(account=account, user=OuterRef("member"))
    found = (
        Device.objects.filter(account=account)
        .filter((Q(member__isnull=False) & ~Q(member=person.pk)) | Q(private_until__isnull=False))
        .order_by()
        .values_list("member", Subquery(theirs.values("shares")), "private_until")
        .distinct()
    )
    others: dict[UUID, Shares] = {}
    private = False
    for member, shares, until in found:
        private = private or until is not None
        if member is not None and member != person.pk:
            others[member] = Shares(shares) if shares else Shares.STATE
    return Sight(account, person.pk, MappingProxyType(others), private)


def account_of(seen: Seen) -> Account:
    """Return the account that is looked at."""
    return seen.account if isinstance(seen, Sight) else seen
