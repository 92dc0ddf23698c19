"""How a device is, as far as anybody can know: what it last said, and how long ago that was.

"Protected" is a claim with an age. It holds for FRESH after the device was last seen, then it fades
to what was true when the device was last seen, and after QUIET nobody can know. The help page shows
these same numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from doorward.devices.models import Device, DeviceType, Presence, Protection

FRESH: Final = timedelta(minutes=15)
"""So long "protected" is said as of now. A device calls every minute: this is many calls missed."""
QUIET: Final = timedelta(hours=24)
"""After this nobody can know how a device is: a laptop sleeps over night, but not over two."""
SILENT: Final = timedelta(days=7)
"""After this a person should look. A server is missed already after QUIET."""


class Standing(StrEnum):
    """How a device is, in one word."""

    PROTECTED = "protected"
    ATTENTION = "attention"
    OFF = "off"
    AWAY = "away"
    """Not heard of for a while; it was protected then."""
    UNKNOWN = "unknown"
    SILENT = "silent"
    WAITING = "waiting"
    """It has joined and has not called yet."""
    COPIED = "copied"
    """Two computers use this one's identity."""


WORDS: Final[dict[Standing, Promise]] = {
    Standing.PROTECTED: _("Protected"),
    Standing.ATTENTION: _("Needs attention"),
    Standing.OFF: _("Not protected"),
    Standing.AWAY: _("Away"),
    Standing.UNKNOWN: _("State unknown"),
    Standing.SILENT: _("Silent"),
    Standing.WAITING: _("First call awaited"),
    Standing.COPIED: _("Copied"),
}
TONES: Final[dict[Standing, str]] = {
    Standing.PROTECTED: "safe",
    Standing.ATTENTION: "attention",
    Standing.OFF: "danger",
    Standing.AWAY: "unknown",
    Standing.UNKNOWN: "unknown",
    Standing.SILENT: "attention",
    Standing.WAITING: "waiting",
    Standing.COPIED: "danger",
}
NEEDS_SOMEBODY: Final = frozenset(
    {Standing.ATTENTION, Standing.OFF, Standing.SILENT, Standing.COPIED}
)


@dataclass(frozen=True)
class State:
    """How a device is, and since when we have known that."""

    standing: Standing
    last_seen: datetime | None

    @property
    def word(self) -> Promise:
        """What a page calls it."""
        return WORDS[self.standing]

    @property
    def tone(self) -> str:
        """Which of the look's states it is: safe, attention, danger, unknown or waiting."""
        return TONES[self.standing]

    @property
    def said(self) -> Promise | str:
        """What stands before the age; nothing where there is none yet."""
        if self.last_seen is None:
            return ""
        return _("checked") if self.standing is Standing.PROTECTED else _("last seen")

    @property
    def needs_somebody(self) -> bool:
        """Whether a person should do something about it."""
        return self.standing in NEEDS_SOMEBODY


def of(device: Device, now: datetime) -> State:
    """Return how the device is at this moment; reads its presence, so select_related it."""
    try:
        last_seen = device.presence.last_seen
    except Presence.DoesNotExist:
        last_seen = None
    return State(_standing(device, last_seen, now), last_seen)


def seen(device: Device, now: datetime) -> tuple[object, ...]:
    """Return all that a list shows of a device's state: other when the list has news of it."""
    how = of(device, now)
    return (device.pk, device.changed_at, how.standing, how.last_seen)


def _standing(device: Device, last_seen: datetime | None, now: datetime) -> Standing:
    if device.cloned_at is not None:
        return Standing.COPIED
    if last_seen is None:
        return Standing.WAITING if now - device.enrolled_at < QUIET else Standing.SILENT
    age = now - last_seen
    if age > (QUIET if device.type == DeviceType.SERVER else SILENT):
        return Standing.SILENT
    # What was wrong stays wrong until the device says otherwise; only "protected" fades.
    if device.protection_state == Protection.OFF:
        return Standing.OFF
    if device.protection_state == Protection.ATTENTION:
        return Standing.ATTENTION
    if age > QUIET or device.protection_state != Protection.PROTECTED:
        return Standing.UNKNOWN
    return Standing.PROTECTED if age <= FRESH else Standing.AWAY
