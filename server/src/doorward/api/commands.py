"""Commands over the API: have a device do something, and watch how far it is."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final, Literal
from uuid import UUID

from django.http import HttpRequest
from ninja import Router, Schema, Status
from pydantic import Field, StringConstraints

from doorward.accounts.adapter import origin_of
from doorward.accounts.models import Shares
from doorward.accounts.permissions import Act
from doorward.api import callers, finding, shapes
from doorward.api.callers import Caller
from doorward.api.problems import Refused
from doorward.devices import commands
from doorward.devices.models import Command, Device
from doorward.devices.sharing import Sight
from doorward.reports import queries as reports
from doorward.reports.models import Detection
from doorward_protocol.messages import MAX_PATH, CommandArgs

router: Final = Router()

# Written out for the document; a test holds it to the protocol's own list.
Kind = Literal[
    "scan.run",
    "definitions.update",
    "quarantine.restore",
    "quarantine.delete",
    "key.rotate",
    "diagnostics.collect",
]
DevicePath = Annotated[str, StringConstraints(min_length=1, max_length=MAX_PATH)]


class ArgsIn(shapes.Strict):
    """What the command is about: `paths` or `scope` of a scan, `quarantine_id` of a file."""

    paths: Annotated[list[DevicePath], Field(max_length=32)] = []
    scope: Literal["quick", "full"] | None = None
    quarantine_id: UUID | None = None


class CommandIn(shapes.Strict):
    """What to do. With a `command_uid` of your own (UUID), asking again changes nothing."""

    kind: Kind
    args: ArgsIn = ArgsIn()
    command_uid: UUID | None = None


class ProgressOut(Schema):
    """How much a scan has looked at."""

    files: int
    bytes: int
    threats: int


class CommandOut(Schema):
    """A command and how far it is.

    `state` is `queued`, `delivered`, `running`, or at last `done`, `failed`, `rejected`,
    `interrupted`, `expired` or `canceled`; `code` says why, as a word.
    """

    command_uid: UUID
    device: UUID
    kind: str
    state: str
    code: str
    detail: str
    created_at: datetime
    not_before: datetime
    not_after: datetime
    started_at: datetime | None
    ended_at: datetime | None
    cancel_asked_at: datetime | None
    progress: ProgressOut | None
    report: str

    @classmethod
    def of(cls, command: Command, sight: Sight) -> CommandOut:
        """Return the answer about this command, as far as the caller sees of its device."""
        shares = sight.of(command.device)
        sees_findings = shares != Shares.STATE
        progress = ProgressOut(files=command.files, bytes=command.bytes, threats=command.threats)
        return cls(
            command_uid=command.uid,
            device=command.device_id,
            kind=command.kind,
            state=command.state,
            code=command.code,
            # It may name files.
            detail=command.detail if shares == Shares.PATHS else "",
            created_at=command.created_at,
            not_before=command.not_before,
            not_after=command.not_after,
            started_at=command.started_at,
            ended_at=command.ended_at,
            cancel_asked_at=command.cancel_asked_at,
            progress=progress if sees_findings and command.kind == "scan.run" else None,
            report=command.report if sees_findings else "",
        )


class HeldOut(Schema):
    """A file in quarantine. `path` is empty where its member does not share paths."""

    quarantine_id: UUID
    device: UUID
    threat: UUID
    path: str
    member: str
    size: int
    sha256: str
    title: str
    rule: str
    found_at: datetime

    @classmethod
    def of(cls, found: Detection) -> HeldOut:
        """Return the answer about this file."""
        if found.quarantine_id is None:
            raise ValueError("not in quarantine")
        return cls(
            quarantine_id=found.quarantine_id,
            device=found.device_id,
            threat=found.uid,
            path=found.path,
            member=found.member,
            size=found.size,
            sha256=found.sha256,
            title=found.title,
            rule=found.rule,
            found_at=found.time,
        )


@router.post(
    "/devices/{uuid:device_id}/commands",
    response={202: CommandOut, **shapes.WITH_ID, **shapes.WITH_BODY, **shapes.CONFLICT},
    summary="Have a device do something",
)
def ask(request: HttpRequest, device_id: UUID, wanted: CommandIn) -> Status[CommandOut]:
    """Ask; the device begins within a second if it is connected, else when it calls next.

    A kind that the device does not do is refused (409 `conflict`). To put files back or delete
    them, prove again who you are first; no token can. From the fourth file within an hour on, files
    come back 15 minutes later.
    """
    caller = callers.of(request, Act.DEVICES_COMMAND)
    device = finding.device(caller, device_id)
    args = CommandArgs(
        paths=tuple(wanted.args.paths),
        scope=wanted.args.scope,
        quarantine_id=wanted.args.quarantine_id,
    )
    if wanted.kind in {"quarantine.restore", "quarantine.delete"}:
        _must_be_held(caller, device, wanted.args.quarantine_id)
    if args.paths and caller.sight.of(device) != Shares.PATHS:
        raise Refused("forbidden", "Whose device it is does not share its files.")
    try:
        command = commands.ask(
            device,
            wanted.kind,
            args,
            actor=caller.user,
            uid=wanted.command_uid,
            origin=origin_of(request),
        )
    except commands.InvalidArgs as error:
        fields = [{"at": ["body", "wanted", "args"], "problem": str(error)[:200]}]
        raise Refused("invalid", fields=fields) from None
    except commands.NotOffered:
        raise Refused("conflict", "This device does not do that.") from None
    except commands.TooManyWaiting:
        raise Refused("conflict", "Too much waits for this device already.") from None
    except commands.UidTaken:
        raise Refused("conflict", "Another command has this id.") from None
    return Status(202, CommandOut.of(command, caller.sight))


def _must_be_held(caller: Caller, device: Device, quarantine_id: UUID | None) -> None:
    caller.must(Act.QUARANTINE_CHANGE)
    if quarantine_id is not None:
        found = reports.held_as(caller.sight, device.pk, quarantine_id)
        # What one may not see, one can't let out.
        if found is None or caller.sight.of(device) != Shares.PATHS:
            raise Refused("conflict", "There is no such file in quarantine on this device.")
    caller.must_be_fresh()


@router.get(
    "/commands/{uuid:command_uid}",
    response={200: CommandOut, **shapes.WITH_ID},
    summary="How far a command is",
)
def show(request: HttpRequest, command_uid: UUID) -> CommandOut:
    """Return one command."""
    caller = callers.of(request, Act.DEVICES_LOOK)
    return CommandOut.of(finding.command(caller, command_uid), caller.sight)


@router.delete(
    "/commands/{uuid:command_uid}",
    response={200: CommandOut, **shapes.WITH_ID},
    summary="Take a command back",
)
def cancel(request: HttpRequest, command_uid: UUID) -> CommandOut:
    """Cancel: at once where it was not sent, else the device stops. What has ended stays so."""
    caller = callers.of(request, Act.DEVICES_COMMAND)
    command = commands.cancel(
        finding.command(caller, command_uid), actor=caller.user, origin=origin_of(request)
    )
    return CommandOut.of(command, caller.sight)


@router.get(
    "/quarantine",
    response={200: shapes.Page[HeldOut], **shapes.ERRORS},
    summary="What is in quarantine, the latest first",
)
def quarantine(
    request: HttpRequest,
    device: UUID | None = None,
    cursor: shapes.Cursor | None = None,
    limit: shapes.Limit = 50,
) -> shapes.Page[HeldOut]:
    """Return the files in quarantine on your account's devices."""
    sight = callers.of(request, Act.REPORTS_LOOK).sight
    found = reports.quarantine(sight, device=device, cursor=cursor or "", limit=limit)
    return shapes.Page(items=[HeldOut.of(row) for row in found.rows], next=found.older or None)
