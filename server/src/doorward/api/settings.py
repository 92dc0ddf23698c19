"""Protection settings over the API: the same layers, dry run, proof and versions as the pages."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from django.http import HttpRequest
from ninja import Router, Schema
from pydantic import Field, JsonValue, StringConstraints

from doorward.accounts.adapter import origin_of
from doorward.accounts.models import Shares
from doorward.accounts.permissions import Act
from doorward.api import callers, finding, shapes
from doorward.api.callers import Caller
from doorward.api.problems import Refused
from doorward.devices import queries as devices
from doorward.devices.models import Device
from doorward.protection import merging, policy, queries
from doorward.protection.merging import Layer
from doorward.protection.models import LONGEST_WHY, SettingsVersion
from doorward.protection.policy import Delta, Plan

router: Final = Router()
MOST_NAMED: Final = 100
MOST_LOCKED: Final = 100
DEEPEST: Final = 6

Document = dict[str, JsonValue]
Pointer = Annotated[str, StringConstraints(max_length=200)]


class SettingsPatch(shapes.Strict):
    """A change. `values` is a JSON Merge Patch (RFC 7396) of what this layer says itself.

    `null` takes a value away, so that what is further up holds again. `base` is the `newest` that
    was seen: when another change came between, the answer is 409. `dry_run` stores nothing.
    """

    values: Document = {}
    why: Annotated[str, StringConstraints(max_length=LONGEST_WHY)] = ""
    base: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    dry_run: bool = False


class AccountPatch(SettingsPatch):
    """The same, and what no group or device may have otherwise: all pointers, as a whole."""

    locked: Annotated[list[Pointer], Field(max_length=MOST_LOCKED)] | None = None


class CannotOut(Schema):
    """A device that can't do part of a change, and why."""

    id: UUID
    name: str
    reasons: dict[str, str]


class ChangeOut(Schema):
    """What a change does, or would do: whom it reaches, who can't, and what protects less.

    `devices` and `cannot` name a hundred at most; the numbers count all.
    """

    number: int | None
    reached: int
    unable: int
    others: int
    devices: list[shapes.DeviceRef]
    cannot: list[CannotOut]
    weaker: list[str]

    @classmethod
    def of(cls, plan: Plan, number: int | None) -> ChangeOut:
        """Return the answer about this change."""
        return cls(
            number=number,
            reached=len(plan.reached),
            unable=len(plan.unable),
            others=plan.others,
            devices=[
                shapes.DeviceRef(id=each.device.pk, name=each.device.label)
                for each in plan.reached[:MOST_NAMED]
            ],
            cannot=[
                CannotOut(
                    id=each.device.pk,
                    name=each.device.label,
                    reasons={field.at: str(why) for field, why in each.cannot},
                )
                for each in plan.unable[:MOST_NAMED]
            ],
            weaker=[field.at for field in plan.weaker],
        )


class SettingsOut(Schema):
    """What all devices of the account are told, and on how many it is applied.

    `values` is what the account says itself, `effective` that over the product's own.
    """

    newest: int
    values: Document
    locked: list[str]
    effective: Document
    devices: int
    applied: int
    change: ChangeOut | None = None


class SettingsErrorOut(Schema):
    """A setting that the device could not apply: a JSON Pointer, and why."""

    pointer: str
    code: str


class AppliedOut(Schema):
    """Whether the device does it: `applied`, `waiting`, `failed` or `unable` (too old an agent).

    `wanted` and `version` are the protocol's versions: the newest there is, and the one in force.
    """

    state: Literal["applied", "waiting", "failed", "unable"]
    wanted: int
    version: int
    errors: list[SettingsErrorOut]
    last_seen: datetime | None


class DeviceSettingsOut(Schema):
    """What one device is told: `values` are its own, `inherited` what holds without them."""

    newest: int
    group: UUID | None
    values: Document
    inherited: Document
    locked: list[str]
    effective: Document
    applied: AppliedOut
    change: ChangeOut | None = None


class VersionOut(Schema):
    """One change: who, when, why, and what stood there before and after."""

    number: int
    at: datetime
    by: UUID | None
    why: str
    undoes: int | None
    devices: int
    changes: list[Document]

    @classmethod
    def of(cls, version: SettingsVersion) -> VersionOut:
        """Return the answer about this change."""
        return cls(
            number=version.number,
            at=version.at,
            by=version.by_id,
            why=version.why,
            undoes=version.undoes,
            devices=version.devices,
            changes=version.changes,
        )


@router.get(
    "/settings", response={200: SettingsOut, **shapes.ERRORS}, summary="What all devices are told"
)
def account_settings(request: HttpRequest) -> SettingsOut:
    """Return what the account tells its devices, and on how many it is applied."""
    return _of_account(callers.of(request, Act.DEVICES_LOOK))


@router.patch(
    "/settings",
    response={200: SettingsOut, **shapes.ERRORS, **shapes.WITH_BODY, **shapes.CONFLICT},
    summary="Change what all devices are told",
)
def change_account_settings(request: HttpRequest, change: AccountPatch) -> SettingsOut:
    """Merge the patch into what the account says. What protects less needs a fresh proof."""
    caller = callers.of(request, Act.PROTECTION_CHANGE)
    standing = policy.state_of(caller.account)
    layer = standing.account
    locked = layer.locked if change.locked is None else tuple(change.locked)
    after = {"values": _patched(layer, change), "locked": sorted(set(locked))}
    done = _change(request, caller, Delta("account", None, after), change, standing.newest)
    return _of_account(caller, done)


@router.get(
    "/settings/versions",
    response={200: shapes.Page[VersionOut], **shapes.ERRORS},
    summary="Changes of the settings, the latest first",
)
def list_versions(
    request: HttpRequest,
    cursor: Annotated[int, Field(ge=1, lt=2**31)] | None = None,
    limit: shapes.Limit = 50,
) -> shapes.Page[VersionOut]:
    """Return who changed what, when and why."""
    caller = callers.of(request, Act.DEVICES_LOOK)
    found, older = queries.versions(caller.account, before=cursor or 0, size=limit)
    return shapes.Page(
        items=[VersionOut.of(version) for version in found], next=str(older) if older else None
    )


@router.get(
    "/devices/{uuid:device_id}/settings",
    response={200: DeviceSettingsOut, **shapes.WITH_ID},
    summary="What one device is told, and whether it does it",
)
def device_settings(request: HttpRequest, device_id: UUID) -> DeviceSettingsOut:
    """Return the device's own values beside what it inherits, and how far it is with them."""
    caller = callers.of(request, Act.DEVICES_LOOK)
    return _of_device(caller, finding.device(caller, device_id))


@router.patch(
    "/devices/{uuid:device_id}/settings",
    response={200: DeviceSettingsOut, **shapes.WITH_ID, **shapes.WITH_BODY, **shapes.CONFLICT},
    summary="Change what one device is told",
)
def change_device_settings(
    request: HttpRequest, device_id: UUID, change: SettingsPatch
) -> DeviceSettingsOut:
    """Merge the patch into the device's own values. What protects less needs a fresh proof."""
    caller = callers.of(request, Act.PROTECTION_CHANGE)
    device = finding.device(caller, device_id)
    standing = policy.state_of(caller.account)
    values = _patched(Layer(standing.own.get(device.pk, {})), change)
    after = {"values": values} if values else None
    done = _change(request, caller, Delta("device", device.pk, after), change, standing.newest)
    device.refresh_from_db()
    return _of_device(caller, device, done)


def _patched(layer: Layer, change: SettingsPatch) -> merging.Document:
    if _depth(change.values) > DEEPEST:
        raise _invalid({"": "Nested too deeply."})
    found: merging.Document = merging.merged(layer.values, change.values)
    return merging.without_empty(found)


def _depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(_depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(_depth, value), default=0)
    return 0


def _change(
    request: HttpRequest, caller: Caller, delta: Delta, change: SettingsPatch, base: int
) -> ChangeOut:
    """Make the change of what stood in version ``base``, which the patch was merged into."""
    plan = policy.plan(caller.account, [delta])
    if plan.problems:
        raise _invalid({each.at: str(each.words) for each in plan.problems})
    if change.base not in {None, base}:
        raise Refused("conflict", "Somebody else changed the settings since then.")
    if change.dry_run:
        return ChangeOut.of(plan, None)
    try:
        version = policy.save(
            caller.account,
            [delta],
            actor=caller.user,
            proven=caller.is_fresh,
            why=change.why,
            base=base,
            origin=origin_of(request),
        )
    except policy.NeedsProof:
        caller.must_be_fresh()
        raise
    except (policy.Outdated, policy.Invalid):
        raise Refused("conflict", "Somebody else changed the settings just now.") from None
    return ChangeOut.of(plan, version.number if version is not None else None)


def _invalid(problems: dict[str, str]) -> Refused:
    fields = [
        {"at": ["body", "change", "values", *merging.parts(at)], "problem": words}
        for at, words in list(problems.items())[:50]
    ]
    return Refused("invalid", fields=fields)


def _of_account(caller: Caller, change: ChangeOut | None = None) -> SettingsOut:
    standing = policy.state_of(caller.account)
    effective, _locked = merging.effective([standing.account])
    counted = queries.count(list(devices.of_account(caller.account)))
    return SettingsOut(
        newest=standing.newest,
        values=standing.account.values,
        locked=list(standing.account.locked),
        effective=effective,
        devices=counted.total,
        applied=counted.applied,
        change=change,
    )


def _of_device(
    caller: Caller, device: Device, change: ChangeOut | None = None
) -> DeviceSettingsOut:
    standing = policy.state_of(caller.account)
    layers = standing.layers(device.pk)
    effective, _all_locked = merging.effective(layers)
    inherited, locked = merging.effective(layers[:-1])
    found = queries.applied(device)
    # What the device says of itself is its member's to share; whether it does it is its state.
    told = caller.sight.of(device) != Shares.STATE
    presence = getattr(device, "presence", None)
    return DeviceSettingsOut(
        newest=standing.newest,
        group=standing.places.get(device.pk),
        values=standing.own.get(device.pk, {}),
        inherited=inherited,
        locked=list(locked),
        effective=effective,
        applied=AppliedOut(
            state=found.state,
            wanted=device.wanted_version,
            version=device.settings_version,
            errors=[SettingsErrorOut(pointer=pointer, code=code) for pointer, code in found.errors]
            if told
            else [],
            last_seen=presence.last_seen if presence is not None else None,
        ),
        change=change,
    )
