"""What members ask devices to do, and how far that is: asked, sent, heard, ended.

A command that was never sent is the server's alone: it can be canceled, and it expires at its time.
Once it was sent only the device knows what became of it, and nothing is claimed before its word.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

import msgspec
from django.db import IntegrityError, connection, transaction
from django.db.models import F, Q, QuerySet
from django.db.models.functions import Coalesce
from django.utils import timezone
from uuid_utils.compat import uuid7

from doorward.accounts import members
from doorward.accounts.models import Account, User
from doorward.accounts.origin import Origin
from doorward.accounts.permissions import Act
from doorward.audit import trail
from doorward.devices import bell
from doorward.devices.check_in import NO_ORDERS, Orders
from doorward.devices.models import OPEN, Command, CommandState, Device
from doorward_protocol import messages
from doorward_protocol.messages import (
    COMMAND_KINDS,
    MAX_REPORT_BYTES,
    REMOTE_OFF,
    CommandArgs,
    CommandProgress,
    is_whole_path,
)

UNKNOWN: Final = Origin(ip="", agent="")

LIFE: Final = timedelta(days=1)
"""A device that doesn't call for so long does not begin what it was asked to do."""
LOST_AFTER: Final = timedelta(days=7)
"""After so long without a word from the device, nobody knows how far a command got."""
KEPT: Final = timedelta(days=90)
"""Commands that ended are listed for so long."""
MOST_OPEN: Final = 200
"""Commands of one device that have not ended."""
MOST_IN_AN_ANSWER: Final = 100
MOST_BYTES: Final = MAX_REPORT_BYTES // 4
"""Commands in one answer, as JSON: the device refuses an answer of four times as much."""

RESTORES_AT_ONCE: Final = 3
RESTORES_WITHIN: Final = timedelta(hours=1)
RESTORE_DELAY: Final = timedelta(minutes=15)
"""From the fourth file within an hour on, an account's files come back only after this: time to
notice that somebody else is letting them out (abuse case A51)."""


class NotAsked(Exception):
    """The device can't be asked this; nothing was stored."""


class NotOffered(NotAsked):
    """The device does not do such things: its agent is too old, or it has them switched off."""

    def __init__(self, *, is_switched_off: bool) -> None:
        super().__init__()
        self.is_switched_off = is_switched_off


class TooManyWaiting(NotAsked):
    """The device has MOST_OPEN commands that have not ended."""


class InvalidArgs(NotAsked):
    """The kind is unknown, or its arguments are not as the protocol says; the text says what."""


class UidTaken(NotAsked):
    """Another command has this id."""


class NoSuchCommand(Exception):
    """This device has no command of this id."""


# -- asking ----------------------------------------------------------------------------------


def offers(device: Device, kind: str) -> bool:
    """Tell whether the device carries out such commands."""
    return kind in device.capabilities


def is_switched_off(device: Device) -> bool:
    """Tell whether somebody at the device has switched all remote actions off."""
    return REMOTE_OFF in device.capabilities


def checked(kind: str, args: CommandArgs, os_name: str) -> dict[str, object]:
    """Return the arguments of such a command as they are stored. Raises InvalidArgs."""
    if kind not in COMMAND_KINDS:
        raise InvalidArgs("There is no such kind of command.")
    # Through the protocol's own bounds: however the arguments came, no other ones are sent.
    try:
        args = msgspec.convert(msgspec.to_builtins(args), CommandArgs)
    except msgspec.ValidationError as error:
        raise InvalidArgs(str(error)) from None
    given = {name for name in ("paths", "scope", "quarantine_id", "until") if getattr(args, name)}
    if kind == "scan.run":
        if given not in ({"paths"}, {"scope"}):
            raise InvalidArgs("A scan has paths, or the scope quick or full.")
        for path in args.paths:
            if not is_whole_path(path, windows=os_name.lower() == "windows"):
                raise InvalidArgs(f"{path!r} is not a whole path on this device.")
    elif kind in {"quarantine.restore", "quarantine.delete"}:
        may_end = {"until"} if kind == "quarantine.restore" else set()
        if given - may_end != {"quarantine_id"}:
            raise InvalidArgs("Name what is in quarantine by its quarantine_id.")
    elif given:
        raise InvalidArgs(f"{kind} has no arguments.")
    found: dict[str, object] = {}
    if args.paths:
        found["paths"] = list(args.paths)
    if args.scope:
        found["scope"] = args.scope
    if args.quarantine_id:
        found["quarantine_id"] = str(args.quarantine_id)
    if args.until:
        found["until"] = args.until
    return found


def act_of(kind: str) -> Act:
    """Return what a member must be allowed to have a device do such things."""
    return Act.QUARANTINE_CHANGE if kind.startswith("quarantine.") else Act.DEVICES_COMMAND


@transaction.atomic
def ask(
    device: Device,
    kind: str,
    args: CommandArgs | None = None,
    *,
    actor: User | None,
    uid: UUID | None = None,
    origin: Origin = UNKNOWN,
    delay: timedelta = timedelta(0),
) -> Command:
    """Have the device do this as soon as it calls; the same uid again is the same command.

    With ``delay``, not before that is over.

    One like it that has not begun is returned in its place. Raises NotAsked and members.NotAllowed.
    """
    wanted = checked(kind, args or CommandArgs(), device.os_name)
    if actor is not None:
        members.must_still(Account(pk=device.account_id), actor, act_of(kind))
    device = Device.objects.select_for_update(no_key=True).get(pk=device.pk)
    if uid is not None and (known := Command.objects.filter(uid=uid).first()) is not None:
        if (known.device_id, known.kind, known.args) != (device.pk, kind, wanted):
            raise UidTaken
        return known
    if device.revoked_at is not None or not offers(device, kind):
        raise NotOffered(is_switched_off=is_switched_off(device))
    waiting = list(Command.objects.filter(device=device, state__in=OPEN).order_by("id"))
    for other in waiting:
        is_alike = (other.kind, other.args) == (kind, wanted)
        if is_alike and other.state != CommandState.RUNNING and other.cancel_asked_at is None:
            return other
    if len(waiting) >= MOST_OPEN:
        raise TooManyWaiting
    now = timezone.now()
    not_before = _not_before(device.account_id, kind, now) + delay
    try:
        with transaction.atomic():
            command = Command.objects.create(
                uid=uid or uuid7(),
                account_id=device.account_id,
                device=device,
                asked_by=actor,
                kind=kind,
                args=wanted,
                created_at=now,
                not_before=not_before,
                not_after=not_before + LIFE,
            )
    except IntegrityError:
        raise UidTaken from None
    if not_before == now:
        _tell_gateways([device.pk], now)
    trail.record(
        "device.command.asked",
        account=device.account_id,
        actor=actor,
        target=str(device.pk),
        ip=origin.ip,
        agent=origin.agent,
        name=device.label,
        kind=kind,
        command=str(command.uid),
    )
    return command


def _not_before(account_id: UUID, kind: str, now: datetime) -> datetime:
    if kind != "quarantine.restore":
        return now
    lately = Command.objects.filter(
        account=account_id, kind=kind, created_at__gt=now - RESTORES_WITHIN
    ).exclude(state=CommandState.CANCELED)
    return now + RESTORE_DELAY if lately.count() >= RESTORES_AT_ONCE else now


@transaction.atomic
def cancel(command: Command, *, actor: User | None, origin: Origin = UNKNOWN) -> Command:
    """Take the command back: at once where it was not sent, else as soon as the device stops.

    One that has ended stays as it is. Raises members.NotAllowed.
    """
    if actor is not None:
        members.must_still(Account(pk=command.account_id), actor, Act.DEVICES_COMMAND)
    command = Command.objects.select_for_update().select_related("device").get(pk=command.pk)
    if not command.is_open or command.cancel_asked_at is not None:
        return command
    now = timezone.now()
    command.cancel_asked_at = now
    if command.sent_at is None:
        command.state, command.ended_at = CommandState.CANCELED, now
    else:
        _tell_gateways([command.device_id], now)
    command.save(update_fields=["state", "ended_at", "cancel_asked_at"])
    trail.record(
        "device.command.canceled",
        account=command.account_id,
        actor=actor,
        target=str(command.device_id),
        ip=origin.ip,
        agent=origin.agent,
        name=command.device.label,
        kind=command.kind,
        command=str(command.uid),
    )
    return command


def _tell_gateways(devices: Collection[UUID], now: datetime) -> None:
    Device.objects.filter(pk__in=devices).update(commanded_at=now, changed_at=now)
    bell.ring()


# -- the device's side -----------------------------------------------------------------------


def waiting_for(device_ids: Iterable[UUID]) -> set[UUID]:
    """Return those of the devices for which something is to be sent, by one query."""
    return set(
        Command.objects.filter(device__in=device_ids)
        .filter(Q(state=CommandState.QUEUED) | Q(cancel_asked_at__isnull=False, state__in=OPEN))
        .values_list("device", flat=True)
        .distinct()
    )


@transaction.atomic
def send(device_id: UUID, now: datetime) -> Orders:
    """Return what the device is to be told now; from here on only it knows what becomes of that."""
    declared = Device.objects.filter(pk=device_id).values_list("capabilities", flat=True).first()
    if declared is None:
        return NO_ORDERS  # It was deleted with its account.
    rows = Command.objects.select_for_update().filter(device=device_id, state__in=OPEN)
    told: list[messages.Command] = []
    cancel: list[UUID] = []
    fresh: list[int] = []
    size, more = 0, False
    for row in rows.order_by("id"):
        if row.cancel_asked_at is not None and len(cancel) < MOST_IN_AN_ANSWER:
            cancel.append(row.uid)
        if row.state != CommandState.QUEUED:
            continue
        if row.sent_at is None and not (row.not_before <= now < row.not_after):
            continue
        if row.kind not in declared:
            continue
        command = _as_sent(row)
        size += len(messages.encode(command))
        if len(told) >= MOST_IN_AN_ANSWER or (told and size > MOST_BYTES):
            more = True
            break
        told.append(command)
        if row.sent_at is None:
            fresh.append(row.pk)
    if fresh:
        Command.objects.filter(pk__in=fresh).update(sent_at=now)
    return Orders(tuple(told), tuple(cancel), more)


def _as_sent(row: Command) -> messages.Command:
    return messages.Command(
        command_uid=row.uid,
        seq=row.pk,
        kind=row.kind,
        args=msgspec.convert(row.args, CommandArgs),
        not_after=int(row.not_after.timestamp() * 1000),
    )


_ENDS: Final[dict[str, CommandState]] = {
    "succeeded": CommandState.DONE,
    "failed": CommandState.FAILED,
    "rejected": CommandState.REJECTED,
    "interrupted": CommandState.INTERRUPTED,
    "expired": CommandState.EXPIRED,
    "canceled": CommandState.CANCELED,
}


@transaction.atomic
def hear(device_id: UUID, uid: UUID, said: messages.CommandState, now: datetime) -> CommandState:
    """Take in how far the device is with its command; returns the state that holds.

    The same word again changes nothing, and a last state is the last. Raises NoSuchCommand.
    """
    command = Command.objects.select_for_update().filter(uid=uid, device=device_id).first()
    if command is None:
        raise NoSuchCommand
    if not command.is_open:
        return CommandState(command.state)
    command.heard_at = now
    if said.progress is not None:
        command.files, command.bytes, command.threats = _counts(said.progress)
    if said.status == "accepted":
        # Overtaken by a later word on its way, it says nothing new.
        if command.state == CommandState.QUEUED:
            command.state = CommandState.DELIVERED
    else:
        if command.started_at is None and (said.started_at or said.status == "running"):
            command.started_at = _within(said.started_at, command.created_at, now)
        command.state = _ENDS.get(said.status, CommandState.RUNNING)
        command.code, command.detail = said.code, said.detail
    if command.state not in OPEN:
        earliest = command.started_at or command.created_at
        command.ended_at = _within(said.ended_at, earliest, now)
        command.report = said.report
    command.save(
        update_fields=[
            "state",
            "code",
            "detail",
            "report",
            "heard_at",
            "started_at",
            "ended_at",
            "files",
            "bytes",
            "threats",
        ]
    )
    return CommandState(command.state)


def _within(moment: int | None, earliest: datetime, now: datetime) -> datetime:
    # A device's clock may say anything; it can't have begun before it was asked, or end later.
    if moment is None:
        return now
    return min(max(datetime.fromtimestamp(moment / 1000, UTC), earliest), now)


def _counts(progress: CommandProgress) -> tuple[int, int, int]:
    return progress.files, progress.bytes, progress.threats


def store_progress(heard: Sequence[tuple[UUID, UUID, CommandProgress]], now: datetime) -> None:
    """Write down how far running commands are: device, command, counts; many in one transaction."""
    is_postgresql = connection.vendor == "postgresql"
    moment = connection.ops.adapt_datetimefield_value(now)

    def key(uid: UUID) -> UUID | str:
        return uid if is_postgresql else uid.hex

    with transaction.atomic(), connection.cursor() as cursor:
        cursor.executemany(
            "UPDATE devices_command SET files = %s, bytes = %s, threats = %s, heard_at = %s"
            " WHERE uid = %s AND device_id = %s AND state = 'running'",
            [
                (*_counts(progress), moment, key(uid), key(device))
                for device, uid, progress in heard
            ],
        )


def lose(device: Device, now: datetime) -> int:
    """End what an earlier installation on this device had taken on and can't tell of any more."""
    begun = (CommandState.DELIVERED, CommandState.RUNNING)
    return Command.objects.filter(device=device, state__in=begun).update(
        state=CommandState.INTERRUPTED, code="installed-anew", ended_at=now
    )


# -- reading ---------------------------------------------------------------------------------


def find(account: Account, uid: UUID) -> Command | None:
    """Return this account's command with its device, or nothing."""
    return (
        Command.objects.select_related("device", "asked_by")
        .filter(account=account, uid=uid, device__revoked_at__isnull=True)
        .first()
    )


def of_device(device: Device, *, most: int) -> list[Command]:
    """Return the newest commands of the device, newest first."""
    return list(_of(device)[:most])


@dataclass(frozen=True)
class Wanted:
    """Which commands; what is left out does not filter."""

    device: UUID | None = None
    states: frozenset[str] = frozenset()
    kinds: frozenset[str] = frozenset()


def page(
    account: Account, wanted: Wanted, *, before: int | None = None, size: int
) -> list[Command]:
    """Return the account's commands older than this one, the newest first, by one query.

    One more than ``size`` says that there are more. Those of a removed device are not among them.
    """
    rows = Command.objects.filter(account=account, device__revoked_at__isnull=True)
    if wanted.device is not None:
        rows = rows.filter(device=wanted.device)
    if wanted.states:
        rows = rows.filter(state__in=wanted.states)
    if wanted.kinds:
        rows = rows.filter(kind__in=wanted.kinds)
    if before is not None:
        rows = rows.filter(pk__lt=before)
    found = rows.select_related("asked_by", "device__presence").order_by("-id")
    return list(found[: size + 1])


def open_about(account: Account, kinds: Collection[str]) -> list[Command]:
    """Return the account's commands of these kinds that have not ended."""
    return list(
        Command.objects.filter(account=account, kind__in=kinds, state__in=OPEN).order_by("id")
    )


def _of(device: Device) -> QuerySet[Command]:
    return Command.objects.filter(device=device).select_related("asked_by").order_by("-id")


# -- what is due -----------------------------------------------------------------------------


def settle_due(now: datetime) -> int:
    """End what can't begin any more or was never heard of again, and wake for what may begin now.

    Returns how many commands changed.
    """
    unsent = Q(state=CommandState.QUEUED, sent_at__isnull=True)
    open_ones = Command.objects.filter(state__in=OPEN)
    expired = open_ones.filter(unsent, not_after__lte=now).update(
        state=CommandState.EXPIRED, code="not-reached", ended_at=now
    )
    # In two steps: an UPDATE joins no other table.
    silent = (
        open_ones.filter(sent_at__isnull=False, not_after__lt=now)
        .annotate(last=Coalesce("heard_at", "sent_at"))
        .filter(last__lt=now - LOST_AFTER)
        .values("pk")
    )
    lost = open_ones.filter(pk__in=list(silent.values_list("pk", flat=True)[:1000])).update(
        state=CommandState.INTERRUPTED, code="no-word", ended_at=now
    )
    return expired + lost + _wake_for_delayed(now)


def _wake_for_delayed(now: datetime) -> int:
    due = (
        Command.objects.filter(
            state=CommandState.QUEUED,
            sent_at__isnull=True,
            not_before__lte=now,
            not_before__gt=F("created_at"),
        )
        .filter(Q(device__commanded_at__isnull=True) | Q(device__commanded_at__lt=F("not_before")))
        .values_list("device", flat=True)
        .distinct()
    )
    devices = list(due[:1000])
    if devices:
        _tell_gateways(devices, now)
    return len(devices)


def settle_impossible(now: datetime) -> int:
    """End what waits for a device that was removed, or does not do such things any more."""
    removed = Command.objects.filter(state__in=OPEN, device__revoked_at__isnull=False)
    pks = list(removed.values_list("pk", "sent_at")[:1000])
    canceled = [pk for pk, sent_at in pks if sent_at is None]
    unknown = [pk for pk, sent_at in pks if sent_at is not None]
    changed = Command.objects.filter(pk__in=canceled, state__in=OPEN).update(
        state=CommandState.CANCELED, code="device-removed", ended_at=now
    )
    changed += Command.objects.filter(pk__in=unknown, state__in=OPEN).update(
        state=CommandState.INTERRUPTED, code="device-removed", ended_at=now
    )
    unsent = Command.objects.filter(state=CommandState.QUEUED, sent_at__isnull=True)
    refused = [
        pk
        for pk, kind, declared in unsent.values_list("pk", "kind", "device__capabilities")
        if kind not in declared
    ]
    return changed + unsent.filter(pk__in=refused[:1000]).update(
        state=CommandState.REJECTED, code="not-offered", ended_at=now
    )


def forget_old(now: datetime) -> int:
    """Delete commands that ended long ago; returns how many."""
    old = Command.objects.filter(ended_at__lt=now - KEPT).values_list("pk", flat=True)[:1000]
    return Command.objects.filter(pk__in=list(old)).delete()[0]
