"""Which set of definitions is meant for which device: some get a new one first, then all.

A new set goes to the devices whose place is low, one in twenty and never fewer than one. They tell
whether they took it. Where too many refuse it goes no further; otherwise, after some hours, it is
for all. A device is never told a lower number than it has been: an earlier set comes back only as a
new one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import Final
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models import Count, Q

from doorward.audit import trail
from doorward.devices.models import Device
from doorward.protection.models import DefinitionSet, SetState

EARLY_SHARE: Final = 0.05
PLACES: Final = 2**32
MOST_REFUSALS: Final = 0.05
"""A set that more than this share of the devices that tried it refused goes no further."""
LEAST_REFUSALS_FOR_ALL: Final = 3
"""Once it is for all, one device with a trouble of its own does not stop it."""
FAULTS: Final = (
    "unreadable",
    "unknown-part",
    "not-compiling",
    "test-file-missed",
    "hits-clean",
    "crash",
)
"""The refusals that speak against the set; the others speak of the device, or of the way there."""

Steps = tuple[tuple[int, int], ...]
"""Sets from the newest on, each with the places below which it is meant."""


class NotPossible(Exception):
    """This set can't be moved like this; the text says why."""


@dataclass(frozen=True)
class Standing:
    """How a set is received."""

    taken: int
    refused: int
    reasons: dict[str, int]


def place(device_id: UUID, number: int) -> int:
    """Where a device stands in the order in which it gets this set: always the same."""
    seed = device_id.bytes + number.to_bytes(4)
    return int.from_bytes(blake2b(seed, digest_size=4).digest())


def steps() -> Steps:
    """Every set that is on its way or there, from the newest on; one query."""
    rows = DefinitionSet.objects.filter(state__in=[SetState.EARLY, SetState.ALL])
    found: list[tuple[int, int]] = []
    for number, state, below in rows.order_by("-number").values_list("number", "state", "below"):
        found.append((number, PLACES if state == SetState.ALL else below))
        if state == SetState.ALL:
            break
    return tuple(found)


def wanted(device_id: UUID, sets: Steps) -> int:
    """The set that is meant for this device, 0 where none is."""
    return next((number for number, below in sets if place(device_id, number) < below), 0)


# ------------------------------------------------------------------------------------------ steps


def begin(made: DefinitionSet, now: datetime, *, everybody: bool = False) -> None:
    """Have some devices get the set first; all, where there is nobody to try it or it was tried."""
    places = [place(device_id, made.number) for device_id in _devices()]
    if everybody or not places:
        _move(made, SetState.ALL, now)
        return
    made.below = max(int(EARLY_SHARE * PLACES), min(places) + 1)
    _move(made, SetState.EARLY, now)


def advance(now: datetime) -> int:
    """Stop what devices refuse, and let go on what they took; answer how many sets were moved."""
    moved = 0
    for made in DefinitionSet.objects.filter(state__in=[SetState.EARLY, SetState.ALL]):
        found = standing(made)
        tried = found.taken + found.refused
        least = 1 if made.state == SetState.EARLY else LEAST_REFUSALS_FOR_ALL
        if found.refused >= least and found.refused > MOST_REFUSALS * tried:
            reasons = ", ".join(sorted(found.reasons))
            made.why = f"{found.refused} of {tried} devices refused it: {reasons}"[:200]
            moved += _tell("definitions.stopped", made, SetState.STOPPED, now)
        elif made.state == SetState.EARLY and now - made.state_at >= _early_for():
            if found.taken:
                moved += _tell("definitions.for_all", made, SetState.ALL, now)
            elif made.below < PLACES:
                # Those it was meant for are away: others try it.
                made.below = min(PLACES, made.below * 2)
                _move(made, SetState.EARLY, now)
    return moved


def standing(made: DefinitionSet) -> Standing:
    """How many devices have the set, and how many refused it for a fault of its own."""
    counted = Device.objects.filter(revoked_at__isnull=True).aggregate(
        taken=Count("id", filter=Q(definitions_version=made.number)),
    )
    reasons = dict(
        Device.objects.filter(
            revoked_at__isnull=True,
            definitions_refused=made.number,
            definitions_code__in=FAULTS,
        )
        .values_list("definitions_code")
        .annotate(Count("id"))
    )
    return Standing(counted["taken"], sum(reasons.values()), reasons)


def pause(number: int, *, by: str, now: datetime) -> DefinitionSet:
    """Give the set to no further device; those that have it keep it. Raises NotPossible."""
    made = _get(number)
    if made.state not in {SetState.EARLY, SetState.ALL}:
        raise NotPossible(f"set {number} is not on its way: {made.get_state_display()}.")
    _tell("definitions.paused", made, SetState.PAUSED, now, by=by)
    return made


def resume(number: int, *, by: str, now: datetime, everybody: bool) -> DefinitionSet:
    """Let the set go on to some devices first, or to all of them. Raises NotPossible."""
    made = _get(number)
    allowed = {SetState.PAUSED, SetState.STOPPED} | ({SetState.EARLY} if everybody else set())
    if made.state not in allowed:
        raise NotPossible(f"set {number} is not held: {made.get_state_display()}.")
    if DefinitionSet.objects.filter(state=SetState.ALL, number__gt=number).exists():
        raise NotPossible(f"a newer set than {number} is for every device already.")
    # What was refused up to now was looked at by whoever lets it go on.
    Device.objects.filter(definitions_refused=number).update(definitions_refused=0)
    made.why = ""
    if everybody:
        _tell("definitions.for_all", made, SetState.ALL, now, by=by)
    else:
        _tell("definitions.resumed", made, SetState.EARLY, now, by=by)
    return made


def to_take_back(to: DefinitionSet | None) -> tuple[DefinitionSet, DefinitionSet]:
    """The set that is taken back, and the one that comes in its place. Raises NotPossible."""
    bad = DefinitionSet.objects.exclude(state=SetState.WITHDRAWN).order_by("-number").first()
    if bad is None:
        raise NotPossible("there is no set yet.")
    earlier = DefinitionSet.objects.filter(number__lt=bad.number).order_by("-number")
    good = to or earlier.filter(state=SetState.ALL).first()
    if good is None or good.number >= bad.number:
        raise NotPossible("there is no earlier set that was for every device.")
    if good.state in {SetState.WITHDRAWN, SetState.STOPPED, SetState.PREPARING}:
        raise NotPossible(f"set {good.number} was never found good: {good.get_state_display()}.")
    return bad, good


def withdraw(*, since: int, until: int, now: datetime) -> None:
    """Mark the sets between these two as taken back."""
    between = DefinitionSet.objects.filter(number__gt=since, number__lt=until)
    between.exclude(state=SetState.WITHDRAWN).update(state=SetState.WITHDRAWN, state_at=now)


# ------------------------------------------------------------------------------------- underneath


def _early_for() -> timedelta:
    return timedelta(hours=settings.DEFINITIONS_EARLY_HOURS)


def _devices() -> Iterable[UUID]:
    """Every device that can take sets."""
    rows = Device.objects.filter(revoked_at__isnull=True).values_list("id", "capabilities")
    return [device_id for device_id, able in rows.iterator() if "definitions" in able]


def _get(number: int) -> DefinitionSet:
    found = DefinitionSet.objects.filter(pk=number).first()
    if found is None:
        raise NotPossible(f"there is no set {number}.")
    return found


def _tell(tag: str, made: DefinitionSet, state: SetState, now: datetime, *, by: str = "") -> int:
    with transaction.atomic():
        _move(made, state, now)
        trail.record(tag, target=str(made.number), by=by, why=made.why)
    return 1


def _move(made: DefinitionSet, state: SetState, now: datetime) -> None:
    made.state, made.state_at = state, now
    made.save(update_fields=["state", "state_at", "below", "why"])


def ordered(device_ids: Sequence[UUID], number: int) -> list[UUID]:
    """Devices in the order in which they get this set."""
    return sorted(device_ids, key=lambda device_id: place(device_id, number))
