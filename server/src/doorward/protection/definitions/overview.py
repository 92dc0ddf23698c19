"""Reads: which sets there are, who has which, and how up to date one device is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal
from uuid import UUID

from doorward.devices.models import Device
from doorward.protection.definitions import repository, rollout
from doorward.protection.definitions.rollout import Steps
from doorward.protection.models import DefinitionSet, DefinitionSource

SETS_SHOWN: Final = 10

How = Literal["untold", "unable", "built-in", "current", "behind", "refused"]


@dataclass(frozen=True)
class Freshness:
    """How up to date a device's definitions are."""

    how: How
    version: int
    """What it has, as a number; 0 where it never told."""
    wanted: int
    """The set that is meant for it; 0 where there is none beyond those it came with."""
    refused: int
    code: str
    """Why the last try failed, empty where it did not."""

    @property
    def day(self) -> datetime | None:
        """The day its definitions are of."""
        return day_of(self.version)


def day_of(number: int) -> datetime | None:
    """The day in a set's number: 2026112203 is of 22 November 2026."""
    try:
        return datetime.strptime(str(number // 100), "%Y%m%d").replace(tzinfo=UTC)
    except ValueError:
        return None


def freshness(device: Device, steps: Steps) -> Freshness:
    """How up to date this device is, by what it told last; `steps` from `rollout.steps()`."""
    wanted = rollout.wanted(device.pk, steps)
    have = device.definitions_version
    how: How
    if not have:
        how = "untold"
    elif "definitions" not in device.capabilities:
        how = "unable"
    elif not wanted:
        how = "built-in"
    elif have == wanted or (have > wanted and not device.definitions_code):
        how = "current"
    elif device.definitions_refused >= wanted:
        how = "refused"
    else:
        how = "behind"
    return Freshness(how, have, wanted, device.definitions_refused, device.definitions_code)


def of_devices(devices: Iterable[Device]) -> dict[UUID, Freshness]:
    """The same for many, by one query."""
    steps = rollout.steps()
    return {device.pk: freshness(device, steps) for device in devices}


def all_of_it() -> dict[str, Any]:
    """Everything an operator asks about: signatures, sets, sources, devices."""
    sets = []
    for made in DefinitionSet.objects.order_by("-number")[:SETS_SHOWN]:
        standing = rollout.standing(made)
        sets.append(
            {
                "number": made.number,
                "state": made.state,
                "words": str(made.get_state_display()),
                "since": made.state_at,
                "made_by": made.made_by,
                "taken": standing.taken,
                "refused": standing.refused,
                "reasons": standing.reasons,
                "rules": made.rules,
                "hashes": made.hashes,
                "why": made.why,
                "like": made.like,
                "share": round(made.below / rollout.PLACES, 4),
            }
        )
    sources = list(
        DefinitionSource.objects.order_by("name").values(
            "name", "rules", "hashes", "refused", "suspicious", "origin", "imported_at"
        )
    )
    return {
        "signed_until": _signed_until(),
        "sets": sets,
        "sources": sources,
        "devices": _devices(),
    }


def _signed_until() -> dict[str, datetime]:
    try:
        tree = repository.load()
    except (repository.NoRepository, repository.RepositoryDamaged):
        return {}
    return {
        each.signed.type: each.signed.expires
        for each in (tree.root, tree.targets, tree.snapshot, tree.timestamp)
    }


def _devices() -> dict[str, int]:
    steps = rollout.steps()
    counts = {"up_to_date": 0, "behind": 0, "refusing": 0, "unable": 0}
    rows = Device.objects.filter(revoked_at__isnull=True).only(
        "id",
        "capabilities",
        "definitions_version",
        "definitions_refused",
        "definitions_code",
    )
    words: dict[How, str] = {
        "untold": "behind",
        "unable": "unable",
        "built-in": "up_to_date",
        "current": "up_to_date",
        "behind": "behind",
        "refused": "refusing",
    }
    for device in rows.iterator():
        counts[words[freshness(device, steps).how]] += 1
    return counts
