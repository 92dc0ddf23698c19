"""What is kept about whom: each room says here, at start, what it holds and how it forgets it.

The rooms above this one (reports, devices, billing) register with it, since nothing here may know
them. Exports (accounts/exports.py) read the tables; deletions (accounts/leaving.py) let each room
forget, the upper rooms first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from django.db.models import Exists, OuterRef

from doorward.accounts.models import Account, Membership, Role, User

Value = str | int | bool | None | list[str]
Row = Sequence[Value]


@dataclass(frozen=True)
class Whose:
    """A person, and the accounts that are theirs as a whole: those they alone own, oldest first."""

    user: User
    accounts: tuple[Account, ...] = ()


@dataclass(frozen=True)
class Table:
    """One table of an export: docs/export.md shows it to people, and a test compares the two."""

    name: str
    means: str
    columns: Mapping[str, str]
    rows: Callable[[Whose], Iterable[Row]]


def _nothing_to_do(_whose: Whose) -> None:
    return None


def _nothing_left(_whose: Whose, _most: int) -> dict[str, int]:
    return {}


def _nothing_foretold(_whose: Whose) -> dict[str, int]:
    return {}


@dataclass(frozen=True)
class Room:
    """What one room keeps about people, and how it forgets."""

    name: str
    tables: tuple[Table, ...] = ()
    # Every table of the database of which this room answers here, and why nothing else is needed.
    covers: Mapping[str, str] = field(default_factory=dict)
    # How many of each kind would go now; asked for the page that asks whether to.
    foretell: Callable[[Whose], dict[str, int]] = _nothing_foretold
    # What happens at once when the deleting begins: devices are refused from then on.
    close: Callable[[Whose], None] = _nothing_to_do
    # Delete at most so many rows, in the caller's transaction; returns how many of each kind, and
    # nothing when there is nothing left.
    erase: Callable[[Whose, int], dict[str, int]] = _nothing_left


_rooms: dict[str, Room] = {}


def register(room: Room) -> None:
    """Have this room take part in exports and deletions; called once for each, at start."""
    _rooms[room.name] = room


def rooms() -> list[Room]:
    """Return every room that takes part, the upper ones first (as INSTALLED_APPS names them)."""
    return list(_rooms.values())


def tables() -> list[Table]:
    """Return every table of an export, the person's own first."""
    return [table for room in reversed(rooms()) for table in room.tables]


def whose(user: User) -> Whose:
    """Return what belongs to this person: every account that they alone own; by one query."""
    owners = Membership.objects.filter(account=OuterRef("pk"), role=Role.OWNER)
    alone = Account.objects.filter(Exists(owners.filter(user=user))).exclude(
        Exists(owners.exclude(user=user))
    )
    return Whose(user, tuple(alone.order_by("created_at", "id")))
