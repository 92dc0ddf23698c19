"""Says how up to date a device's definitions are, and why it would not take newer ones."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from doorward.devices.models import Device
from doorward.portal import telling
from doorward.protection.definitions import overview
from doorward.protection.definitions.rollout import Steps

WORDS: Final[dict[overview.How, tuple[str, str | Promise]]] = {
    "untold": ("unknown", gettext_lazy("Not told yet")),
    "current": ("safe", gettext_lazy("Up to date")),
    "built-in": ("safe", gettext_lazy("As they came with the agent")),
    "behind": ("attention", gettext_lazy("Behind")),
    "refused": ("danger", gettext_lazy("Newer ones refused")),
    "unable": ("attention", gettext_lazy("Needs a newer agent")),
}
PROBLEMS: Final[dict[str, str | Promise]] = {
    "unreachable": gettext_lazy("it could not reach the server for them"),
    "no-root": gettext_lazy("it was not told yet whom to believe; that comes within the hour"),
    "wrong-root": gettext_lazy("the file it begins to trust with is not the right one"),
    "wrong-key": gettext_lazy("they are not signed by the right keys"),
    "expired": gettext_lazy("they were signed too long ago: somebody may hold newer ones back"),
    "rollback": gettext_lazy("they are older than what it has seen already"),
    "mixed": gettext_lazy("they are a mixture of different days"),
    "tampered": gettext_lazy("a file was changed on its way"),
    "too-long": gettext_lazy("a file is longer than was signed"),
    "unreadable": gettext_lazy("it can’t read them"),
    "not-signed": gettext_lazy("they are not among the signed ones"),
    "unknown-part": gettext_lazy("they hold something that is no rule and no hash"),
    "other-engine": gettext_lazy("they need a newer engine: install a newer agent there"),
    "not-compiling": gettext_lazy("its engine breaks on their rules"),
    "test-file-missed": gettext_lazy("with them the test file is not found"),
    "hits-clean": gettext_lazy("they find something in files that are clean"),
    "no-space": gettext_lazy("there is no room on its disk"),
    "crash": gettext_lazy("its update ended without a word"),
}
"""Every code of doorward_protocol.definitions.PROBLEMS."""


@dataclass(frozen=True)
class Told:
    """How up to date a device is, as a page says it."""

    version: str
    """The day and number of what it has; empty while it never told."""
    tone: str
    word: str | Promise
    age: str
    """How old its definitions are; empty for those of today, and where that is not known."""
    more: str
    """What it should have, or why it does not; empty where all is well."""


def of(device: Device, steps: Steps, now: datetime) -> Told:
    """Say how up to date this device is; `steps` from `rollout.steps()`."""
    found = overview.freshness(device, steps)
    tone, word = WORDS[found.how]
    version = telling.definitions(found.version) if found.version else ""
    return Told(version, tone, word, _age(found, now), _more(found))


def _age(found: overview.Freshness, now: datetime) -> str:
    days = (now - found.day).days if found.day else 0
    if days < 1:
        return ""
    return ngettext("%(days)d day old", "%(days)d days old", days) % {"days": days}


def _more(found: overview.Freshness) -> str:
    if found.how not in {"behind", "refused"}:
        return ""
    wanted = telling.definitions(found.wanted)
    if not found.code:
        return _("%(set)s is meant for it; it takes that within a quarter of an hour.") % {
            "set": wanted
        }
    known = PROBLEMS.get(found.code)
    words = {"set": wanted, "why": known or telling.reason(found.code)}
    return _("It did not take %(set)s: %(why)s. Those before stay in force.") % words


def seen(device: Device) -> tuple[object, ...]:
    """What changes this on a page."""
    return (device.definitions_version, device.definitions_refused, device.definitions_code)
