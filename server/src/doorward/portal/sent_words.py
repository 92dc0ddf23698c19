"""Every field that a device sends, in people's words: by the message's struct and the field.

A test holds that no field of the protocol's messages is without its words.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _
from msgspec import inspect

from doorward_protocol import messages

ROOTS: Final[Mapping[str, Any]] = {
    "check-in": messages.CheckIn,
    "reports": messages.Report,
    "commands": messages.CommandState,
}

_EVENT: Final[dict[str, Promise]] = {
    "class_uid": _("What kind of event it is, by OCSF’s number"),
    "category_uid": _("OCSF’s category, which follows from the kind"),
    "type_uid": _("Kind and activity in one number"),
    "metadata": _("What names the event"),
    "time": _("When it happened, in milliseconds since 1970"),
    "severity_id": _("How bad it is, by OCSF’s number"),
    "message": _("A sentence for people"),
    "unmapped": _("What OCSF has no place for"),
}
WORDS: Final[Mapping[str, Mapping[str, Promise]]] = {
    "CheckIn": {
        "boot_id": _("A random number, new each time the agent starts: tells a copied disk"),
        "seq": _("A count of calls: tells a copied disk, and a call sent twice"),
        "settings": _("Which of your settings are in force"),
        "definitions": _("Which definitions it uses"),
        "protection": _("Whether its protection works"),
        "queue": _("How much still waits to be sent"),
        "device": _("What it is; only where that is new"),
    },
    "SettingsState": {
        "version": _("The number of the settings in force"),
        "status": _("Whether the newest could be put in force"),
        "failed_version": _("The number of settings that could not be"),
        "errors": _("What was wrong with them"),
    },
    "SettingsError": {
        "pointer": _("Which setting"),
        "code": _("Why it could not be put in force"),
    },
    "DefinitionsState": {
        "version": _("Their number"),
        "refused_version": _("The number of a newer set that it would not take"),
        "code": _("Why the last try to get newer ones failed"),
    },
    "ProtectionState": {
        "state": _("Whether it is protected"),
        "reasons": _("What is missing"),
    },
    "QueueState": {
        "depth": _("Events that wait on the device"),
        "dropped": _("Notes given up for want of room; never a threat"),
    },
    "DeviceFacts": {
        "hostname": _("What the computer calls itself"),
        "os": _("Its system"),
        "type": _("Whether it is a laptop, a server and so on"),
        "agent_version": _("The agent’s version"),
        "capabilities": _("What the agent can do"),
    },
    "OperatingSystem": {
        "name": _("Which system it is"),
        "version": _("The version of the system"),
    },
    "Report": {"events": _("What happened since the last report")},
    "Metadata": {
        "uid": _("The event’s own id: sent twice, it is stored once"),
        "version": _("The version of OCSF, the format of events"),
        "sequence": _("Its place among the device’s events, whatever the clock says"),
    },
    "ScanActivity": {
        **_EVENT,
        "activity_id": _("Whether the scan began, ended or was stopped"),
        "scan": _("Which scan"),
        "command_uid": _("Which of your commands asked for it"),
        "start_time": _("When the scan began"),
        "end_time": _("When it ended"),
        "duration": _("How long it took, in milliseconds"),
        "num_files": _("How many files were looked at"),
        "num_detections": _("In how many something was found"),
        "num_skipped_items": _("How many were not looked into"),
        "num_resolutions": _("How many finds were dealt with"),
    },
    "ScanInfo": {
        "uid": _("The scan’s id"),
        "name": _("What people call it"),
        "type_id": _("Why it ran: by hand, by time and so on"),
    },
    "ScanDetail": {
        "bytes": _("How much was read"),
        "cached": _("Files known clean from before and unchanged since"),
        "skipped": _("How many were not looked into, by reason; never which"),
        "paths": _("Which folders it was asked to look through"),
        "definitions_version": _("The number of the definitions in force"),
    },
    "DetectionFinding": {
        **_EVENT,
        "activity_id": _("Whether the find is new"),
        "finding_info": _("Which find"),
        "evidences": _("In which file"),
        "disposition_id": _("What was done about it"),
        "confidence_id": _("How sure the rule is"),
    },
    "FindingInfo": {
        "uid": _("The find’s id"),
        "title": _("What it is, for people"),
        "analytic": _("The rule that matched"),
        "desc": _("More about it"),
        "created_time": _("When it was found first"),
    },
    "Analytic": {
        "uid": _("The rule’s id"),
        "name": _("The rule’s name"),
        "type_id": _("That it is a rule"),
    },
    "Evidence": {"file": _("The file")},
    "File": {
        "path": _("Where the file is"),
        "name": _("The file’s name"),
        "size": _("Its size in bytes"),
        "hashes": _("Its content’s digests; the content itself is never sent"),
        "type_id": _("That it is a regular file"),
    },
    "Hash": {
        "value": _("The digest"),
        "algorithm_id": _("How it was made; 3 is SHA-256"),
    },
    "FindingDetail": {
        "scan_uid": _("The scan that found it"),
        "engine": _("The engine whose rule matched"),
        "member": _("The file inside of an archive"),
        "quarantine_id": _("Its id in quarantine"),
        "definitions_version": _("The number of the definitions in force"),
    },
    "FileRemediation": {
        **_EVENT,
        "activity_id": _("What was done"),
        "file": _("Which file"),
        "disposition_id": _("What became of it"),
        "status_id": _("Whether it worked"),
        "command_uid": _("Which of your commands asked for it"),
    },
    "RemediationDetail": {
        "finding_uid": _("Which find it is about"),
        "quarantine_id": _("The file’s id in quarantine"),
    },
    "CommandState": {
        "status": _("How far it is with what you asked"),
        "code": _("Why, as a word"),
        "detail": _("Why, as a sentence"),
        "started_at": _("When it began"),
        "ended_at": _("When it ended"),
        "progress": _("How far a scan is"),
        "report": _("What it told of how the agent is"),
    },
    "CommandProgress": {
        "files": _("Files looked at"),
        "bytes": _("How much was read"),
        "threats": _("Threats found"),
    },
}
OPTIONAL: Final[Mapping[tuple[str, str], str]] = {
    ("OperatingSystem", "version"): "/sharing/system_version",
    ("ScanDetail", "paths"): "/sharing/scanned_folders",
}
"""Fields that are sent only while a setting says so, and which."""

_EVENTS: Final[Mapping[int, type]] = {
    2004: messages.DetectionFinding,
    6007: messages.ScanActivity,
    7002: messages.FileRemediation,
}
MOST: Final = 400
"""Fields that a page explains; of a long report the first ones, since the others are alike."""


@dataclass(frozen=True)
class Item:
    """One field as it was sent: where, what, its words, and the setting that it depends on."""

    place: str
    depth: int
    value: str
    words: str | Promise
    optional: str = ""

    @property
    def parts(self) -> list[str]:
        """Its place, to be broken between them."""
        return self.place.split(".")


def items(kind: str, document: Any) -> Iterator[Item]:
    """Yield each field of what was sent, in its order, with its words."""
    yield from _of(document, inspect.type_info(ROOTS[kind]), "", 0)


def _of(value: Any, shape: Any, place: str, depth: int) -> Iterator[Item]:
    struct = _struct(value, shape)
    if struct is not None and isinstance(value, dict):
        name = struct.cls.__name__
        inner = {field.encode_name: field.type for field in struct.fields}
        for key, said in value.items():
            here = f"{place}.{key}" if place else key
            yield Item(
                place=here,
                depth=depth,
                value=_short(said),
                words=WORDS.get(name, {}).get(key, _("Not known to this server")),
                optional=OPTIONAL.get((name, key), ""),
            )
            if key in inner:
                yield from _of(said, inner[key], here, depth + 1)
    elif isinstance(value, list):
        each = getattr(shape, "item_type", None)
        for number, said in enumerate(value):
            if isinstance(said, dict):
                yield from _of(said, each, f"{place}[{number}]", depth)


def _struct(value: Any, shape: Any) -> inspect.StructType | None:
    if isinstance(shape, inspect.StructType):
        return shape
    if isinstance(shape, inspect.UnionType):
        if isinstance(value, dict) and value.get("class_uid") in _EVENTS:
            found = inspect.type_info(_EVENTS[value["class_uid"]])
            return found if isinstance(found, inspect.StructType) else None
        return next((each for each in shape.types if isinstance(each, inspect.StructType)), None)
    return None


def _short(value: Any) -> str:
    if isinstance(value, list) and not any(isinstance(each, dict | list) for each in value):
        return ", ".join(str(each) for each in value) or "[]"
    if isinstance(value, dict | list):
        return ""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
