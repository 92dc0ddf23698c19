"""The form of one section of settings, made from the schema: what it shows, and what was filled in.

A layer below others shows beside each value what it would inherit, and holds a value of its own
only where somebody said so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from django.http import QueryDict
from django.utils.functional import Promise
from django.utils.translation import gettext as _

from doorward.portal import settings_words
from doorward.protection import merging, schema
from doorward.protection.merging import Document, Layer
from doorward.protection.schema import Field, Section
from doorward_protocol.settings import DAYS, MOST_FOLDERS

LONGEST_NUMBER: Final = 9


@dataclass(frozen=True)
class Control:
    """One setting in the form."""

    field: Field
    value: Any
    inherited: str = ""
    is_own: bool = True
    is_lock: bool = False
    locked_above: bool = False
    error: str | Promise = ""

    @property
    def id(self) -> str:
        """What names it on the page."""
        return f"id_{self.field.name}"

    @property
    def options(self) -> list[tuple[str, str | Promise, bool]]:
        """Each value to choose from, its words, and whether it is chosen."""
        if self.field.kind == "days":
            chosen = self.value if isinstance(self.value, list) else []
            return [(day, words, day in chosen) for day, words in schema.DAY_WORDS.items()]
        return [(key, words, key == self.value) for key, words in self.field.choices]

    @property
    def text(self) -> str:
        """The value as it stands in a field for text."""
        if self.field.kind == "folders" and isinstance(self.value, list):
            return "\n".join(self.value)
        return str(self.value)


@dataclass(frozen=True)
class SectionForm:
    """A section as one layer sees it."""

    section: Section
    own: Layer
    above: Sequence[Layer]
    is_top: bool
    may_lock: bool
    errors: Mapping[str, str | Promise] = field(default_factory=dict)
    typed: Mapping[str, Any] = field(default_factory=dict)

    @property
    def controls(self) -> list[Control]:
        """Every setting of the section, as it stands or as it was just typed."""
        inherited, locked = merging.effective(self.above)
        standing, _locked = merging.effective([*self.above, self.own])
        return [
            Control(
                field=each,
                value=self.typed.get(each.at, merging.at(standing, each.at)),
                inherited=settings_words.value(each, merging.at(inherited, each.at)),
                is_own=merging.holds(self.own.values, each.at),
                is_lock=each.at in self.own.locked,
                locked_above=each.at in locked,
                error=self.errors.get(each.at, ""),
            )
            for each in self.section.fields
        ]

    def filled(self, posted: QueryDict) -> tuple[Layer, SectionForm]:
        """Return the layer as it was filled in, and the form with what could not be read."""
        inherited, locked_above = merging.effective(self.above)
        values: Document = self.own.values
        locks, errors, typed = set(self.own.locked), {}, {}
        for each in self.section.fields:
            if each.at in locked_above:
                continue
            value, wrong = read(each, posted)
            typed[each.at] = value
            if wrong:
                errors[each.at] = wrong
                continue
            keeps = self._is_own(each, value, merging.at(inherited, each.at), posted)
            values = merging.put(values, each.at, value if keeps else None)
            if self.may_lock:
                locks.discard(each.at)
                if posted.get(f"lock-{each.name}") == "on":
                    locks.add(each.at)
        layer = Layer(values, tuple(sorted(locks)))
        return layer, replace(self, errors=errors, typed=typed)

    def _is_own(self, each: Field, value: Any, inherited: Any, posted: QueryDict) -> bool:
        if self.is_top:
            return bool(value != inherited)
        if posted.get(f"own-{each.name}") == "on":
            return True
        # Somebody who types another value means it, also without the tick beside it.
        return not merging.holds(self.own.values, each.at) and bool(value != inherited)

    def with_problems(self, problems: Mapping[str, str | Promise]) -> SectionForm:
        """Return the form with these mistakes, each at the setting that it is about."""
        found = dict(self.errors)
        for pointer, words in problems.items():
            for each in self.section.fields:
                if pointer == each.at or pointer.startswith(f"{each.at}/"):
                    found.setdefault(each.at, words)
        return replace(self, errors=found)


def read(each: Field, posted: QueryDict) -> tuple[Any, str]:
    """Return a setting as it was filled in, and what is wrong with it."""
    text = posted.get(each.name, "").strip()
    match each.kind:
        case "switch":
            return posted.get(each.name) == "on", ""
        case "number":
            lowest, highest = each.bounds
            if text.isascii() and text.isdigit() and len(text) <= LONGEST_NUMBER:
                number = int(text)
                if lowest <= number <= highest:
                    return number, ""
            words = {"lowest": lowest, "highest": highest}
            return text, _("A whole number from %(lowest)d to %(highest)d.") % words
        case "days":
            chosen = posted.getlist(each.name)
            return [day for day in DAYS if day in chosen], "" if chosen else _(
                "Choose at least one day."
            )
        case "folders":
            folders = [line.strip() for line in posted.get(each.name, "").splitlines()]
            named = list(dict.fromkeys(folder for folder in folders if folder))
            most = {"most": MOST_FOLDERS}
            too_many = _("Name at most %(most)d folders.") % most
            return named, too_many if len(named) > MOST_FOLDERS else ""
        case _:
            return text[:100], ""
