"""Every setting in words: its name, what it does, who can carry it out, and what weakens it.

Types, bounds and defaults are those of ``doorward_protocol.settings``, read from there; a test
holds that each setting there has its words here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import msgspec
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _
from msgspec import inspect

from doorward.protection import merging
from doorward_protocol.messages import REMOTE_OFF
from doorward_protocol.settings import DAYS, Settings

Kind = Literal["switch", "choice", "number", "clock", "days", "folders", "exclusions"]
Weaker = Callable[[Any, Any], bool]

COMPUTERS: Final = frozenset({"linux", "macos", "windows"})
SYSTEMS: Final[Mapping[str, str]] = {
    "linux": "Linux",
    "macos": "macOS",
    "windows": "Windows",
    "android": "Android",
    "ios": "iOS",
}
CAPABILITIES: Final[Mapping[str, Promise]] = {
    "settings": _("its agent is too old to take settings"),
    "watch": _("its agent can’t watch files as they are written yet"),
    "block": _("it can’t keep files closed: that takes Linux and an agent that runs as root"),
    "definitions": _("its agent gets definitions only with a new version of itself"),
    "notify": _("its agent can’t show messages on the screen yet"),
    "commands": _("its agent takes nothing from afar yet"),
}
"""Why a device can't do what needs this capability, to follow its name."""


def never_weaker(_before: Any, _after: Any) -> bool:
    """Neither value protects less than the other."""
    return False


def switched_off(before: Any, after: Any) -> bool:
    """What was on is off."""
    return bool(before) and not after


def switched_on(before: Any, after: Any) -> bool:
    """What was closed is open."""
    return bool(after) and not before


def smaller(before: Any, after: Any) -> bool:
    """Less is reached than before."""
    return bool(after < before)


def larger(before: Any, after: Any) -> bool:
    """It takes longer than before."""
    return bool(after > before)


def fewer(before: Any, after: Any) -> bool:
    """Something is missing that was there."""
    return not set(before) <= set(after)


def later_in(*order: str) -> Weaker:
    """Return what tells that a choice stands further down in this order, the strongest first."""

    def weaker(before: Any, after: Any) -> bool:
        return order.index(after) > order.index(before)

    return weaker


def excludes_more(before: Any, after: Any) -> bool:
    """Something is not looked at that was, or may be left out for longer."""
    return any(
        entry["active"] and not _covers(before.get(name), entry) for name, entry in after.items()
    )


def _covers(known: Any, entry: Any) -> bool:
    if known is None or not known["active"]:
        return False
    same = all(known[key] == entry[key] for key in ("path", "sha256"))
    ends_no_later = known["until"] is None or (
        entry["until"] is not None and entry["until"] <= known["until"]
    )
    return same and ends_no_later


@dataclass(frozen=True)
class Field:
    """One setting. ``at`` is its JSON Pointer."""

    at: str
    kind: Kind
    label: Promise
    help: Promise | str = ""
    choices: tuple[tuple[str, Promise], ...] = ()
    unit: Promise | str = ""
    needs: str = "settings"
    systems: frozenset[str] = COMPUTERS
    weaker: Weaker = never_weaker

    @property
    def section(self) -> str:
        """The section it stands in."""
        return merging.parts(self.at)[0]

    @property
    def name(self) -> str:
        """Its name inside of its section, for a form."""
        return merging.parts(self.at)[-1]

    @property
    def default(self) -> Any:
        """What holds where nobody has said anything."""
        return merging.at(merging.PRODUCT, self.at)

    @property
    def type(self) -> Any:
        """Its type, with every bound."""
        return TYPES[self.at]

    @property
    def bounds(self) -> tuple[int, int]:
        """The lowest and the highest number it may be."""
        found = inspect.type_info(self.type)
        if not isinstance(found, inspect.IntType) or found.ge is None or found.le is None:
            raise TypeError(f"{self.at} is not a number with bounds")
        return int(found.ge), int(found.le)

    @property
    def full_label(self) -> str:
        """Its name for a place outside of its section's page."""
        section = BY_KEY[self.section]
        if len(section.fields) == 1:
            return str(section.title)
        return f"{section.title}: {self.label}"


@dataclass(frozen=True)
class Section:
    """Settings that belong together: one page of the form."""

    key: str
    icon: str
    title: Promise
    about: Promise
    fields: tuple[Field, ...]

    @property
    def slug(self) -> str:
        """Its part of an address."""
        return self.key.replace("_", "-")


def _types() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for section in msgspec.structs.fields(Settings):
        if isinstance(section.type, type) and issubclass(section.type, msgspec.Struct):
            for field in msgspec.structs.fields(section.type):
                found[f"/{section.name}/{field.name}"] = field.type
        else:
            found[f"/{section.name}"] = section.type
    return found


TYPES: Final[Mapping[str, Any]] = _types()
"""The type of each setting by its pointer."""

_BATTERY: Final = (
    ("run", _("Run all the same")),
    ("wait", _("Wait for mains power, up to three days")),
    ("skip", _("Not while on battery")),
)
DAY_WORDS: Final = dict(
    zip(
        DAYS,
        (
            _("Monday"),
            _("Tuesday"),
            _("Wednesday"),
            _("Thursday"),
            _("Friday"),
            _("Saturday"),
            _("Sunday"),
        ),
        strict=True,
    )
)


def _times(section: str, *before: Field) -> tuple[Field, ...]:
    return (
        Field(
            f"/{section}/enabled",
            "switch",
            _("Run it by itself"),
            _("Switched off, it runs only when somebody starts it."),
            weaker=switched_off,
        ),
        *before,
        Field(f"/{section}/days", "days", _("On these days"), weaker=fewer),
        Field(
            f"/{section}/start",
            "clock",
            _("Not before"),
            _("By the device’s own clock."),
        ),
        Field(
            f"/{section}/window",
            "number",
            _("Begins within"),
            _("Each device picks a moment of its own in this time, so that not all begin at once."),
            unit=_("minutes"),
        ),
        Field(
            f"/{section}/on_battery",
            "choice",
            _("On battery"),
            choices=_BATTERY,
            weaker=later_in("run", "wait", "skip"),
        ),
        Field(
            f"/{section}/catch_up",
            "switch",
            _("Make up for a missed one"),
            _("When the device was off or asleep, it runs once, soon after it is back."),
            weaker=switched_off,
        ),
    )


SECTIONS: Final = (
    Section(
        "real_time",
        "shield",
        _("Real-time protection"),
        _("Looks at a file at the moment it is written, not only when a scan comes by."),
        (
            Field(
                "/real_time/mode",
                "choice",
                _("When something is found"),
                _("Only devices whose agent can watch files do this; the others go on with scans."),
                choices=(
                    ("quarantine", _("Put it away and report it")),
                    ("notify", _("Report it and leave it where it is")),
                    ("off", _("Off: do not watch files")),
                ),
                needs="watch",
                weaker=later_in("quarantine", "notify", "off"),
            ),
            Field(
                "/real_time/usual_places",
                "switch",
                _("Watch the usual places"),
                _(
                    "People’s own folders, and those where files arrive or start from. Without "
                    "them, only the folders named here are watched."
                ),
                needs="watch",
                weaker=switched_off,
            ),
            Field(
                "/real_time/folders",
                "folders",
                _("Watch these folders too"),
                _("One on each line, as a whole path. A device leaves out what it does not have."),
                needs="watch",
                weaker=fewer,
            ),
            Field(
                "/real_time/block",
                "folders",
                _("Keep files in these folders closed until looked at"),
                _(
                    "A file with a threat in it can’t be opened there at all. For folders that "
                    "strangers write to; each opening waits a moment, three seconds at most."
                ),
                needs="block",
                weaker=fewer,
            ),
        ),
    ),
    Section(
        "quick_scan",
        "scan",
        _("Quick scan"),
        _("Looks where unwanted files usually arrive or start from. It takes minutes."),
        _times("quick_scan"),
    ),
    Section(
        "full_scan",
        "scan",
        _("Full scan"),
        _(
            "Looks at everything on the device. What is unchanged since it was found clean is "
            "not read again."
        ),
        _times("full_scan"),
    ),
    Section(
        "custom_scan",
        "scan",
        _("Scan of chosen folders"),
        _("Looks into folders that you name, as often as you like."),
        _times(
            "custom_scan",
            Field(
                "/custom_scan/folders",
                "folders",
                _("Folders"),
                _(
                    "One on each line, as a whole path: /srv/share or D:\\Share. A device leaves "
                    "out what it does not have."
                ),
                weaker=fewer,
            ),
        ),
    ),
    Section(
        "scanning",
        "eye",
        _("What is looked at"),
        _("Holds for every scan that a device starts by itself or from here."),
        (
            Field(
                "/scanning/archives",
                "switch",
                _("Look into archives"),
                _(
                    "ZIP files and the like. Without it, what hides in one is seen only once it is "
                    "unpacked."
                ),
                weaker=switched_off,
            ),
            Field(
                "/scanning/largest_file",
                "number",
                _("Leave out files larger than"),
                _("Counted as left out, never as clean."),
                unit=_("MiB"),
                weaker=smaller,
            ),
            Field(
                "/scanning/network_folders",
                "switch",
                _("Enter folders of other computers"),
                _("Slow, and often better done on that computer itself."),
                weaker=switched_off,
            ),
            Field(
                "/scanning/second_engine",
                "switch",
                _("Ask ClamAV too"),
                _("Where it runs on the device. Every file is then looked at by both."),
                weaker=switched_off,
            ),
            Field(
                "/scanning/processor_share",
                "number",
                _("Use of the processors, at most"),
                _("In whole processors, at least one. Other programs always go first."),
                unit=_("percent"),
            ),
        ),
    ),
    Section(
        "exclusions",
        "away",
        _("Exclusions"),
        _(
            "What is not looked at. Each one is a gap: name as little as possible, for as short "
            "as possible."
        ),
        (
            Field(
                "/exclusions",
                "exclusions",
                _("Exclusions"),
                weaker=excludes_more,
            ),
        ),
    ),
    Section(
        "finding",
        "danger",
        _("When something is found"),
        _("What a scan does with a file in which it found something."),
        (
            Field(
                "/finding/action",
                "choice",
                _("What to do with the file"),
                choices=(
                    ("quarantine", _("Put it away, so that it can’t run")),
                    ("report", _("Only report it and leave it where it is")),
                ),
                weaker=later_in("quarantine", "report"),
            ),
        ),
    ),
    Section(
        "updates",
        "down",
        _("Definitions"),
        _("The rules by which threats are known."),
        (
            Field(
                "/updates/interval",
                "number",
                _("Ask for new ones every"),
                unit=_("hours"),
                needs="definitions",
                weaker=larger,
            ),
        ),
    ),
    Section(
        "on_device",
        "laptop",
        _("On the device"),
        _("What its people see, and what members of this account may do there from afar."),
        (
            Field(
                "/on_device/notifications",
                "switch",
                _("Tell people at the device what was found"),
                needs="notify",
                weaker=switched_off,
            ),
            Field(
                "/on_device/remote_scan",
                "switch",
                _("Members may start a scan"),
                needs="commands",
                weaker=switched_on,
            ),
            Field(
                "/on_device/remote_quarantine",
                "switch",
                _("Members may restore and delete what was put away"),
                needs="commands",
                weaker=switched_on,
            ),
            Field(
                "/on_device/remote_upkeep",
                "switch",
                _("Members may update definitions, change the key and collect diagnostics"),
                needs="commands",
                weaker=switched_on,
            ),
        ),
    ),
    Section(
        "sharing",
        "report",
        _("What the device tells"),
        _("Beyond what is needed to show how it is. Threats are always reported."),
        (
            Field(
                "/sharing/scanned_folders",
                "switch",
                _("Which folders a scan looked through"),
            ),
            Field(
                "/sharing/system_version",
                "switch",
                _("The version of its system"),
            ),
        ),
    ),
)
FIELDS: Final[Mapping[str, Field]] = {
    field.at: field for section in SECTIONS for field in section.fields
}
BY_SLUG: Final[Mapping[str, Section]] = {section.slug: section for section in SECTIONS}
BY_KEY: Final[Mapping[str, Section]] = {section.key: section for section in SECTIONS}

FINGERPRINT: Final = hashlib.blake2b(
    merging.canonical(merging.PRODUCT).encode(), digest_size=8
).hexdigest()
"""Names this product's defaults: a device that was told others is told anew."""


def differing(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[Field, ...]:
    """Return the settings in which two whole documents differ, in the order of the pages."""
    return tuple(
        field
        for field in FIELDS.values()
        if merging.at(before, field.at) != merging.at(after, field.at)
    )


def weakened(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[Field, ...]:
    """Return the settings by which a device is protected less than before."""
    return tuple(
        field
        for field in differing(before, after)
        if field.weaker(merging.at(before, field.at), merging.at(after, field.at))
    )


def why_not(field: Field, *, system: str, capabilities: Iterable[str]) -> Promise | str:
    """Return why a device can't do this, to follow its name; empty when it can."""
    if system not in field.systems:
        name = SYSTEMS.get(system, system)
        return _("%(system)s does not scan") % {"system": name} if name else _("it does not scan")
    able = set(capabilities)
    if field.needs == "commands" and REMOTE_OFF in able:
        return _("somebody has switched remote actions off on it")
    for needed in ("settings", field.needs):
        if needed not in able:
            return CAPABILITIES[needed]
    return ""
