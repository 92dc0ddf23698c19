"""What a device's regular call changes, and what it is told: state in, answer out, no database."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal
from uuid import UUID

import msgspec

from doorward_protocol.messages import (
    CheckIn,
    CheckInAnswer,
    CheckInRhythm,
    Command,
    DefinitionsState,
    Entitled,
    ProtectionState,
    QueueState,
    SettingsState,
)

INTERVAL_SECONDS: Final = 60
"""How often a device calls; a page shows it as quiet only after several of these."""
RHYTHM: Final = CheckInRhythm(interval=INTERVAL_SECONDS, wait=50)


Facts = tuple[SettingsState, DefinitionsState, ProtectionState, QueueState]


class DeviceState(msgspec.Struct, kw_only=True, eq=False):
    """One device as a gateway keeps it in memory between two calls.

    `said` and `said_of_itself` are what it told last, as it is stored or waits to be.
    `answer_tail` and `answer_headers` are the part of the answer that stays the same until
    something changes.
    """

    device_id: UUID
    account_id: UUID
    presence_id: int
    epoch: int
    revoked: bool = False
    removed_why: str = ""
    watched_until: datetime | None = None
    """Somebody wants to see its calls as they come, until then."""
    call_again: bool = False
    """Whether it is to call once more at once: somebody just began to look."""
    outdated: bool = False
    """Whether a token that proved this device must be checked anew."""
    cloned: bool = False
    boot_id: UUID | None = None
    former_boot_id: UUID | None = None
    seq: int = 0
    said: Facts | None = None
    said_of_itself: int = 0
    entitlement: Entitled = Entitled(state="expired")
    entitlement_read_at: float = 0.0
    settings_version: int = 0
    definitions_version: int = 0
    commanded_at: datetime | None = None
    has_commands: bool = False
    """Whether something may wait for the device in the database (devices/commands.py)."""
    answer_tail: bytes = b""
    answer_headers: tuple[tuple[bytes, bytes], ...] = ()
    waits_for_saving: bool = False
    seen_at: float = 0.0


Heard = Literal["first", "started", "again", "fork"]


def hear(state: DeviceState, call: CheckIn) -> Heard:
    """Take the call into the device's state, unless it shows that there are two of this device.

    "first" is a call not heard before, "started" the first of a new start, "again" one whose answer
    was lost, and "fork" one that the device whose calls we have heard cannot have made: a disk was
    copied, and the copy uses the same key. A fork changes nothing.
    """
    if call.boot_id == state.boot_id:
        if call.seq > state.seq:
            state.seq = call.seq
            return "first"
        # The same start, and not ahead: sent again, or overtaken on its way by a later one.
        return "again"
    if call.boot_id == state.former_boot_id or (
        state.boot_id is not None and call.seq <= state.seq
    ):
        return "fork"
    state.former_boot_id, state.boot_id, state.seq = state.boot_id, call.boot_id, call.seq
    return "started"


def tells_nothing_new(state: DeviceState, call: CheckIn) -> bool:
    """Whether the call tells nothing that has to be stored, but that the device is there."""
    said = state.said
    return (
        said is not None
        and call.settings == said[0]
        and call.definitions == said[1]
        and call.protection == said[2]
        and call.queue == said[3]
        and (call.device is None or hash(call.device) == state.said_of_itself)
    )


def remember(state: DeviceState, call: CheckIn) -> None:
    """Keep what the call told, to know news from what is known."""
    state.said = _shared((call.settings, call.definitions, call.protection, call.queue))
    if call.device is not None:
        state.said_of_itself = hash(call.device)


_told: dict[Facts, Facts] = {}
_MOST_TOLD: Final = 10_000


def _shared(facts: Facts) -> Facts:
    # Nearly all devices tell the same; each with a copy of its own would double what one costs.
    if len(_told) >= _MOST_TOLD:
        _told.clear()
    return _told.setdefault(facts, facts)


@dataclass(frozen=True)
class Orders:
    """What members want of a device, as it is told at a check-in (devices/commands.py)."""

    commands: tuple[Command, ...] = ()
    cancel: tuple[UUID, ...] = ()
    more: bool = False

    def __bool__(self) -> bool:
        return bool(self.commands or self.cancel)


NO_ORDERS: Final = Orders()


def answer(state: DeviceState, server_time: int, orders: Orders = NO_ORDERS) -> CheckInAnswer:
    """What the device is told; `server_time` in milliseconds since 1970."""
    return CheckInAnswer(
        server_time=server_time,
        next_check_in=INTERVAL_SECONDS,
        settings_version=state.settings_version,
        definitions_version=state.definitions_version,
        entitlement=state.entitlement,
        commands=orders.commands,
        cancel=orders.cancel,
        more=orders.more,
    )
