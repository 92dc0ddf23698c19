"""Tells whether settings are sound before anybody is told them: each mistake by place, in words."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import msgspec
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from doorward.protection import merging, schema
from doorward.protection.merging import Document, Layer, State
from doorward.protection.models import LONGEST_GROUP
from doorward_protocol.settings import MAX_SETTINGS_BYTES

MOST_GROUPS: Final = 100
LOCKED: Final = _("This is locked further up and can’t be set otherwise here.")

# A whole path on any system that the agent runs on: /x, C:\x or \\server\share.
_WHOLE: Final = re.compile(r"/|[A-Za-z]:[\\/]|\\\\[^\\]")
# What would leave out everything, or everything of all people.
_TOO_BROAD: Final = re.compile(
    r"/+|[A-Za-z]:[\\/]*|/(home|Users|root|etc|usr|bin|sbin|lib|var|tmp|opt|srv|mnt|media)/*"
    r"|[A-Za-z]:[\\/]+(Users|Windows|Program Files|Program Files \(x86\)|ProgramData)[\\/]*",
    re.IGNORECASE,
)
_ID: Final = re.compile(r"[0-9A-Za-z_-]{1,64}")


@dataclass(frozen=True)
class Problem:
    """One mistake: where (a JSON Pointer into the settings) and what is wrong with it."""

    at: str
    words: Promise | str


def problems_of(before: State, after: State, *, restores: bool = False) -> tuple[Problem, ...]:
    """Return what is wrong with what the change brings; what stood there before is let be.

    A change that ``restores`` an earlier one may bring back what has been locked further up since:
    it stands there without effect, as it would had it never been away.
    """
    found: list[Problem] = []
    if after.account != before.account:
        found += _of_layer(after.account, before.account, [Layer()])
    for key, group in after.groups.items():
        was = before.groups.get(key)
        if was is None or was.layer != group.layer:
            old = was.layer if was is not None else Layer()
            found += _of_layer(group.layer, old, [after.account])
        if was is None or was.name != group.name:
            found += _of_name(group.name, [g.name for k, g in after.groups.items() if k != key])
    if len(after.groups) > max(MOST_GROUPS, len(before.groups)):
        found.append(Problem("", _("There are a hundred groups already; that is the most.")))
    for device, values in after.own.items():
        if before.own.get(device) != values:
            above = after.layers(device)[:-1]
            found += _of_layer(Layer(values), Layer(before.own.get(device, {})), above)
    if restores:
        found = [each for each in found if each.words is not LOCKED]
    if not found:
        found += _of_whole(before, after)
    return tuple(dict.fromkeys(found))


def _of_name(name: str, others: list[str]) -> Iterator[Problem]:
    if not name.strip() or len(name) > LONGEST_GROUP or not name.isprintable():
        yield Problem("/name", _("Use letters, digits and signs that can be seen, at most 60."))
    elif name.lower() in {other.lower() for other in others}:
        yield Problem("/name", _("Another group is called so already."))


def _of_layer(layer: Layer, before: Layer, above: list[Layer]) -> Iterator[Problem]:
    locked = {pointer for each in above for pointer in each.locked}
    for pointer in layer.locked:
        if pointer not in schema.FIELDS:
            yield Problem(pointer, _("There is no such setting."))
    for pointer, value in merging.leaves(layer.values, schema.FIELDS):
        if merging.holds(before.values, pointer) and merging.at(before.values, pointer) == value:
            continue
        if pointer in locked:
            yield Problem(pointer, LOCKED)
            continue
        yield from of_value(pointer, value)


def of_value(pointer: str, value: Any) -> Iterator[Problem]:
    """Yield what is wrong with one setting's value."""
    field = schema.FIELDS.get(pointer)
    if field is None:
        yield Problem(pointer, _("There is no such setting."))
        return
    if field.kind == "exclusions":
        yield from _of_exclusions(pointer, value)
        return
    try:
        msgspec.convert(value, field.type)
    except (msgspec.ValidationError, TypeError):
        yield Problem(pointer, _expected(field))
        return
    if field.kind == "days" and len(set(value)) != len(value):
        yield Problem(pointer, _("Name each day once."))
    if field.kind == "folders":
        for number, folder in enumerate(value):
            if not is_whole(folder):
                words = _("“%(path)s” is not a whole path.") % {"path": folder[:100]}
                yield Problem(f"{pointer}/{number}", words)


def _expected(field: schema.Field) -> Promise | str:
    match field.kind:
        case "number":
            lowest, highest = field.bounds
            words = {"lowest": lowest, "highest": highest}
            return _("A whole number from %(lowest)d to %(highest)d.") % words
        case "clock":
            return _("A time of day, as 18:30.")
        case "days":
            return _("At least one day of the week.")
        case "folders":
            return _("At most 32 folders, one on each line, none longer than 4,096 characters.")
        case "choice":
            return _("One of: %(values)s.") % {"values": ", ".join(v for v, _w in field.choices)}
        case _:
            return _("Yes or no.")


def _of_exclusions(pointer: str, value: Any) -> Iterator[Problem]:
    if not isinstance(value, dict):
        yield Problem(pointer, _("An object of exclusions, each under an id of its own."))
        return
    if len(value) > 100:
        yield Problem(pointer, _("There are a hundred exclusions already; that is the most."))
    one = schema.TYPES[pointer].__origin__.__args__[1]
    for name, entry in value.items():
        here = pointer + merging.pointer_of(str(name)[:64])
        if not isinstance(name, str) or not _ID.fullmatch(name):
            yield Problem(here, _("An id has 1 to 64 letters, digits, - or _."))
            continue
        yield from of_exclusion(here, entry, one)


def of_exclusion(here: str, entry: Any, kind: Any) -> Iterator[Problem]:
    """Yield what is wrong with one exclusion."""
    try:
        read = msgspec.convert(entry, kind)
    except (msgspec.ValidationError, TypeError) as error:
        where = re.search(r"\$\.(\w+)", str(error))
        place = f"{here}/{where[1]}" if where else here
        if where and where[1] == "sha256":
            yield Problem(place, _("A SHA-256 has 64 digits, 0 to 9 and a to f."))
        else:
            yield Problem(place, _("This is not an exclusion as the documentation says."))
        return
    if not read.note.isprintable():
        yield Problem(f"{here}/note", _("Use letters, digits and signs that can be seen."))
    if not read.path and not read.sha256:
        yield Problem(f"{here}/path", _("Name a path, or the SHA-256 of one file, or both."))
    elif read.path and not is_whole(read.path):
        yield Problem(f"{here}/path", _("Name the whole path, as /srv/build or D:\\Build."))
    elif read.path and not read.sha256 and _TOO_BROAD.fullmatch(read.path):
        yield Problem(
            f"{here}/path",
            _("That would leave out nearly everything. Name a folder inside of it."),
        )


def is_whole(path: str) -> bool:
    """Tell whether the path begins at a root, on whatever system, and climbs nowhere."""
    # Signs that can't be seen can't be stored everywhere either, and nobody reads what they hide.
    if not _WHOLE.match(path) or not path.isprintable():
        return False
    return ".." not in re.split(r"[\\/]", path)


def _of_whole(before: State, after: State) -> Iterator[Problem]:
    """What is right piece by piece may be wrong together."""
    seen: set[str] = set()
    for layers in _chains(after):
        document, _locked = merging.effective(layers)
        text = merging.text_of(layers)
        if text in seen:
            continue
        seen.add(text)
        if len(text.encode()) > MAX_SETTINGS_BYTES:
            yield Problem("", _("Together that is more than a device can be told: 48 kB."))
        custom = document["custom_scan"]
        if custom["enabled"] and not custom["folders"]:
            yield Problem("/custom_scan/folders", _("Name at least one folder."))
        if len(document["exclusions"]) > 100:
            yield Problem("/exclusions", _("Together that is more than a hundred exclusions."))


def _chains(state: State) -> Iterator[list[Layer]]:
    yield [state.account]
    for group in state.groups.values():
        yield [state.account, group.layer]
    for device in set[UUID](state.own):
        yield state.layers(device)


def as_document(problems: tuple[Problem, ...]) -> Document:
    """Return the problems as the API tells them: words by pointer."""
    return {each.at: str(each.words) for each in problems}
