"""Every message between a device and the server, and the bounds of each field.

All messages are JSON objects. Times are integers, milliseconds since 1970 UTC. A field that is
not declared here is skipped unread, so that either side may be one version ahead of the other.

Text cannot hold U+0000 (PostgreSQL cannot store it) or a lone surrogate (nobody can encode it), and
no number is wider than 63 bits (no database column is). `decode` keeps this for every message.
"""

import contextlib
import re
from typing import Annotated, ClassVar, Final, Literal, TypeAlias, TypeVar
from uuid import UUID

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from doorward_protocol.settings import Settings

# ---------------------------------------------------------------------------------------- limits

PROTOCOL_VERSION: Final = 1
"""What this copy of the code speaks."""

MAX_MESSAGE_BYTES: Final = 64 * 1024
"""The longest body of any message but a report, in bytes."""
MAX_REPORT_BYTES: Final = 1024 * 1024
"""The longest body of a report as it goes over the wire, in bytes, compressed or not."""
MAX_REPORT_UNPACKED_BYTES: Final = 8 * 1024 * 1024
"""The longest body of a report after decompression, in bytes."""
MAX_EVENTS: Final = 500
"""The most events in one report."""
MAX_WAIT_SECONDS: Final = 50
"""The longest time a check-in may ask the server to hold its answer back."""

MAX_NAME: Final = 200
MAX_PATH: Final = 4096
MAX_TEXT: Final = 1000
MAX_WORD: Final = 64

INT63: Final = 2**63 - 1
LAST_MOMENT: Final = 253_402_300_799_999
"""The last millisecond of the year 9999: the latest moment that Python and the databases know."""

Name: TypeAlias = Annotated[str, Meta(max_length=MAX_NAME)]
"""A name that people gave: of a computer, a rule, a scan."""
Path: TypeAlias = Annotated[str, Meta(min_length=1, max_length=MAX_PATH)]
Text: TypeAlias = Annotated[str, Meta(max_length=MAX_TEXT)]
"""A sentence for people."""
Word: TypeAlias = Annotated[str, Meta(max_length=MAX_WORD)]
"""A short word for machines: a version, a code, a capability."""
Moment: TypeAlias = Annotated[int, Meta(ge=0, le=LAST_MOMENT)]
"""Milliseconds since 1970-01-01 UTC."""
Count: TypeAlias = Annotated[int, Meta(ge=0, le=INT63)]
Version: TypeAlias = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Seconds: TypeAlias = Annotated[int, Meta(ge=0, le=31 * 86400)]

CAPABILITIES: Final = (
    "scan",
    "quarantine",
    "watch",
    "block",
    "zstd",
    "settings",
    "definitions",
    "notify",
    "commands",
)
"""What an agent may say it can do. Others are kept and ignored."""

# ---------------------------------------------------------------------------------- enrollment


class OperatingSystem(Struct, frozen=True, kw_only=True):
    """The operating system of a device: `linux`, `macos`, `windows`, … and its version."""

    name: Word
    version: Name = ""


class DeviceFacts(Struct, frozen=True, kw_only=True):
    """What a device says about itself.

    `capabilities` are there in a check-in, since an agent that was updated can do more than it
    could when it joined.
    """

    hostname: Name
    os: OperatingSystem
    type: Literal["desktop", "laptop", "server", "phone", "tablet", "other"] = "other"
    agent_version: Word = ""
    capabilities: Annotated[tuple[Word, ...], Meta(max_length=32)] | None = None


class Jwk(Struct, frozen=True, kw_only=True):
    """An Ed25519 public key as RFC 8037 writes it: `x` is 32 bytes in base64url without padding."""

    kty: Literal["OKP"]
    crv: Literal["Ed25519"]
    x: Annotated[str, Meta(min_length=43, max_length=43, pattern=r"^[A-Za-z0-9_-]{43}$")]


class ProtocolRange(Struct, frozen=True, kw_only=True):
    """The oldest and the newest version of this protocol that the device speaks."""

    min: Version = PROTOCOL_VERSION
    max: Version = PROTOCOL_VERSION


class EnrollRequest(Struct, frozen=True, kw_only=True):
    """`POST /enroll`, signed by the key that `jwk` shows: a device joins an account.

    Exactly one of `code` (made in the portal) and `grant` (RFC 8628) is meant to be there.
    `name` is what the person calls the device; without it the host name is shown. `machine` is a
    mark of this computer and this agent's folder on it, made for this server alone: with the same
    one, an agent that was installed anew is the same device.
    """

    jwk: Jwk
    device: DeviceFacts
    code: Annotated[str, Meta(max_length=64)] = ""
    grant: Annotated[str, Meta(max_length=128)] = ""
    name: Name = ""
    machine: Annotated[str, Meta(max_length=64, pattern=r"^[A-Za-z0-9_-]*$")] = ""
    capabilities: Annotated[tuple[Word, ...], Meta(max_length=32)] = ()
    protocol: ProtocolRange = ProtocolRange()


class CheckInRhythm(Struct, frozen=True, kw_only=True):
    """How often to check in, and how long each call may wait for news; both in seconds."""

    interval: Seconds
    wait: Seconds


class DefinitionsRoot(Struct, frozen=True, kw_only=True):
    """The signed file with which a device begins to trust definitions: its version and SHA-256.

    The first one that a device is told after it enrolled is pinned. Later ones change nothing.
    """

    version: Annotated[int, Meta(ge=1, le=2**31 - 1)]
    sha256: Annotated[str, Meta(min_length=64, max_length=64, pattern=r"^[0-9a-f]{64}$")]


class EnrollAnswer(Struct, frozen=True, kw_only=True):
    """`201`: the device joined; `200`: this key had joined before and is the same device."""

    device_id: UUID
    server_time: Moment
    check_in: CheckInRhythm
    settings_version: Version
    definitions_root: DefinitionsRoot | None = None


class TokenRequest(Struct, frozen=True, kw_only=True):
    """`POST /token`, signed by the device's key. An empty body means protocol 1."""

    protocol: ProtocolRange = ProtocolRange()


class TokenAnswer(Struct, frozen=True, kw_only=True):
    """`200`: a bearer token for everything that is not signed, and when it ends."""

    device_id: UUID
    token: Annotated[str, Meta(max_length=256)]
    expires_at: Moment
    server_time: Moment
    definitions_root: DefinitionsRoot | None = None


class KeyChange(Struct, frozen=True, kw_only=True):
    """`POST /keys`, signed by the old key: from now on the device signs with `jwk`.

    `proof` is the new key's Ed25519 signature, in base64url, over
    `doorward-key-change:` + the old key's thumbprint + `:` + the new key's thumbprint.
    """

    jwk: Jwk
    proof: Annotated[str, Meta(min_length=86, max_length=86, pattern=r"^[A-Za-z0-9_-]{86}$")]


class KeyChangeAnswer(Struct, frozen=True, kw_only=True):
    """`200`: the new key counts; the old one still does until `old_key_until`."""

    old_key_until: Moment


# ------------------------------------------------------------------------------------ check-in


class SettingsError(Struct, frozen=True, kw_only=True):
    """Why the device could not apply a setting: a JSON Pointer into the settings, and a code."""

    pointer: Name
    code: Word


class SettingsState(Struct, frozen=True, kw_only=True):
    """The settings that are in force on the device.

    `failed_version` is the newer one that could not be applied, while `status` is `failed`.
    """

    version: Version = 0
    status: Literal["applied", "pending", "failed"] = "applied"
    failed_version: Version = 0
    errors: Annotated[tuple[SettingsError, ...], Meta(max_length=20)] = ()


class DefinitionsState(Struct, frozen=True, kw_only=True):
    """The definitions that are in force on the device.

    `code` says why the last try to get newer ones failed, and `refused_version` which set it was
    that the device would not take, where it came so far as to know.
    """

    version: Version = 0
    refused_version: Version = 0
    code: Word = ""


class ProtectionState(Struct, frozen=True, kw_only=True):
    """Whether the device is protected now, and what is missing when it is not."""

    state: Literal["protected", "attention", "off"] = "protected"
    reasons: Annotated[tuple[Word, ...], Meta(max_length=8)] = ()


class QueueState(Struct, frozen=True, kw_only=True):
    """Events that wait on the device, and how many it ever had to drop for want of room."""

    depth: Count = 0
    dropped: Count = 0


class CheckIn(Struct, frozen=True, kw_only=True):
    """`POST /check-in`: the regular call.

    `boot_id` is new for each start of the agent; `seq` rises by one with each check-in, is stored
    before it is sent and never goes back. The two together tell a copied disk from the original.
    `device` is there when it changed since the last check-in that was answered.
    """

    boot_id: UUID
    seq: Count
    settings: SettingsState = SettingsState()
    definitions: DefinitionsState = DefinitionsState()
    protection: ProtectionState = ProtectionState()
    queue: QueueState = QueueState()
    device: DeviceFacts | None = None


class Entitled(Struct, frozen=True, kw_only=True):
    """What the account has paid for: the agent works in reduced mode unless `active` or `grace`."""

    state: Literal["active", "grace", "expired", "suspended"]
    until: Moment | None = None


COMMAND_KINDS: Final = (
    "scan.run",
    "definitions.update",
    "quarantine.restore",
    "quarantine.delete",
    "key.rotate",
    "diagnostics.collect",
)
"""Everything a device can be asked to do. It declares the kinds it knows as capabilities, and is
sent no other; none of them runs a program of the sender's choice."""
REMOTE_OFF: Final = "remote.off"
"""The capability of a device on which somebody has switched remote actions off."""
MAX_DIAGNOSTICS: Final = 16_000
"""The longest text that `diagnostics.collect` gives back, in characters."""


class CommandArgs(Struct, frozen=True, kw_only=True):
    """What a command is about; each kind uses its own fields.

    `scan.run` has `paths`, or a `scope`; the two about quarantine have `quarantine_id`, and
    `quarantine.restore` may say `until` when the file is allowed where it comes back to.
    """

    paths: Annotated[tuple[Path, ...], Meta(max_length=32)] = ()
    scope: Literal["quick", "full"] | None = None
    quarantine_id: UUID | None = None
    until: Moment | None = None


def is_whole_path(path: str, *, windows: bool) -> bool:
    """Whether this names one place on a device, from its root: nothing relative, no step upwards.

    On Windows not one on the network either: looking there would show the computer's credentials.
    """
    if not path or not path.isprintable() or len(path) > MAX_PATH:
        return False
    if windows:
        parts = path.replace("/", "\\").split("\\")
        # A second colon would name a stream beside a file.
        rooted = re.fullmatch("[A-Za-z]:", parts[0]) is not None and path.count(":") == 1
    else:
        parts = path.split("/")
        rooted = not parts[0]
    return rooted and len(parts) > 1 and not {".", ".."} & set(parts)


class Command(Struct, frozen=True, kw_only=True):
    """Something the person asked the device to do, not after `not_after`."""

    command_uid: UUID
    seq: Count
    kind: Word
    args: CommandArgs = CommandArgs()
    not_after: Moment


class CheckInAnswer(Struct, frozen=True, kw_only=True):
    """`200`: what the device should know. `next_check_in` is in seconds from now."""

    server_time: Moment
    next_check_in: Seconds
    settings_version: Version
    definitions_version: Version
    entitlement: Entitled
    commands: Annotated[tuple[Command, ...], Meta(max_length=100)] = ()
    cancel: Annotated[tuple[UUID, ...], Meta(max_length=100)] = ()
    more: bool = False


class SettingsAnswer(Struct, frozen=True, kw_only=True):
    """`200` of `GET /settings`: all that the device must do, and which of it is locked."""

    version: Version
    effective: Settings
    locked: Annotated[tuple[Name, ...], Meta(max_length=100)] = ()


class RawSettings(Struct, frozen=True, kw_only=True):
    """The same, the settings still unread: one that is wrong must not hide their version."""

    version: Version
    effective: msgspec.Raw


class CommandProgress(Struct, frozen=True, kw_only=True):
    """How much a scan has looked at until now: files, bytes read, threats found."""

    files: Count = 0
    bytes: Count = 0
    threats: Count = 0


class CommandState(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`POST /commands/{command_uid}`: how far a command is. Terminal states are final.

    `accepted` and `running` are the states that are not; `running` may be told again and again,
    with `progress`.
    """

    status: Literal[
        "accepted",
        "running",
        "succeeded",
        "failed",
        "rejected",
        "interrupted",
        "expired",
        "canceled",
    ]
    code: Word = ""
    detail: Text = ""
    started_at: Moment | None = None
    ended_at: Moment | None = None
    progress: CommandProgress | None = None
    report: Annotated[str, Meta(max_length=MAX_DIAGNOSTICS)] = ""


# ------------------------------------------------------------------------------------- reports
# Classes, ids and field names are those of OCSF 1.8 (https://schema.ocsf.io/1.8.0/). A field that
# has its default value is left out on the wire: fifty findings take 22 kB instead of 33.

OCSF_VERSION: Final = "1.8.0"

SEVERITY_UNKNOWN: Final = 0
SEVERITY_INFORMATIONAL: Final = 1
SEVERITY_LOW: Final = 2
SEVERITY_MEDIUM: Final = 3
SEVERITY_HIGH: Final = 4
SEVERITY_CRITICAL: Final = 5

SCAN_STARTED: Final = 1
SCAN_COMPLETED: Final = 2
SCAN_CANCELLED: Final = 3
SCAN_DURATION_VIOLATION: Final = 4
SCAN_ERROR: Final = 6

SCAN_TYPE_MANUAL: Final = 1
SCAN_TYPE_SCHEDULED: Final = 2
SCAN_TYPE_UPDATED_CONTENT: Final = 3
SCAN_TYPE_OTHER: Final = 99

FINDING_CREATED: Final = 1
FINDING_UPDATED: Final = 2
FINDING_CLOSED: Final = 3

REMEDIATION_ISOLATE: Final = 1
"""Put into quarantine."""
REMEDIATION_EVICT: Final = 2
"""Deleted."""
REMEDIATION_RESTORE: Final = 3
"""Put back to where it was."""

STATUS_SUCCESS: Final = 1
STATUS_FAILURE: Final = 2
STATUS_DOES_NOT_EXIST: Final = 3

DISPOSITION_ALLOWED: Final = 1
DISPOSITION_BLOCKED: Final = 2
DISPOSITION_QUARANTINED: Final = 3
DISPOSITION_DELETED: Final = 5
DISPOSITION_RESTORED: Final = 9
DISPOSITION_UNCORRECTED: Final = 13
"""Something was tried and failed: the file is still there."""
DISPOSITION_DETECTED: Final = 15
DISPOSITION_NO_ACTION: Final = 16

HASH_SHA256: Final = 3

Enum99: TypeAlias = Annotated[int, Meta(ge=0, le=99)]
"""An OCSF enumeration: 0 is unknown, 99 is other."""


class Metadata(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """`uid` (a UUIDv7 made on the device) names the event: sent twice, it is stored once.

    `sequence` rises with each event of a device, whatever its clock says, so that a restoration is
    known to follow the quarantine; where it is missing, `time` decides.
    """

    uid: UUID
    version: Word = OCSF_VERSION
    sequence: Count = 0


class ScanInfo(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Which scan: `uid` is the same in its start, its end and its findings."""

    uid: UUID
    name: Name = ""
    type_id: Enum99 = SCAN_TYPE_MANUAL


class ScanDetail(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What OCSF has no place for. `skipped` counts by reason what was not looked into."""

    bytes: Count = 0
    cached: Count = 0
    """Files known clean from an earlier scan and unchanged since."""
    skipped: Annotated[dict[Word, Count], Meta(max_length=32)] = {}
    paths: Annotated[tuple[Path, ...], Meta(max_length=32)] = ()
    definitions_version: Version = 0


class ScanActivity(
    Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="class_uid", tag=6007
):
    """A scan started, ended or was cancelled. `duration` is in milliseconds."""

    class_uid: ClassVar[int] = 6007
    metadata: Metadata
    time: Moment
    activity_id: Enum99
    scan: ScanInfo
    category_uid: Annotated[int, Meta(ge=6, le=6)] = 6
    type_uid: Annotated[int, Meta(ge=600700, le=600799)] | UnsetType = UNSET
    severity_id: Enum99 = SEVERITY_INFORMATIONAL
    command_uid: UUID | None = None
    start_time: Moment | None = None
    end_time: Moment | None = None
    duration: Count = 0
    num_files: Count = 0
    num_detections: Count = 0
    num_skipped_items: Count = 0
    num_resolutions: Count = 0
    message: Text = ""
    unmapped: ScanDetail = ScanDetail()


class Hash(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A digest of a file's content, in hexadecimal."""

    value: Annotated[str, Meta(min_length=32, max_length=128, pattern=r"^[0-9A-Fa-f]+$")]
    algorithm_id: Enum99 = HASH_SHA256


class File(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A file on the device. `size` is in bytes."""

    path: Path
    name: Annotated[str, Meta(max_length=MAX_PATH)] = ""
    size: Count = 0
    hashes: Annotated[tuple[Hash, ...], Meta(max_length=4)] = ()
    type_id: Enum99 = 1


class Evidence(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What shows the finding."""

    file: File


class Analytic(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """The rule that hit: its id, and its name for people. `type_id` 1 is a rule."""

    uid: Name
    name: Name = ""
    type_id: Enum99 = 1


class FindingInfo(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Which finding: `uid` is the same in every event about it."""

    uid: UUID
    title: Name
    analytic: Analytic
    desc: Text = ""
    created_time: Moment | None = None


class FindingDetail(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What OCSF has no place for. `member` is the path inside an archive."""

    scan_uid: UUID | None = None
    engine: Word = ""
    member: Annotated[str, Meta(max_length=MAX_PATH)] = ""
    quarantine_id: UUID | None = None
    definitions_version: Version = 0


class DetectionFinding(
    Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False, tag_field="class_uid", tag=2004
):
    """A rule hit a file; `disposition_id` is what was done about it."""

    class_uid: ClassVar[int] = 2004
    metadata: Metadata
    time: Moment
    finding_info: FindingInfo
    evidences: Annotated[tuple[Evidence, ...], Meta(min_length=1, max_length=8)]
    disposition_id: Enum99
    severity_id: Enum99
    activity_id: Enum99 = FINDING_CREATED
    category_uid: Annotated[int, Meta(ge=2, le=2)] = 2
    type_uid: Annotated[int, Meta(ge=200400, le=200499)] | UnsetType = UNSET
    confidence_id: Enum99 = 0
    message: Text = ""
    unmapped: FindingDetail = FindingDetail()


class RemediationDetail(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Which finding and which thing in quarantine the remediation was about."""

    finding_uid: UUID | None = None
    quarantine_id: UUID | None = None


class FileRemediation(
    Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="class_uid", tag=7002
):
    """A file was put into quarantine, restored or deleted, or that was tried in vain."""

    class_uid: ClassVar[int] = 7002
    metadata: Metadata
    time: Moment
    activity_id: Enum99
    file: File
    disposition_id: Enum99
    status_id: Enum99 = STATUS_SUCCESS
    category_uid: Annotated[int, Meta(ge=7, le=7)] = 7
    type_uid: Annotated[int, Meta(ge=700200, le=700299)] | UnsetType = UNSET
    severity_id: Enum99 = SEVERITY_INFORMATIONAL
    command_uid: UUID | None = None
    message: Text = ""
    unmapped: RemediationDetail = RemediationDetail()


Event: TypeAlias = ScanActivity | DetectionFinding | FileRemediation
"""Every event that a device reports."""

EVENT_CLASSES: Final[tuple[type[Event], ...]] = (ScanActivity, DetectionFinding, FileRemediation)


def type_uid(class_uid: int, activity_id: int) -> int:
    """The OCSF type id of a class and an activity."""
    return class_uid * 100 + activity_id


class Report(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`POST /reports`: events, oldest first."""

    events: Annotated[tuple[Event, ...], Meta(max_length=MAX_EVENTS)]


class RawReport(Struct, frozen=True, kw_only=True):
    """The same, each event still unread, so that one bad event does not take the others with it."""

    events: Annotated[tuple[msgspec.Raw, ...], Meta(max_length=MAX_EVENTS)]


class RejectedEvent(Struct, frozen=True, kw_only=True):
    """An event that was not stored and never will be: its place in `events` (from 0), and why.

    The device keeps it aside and does not send it again. `uid` is there when it could be read.
    """

    index: Annotated[int, Meta(ge=0, lt=MAX_EVENTS)]
    code: Literal["invalid-event", "unknown-class"]
    detail: Text
    uid: UUID | None = None


class ReportAnswer(Struct, frozen=True, kw_only=True):
    """`202`: everything under `accepted` is on disk; `duplicate` was already."""

    accepted: Annotated[tuple[UUID, ...], Meta(max_length=MAX_EVENTS)] = ()
    duplicate: Annotated[tuple[UUID, ...], Meta(max_length=MAX_EVENTS)] = ()
    rejected: Annotated[tuple[RejectedEvent, ...], Meta(max_length=MAX_EVENTS)] = ()


# ------------------------------------------------------------------------------------ problems

ErrorCode: TypeAlias = Literal[
    "unauthorized",
    "clock-skew",
    "enrollment-refused",
    "revoked",
    "not-found",
    "method-not-allowed",
    "request-timeout",
    "no-seat",
    "device-cloned",
    "key-in-use",
    "too-large",
    "unsupported-media-type",
    "invalid-message",
    "upgrade-required",
    "too-many-requests",
    "internal-error",
    "unavailable",
]

PROBLEM_STATUS: Final[dict[ErrorCode, int]] = {
    "unauthorized": 401,
    "clock-skew": 401,
    "enrollment-refused": 401,
    "revoked": 403,
    "not-found": 404,
    "method-not-allowed": 405,
    "request-timeout": 408,
    "no-seat": 409,
    "device-cloned": 409,
    "key-in-use": 409,
    "too-large": 413,
    "unsupported-media-type": 415,
    "invalid-message": 422,
    "upgrade-required": 426,
    "too-many-requests": 429,
    "internal-error": 500,
    "unavailable": 503,
}
"""The status that goes with each error code."""


class Problem(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Any error, as RFC 9457 writes it. `code` is for programs, `title` and `detail` for people.

    `server_time` comes with `clock-skew`; `protocol` with `upgrade-required`; `rejected` with
    `invalid-message` when a report held events and none of them could be read.
    """

    type: Annotated[str, Meta(max_length=MAX_NAME)]
    title: Text
    status: Annotated[int, Meta(ge=400, le=599)]
    code: Word
    detail: Text = ""
    server_time: Moment | None = None
    protocol: ProtocolRange | None = None
    rejected: Annotated[tuple[RejectedEvent, ...], Meta(max_length=MAX_EVENTS)] = ()


# ------------------------------------------------------------------------ reading and writing


class InvalidMessage(ValueError):
    """The bytes are not the message that was asked for; the text says where and why."""


# A quick search finds almost every message free of it. Only in the rest does it matter whether the
# escape is real: in "C:\\u0000" the backslash itself is escaped, and what follows is plain text.
_NUL_HINT = b"\\u0000"
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")

T = TypeVar("T")


def has_nul(body: bytes) -> bool:
    """Whether any text in this JSON holds U+0000 (it can only be written as an escape)."""
    # Most messages hold no backslash at all, and one letter is found ten times as fast as six.
    return b"\\" in body and _NUL_HINT in body and _NUL.search(body) is not None


def decode(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    """The message in `body`, every bound checked.

    Raises InvalidMessage for anything else, whatever the bytes are.
    """
    if has_nul(body):
        raise InvalidMessage("Text holds U+0000")
    try:
        return decoder.decode(body)
    except RecursionError:
        raise InvalidMessage("Nested too deeply") from None
    except UnicodeDecodeError:
        raise InvalidMessage("Text is not UTF-8") from None
    except msgspec.MsgspecError as error:
        raise InvalidMessage(fitted(str(error), 300)) from None


_raw_report = msgspec.json.Decoder(RawReport)
_report = msgspec.json.Decoder(Report)
_event: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)


class _MetadataOnly(Struct, frozen=True):
    uid: UUID


class _EventHead(Struct, frozen=True):
    metadata: _MetadataOnly


class _EventClass(Struct, frozen=True):
    class_uid: int


_event_head = msgspec.json.Decoder(_EventHead)
_event_class = msgspec.json.Decoder(_EventClass)
_known_classes = frozenset(kind.class_uid for kind in EVENT_CLASSES)


def decode_report(body: bytes) -> tuple[tuple[Event, ...], tuple[RejectedEvent, ...]]:
    """The events that can be read, in order, and those that cannot, each with the reason.

    Raises InvalidMessage when the body is not a list of at most MAX_EVENTS events at all.
    """
    try:
        return decode(_report, body).events, ()
    except InvalidMessage:
        pass  # Some event is bad, or all of it is: now it is worth looking at each alone.
    try:
        raw = _raw_report.decode(body)
    except RecursionError:
        raise InvalidMessage("Nested too deeply") from None
    except UnicodeDecodeError:
        raise InvalidMessage("Text is not UTF-8") from None
    except msgspec.MsgspecError as error:
        raise InvalidMessage(fitted(str(error), 300)) from None
    good: list[Event] = []
    bad: list[RejectedEvent] = []
    for index, item in enumerate(raw.events):
        piece = bytes(item)
        try:
            good.append(decode(_event, piece))
        except InvalidMessage as error:
            bad.append(_rejection(index, piece, str(error)))
    return tuple(good), tuple(bad)


def _rejection(index: int, piece: bytes, reason: str) -> RejectedEvent:
    uid: UUID | None = None
    code: Literal["invalid-event", "unknown-class"] = "invalid-event"
    # Not through `decode`: an event refused for U+0000 in its path still has a good name.
    with contextlib.suppress(msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        uid = _event_head.decode(piece).metadata.uid
    with contextlib.suppress(msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        if _event_class.decode(piece).class_uid not in _known_classes:
            code = "unknown-class"
    return RejectedEvent(index=index, code=code, detail=reason, uid=uid)


def encode(message: Struct) -> bytes:
    """The message as JSON. Raises UnicodeEncodeError for a lone surrogate: see `fitted`."""
    return msgspec.json.encode(message)


_SURROGATES = re.compile("[\ud800-\udfff]")


def fitted(text: str, limit: int) -> str:
    """The text, changed only where it could not be sent: at most `limit` characters long.

    A file name may hold bytes that are no text (Python shows them as lone surrogates), and a name
    inside an archive may hold U+0000: they become U+FFFD and U+2400. What is too long loses its
    middle, since the two ends of a path say most.
    """
    if not text.isascii():
        text = _SURROGATES.sub("\ufffd", text)
    if "\0" in text:
        text = text.replace("\0", "\u2400")
    if len(text) <= limit:
        return text
    head = (limit - 1) // 2
    return text[:head] + "…" + text[len(text) - (limit - 1 - head) :]
