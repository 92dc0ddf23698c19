"""What is due now: pure, so that every clock, zone and missed run can be tried.

A plan is a slot on some days of the week in the computer's own time. A slot is due once: when its
moment (plus this device's own delay, which spreads a fleet) has passed and nothing of its kind has
started since. However many slots were missed while the computer was off, one run catches up with
them, unless the plan says that what was missed is left out.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
from collections.abc import Mapping, Sequence
from typing import Final, Literal, get_args

Kind = Literal["quick", "full", "custom"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)

# A last run further in the future than this was noted under a wrong clock and counts for nothing;
# otherwise one start in the year 2099 would end all scanning until then.
CLOCK_DOUBT: Final = dt.timedelta(hours=1)
# How long a scan that waits for mains power does so before it runs on battery all the same.
BATTERY_PATIENCE: Final = dt.timedelta(days=3)
# Later than this after its moment a slot counts as missed: another scan may have been under way.
LATE: Final = dt.timedelta(hours=1)
EVERY_DAY: Final = frozenset(range(7))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """One kind of scan at one time of day, on these days of the week (0 is Monday)."""

    kind: Kind
    hour: int
    minute: int = 0
    days: frozenset[int] = EVERY_DAY
    # The longest delay this device may add of its own, in minutes.
    spread: int = 30
    # "wait" for mains power for a while, or "skip": not while on battery.
    on_battery: Literal["run", "wait", "skip"] = "run"
    catch_up: bool = True

    @property
    def period(self) -> dt.timedelta:
        """The longest time from one slot to the next, save for a changed clock."""
        ordered = sorted(self.days)
        following = [*ordered[1:], ordered[0] + 7]
        return dt.timedelta(days=max(b - a for a, b in zip(ordered, following, strict=True)))


DEFAULT_PLANS: Final = (
    Plan(kind="quick", hour=12),
    Plan(kind="full", days=frozenset({2}), hour=12, minute=30, on_battery="wait"),
)


def slot_before(plan: Plan, now: dt.datetime, zone: dt.tzinfo | None = None) -> dt.datetime:
    """Answer the plan's latest slot at or before `now`, in UTC; `zone` None is the computer's."""
    local = now.astimezone(zone)
    day = local.date() + dt.timedelta(days=1)
    while True:
        if day.weekday() in plan.days:
            found = _in_utc(day, plan, zone)
            if found <= now:
                return found
        day -= dt.timedelta(days=1)


def slot_after(plan: Plan, now: dt.datetime, zone: dt.tzinfo | None = None) -> dt.datetime:
    """Answer the plan's first slot after `now`, in UTC."""
    local = now.astimezone(zone)
    day = local.date() - dt.timedelta(days=1)
    while True:
        if day.weekday() in plan.days:
            found = _in_utc(day, plan, zone)
            if found > now:
                return found
        day += dt.timedelta(days=1)


def delay(plan: Plan, slot: dt.datetime, device: str) -> dt.timedelta:
    """Answer this device's own delay for this slot: always the same one, evenly spread."""
    if not plan.spread:
        return dt.timedelta()
    seed = f"{device}|{plan.kind}|{slot.isoformat()}".encode()
    share = int.from_bytes(hashlib.blake2b(seed, digest_size=8).digest()) / 2**64
    return dt.timedelta(minutes=plan.spread) * share


def due(
    plans: Sequence[Plan],
    started: Mapping[Kind, dt.datetime],
    now: dt.datetime,
    *,
    device: str,
    since: dt.datetime,
    zone: dt.tzinfo | None = None,
    on_battery: bool = False,
) -> list[Plan]:
    """Answer the plans to run now, the longest overdue first.

    `started` holds when each kind last began, `since` when protection began: a quick scan that has
    never run is due at once, any other from its first slot on. A full scan stands in for a quick
    one, since it reads more.
    """
    found: list[tuple[dt.datetime, Plan]] = []
    for plan in plans:
        slot = slot_before(plan, now, zone)
        last = _latest(plan.kind, started, now)
        if last is None:
            if plan.kind == "quick" and plan.catch_up and not _held_back(plan, on_battery):
                found.append((since, plan))
                continue
            # `since` under a wrong clock must not postpone the first full scan for ever.
            last = since if since <= now + CLOCK_DOUBT else now - plan.period
        moment = slot + delay(plan, slot, device)
        if last >= slot:
            continue
        if moment > now:
            # This slot's own delay is still running; an older one that was missed is due already.
            earlier = slot_before(plan, slot - dt.timedelta(microseconds=1), zone)
            if last >= earlier:
                continue
            moment = earlier + delay(plan, earlier, device)
        waited = now - moment
        if not plan.catch_up and waited > LATE:
            continue
        if _held_back(plan, on_battery) and (
            plan.on_battery == "skip" or waited < BATTERY_PATIENCE
        ):
            continue
        found.append((moment, plan))
    return [plan for _, plan in sorted(found, key=lambda entry: (entry[0], entry[1].kind))]


def _held_back(plan: Plan, on_battery: bool) -> bool:
    return on_battery and plan.on_battery != "run"


def next_moment(
    plans: Sequence[Plan], now: dt.datetime, *, device: str, zone: dt.tzinfo | None = None
) -> dt.datetime | None:
    """Answer when the next slot (with this device's delay) comes up, in UTC, for people to read."""
    moments = []
    for plan in plans:
        slot = slot_before(plan, now, zone)
        moment = slot + delay(plan, slot, device)
        if moment <= now:
            slot = slot_after(plan, now, zone)
            moment = slot + delay(plan, slot, device)
        moments.append(moment)
    return min(moments, default=None)


def _latest(
    kind: Kind, started: Mapping[Kind, dt.datetime], now: dt.datetime
) -> dt.datetime | None:
    kinds: tuple[Kind, ...] = ("quick", "full") if kind == "quick" else (kind,)
    moments = [
        started[each] for each in kinds if each in started and started[each] <= now + CLOCK_DOUBT
    ]
    return max(moments, default=None)


def _in_utc(day: dt.date, plan: Plan, zone: dt.tzinfo | None) -> dt.datetime:
    """Answer the slot of that day in UTC.

    With fold=0 an hour that happens twice means its first time, and one that the clock skips means
    the same distance after midnight (PEP 495): each slot exists exactly once.
    """
    local = dt.datetime.combine(day, dt.time(plan.hour, plan.minute), tzinfo=zone)
    return local.astimezone(dt.UTC)
