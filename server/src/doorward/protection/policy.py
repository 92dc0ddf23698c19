"""What each device is told to do: product < account < group < device, every change a version.

A change is planned first: which devices it reaches, which of them can't do it, whether it protects
less. Saving does exactly that plan, in one transaction with its version, and every device whose
settings are other than before gets a higher version of them, which its gateway tells it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final, Literal, cast
from uuid import UUID

from django.db import transaction
from django.db.models.functions import Lower
from django.utils import timezone
from django.utils.functional import Promise
from django.utils.translation import gettext as _

from doorward.accounts import members
from doorward.accounts.models import Account, User
from doorward.accounts.origin import Origin
from doorward.accounts.permissions import Act
from doorward.audit import card_numbers, trail
from doorward.devices import bell, seats
from doorward.devices import queries as devices
from doorward.devices.models import Device
from doorward.protection import checking, merging, schema
from doorward.protection.checking import Problem
from doorward.protection.merging import Document, GroupLayer, Layer, State
from doorward.protection.models import (
    LONGEST_WHY,
    AccountSettings,
    DeviceSettings,
    Group,
    SettingsVersion,
)
from doorward.protection.schema import Field

Kind = Literal["account", "group", "device", "place"]

MOST_GROUPS: Final = 100
NEWEST: Final = 2**31 - 1
"""The highest version of settings that the protocol knows."""
_BEGINNING: Final = datetime(2026, 1, 1, tzinfo=UTC)


class Invalid(Exception):
    """The settings would not be sound; ``problems`` says what and where."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__(f"{len(problems)} problems")
        self.problems = tuple(problems)


class NeedsProof(Exception):
    """The change protects less: whoever makes it must just have proved who they are."""


class Outdated(Exception):
    """Somebody else changed the settings since they were looked at."""


class CannotUndo(Exception):
    """What the change began from is not there any more; the text says what."""


@dataclass(frozen=True)
class Delta:
    """One thing that a change changes: what stands there afterwards, nothing when it goes.

    ``account`` and ``group`` have values, locked (and name); ``device`` has values; ``place`` says
    in which group a device is.
    """

    kind: Kind
    subject: UUID | None
    after: Document | None


@dataclass(frozen=True)
class DeviceChange:
    """What a change means for one device."""

    device: Device
    fields: tuple[Field, ...]
    cannot: tuple[tuple[Field, Promise | str], ...]


@dataclass(frozen=True)
class Plan:
    """What a change would do."""

    before: State
    after: State
    deltas: tuple[Delta, ...]
    reached: tuple[DeviceChange, ...]
    others: int
    weaker: tuple[Field, ...]
    problems: tuple[Problem, ...]

    @property
    def changes_anything(self) -> bool:
        """Whether something stands otherwise afterwards."""
        return bool(self.deltas)

    @property
    def able(self) -> list[DeviceChange]:
        """The devices that can do all of it."""
        return [each for each in self.reached if not each.cannot]

    @property
    def unable(self) -> list[DeviceChange]:
        """The devices that can't do some of it."""
        return [each for each in self.reached if each.cannot]


# -- reading -------------------------------------------------------------------------------------


def state_of(account: Account) -> State:
    """Return all layers of the account, by three queries."""
    defaults = AccountSettings.objects.filter(account=account).first()
    rows = DeviceSettings.objects.filter(account=account, device__revoked_at__isnull=True)
    own, places = {}, {}
    for device, group, values in rows.values_list("device_id", "group_id", "values"):
        if values:
            own[device] = values
        if group is not None:
            places[device] = group
    return State(
        newest=defaults.newest if defaults is not None else 0,
        account=Layer(defaults.values, tuple(defaults.locked)) if defaults else Layer(),
        groups={
            group.pk: GroupLayer(group.name, Layer(group.values, tuple(group.locked)))
            for group in Group.objects.filter(account=account).order_by(Lower("name"))
        },
        own=own,
        places=places,
    )


def told(device_id: UUID) -> tuple[int, str]:
    """Return the version and the text of what a device is told, by one query."""
    found = (
        Device.objects.filter(pk=device_id).values_list("wanted_version", "told__merged").first()
    )
    version, text = found if found is not None else (0, None)
    return version, text or DEFAULT


def mark_of(version: int, text: str) -> str:
    """Return an entity tag: also another after a backup was restored and a number came again."""
    return f'"{version}-{hashlib.blake2b(text.encode(), digest_size=8).hexdigest()}"'


DEFAULT: Final = merging.text_of([])
"""What a device is told where nobody has said anything."""


# -- planning ------------------------------------------------------------------------------------


def plan(account: Account, deltas: Iterable[Delta], *, undoes: int | None = None) -> Plan:
    """Return what this change would do; nothing is stored."""
    everybody = list(devices.of_account(account))
    return _plan(state_of(account), everybody, deltas, restores=undoes is not None)


def _plan(
    before: State, everybody: list[Device], deltas: Iterable[Delta], *, restores: bool
) -> Plan:
    there = {device.pk for device in everybody}
    known = [each for each in deltas if each.kind in {"account", "group"} or each.subject in there]
    after, real = _applied(before, known)
    problems = checking.problems_of(before, after, restores=restores)
    if problems:
        return Plan(before, after, real, (), len(everybody), (), problems)
    weaker: dict[str, Field] = {}
    reached = []
    for device in everybody:
        was, _was_locked = merging.effective(before.layers(device.pk))
        is_now, _is_locked = merging.effective(after.layers(device.pk))
        fields = schema.differing(was, is_now)
        if not fields:
            continue
        weaker |= {each.at: each for each in schema.weakened(was, is_now)}
        reached.append(DeviceChange(device, fields, _cannot(device, fields)))
    # Devices that join later begin from these: they count though nobody is reached yet.
    for was_above, is_above in _above(before, after):
        documents = merging.effective(was_above)[0], merging.effective(is_above)[0]
        weaker |= {each.at: each for each in schema.weakened(*documents)}
    ordered = tuple(each for each in schema.FIELDS.values() if each.at in weaker)
    others = len(everybody) - len(reached)
    return Plan(before, after, real, tuple(reached), others, ordered, ())


def _above(before: State, after: State) -> list[tuple[list[Layer], list[Layer]]]:
    found = [([before.account], [after.account])]
    for key, group in after.groups.items():
        was = before.groups.get(key)
        old = [before.account, *([was.layer] if was is not None else [])]
        found.append((old, [after.account, group.layer]))
    return found


def _cannot(device: Device, fields: Iterable[Field]) -> tuple[tuple[Field, Promise | str], ...]:
    found = []
    for each in fields:
        why = schema.why_not(each, system=device.os_name, capabilities=device.capabilities)
        if why:
            found.append((each, why))
    return tuple(found)


def _applied(state: State, deltas: Iterable[Delta]) -> tuple[State, tuple[Delta, ...]]:
    """Return the state with the change made, and those parts of it that change something."""
    real: list[Delta] = []
    for delta in deltas:
        if _standing(state, delta.kind, delta.subject) == delta.after:
            continue
        real.append(delta)
        state = _with(state, delta)
    return state, tuple(real)


def _standing(state: State, kind: Kind, subject: UUID | None) -> Document | None:
    """Return what stands there, in the form of ``Delta.after``."""
    if kind == "account":
        return {"values": state.account.values, "locked": sorted(state.account.locked)}
    if subject is None:
        raise ValueError("only the account's own settings have no subject")
    if kind == "group":
        group = state.groups.get(subject)
        if group is None:
            return None
        layer = group.layer
        return {"name": group.name, "values": layer.values, "locked": sorted(layer.locked)}
    if kind == "device":
        values = state.own.get(subject)
        return {"values": values} if values else None
    place = state.places.get(subject)
    return {"group": str(place)} if place is not None else None


def _without_card_number(delta: Delta) -> Delta:
    if delta.after is None or "name" not in delta.after:
        return delta
    return replace(delta, after={**delta.after, "name": card_numbers.hide(delta.after["name"])})


def _with(state: State, delta: Delta) -> State:
    after, subject = delta.after, delta.subject
    if delta.kind == "account":
        said = after or {}
        layer = Layer(said.get("values", {}), tuple(sorted(said.get("locked", []))))
        return replace(state, account=layer)
    if subject is None:
        raise ValueError("only the account's own settings have no subject")
    if delta.kind == "group":
        groups = {key: group for key, group in state.groups.items() if key != subject}
        if after is None:
            places = {key: place for key, place in state.places.items() if place != subject}
            return replace(state, groups=groups, places=places)
        layer = Layer(after["values"], tuple(sorted(after["locked"])))
        return replace(state, groups={**groups, subject: GroupLayer(after["name"], layer)})
    if delta.kind == "device":
        own = {key: values for key, values in state.own.items() if key != subject}
        if after is not None and after["values"]:
            own[subject] = after["values"]
        return replace(state, own=own)
    places = {key: place for key, place in state.places.items() if key != subject}
    if after is not None:
        places[subject] = UUID(after["group"])
    return replace(state, places=places)


# -- saving --------------------------------------------------------------------------------------


@transaction.atomic
def save(
    account: Account,
    deltas: Sequence[Delta],
    *,
    actor: User | None,
    proven: bool,
    why: str = "",
    base: int | None = None,
    undoes: int | None = None,
    origin: Origin | None = None,
) -> SettingsVersion | None:
    """Make the change and return its version; nothing when all stands so already.

    ``proven`` says that the person has just proved who they are; ``base`` is the newest version
    they had seen. Raises Invalid, NeedsProof, Outdated and members.NotAllowed.
    """
    if actor is not None:
        members.must_still(account, actor, Act.PROTECTION_CHANGE)
    return _save(
        account,
        deltas,
        actor=actor,
        proven=proven,
        why=why,
        base=base,
        undoes=undoes,
        origin=origin or Origin("", ""),
    )


def _save(
    account: Account,
    deltas: Sequence[Delta],
    *,
    actor: User | None,
    proven: bool,
    why: str,
    base: int | None,
    undoes: int | None,
    origin: Origin,
) -> SettingsVersion | None:
    # The same order as joining takes: whoever locks the other way round could wait for ever.
    seats.lock(account)
    AccountSettings.objects.get_or_create(account=account)
    AccountSettings.objects.select_for_update().values_list("pk").get(account=account)
    before = state_of(account)
    if base is not None and base != before.newest:
        raise Outdated
    everybody = list(devices.of_account(account))
    named = [_without_card_number(delta) for delta in deltas]
    found = _plan(before, everybody, named, restores=undoes is not None)
    if found.problems:
        raise Invalid(found.problems)
    if not found.changes_anything:
        return None
    if found.weaker and not proven:
        raise NeedsProof
    now = timezone.now()
    _store(account, found, now)
    reached = _tell(account, found.after, everybody, now)
    version = SettingsVersion.objects.create(
        account=account,
        number=before.newest + 1,
        at=now,
        by=actor,
        why=trail.plain(card_numbers.hide(why.strip()), LONGEST_WHY),
        undoes=undoes,
        changes=_written(found, everybody),
        devices=reached,
    )
    trail.record(
        "protection.settings.undone" if undoes else "protection.settings.changed",
        account=account,
        actor=actor,
        target=str(version.pk),
        ip=origin.ip,
        agent=origin.agent,
        number=version.number,
        undoes=undoes,
        devices=reached,
        weaker=[each.at for each in found.weaker],
    )
    return version


def _written(found: Plan, everybody: list[Device]) -> list[Document]:
    names = {device.pk: device.label for device in everybody}
    written = []
    state = found.before
    for delta in found.deltas:
        name = names.get(delta.subject, "") if delta.subject is not None else ""
        if delta.kind == "group" and delta.subject is not None:
            standing = (found.after if delta.after is not None else state).groups[delta.subject]
            name = standing.name
        if delta.kind == "group" and delta.after is None and delta.subject is not None:
            # Its devices leave it: taken back, they are in it again.
            written += [
                {
                    "kind": "place",
                    "subject": str(device),
                    "name": names.get(device, ""),
                    "before": {"group": str(delta.subject)},
                    "after": None,
                }
                for device in state.in_group(delta.subject)
            ]
        written.append(
            {
                "kind": delta.kind,
                "subject": str(delta.subject) if delta.subject is not None else None,
                "name": name,
                "before": _standing(state, delta.kind, delta.subject),
                "after": delta.after,
            }
        )
        state = _with(state, delta)
    return written


def _store(account: Account, found: Plan, now: datetime) -> None:
    after = found.after
    AccountSettings.objects.filter(account=account).update(
        values=after.account.values, locked=list(after.account.locked), newest=after.newest + 1
    )
    gone = set(found.before.groups) - set(after.groups)
    if gone:
        DeviceSettings.objects.filter(group__in=gone).update(group=None)
        Group.objects.filter(account=account, pk__in=gone).delete()
    for key, was in found.before.groups.items():
        if key in after.groups and was.name != after.groups[key].name:
            # Two may change names with each other: neither stands in the other's way meanwhile.
            Group.objects.filter(account=account, pk=key).update(name=str(key))
    for key, group in after.groups.items():
        if found.before.groups.get(key) != group:
            Group.objects.update_or_create(
                pk=key,
                account=account,
                defaults={
                    "name": group.name,
                    "values": group.layer.values,
                    "locked": list(group.layer.locked),
                },
            )


def _tell(account: Account, state: State, everybody: list[Device], now: datetime) -> int:
    """Store what every device is told; returns how many are told something else than before."""
    known = {row.device_id: row for row in DeviceSettings.objects.filter(account=account)}
    fresh, other, reached = [], [], []
    for device in everybody:
        row = known.get(device.pk)
        text = state.text(device.pk)
        if text != (row.merged if row is not None else DEFAULT):
            device.wanted_version = _next_version(device, now)
            device.changed_at = now
            reached.append(device)
        told_now = DeviceSettings(
            device=device,
            account=account,
            group_id=state.places.get(device.pk),
            values=state.own.get(device.pk, {}),
            merged=text,
            made_by=schema.FINGERPRINT,
        )
        if row is None:
            fresh.append(told_now)
        elif _differs(row, told_now):
            other.append(told_now)
    DeviceSettings.objects.bulk_create(fresh, batch_size=200)
    DeviceSettings.objects.bulk_update(
        other, ["group", "values", "merged", "made_by"], batch_size=100
    )
    Device.objects.bulk_update(reached, ["wanted_version", "changed_at"], batch_size=200)
    if reached:
        bell.ring()
    return len(reached)


def _differs(row: DeviceSettings, told_now: DeviceSettings) -> bool:
    compared = ("group_id", "values", "merged", "made_by")
    return any(getattr(row, name) != getattr(told_now, name) for name in compared)


def _next_version(device: Device, now: datetime) -> int:
    # By the clock where that is higher: after a backup was restored, a number that a device has
    # heard already must not come again with other settings behind it.
    by_clock = int((now - _BEGINNING).total_seconds())
    heard = max(device.wanted_version, device.settings_version, device.settings_failed_version)
    return min(max(heard + 1, by_clock), NEWEST)


# -- history -------------------------------------------------------------------------------------


def undoing(account: Account, version: SettingsVersion) -> list[Delta]:
    """Return the change that puts everything this version changed back to how it was before it.

    What was changed there since is taken back with it. Raises CannotUndo.
    """
    state = state_of(account)
    there = {device.pk for device in devices.of_account(account)}
    deltas, returning = [], set()
    for change in reversed(version.changes):
        kind = cast(Kind, change["kind"])
        subject = UUID(change["subject"]) if change["subject"] else None
        before = change["before"]
        if kind in {"device", "place"} and subject not in there:
            continue  # A device that was removed since is told nothing.
        if kind == "group" and before is not None:
            returning.add(str(subject))
        if kind == "place" and before is not None:
            known = before["group"] in returning or UUID(before["group"]) in state.groups
            if not known:
                raise CannotUndo(
                    _("The group that %(name)s was in has been removed since. Undo that first.")
                    % {"name": change["name"]}
                )
        deltas.append(Delta(kind, subject, before))
    return deltas


# -- devices that come and come back -------------------------------------------------------------


def join(device: Device) -> None:
    """Have a device that joins be told its account's settings; in the caller's transaction."""
    row = DeviceSettings.objects.filter(device=device).first()
    if row is None and not AccountSettings.objects.filter(account=device.account_id).exists():
        return
    _tell_one(device, row)


def succeed(old: Device, new: Device, actor: User | None) -> None:
    """Have the new device be told what the old one was told; in the caller's transaction.

    Whoever gave it the place has just proved who they are, or made the code that says so: it holds
    when they may no longer change settings themselves.
    """
    row = DeviceSettings.objects.filter(device=old).first()
    if row is None or (not row.values and row.group_id is None):
        return
    deltas = []
    if row.group_id is not None:
        deltas.append(Delta("place", new.pk, {"group": str(row.group_id)}))
    if row.values:
        deltas.append(Delta("device", new.pk, {"values": row.values}))
    why = _("It takes the place of %(name)s") % {"name": old.label}
    _save(
        new.account,
        deltas,
        actor=actor,
        proven=True,
        why=why[:LONGEST_WHY],
        base=None,
        undoes=None,
        origin=Origin("", ""),
    )
    new.refresh_from_db(fields=["wanted_version", "changed_at"])


def _tell_one(device: Device, row: DeviceSettings | None) -> None:
    now = timezone.now()
    state = state_of(device.account)
    text = state.text(device.pk)
    if text != (row.merged if row is not None else DEFAULT):
        device.wanted_version, device.changed_at = _next_version(device, now), now
        device.save(update_fields=["wanted_version", "changed_at"])
        bell.ring()
    DeviceSettings.objects.update_or_create(
        device=device,
        defaults={"account": device.account, "merged": text, "made_by": schema.FINGERPRINT},
    )


@transaction.atomic
def overtake(reported: Mapping[UUID, int]) -> int:
    """Give devices that know newer settings than this server does still newer ones.

    After a backup was restored, the server's are older than what the device has heard, and the
    device would keep what nobody here knows any more. Returns how many there were.
    """
    now, done = timezone.now(), 0
    for device in Device.objects.select_for_update().filter(pk__in=reported, revoked_at=None):
        heard = reported[device.pk]
        if heard <= device.wanted_version or heard >= NEWEST:
            continue
        device.settings_version = max(device.settings_version, heard)
        device.wanted_version, device.changed_at = _next_version(device, now), now
        device.save(update_fields=["wanted_version", "changed_at"])
        done += 1
    return done


def renew(now: datetime) -> int:
    """Tell devices anew whose settings were made of another product's defaults; returns how many.

    After an update of the server, at most two hundred in one go.
    """
    old = list(
        DeviceSettings.objects.exclude(made_by=schema.FINGERPRINT)
        .filter(device__revoked_at__isnull=True)
        .values_list("device_id", flat=True)[:200]
    )
    for device_id in old:
        with transaction.atomic():
            account = Device.objects.values_list("account_id", flat=True).get(pk=device_id)
            seats.lock(Account(pk=account))
            device = Device.objects.select_related("account").get(pk=device_id)
            _tell_one(device, DeviceSettings.objects.get(device_id=device_id))
    return len(old)
