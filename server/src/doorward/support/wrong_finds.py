"""Somebody says that a find was wrong: exactly that file is let be for a time, and comes back.

The people who run the service hear of it by what would help to mend the rule, and by nothing else:
neither the file's name nor its place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from doorward.accounts import lockout
from doorward.accounts.models import Account, User
from doorward.accounts.origin import Origin
from doorward.audit import card_numbers, trail
from doorward.devices import commands
from doorward.devices.models import Command, Device
from doorward.protection import merging, policy
from doorward.protection.merging import State
from doorward.protection.models import SettingsVersion
from doorward.protection.policy import Delta
from doorward.support import asking
from doorward.support.asking import About
from doorward_protocol.messages import CommandArgs

LASTS_DAYS: Final = (7, 30, 90, 365)
"""For how long a file can be let be; never for ever, since a rule that was wrong gets mended."""
MOST_WORDS: Final = 1000
RESTORED_FOR: Final = commands.LIFE + commands.RESTORE_DELAY + timedelta(hours=1)
"""So long the device lets the file be by its own word: until it has surely heard of the settings,
which alone say so from then on. So taking them back takes effect."""


@dataclass(frozen=True)
class Find:
    """What was found, as a device reported it."""

    uid: UUID
    device: Device
    sha256: str
    path: str
    size: int
    rule: str
    title: str
    engine: str
    definitions_version: int
    quarantine_id: UUID | None
    """The file's id in quarantine; nothing when it is not there."""


@dataclass(frozen=True)
class Righted:
    """What was done: the change of the settings, the file on its way back, the ticket's number."""

    version: SettingsVersion | None
    command: Command | None
    ticket: str
    problem: commands.NotAsked | None = None


def exclusion_of(find: Find, until: datetime, *, for_all: bool) -> dict[str, Any]:
    """Return the exclusion of exactly this content: in its place, or ``for_all`` wherever it is."""
    entry: dict[str, Any] = {
        "sha256": find.sha256,
        "until": int(until.timestamp()) * 1000,
        "note": str(_("A find that was said to be wrong"))[:200],
    }
    return entry if for_all else {"path": find.path, **entry}


def delta(standing: State, find: Find, entry: Mapping[str, Any] | None, *, for_all: bool) -> Delta:
    """Return the change that has this exclusion stand there; without ``entry``, not any more.

    It is named after the find: said twice, it is the same one.
    """
    at = merging.pointer_of("exclusions", str(find.uid))
    if for_all:
        layer = standing.account
        values = merging.put(layer.values, at, entry)
        return Delta("account", None, {"values": values, "locked": sorted(layer.locked)})
    values = merging.put(dict(standing.own.get(find.device.pk, {})), at, entry)
    return Delta("device", find.device.pk, {"values": values} if values else None)


def standing_exclusion(standing: State, find: Find, now: datetime) -> datetime | None:
    """Return until when this find's file is let be on its device; nothing when it is not."""
    document, _locked = merging.effective(standing.layers(find.device.pk))
    entry = document["exclusions"].get(str(find.uid))
    if entry is None or not entry["active"] or entry["until"] is None:
        return None
    until = datetime.fromtimestamp(entry["until"] / 1000, UTC)
    return until if until > now else None


@transaction.atomic
def put_right(
    account: Account,
    find: Find,
    deltas: list[Delta],
    *,
    until: datetime,
    base: int,
    words: str,
    why: str,
    actor: User,
    origin: Origin,
) -> Righted:
    """Save the change that lets the file be, have it put back where it was, and tell operators.

    The caller has just had the person prove who they are. A device that can't be asked to put the
    file back is named in ``problem``; the rest holds. Raises policy.Invalid and policy.Outdated;
    then nothing was done.
    """
    version = policy.save(
        account, deltas, actor=actor, proven=True, why=why, base=base, origin=origin
    )
    command, problem = _on_its_way(account, find), None
    if command is None and find.quarantine_id is not None:
        args = CommandArgs(
            quarantine_id=find.quarantine_id, until=_allowed_until(find.device, until)
        )
        try:
            with transaction.atomic():
                command = commands.ask(
                    find.device, "quarantine.restore", args, actor=actor, origin=origin
                )
        except commands.NotAsked as refused:
            problem = refused
    ticket = _tell(account, find, words, actor)
    trail.record(
        "device.threat.disputed",
        account=account,
        actor=actor,
        target=str(find.uid),
        ip=origin.ip,
        agent=origin.agent,
        name=find.device.label,
        rule=find.rule,
        number=version.number if version is not None else None,
    )
    return Righted(version, command, ticket, problem)


def _on_its_way(account: Account, find: Find) -> Command | None:
    """Return the command that puts the file back already: it comes back once."""
    return next(
        (
            command
            for command in commands.open_about(account, {"quarantine.restore"})
            if command.device_id == find.device.pk
            and command.args.get("quarantine_id") == str(find.quarantine_id)
        ),
        None,
    )


def _allowed_until(device: Device, until: datetime) -> int:
    end = until
    if "settings" in device.capabilities:
        end = min(until, timezone.now() + RESTORED_FOR)
    return int(end.timestamp() * 1000)


def _tell(account: Account, find: Find, words: str, actor: User) -> str:
    if not lockout.allow((lockout.WRONG_FINDS, str(account.pk))):
        return ""
    lines = [
        _("Somebody says that this find was wrong:"),
        _("Rule: %(rule)s (%(title)s)") % {"rule": find.rule, "title": find.title},
        _("SHA-256: %(hash)s") % {"hash": find.sha256},
        _("Size: %(size)d bytes") % {"size": find.size},
        _("Engine: %(engine)s, definitions %(version)d")
        % {"engine": find.engine or "-", "version": find.definitions_version},
    ]
    said = card_numbers.hide(words.strip())[:MOST_WORDS]
    if said:
        lines += [_("They wrote:"), said]
    ticket = asking.note(user=actor, about=About.WRONG_FIND, words="\n".join(lines))
    return ticket.number
