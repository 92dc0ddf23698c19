"""What was asked of a device, told truthfully: how far it is, and nothing before it is so."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from django.template.defaultfilters import filesizeformat
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from doorward.accounts.models import Shares
from doorward.devices.models import Command, CommandState, Device, Presence
from doorward.devices.sharing import Sight
from doorward.portal import telling, texts
from doorward.portal.templatetags import look

CONNECTED: Final = timedelta(seconds=150)
"""A device calls every minute; after this it is not called connected any more."""
SILENT: Final = timedelta(minutes=2)
"""A running scan tells how far it is every ten seconds at least; after this its age is shown."""

TITLES: Final[dict[str, Promise]] = {
    "scan.run": gettext_lazy("Scan"),
    "definitions.update": gettext_lazy("Update definitions"),
    "quarantine.restore": gettext_lazy("Put a file back"),
    "quarantine.delete": gettext_lazy("Delete a file for good"),
    "key.rotate": gettext_lazy("Change its key"),
    "diagnostics.collect": gettext_lazy("Look how the agent is"),
}
TONES: Final[dict[str, str]] = {
    CommandState.QUEUED: "waiting",
    CommandState.DELIVERED: "waiting",
    CommandState.RUNNING: "waiting",
    CommandState.DONE: "safe",
    CommandState.FAILED: "danger",
    CommandState.REJECTED: "attention",
    CommandState.INTERRUPTED: "attention",
    CommandState.EXPIRED: "unknown",
    CommandState.CANCELED: "unknown",
}
REASONS: Final[dict[str, Promise]] = {
    "switched-off-here": gettext_lazy("Somebody has switched remote actions off on this device."),
    "not-allowed": gettext_lazy("Its protection settings do not allow this from afar."),
    "unsupported": gettext_lazy("Its agent is too old for this."),
    "not-offered": gettext_lazy("It does not do this any more."),
    "invalid": gettext_lazy("It did not understand what was asked."),
    "device-removed": gettext_lazy("The device was removed."),
    "installed-anew": gettext_lazy("The agent was installed anew meanwhile."),
    "no-word": gettext_lazy("It has not been heard of for a week. Nobody knows how far it got."),
    "not-in-quarantine": gettext_lazy("The file is not in quarantine any more."),
    "occupied": gettext_lazy("Another file has taken its place. Put it elsewhere on the device."),
    "folder-changed": gettext_lazy(
        "Its folder is not the same any more. Put it elsewhere on the device."
    ),
    "no-space": gettext_lazy("There is no space left on the device."),
    "no-permission": gettext_lazy("The agent may not write there."),
    "nothing-there": gettext_lazy("There is no such file or folder on the device."),
}
"""The agent's and the server's words (agent: journal.py, act.py, quarantine.py)."""


@dataclass(frozen=True)
class Asked:
    """A command as a page shows it."""

    command: Command
    title: str
    tone: str
    word: str | Promise
    sentence: str
    figures: str
    may_cancel: bool


def of(command: Command, device: Device, sight: Sight, now: datetime) -> Asked:
    """Return the command in words, as far as this person may see of the device."""
    shares = sight.of(device)
    is_own = command.asked_by_id == sight.person
    word: str | Promise = CommandState(command.state).label
    if command.is_open and command.cancel_asked_at is not None:
        word = _("Stopping")
    elif is_connected(device, now) and command.state == CommandState.QUEUED:
        word = _("On its way")
    return Asked(
        command=command,
        title=_title(command, with_paths=shares == Shares.PATHS or is_own),
        # Nothing is wrong with the scan, but with what it found.
        tone="attention" if shows_threats(command, shares) else TONES[command.state],
        word=word,
        sentence=_sentence(command, device, now, with_detail=shares == Shares.PATHS),
        figures=_figures(command) if shares != Shares.STATE else "",
        may_cancel=command.is_open and command.cancel_asked_at is None,
    )


def shows_threats(command: Command, shares: Shares) -> bool:
    """Tell whether the scan found something that this person may know of."""
    is_done = command.state == CommandState.DONE
    return is_done and command.threats > 0 and shares != Shares.STATE


def seen(command: Command) -> tuple[object, ...]:
    """Return all that is shown of a command."""
    return (
        command.pk,
        command.state,
        command.heard_at,
        command.sent_at,
        command.cancel_asked_at,
        command.files,
        command.bytes,
        command.threats,
    )


def is_moving(command: Command, device: Device, now: datetime) -> bool:
    """Tell whether something may happen to it within seconds."""
    return command.is_open and is_connected(device, now)


def is_connected(device: Device, now: datetime) -> bool:
    """Tell whether the device called so lately that its next call is near."""
    last = last_seen(device)
    return last is not None and now - last < CONNECTED


def last_seen(device: Device) -> datetime | None:
    """Return when the device was last heard of."""
    try:
        return device.presence.last_seen
    except Presence.DoesNotExist:
        return None


def _title(command: Command, *, with_paths: bool) -> str:
    if command.kind != "scan.run":
        return str(TITLES.get(command.kind, command.kind))
    scope = command.args.get("scope")
    if scope:
        return _("Quick scan") if scope == "quick" else _("Full scan")
    paths = command.args.get("paths", [])
    if not with_paths:
        return _("Scan of a folder")
    first = texts.shortened(texts.visible(paths[0]), 80)
    if len(paths) == 1:
        return _("Scan of %(path)s") % {"path": first}
    return _("Scan of %(path)s and %(count)d more") % {"path": first, "count": len(paths) - 1}


def _sentence(command: Command, device: Device, now: datetime, *, with_detail: bool) -> str:
    name = {"name": texts.shortened(texts.visible(device.label), 60)}
    if command.is_open:
        return _open_sentence(command, device, now, name)
    reason = REASONS.get(command.code)
    said = texts.shortened(texts.visible(command.detail), 300) if with_detail else ""
    match command.state:
        case CommandState.DONE:
            return _done(command)
        case CommandState.FAILED:
            return str(reason or said or _("The device says that it did not work."))
        case CommandState.REJECTED:
            return str(reason or _("The device does not do this."))
        case CommandState.INTERRUPTED:
            return str(reason or _("The agent or the computer was stopped before the end of it."))
        case CommandState.EXPIRED:
            return _("%(name)s did not connect in time. Nothing was done.") % name
        case _:
            if reason:
                return str(reason)
            return _("It was stopped.") if command.started_at else _("Nothing was done.")


def _open_sentence(command: Command, device: Device, now: datetime, name: dict[str, str]) -> str:
    last = last_seen(device)
    ages = {
        **name,
        "ago": look.age_words(now - last) if last else "",
        "until": look.exact_words(command.not_after),
    }
    if command.cancel_asked_at is not None:
        if is_connected(device, now):
            return _("%(name)s stops it.") % name
        return _("Waiting for %(name)s to stop it: it was last seen %(ago)s.") % ages
    if command.state == CommandState.QUEUED:
        if command.not_before > now:
            return _(
                "Several files were put back already: this one waits until %(when)s, so that "
                "somebody can still stop it."
            ) % {"when": look.exact_words(command.not_before)}
        if is_connected(device, now):
            return _("%(name)s is told at its next call, within moments.") % name
        if last is None:
            return _("Waiting for the first call of %(name)s, until %(until)s.") % ages
        if command.sent_at is not None:
            return _("It was sent, but %(name)s has not answered: it was last seen %(ago)s.") % ages
        return _("Waiting for %(name)s: it was last seen %(ago)s. It has until %(until)s.") % ages
    if command.state == CommandState.DELIVERED:
        return _("%(name)s knows, and begins soon.") % name
    if command.heard_at is not None and now - command.heard_at > SILENT:
        return _("%(name)s last told how far it is %(ago)s.") % {
            **name,
            "ago": look.age_words(now - command.heard_at),
        }
    return ""


def _done(command: Command) -> str:
    match command.kind:
        case "quarantine.restore":
            return _("The file is back in its place, and allowed there.")
        case "quarantine.delete":
            return _("The file is gone for good.")
        case "key.rotate":
            return _("It has a new key.")
        case "diagnostics.collect":
            return _("It told how it is.")
        case "definitions.update":
            return _("It has the newest definitions that are meant for it.")
        case _:
            return ""


def _figures(command: Command) -> str:
    if command.kind != "scan.run" or not (command.files or command.is_open or command.threats):
        return ""
    if command.state not in {CommandState.RUNNING, CommandState.DONE} and not command.files:
        return ""
    files = ngettext("%(count)s file looked at", "%(count)s files looked at", command.files) % {
        "count": telling.number(command.files)
    }
    if command.threats:
        threats = ngettext("%(count)s threat found", "%(count)s threats found", command.threats) % {
            "count": telling.number(command.threats)
        }
    else:
        threats = _("nothing found") if not command.is_open else _("nothing found so far")
    read = _("%(size)s read") % {"size": filesizeformat(command.bytes)}
    return " · ".join((files, read, threats))
