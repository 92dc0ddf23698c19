"""Settings in people's words: values, whole sections, and what a device could not apply."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from doorward.portal import texts
from doorward.portal.templatetags.look import exact_words
from doorward.protection import merging, schema
from doorward.protection.schema import Field, Section
from doorward_protocol.settings import DAYS

WHY: Final[Mapping[str, Promise]] = {
    "invalid": gettext_lazy("its agent does not know this value; a newer agent may"),
    "too-broad": gettext_lazy("on that device it leads to the whole disk"),
}
EDGE: Final = 5
"""The working days of a week."""


def value(field: Field, said: Any) -> str:
    """Return a value as people say it."""
    match field.kind:
        case "switch":
            return _("yes") if said else _("no")
        case "choice":
            return str(dict(field.choices).get(said, said))
        case "number":
            return f"{said} {field.unit}"
        case "days":
            return days(said)
        case "folders":
            return ", ".join(texts.shortened(texts.visible(str(each)), 80) for each in said) or _(
                "none"
            )
        case "exclusions":
            active = [entry for entry in said.values() if entry["active"]]
            return "; ".join(exclusion(entry) for entry in active) or _("none")
        case _:
            return texts.visible(str(said))


def exclusion(entry: Mapping[str, Any]) -> str:
    """Return one exclusion as people say it."""
    words = texts.shortened(texts.visible(entry["path"]), 120)
    if entry["sha256"]:
        short = entry["sha256"][:12]
        pinned = _("the file with SHA-256 %(hash)s…") % {"hash": short}
        words = f"{words} ({pinned})" if words else pinned
    if entry["until"] is not None:
        until = exact_words(datetime.fromtimestamp(entry["until"] / 1000, UTC))
        words = _("%(what)s until %(when)s") % {"what": words, "when": until}
    return words


def days(chosen: list[str]) -> str:
    """Return days of the week as people say them."""
    if len(chosen) == len(DAYS):
        return _("every day")
    if sorted(map(DAYS.index, chosen)) == list(range(EDGE)):
        return _("Monday to Friday")
    return ", ".join(str(schema.DAY_WORDS[day]) for day in DAYS if day in chosen)


def summary(section: Section, document: Mapping[str, Any]) -> str:
    """Return in one line what a section tells devices to do."""
    said = document[section.key]
    match section.key:
        case "real_time":
            return _real_time(section, said)
        case "quick_scan" | "full_scan" | "custom_scan":
            return _scan(said)
        case "scanning":
            inside = _("also inside archives") if said["archives"] else _("not inside archives")
            return _("Files up to %(size)d MiB, %(inside)s") % {
                "size": said["largest_file"],
                "inside": inside,
            }
        case "exclusions":
            number = sum(entry["active"] for entry in said.values())
            if not number:
                return _("Nothing is left out")
            return ngettext(
                "%(number)d thing is left out", "%(number)d things are left out", number
            ) % {"number": number}
        case "updates":
            return _("Every %(hours)d hours") % {"hours": said["interval"]}
        case "on_device":
            names = ("remote_scan", "remote_quarantine", "remote_upkeep")
            allowed = sum(said[name] for name in names)
            if not allowed:
                return _("Nothing may be done from afar")
            return _("Members may act from afar") if allowed == len(names) else _("In part")
        case "sharing":
            told = [
                str(field.label).lower()
                for field in section.fields
                if merging.at(document, field.at)
            ]
            return texts.shortened("; ".join(told), 120).capitalize() or _("Only what is needed")
        case _:
            return "; ".join(
                value(field, merging.at(document, field.at)) for field in section.fields
            )


def _real_time(section: Section, said: Mapping[str, Any]) -> str:
    mode = str(dict(section.fields[0].choices)[said["mode"]])
    if said["mode"] == "off":
        return mode
    told = [mode]
    if said["usual_places"]:
        told.append(_("in the usual places"))
    folders, closed = len(said["folders"]), len(said["block"])
    if folders:
        told.append(
            ngettext("%(number)d folder of your own", "%(number)d folders of your own", folders)
            % {"number": folders}
        )
    if closed:
        told.append(
            ngettext("%(number)d folder kept closed", "%(number)d folders kept closed", closed)
            % {"number": closed}
        )
    if len(told) == 1:
        told.append(_("but no folder is watched"))
    return ", ".join(told)


def _scan(said: Mapping[str, Any]) -> str:
    if not said["enabled"]:
        return _("Only when somebody starts it")
    return _("%(days)s, not before %(time)s") % {
        "days": days(said["days"])[:1].upper() + days(said["days"])[1:],
        "time": said["start"],
    }


def error(pointer: str, code: str) -> str:
    """Return what a device could not apply, and why."""
    found = next(
        (
            field
            for at, field in schema.FIELDS.items()
            if pointer == at or pointer.startswith(f"{at}/")
        ),
        None,
    )
    words = WHY.get(code)
    why = str(words) if words else texts.shortened(texts.visible(code), 64)
    if found is None:
        return why
    return f"{found.full_label} – {why}"
