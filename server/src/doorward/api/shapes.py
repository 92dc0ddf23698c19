"""What goes in and out of the API: every field of it, and what it means."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Final, Generic, TypeVar
from uuid import UUID

from ninja import Schema
from pydantic import AfterValidator, AwareDatetime, ConfigDict, Field, StringConstraints

from doorward.accounts.models import Shares
from doorward.api.callers import Caller
from doorward.billing.entitlement import Entitlement
from doorward.devices import queries as device_queries
from doorward.devices import state
from doorward.devices.models import Device
from doorward.devices.seats import Seats
from doorward.devices.sharing import Sight
from doorward.reports.models import Detection, Disposition, Scan, ScanKind, ScanState, Severity
from doorward_protocol.messages import MAX_NAME

Item = TypeVar("Item")


def _in_utc(moment: datetime) -> datetime:
    try:
        found = moment.astimezone(UTC)
    except (OverflowError, ValueError):
        raise ValueError("this moment is out of range") from None
    if not 1970 <= found.year <= 2999:
        raise ValueError("this moment is out of range")
    return found


def _visible(text: str) -> str:
    if not text.isprintable():
        raise ValueError("only visible characters")
    return text


Moment = Annotated[AwareDatetime, AfterValidator(_in_utc)]
Cursor = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
Text = Annotated[str, StringConstraints(max_length=200), AfterValidator(_visible)]
Limit = Annotated[int, Field(ge=1, le=200)]


class Strict(Schema):
    """What a caller sends: a field we don't know is a mistake, and is said to be one."""

    model_config = ConfigDict(extra="forbid")


class Problem(Schema):
    """What went wrong (RFC 9457). `code` is for programs, `title` and `detail` for people."""

    type: str
    title: str
    status: int
    code: str
    detail: str = ""


class WrongField(Schema):
    """One field that is not as it should be."""

    at: list[str | int]
    problem: str


class InvalidRequest(Problem):
    """A problem with the fields it is about."""

    fields: list[WrongField] = []


ERRORS: Final[dict[int, Any]] = {401: Problem, 403: Problem, 422: InvalidRequest, 503: Problem}
"""How every call can end badly."""
WITH_ID: Final[dict[int, Any]] = {**ERRORS, 404: Problem}
"""How a call that names something can."""
WITH_BODY: Final[dict[int, Any]] = {400: Problem, 413: Problem}
"""How a call that sends something can, besides."""
CONFLICT: Final[dict[int, Any]] = {409: Problem}
"""How a call can that does not fit how things are, besides."""
LIMITED: Final[dict[int, Any]] = {429: Problem}
"""How a call can that may not be made too often, besides."""


class Page(Schema, Generic[Item]):
    """A part of a list. `next` is the cursor of the part after it, null at the end."""

    items: list[Item]
    next: str | None


class PersonOut(Schema):
    """A person."""

    id: UUID
    email: str
    name: str


class AccountOut(Schema):
    """An account: what owns devices and subscriptions."""

    id: UUID
    name: str


class CoverOut(Schema):
    """What the subscription covers; `used` and `seats` count devices."""

    plan: str
    state: str
    until: datetime | None
    seats: int
    used: int


class Me(Schema):
    """Who you are here: the person, the account, the role in it and what this call may do."""

    user: PersonOut
    account: AccountOut
    role: str
    scopes: list[str]
    cover: CoverOut

    @classmethod
    def of(cls, caller: Caller, entitled: Entitlement, seats: Seats) -> Me:
        """Return the answer about this caller."""
        return cls(
            user=PersonOut(id=caller.user.pk, email=caller.user.email, name=caller.user.name),
            account=AccountOut(id=caller.account.pk, name=caller.account.name),
            role=caller.membership.role,
            scopes=sorted(caller.scopes),
            cover=CoverOut(
                plan=entitled.plan,
                state=entitled.state,
                until=entitled.until,
                seats=entitled.seats,
                used=seats.used,
            ),
        )


class CodeOut(Schema):
    """A code that adds one device; shown in this answer only. `server` goes into the command."""

    id: UUID
    code: str
    server: str
    expires_at: datetime


class CodeStateOut(Schema):
    """What became of a code: `waiting`, `used` (then `device` is there) or `over`."""

    id: UUID
    state: str
    device: UUID | None
    expires_at: datetime

    @classmethod
    def of(cls, code_id: UUID, found: device_queries.CodeState) -> CodeStateOut:
        """Return the answer about this code."""
        state_word = "used" if found.device else "over" if found.is_over else "waiting"
        return cls(
            id=code_id,
            state=state_word,
            device=found.device.pk if found.device else None,
            expires_at=found.expires_at,
        )


class SystemOut(Schema):
    """An operating system."""

    name: str
    version: str


class DeviceOut(Schema):
    """A device. `state` is how it is now, as far as anybody can know; `last_seen` its age.

    `member` is whose it is (null: the account's), `shared` how much of it you see: `state` (then
    what it says of itself is empty, and its scans and threats are not listed), `findings` (without
    the names and places of files) or `paths` (all).
    """

    id: UUID
    name: str
    hostname: str
    type: str
    os: SystemOut
    agent_version: str
    state: str
    needs_attention: bool
    member: UUID | None
    shared: str
    last_seen: datetime | None
    enrolled_at: datetime
    definitions_version: int
    settings_version: int
    waiting_reports: int
    dropped_reports: int

    @classmethod
    def of(cls, device: Device, sight: Sight, now: datetime) -> DeviceOut:
        """Return the answer about this device as it is now, as far as this person may see it."""
        is_now = state.of(device, now)
        shared = sight.of(device)
        told = shared != Shares.STATE
        return cls(
            id=device.pk,
            name=device.label,
            hostname=device.hostname if told else "",
            type=device.type,
            os=SystemOut(
                name=device.os_name if told else "", version=device.os_version if told else ""
            ),
            agent_version=device.agent_version if told else "",
            state=is_now.standing.value,
            needs_attention=is_now.needs_somebody,
            member=device.member_id,
            shared=shared.value,
            last_seen=is_now.last_seen,
            enrolled_at=device.enrolled_at,
            definitions_version=device.definitions_version,
            settings_version=device.settings_version,
            waiting_reports=device.queue_depth,
            dropped_reports=device.queue_dropped,
        )


class DeviceChange(Strict):
    """What may be changed about a device."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=MAX_NAME)]


class DeviceRef(Schema):
    """Which device."""

    id: UUID
    name: str


class ScanOut(Schema):
    """A scan. `skipped_by_reason` says what was not looked into, and why."""

    id: UUID
    device: DeviceRef
    state: str
    kind: str
    started_at: datetime
    ended_at: datetime | None
    duration_ms: int
    files: int
    bytes: int
    cached: int
    skipped: int
    skipped_by_reason: dict[str, Any]
    threats: int
    definitions_version: int
    paths: list[str]
    message: str

    @classmethod
    def of(cls, scan: Scan) -> ScanOut:
        """Return the answer about this scan."""
        return cls(
            id=scan.uid,
            device=DeviceRef(id=scan.device_id, name=scan.device.label),
            state=_word(ScanState, scan.state),
            kind=_word(ScanKind, scan.kind),
            started_at=scan.time,
            ended_at=scan.ended_at,
            duration_ms=scan.duration_ms,
            files=scan.files,
            bytes=scan.bytes,
            cached=scan.cached,
            skipped=scan.skipped,
            skipped_by_reason=scan.skipped_by_reason,
            threats=scan.detections,
            definitions_version=scan.definitions_version,
            paths=[str(path) for path in scan.paths],
            message=scan.message,
        )


class ThreatOut(Schema):
    """A threat: which rule hit which file on which device, and what was done about it."""

    id: UUID
    device: DeviceRef
    scan: UUID | None
    found_at: datetime
    title: str
    rule: str
    severity: str
    action: str
    is_open: bool
    path: str
    member: str
    size: int
    sha256: str
    description: str

    @classmethod
    def of(cls, threat: Detection) -> ThreatOut:
        """Return the answer about this threat."""
        return cls(
            id=threat.uid,
            device=DeviceRef(id=threat.device_id, name=threat.device.label),
            scan=threat.scan_uid,
            found_at=threat.time,
            title=threat.title,
            rule=threat.rule,
            severity=_word(Severity, threat.severity),
            action=_word(Disposition, threat.disposition),
            is_open=threat.is_open,
            path=threat.path,
            member=threat.member,
            size=threat.size,
            sha256=threat.sha256,
            description=threat.description,
        )


def _word(kinds: type[Any], value: int) -> str:
    # The member's own name: stable, in no language.
    return str(kinds(value).name).lower() if value in kinds.values else "other"
