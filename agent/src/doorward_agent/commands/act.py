"""`act`: carry out one command that `run` has received and begun; nobody types this.

The journal learns how it ended in the same transaction in which the outbox learns what happened.
Progress goes to standard output, a line each. Standard input is `run`'s: a line says that the
member wants it stopped, its end that the agent has ended.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import sqlite3
import threading
import time
from collections.abc import AsyncIterator
from importlib.metadata import version as version_of
from types import FrameType
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from doorward_agent import database, identity, journal, outbox
from doorward_agent.commands import CommandRefused, config_of
from doorward_agent.config import AgentConfig
from doorward_agent.database import note, noted, transaction
from doorward_agent.journal import Command
from doorward_protocol import messages, signing
from doorward_protocol.messages import CommandArgs, CommandProgress

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from doorward_agent import link
    from doorward_agent.scan import Progress

# Often while a person is likely to watch, seldom in a scan of hours; seconds.
_TELL_AT_LEAST: Final = 10.0
_TELL_AT_MOST: Final = 0.5
_TELL_SHARE: Final = 30.0
# Between two tries to learn which key counts; seconds.
_AGAIN_FIRST: Final = 2.0
_AGAIN_MOST: Final = 300.0


def run(arguments: argparse.Namespace) -> int:
    """Carry the command out and end it in the journal; answer 2 where that was not possible."""
    config = config_of(arguments)
    db = database.open_in(config.state_dir)
    try:
        command = journal.get(db, arguments.uid)
        if command is None or command.state != journal.RUNNING:
            raise CommandRefused("There is no such command to carry out.")
        if outbox.intents(db):
            from doorward_agent import treatment

            # What was begun before a crash, this very command perhaps, is completed first.
            treatment.complete(config, db)
        if (again := journal.get(db, command.uid)) is None or again.state != journal.RUNNING:
            return 0
        args = msgspec.json.decode(command.args, type=CommandArgs)
        _ACTS[command.kind](config, db, command, args)
    finally:
        db.close()
    return 0


def _end(
    db: sqlite3.Connection, command: Command, state: str, code: str = "", detail: str = ""
) -> None:
    detail = messages.fitted(detail, 500)
    journal.settle(db, command.uid, state, now=_now(), code=code, detail=detail)


def _now() -> int:
    return int(time.time() * 1000)


# ---------------------------------------------------------------------------------------- scanning


def _scan(config: AgentConfig, db: sqlite3.Connection, command: Command, args: CommandArgs) -> None:
    from doorward_agent import announce, events, findings, hosts, policy, scan, treatment

    hosts.lower_priority()
    _, settings = policy.current(db)
    config = policy.limits(config, settings)
    paths: list[str | os.PathLike[str]] = [*args.paths]
    if args.scope is not None:
        paths = [*(hosts.quick_paths() if args.scope == "quick" else hosts.full_paths())]
    if not paths:
        _end(db, command, "failed", "nothing-there", "None of these folders is on this computer.")
        return
    stop = _Stop()
    try:
        work = scan.run(paths, config, progress=_Feed().tell, cancel=stop.asked)
    except scan.NothingToScan as problem:
        _end(db, command, "failed", "nothing-there", str(problem))
        return
    put_away = settings.finding.action != "report"
    names = {"quick": "Quick scan", "full": "Full scan"}
    with work:
        teller = findings.Teller(
            config=config,
            db=db,
            scan_uid=events.new_uid(),
            name=names.get(args.scope or "", "Scan"),
            scheduled=False,
            paths=work.summary.paths if settings.sharing.scanned_folders else (),
            start_time=int(work.summary.started_at * 1000),
            command_uid=command.uid,
        )
        definitions = work.summary.definitions_version
        teller.begin(definitions)
        announcer = announce.Announcer(wanted=lambda: settings.on_device.notifications)
        resolved, problem_words = 0, ""
        try:
            for detection in work:
                outcome = treatment.treat(
                    detection,
                    config,
                    put_away=put_away,
                    teller=teller,
                    definitions_version=definitions,
                )
                resolved += not outcome.is_still_there
                announcer.found(detection, outcome)
        except Exception as problem:
            # By name: only a scan that reads a file has loaded the pool.
            if type(problem).__name__ != "EngineUnavailable":
                raise
            problem_words = f"The scan could not go on: {problem}"
        teller.end(work.summary, resolved=resolved, problem=problem_words, stopped_by=stop.why)
        announcer.close()


class _Feed:
    """Tells `run` how far the scan is, less often the longer it takes."""

    def __init__(self) -> None:
        self._told = 0.0

    def tell(self, progress: Progress) -> None:
        pace = min(max(progress.seconds / _TELL_SHARE, _TELL_AT_MOST), _TELL_AT_LEAST)
        if progress.seconds - self._told < pace:
            return
        self._told = progress.seconds
        line = messages.encode(
            CommandProgress(files=progress.done, bytes=progress.bytes, threats=progress.detections)
        )
        # Where nobody listens any more, standard input says so too.
        with contextlib.suppress(OSError):
            os.write(1, line + b"\n")


class _Stop:
    """Whether the scan should end, and why: the member's wish, or the agent's own end."""

    def __init__(self) -> None:
        self.why: Literal["canceled", "interrupted"] = "interrupted"
        self._asked = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._told)
        threading.Thread(target=self._listen, daemon=True).start()

    def asked(self) -> bool:
        return self._asked

    def _listen(self) -> None:
        # Not through sys.stdin: its lock would be held when the process wants to end.
        if os.read(0, 64).startswith(b"cancel"):
            self.why = "canceled"
        self._asked = True

    def _told(self, number: int, frame: FrameType | None) -> None:
        if self._asked:
            raise KeyboardInterrupt
        self._asked = True


# -------------------------------------------------------------------------------------- quarantine


def _quarantine(
    config: AgentConfig, db: sqlite3.Connection, command: Command, args: CommandArgs
) -> None:
    from doorward_agent import allowed, findings, quarantine, vault

    identifier = str(args.quarantine_id)
    restores = command.kind == "quarantine.restore"
    done: Literal["restored", "deleted"] = "restored" if restores else "deleted"
    try:
        record = quarantine.find(config, identifier)
    except quarantine.NotInQuarantine:
        _end(db, command, "failed", "not-in-quarantine", "It is not in quarantine any more.")
        return
    except vault.VaultDamaged as problem:
        _end(db, command, "failed", "vault-damaged", str(problem))
        return
    uid = findings.intend_remediation(db, record, done, command_uid=command.uid)
    try:
        if restores:
            until = None if args.until is None else args.until / 1000
            quarantine.restore(config, identifier, until=until)
        else:
            quarantine.delete(config, identifier)
    except quarantine.NotInQuarantine:
        return  # Somebody did it meanwhile: what is noted says so, and is completed from that.
    except (quarantine.Refused, vault.VaultDamaged, allowed.AllowedUnreadable) as problem:
        code = problem.reason if isinstance(problem, quarantine.Refused) else "vault-damaged"
        with transaction(db):
            findings.drop(db, uid)
            _end(db, command, "failed", code, str(problem))
        return
    told = findings.act_on(record, done, command_uid=command.uid)
    findings.tell_remediation(config, db, uid, told, _now())


# ----------------------------------------------------------------------------------------- the key


def _rotate(
    config: AgentConfig, db: sqlite3.Connection, command: Command, args: CommandArgs
) -> None:
    from doorward_agent import link

    who = identity.load(config.state_dir)
    if who is None:
        _end(db, command, "failed", "not-enrolled", "This computer is in no account any more.")
        return
    # Changed before a crash, by this very command: a second new key would be one effect too many.
    if noted(db, "key_changed_by") != command.uid:
        new = identity.next_key_or_new(config.state_dir)
        stop = _Stop()
        try:
            asyncio.run(_change_key(config, db, who, new, stop))
        except link.LinkProblem as problem:
            identity.forget_next_key(config.state_dir)
            _end(db, command, "failed", "refused", str(problem))
            return
        with transaction(db):
            note(db, "key_changed_by", command.uid)
    identity.adopt_next_key(config.state_dir)
    _end(db, command, "succeeded")
    # `run` notices, and speaks with the new key from now on.
    identity.save(config.state_dir, who)


async def _change_key(
    config: AgentConfig,
    db: sqlite3.Connection,
    who: identity.Identity,
    new: Ed25519PrivateKey,
    stop: _Stop,
) -> None:
    """Have the server take the new key. Until it is known which one counts, ask again."""
    from doorward_agent import link

    old = identity.key(config.state_dir)
    old_thumbprint = signing.thumbprint(signing.jwk_of(old.public_key()))
    request = messages.KeyChange(
        jwk=signing.jwk_of(new.public_key()), proof=signing.prove_key_change(new, old_thumbprint)
    )
    pause = _AGAIN_FIRST
    while True:
        try:
            async with _linked(db, who, old) as server:
                await server.change_key(request)
        except (link.ServerUnreachable, link.ServerBusy, link.AnswerUnreadable):
            if stop.asked() and stop.why == "interrupted":
                raise SystemExit(2) from None  # The agent's next start goes on with it.
            await asyncio.sleep(pause)
            pause = min(pause * 2, _AGAIN_MOST)
        except link.NotAuthorized:
            # After a long time off only the new one may count.
            async with _linked(db, who, new) as server:
                await server.prove()
            return
        else:
            return


@contextlib.asynccontextmanager
async def _linked(
    db: sqlite3.Connection, who: identity.Identity, key: Ed25519PrivateKey
) -> AsyncIterator[link.Link]:
    from doorward_agent import delivery, link

    server = link.Link(
        who.server,
        key,
        version=version_of("doorward-agent"),
        clock_offset=who.clock_offset,
        insecure_http=who.insecure_http,
        ca_file=who.ca_file,
        sent=lambda path, body, compressed: delivery.remember_sent(
            db, path, body, compressed=compressed, now=_now()
        ),
    )
    try:
        yield server
    finally:
        await server.close()


# ------------------------------------------------------------------------------------- definitions


def _update(
    config: AgentConfig, db: sqlite3.Connection, command: Command, args: CommandArgs
) -> None:
    from doorward_agent import link
    from doorward_agent.updates import trust, updating

    try:
        outcome = updating.run(config, db)
    except trust.Refused as problem:
        _end(db, command, "failed", problem.code, str(problem))
    except link.LinkProblem as problem:
        _end(db, command, "failed", "unreachable", str(problem))
    except updating.AlreadyUpdating as problem:
        _end(db, command, "failed", "busy", str(problem))
    else:
        what = "were put in force" if outcome.changed else "are in force; there are no newer ones"
        _end(
            db, command, "succeeded", detail=f"Definitions {outcome.number or 'of its own'} {what}."
        )


# ------------------------------------------------------------------------------------- diagnostics


def _diagnose(
    config: AgentConfig, db: sqlite3.Connection, command: Command, args: CommandArgs
) -> None:
    from doorward_agent import diagnostics

    report = messages.fitted(diagnostics.text(config, db), messages.MAX_DIAGNOSTICS)
    journal.settle(db, command.uid, "succeeded", now=_now(), report=report)


_ACTS: Final = {
    "scan.run": _scan,
    "definitions.update": _update,
    "quarantine.restore": _quarantine,
    "quarantine.delete": _quarantine,
    "key.rotate": _rotate,
    "diagnostics.collect": _diagnose,
}
KINDS: Final = frozenset(_ACTS)
