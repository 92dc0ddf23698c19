"""What a device can be told to do: each setting, its bounds, and a default that protects.

The server sends them whole and merged (`GET /settings`); the agent reads them by this very
definition. As everywhere in the protocol, an unknown field is skipped and an unknown value refused.
"""

from typing import Annotated, Final, Literal, TypeAlias, get_args

from msgspec import Meta, Struct

Day: TypeAlias = Literal[
    "monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"
]
DAYS: Final[tuple[Day, ...]] = get_args(Day)
"""Monday first, as `datetime.weekday` counts."""

Clock: TypeAlias = Annotated[
    str, Meta(min_length=5, max_length=5, pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$")
]
"""A time of day as the device's own clock shows it."""
Place: TypeAlias = Annotated[str, Meta(min_length=1, max_length=4096)]
"""A file or folder by its whole path."""
Sha256: TypeAlias = Annotated[str, Meta(max_length=64, pattern=r"^([0-9a-f]{64})?$")]
Moment: TypeAlias = Annotated[int, Meta(ge=0, le=253_402_300_799_999)]

MOST_EXCLUSIONS: Final = 100
MOST_FOLDERS: Final = 32
MAX_SETTINGS_BYTES: Final = 48 * 1024
"""The longest settings of one device as JSON; the server refuses a change that would make more."""


class RealTime(Struct, frozen=True, kw_only=True):
    """What happens at the moment a file is written or opened, and where."""

    mode: Literal["off", "notify", "quarantine"] = "quarantine"
    usual_places: bool = True
    folders: Annotated[tuple[Place, ...], Meta(max_length=MOST_FOLDERS)] = ()
    block: Annotated[tuple[Place, ...], Meta(max_length=MOST_FOLDERS)] = ()


class QuickScan(Struct, frozen=True, kw_only=True):
    """When the device looks where unwanted files usually arrive."""

    enabled: bool = True
    days: Annotated[tuple[Day, ...], Meta(min_length=1, max_length=7)] = DAYS
    start: Clock = "12:00"
    window: Annotated[int, Meta(ge=1, le=720)] = 30
    on_battery: Literal["run", "wait", "skip"] = "run"
    catch_up: bool = True


class FullScan(Struct, frozen=True, kw_only=True):
    """When the device looks everywhere."""

    enabled: bool = True
    days: Annotated[tuple[Day, ...], Meta(min_length=1, max_length=7)] = ("wednesday",)
    start: Clock = "12:30"
    window: Annotated[int, Meta(ge=1, le=720)] = 30
    on_battery: Literal["run", "wait", "skip"] = "wait"
    catch_up: bool = True


class CustomScan(Struct, frozen=True, kw_only=True):
    """When the device looks into folders of the person's choice."""

    enabled: bool = False
    folders: Annotated[tuple[Place, ...], Meta(max_length=MOST_FOLDERS)] = ()
    days: Annotated[tuple[Day, ...], Meta(min_length=1, max_length=7)] = DAYS
    start: Clock = "18:00"
    window: Annotated[int, Meta(ge=1, le=720)] = 30
    on_battery: Literal["run", "wait", "skip"] = "run"
    catch_up: bool = True


class Scanning(Struct, frozen=True, kw_only=True):
    """What is looked at in the scans that a device starts by itself."""

    archives: bool = True
    largest_file: Annotated[int, Meta(ge=1, le=16_384)] = 2048
    network_folders: bool = False
    second_engine: bool = True
    processor_share: Annotated[int, Meta(ge=1, le=100)] = 50


class Exclusion(Struct, frozen=True, kw_only=True):
    """A place that is not looked at; with `sha256`, only while it holds exactly that file."""

    path: Annotated[str, Meta(max_length=4096)] = ""
    sha256: Sha256 = ""
    until: Moment | None = None
    note: Annotated[str, Meta(max_length=200)] = ""
    active: bool = True


class Finding(Struct, frozen=True, kw_only=True):
    """What happens to a file in which something was found."""

    action: Literal["quarantine", "report"] = "quarantine"


class Updates(Struct, frozen=True, kw_only=True):
    """How often the device asks for new definitions; in hours."""

    interval: Annotated[int, Meta(ge=1, le=168)] = 4


class OnDevice(Struct, frozen=True, kw_only=True):
    """What people at the device see, and what members may do there from afar."""

    notifications: bool = True
    remote_scan: bool = True
    remote_quarantine: bool = True
    remote_upkeep: bool = True


class Sharing(Struct, frozen=True, kw_only=True):
    """What the device tells beyond what the account needs."""

    scanned_folders: bool = True
    system_version: bool = True


class Settings(Struct, frozen=True, kw_only=True):
    """Everything a device can be told to do; each default protects."""

    real_time: RealTime = RealTime()
    quick_scan: QuickScan = QuickScan()
    full_scan: FullScan = FullScan()
    custom_scan: CustomScan = CustomScan()
    scanning: Scanning = Scanning()
    exclusions: Annotated[
        dict[Annotated[str, Meta(max_length=64)], Exclusion], Meta(max_length=MOST_EXCLUSIONS)
    ] = {}
    finding: Finding = Finding()
    updates: Updates = Updates()
    on_device: OnDevice = OnDevice()
    sharing: Sharing = Sharing()
