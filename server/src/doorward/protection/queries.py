"""Reads about what devices are told, and whether they do it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from doorward.accounts.models import Account
from doorward.devices.models import Device
from doorward.protection.models import SettingsVersion

PAGE: Final = 30


@dataclass(frozen=True)
class Applied:
    """How far a device is with the newest settings there are for it."""

    state: Literal["applied", "waiting", "failed", "unable"]
    errors: tuple[tuple[str, str], ...] = ()
    """Where (a JSON Pointer) and why, of settings that it could not apply."""


def applied(device: Device) -> Applied:
    """Return whether the device does what it is told; its own defaults count as told."""
    if device.settings_version >= device.wanted_version:
        return Applied("applied")
    if "settings" not in device.capabilities:
        return Applied("unable")
    failed = device.settings_status == "failed"
    if failed and device.settings_failed_version >= device.wanted_version:
        errors = tuple(
            (str(each.get("pointer", "")), str(each.get("code", "")))
            for each in device.settings_errors
            if isinstance(each, dict)
        )
        return Applied("failed", errors)
    return Applied("waiting")


@dataclass(frozen=True)
class Count:
    """How many devices do what they are told, and those that do not."""

    applied: int
    total: int
    behind: tuple[tuple[Device, Applied], ...]


def count(devices: Sequence[Device]) -> Count:
    """Return how far these devices are."""
    found = [(device, applied(device)) for device in devices]
    behind = tuple(each for each in found if each[1].state != "applied")
    return Count(len(found) - len(behind), len(found), behind)


def versions(
    account: Account, *, before: int = 0, size: int = PAGE
) -> tuple[list[SettingsVersion], int]:
    """Return changes, the newest first, and where the next page begins; 0 when there is none."""
    rows = SettingsVersion.objects.filter(account=account).select_related("by").order_by("-number")
    if before:
        rows = rows.filter(number__lt=before)
    found = list(rows[: size + 1])
    return found[:size], found[size - 1].number if len(found) > size else 0


def offered(account: Account, size: int) -> list[SettingsVersion]:
    """Return the newest changes to choose from: their numbers, times and reasons, nothing more."""
    rows = SettingsVersion.objects.filter(account=account).order_by("-number")
    return list(rows.only("number", "at", "why")[:size])


def version(account: Account, number: int) -> SettingsVersion | None:
    """Return one change of this account."""
    rows = SettingsVersion.objects.filter(account=account, number=number).select_related("by")
    return rows.first()
