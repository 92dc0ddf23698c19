"""Two moments of an account's settings beside each other, and the way back to one of them.

A version holds what stood there before and after each thing it changed. Between two versions a
thing stood as before the first change of it, and stands as after the last.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, cast
from uuid import UUID

from django.utils.translation import gettext as _

from doorward.accounts.models import Account
from doorward.devices import queries as devices
from doorward.protection import policy
from doorward.protection.merging import Document
from doorward.protection.models import SettingsVersion
from doorward.protection.policy import Delta, Kind


@dataclass(frozen=True)
class Difference:
    """One thing that stands otherwise at two moments; None where it was not there."""

    kind: Kind
    subject: UUID | None
    name: str
    """What it was called last."""
    before: Document | None
    after: Document | None


@dataclass(frozen=True)
class Between:
    """What differs between two versions, and the groups' names to say it with."""

    differences: tuple[Difference, ...]
    groups: dict[str, str]
    """What each group that was changed meanwhile was called last, by its id."""


def between(account: Account, older: int, newer: int) -> Between:
    """Return in what the settings after change `newer` differ from those after `older`.

    0 is the moment before the first change. One query, however many changes lie between.
    """
    groups: dict[str, str] = {}
    found = _folded(_changes(account, above=older, until=newer), groups)
    return Between(tuple(each for each in found if each.before != each.after), groups)


def going_back(account: Account, number: int) -> list[Delta]:
    """Return the change that puts everything back to how it stood after change `number`.

    What was removed since, a device, is told nothing. Raises policy.CannotUndo.
    """
    state = policy.state_of(account)
    there = {device.pk for device in devices.of_account(account)}
    found = [
        each
        for each in _folded(_changes(account, above=number), {})
        if each.kind not in {"device", "place"} or each.subject in there
    ]
    kept = {str(key) for key in state.groups}
    for each in found:
        if each.kind == "group":
            (kept.discard if each.before is None else kept.add)(str(each.subject))
    for each in found:
        if each.kind == "place" and each.before and each.before["group"] not in kept:
            raise policy.CannotUndo(
                _("The group that %(name)s was in has been removed since. Undo that first.")
                % {"name": each.name}
            )
    # Groups first: a device is put into one that is there again.
    found.sort(key=lambda each: each.kind != "group")
    return [Delta(each.kind, each.subject, each.before) for each in found]


def _changes(account: Account, *, above: int, until: int | None = None) -> Iterator[dict[str, Any]]:
    rows = SettingsVersion.objects.filter(account=account, number__gt=above).order_by("number")
    if until is not None:
        rows = rows.filter(number__lte=until)
    for changes in rows.values_list("changes", flat=True).iterator(chunk_size=200):
        yield from changes


def _folded(changes: Iterable[dict[str, Any]], groups: dict[str, str]) -> list[Difference]:
    """Return for each thing its first before and its last after; notes the groups' names."""
    found: dict[tuple[str, str | None], Difference] = {}
    for change in changes:
        key = change["kind"], change["subject"]
        first = found.get(key)
        if change["kind"] == "group":
            groups[change["subject"]] = change["name"]
        found[key] = Difference(
            cast(Kind, change["kind"]),
            UUID(change["subject"]) if change["subject"] else None,
            change["name"] or (first.name if first else ""),
            first.before if first else change["before"],
            change["after"],
        )
    return list(found.values())
