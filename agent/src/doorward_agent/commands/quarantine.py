"""`quarantine`: list, restore and delete what was put away; list and end what was allowed."""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import json
import sqlite3
import sys
import time
from collections.abc import Sequence
from typing import Literal

from doorward_agent import allowed, database, findings, identity, quarantine, treatment, vault
from doorward_agent.commands import CommandRefused, config_of
from doorward_agent.config import AgentConfig
from doorward_agent.quarantine import QuarantineRecord
from doorward_agent.terminal import complain, say, since, size


def run(arguments: argparse.Namespace) -> int:
    """Carry out one action; answer 2 where any part of it could not be done."""
    config = config_of(arguments)
    try:
        quarantine.recover(config)
        if arguments.action == "list":
            return _list(config, as_json=arguments.json)
        if arguments.action == "allowed":
            return _list_allowed(config, as_json=arguments.json)
        if arguments.action == "forbid":
            return _forbid(config, arguments.id)
        return _act(config, arguments)
    except (vault.VaultDamaged, allowed.AllowedUnreadable) as problem:
        raise CommandRefused(str(problem)) from problem


def _list(config: AgentConfig, *, as_json: bool) -> int:
    records = quarantine.list_records(config)
    damaged = quarantine.unreadable(config)
    if as_json:
        entries = [
            {
                "id": record.id,
                "path": record.path,
                "member": record.member,
                "size": record.size,
                "sha256": record.sha256,
                "rule": record.rule,
                "title": record.title,
                "severity": record.severity,
                "found_at": record.found_at,
                "put_away_at": record.put_away_at,
            }
            for record in records
        ]
        sys.stdout.write(json.dumps({"files": entries, "damaged": damaged}, indent=2) + "\n")
    else:
        for record in records:
            when = since(int(record.put_away_at * 1000), time.time())
            say(f"{record.id}  {size(record.size):>9}  {when:<14}  {record.title}  {record.path}")
        if not records:
            say("Quarantine is empty.")
    for identifier in damaged:
        complain(f"{identifier} is damaged and cannot be restored.")
    return 0


def _list_allowed(config: AgentConfig, *, as_json: bool) -> int:
    held = list(allowed.read(config).values())
    if as_json:
        entries = [
            {
                "id": each.id,
                "path": each.path,
                "sha256": each.sha256,
                "since": each.since,
                "until": each.until,
            }
            for each in held
        ]
        sys.stdout.write(json.dumps({"files": entries}, indent=2) + "\n")
        return 0
    for each in held:
        say(f"{each.id}  {since(int(each.since * 1000), time.time()):<14}  {each.path}")
        if each.until is not None:
            ends = dt.datetime.fromtimestamp(each.until).astimezone()
            word = "until" if each.until > time.time() else "ended"
            say(f"{'':18}{word} {ends:%d %B %Y, %H:%M}")
    if not held:
        say("Nothing is allowed: every file is judged by the rules alone.")
    return 0


def _forbid(config: AgentConfig, identifiers: Sequence[str]) -> int:
    status = 0
    for wanted in identifiers:
        found = [each for each in allowed.read(config).values() if each.id.startswith(wanted)]
        if len(found) != 1:
            complain(
                f"{wanted}: More than one id begins so; write more of it."
                if found
                else f"{wanted}: There is no such decision. `quarantine allowed` shows them."
            )
            status = 2
            continue
        allowed.remove(config, found[0].sha256, location=found[0].location)
        say(f"No longer allowed: {found[0].path}. A scan that finds it puts it away again.")
    return status


def _act(config: AgentConfig, arguments: argparse.Namespace) -> int:
    to = getattr(arguments, "to", None)
    if to and len(arguments.id) > 1:
        raise CommandRefused("With --to, name one file only.")
    status = 0
    with contextlib.ExitStack() as stack:
        db = _told(config)
        if db is not None:
            stack.callback(db.close)
            treatment.complete(config, db)
        for wanted in arguments.id:
            try:
                record = _named(config, wanted)
                _carry_out(config, db, record, arguments.action, to)
            except (quarantine.Refused, CommandRefused) as problem:
                complain(f"{wanted}: {problem}")
                status = 2
    return status


def _carry_out(
    config: AgentConfig,
    db: sqlite3.Connection | None,
    record: QuarantineRecord,
    action: Literal["restore", "delete"],
    to: str | None,
) -> None:
    """Do it, and tell the server; killed in between, the next command or `run` tells it."""
    uid = ""
    done: Literal["restored", "deleted"] = "restored" if action == "restore" else "deleted"
    if db is not None:
        uid = findings.intend_remediation(db, record, done)
    try:
        if action == "restore":
            quarantine.restore(config, record.id, destination=to)
        else:
            quarantine.delete(config, record.id)
    except quarantine.Refused:
        if db is not None:
            findings.drop(db, uid)
        raise
    if db is not None:
        told = findings.act_on(record, done)
        findings.tell_remediation(config, db, uid, told, int(time.time() * 1000))
    if action == "restore":
        say(f"Restored {to or record.path}, and allowed there from now on.")
        say("To end that: `quarantine allowed` lists such files, `quarantine forbid ID` ends it.")
    else:
        say(f"Deleted for good: {record.path}")


def _named(config: AgentConfig, wanted: str) -> QuarantineRecord:
    """Answer the one record whose id begins so."""
    found = [each for each in quarantine.list_records(config) if each.id.startswith(wanted)]
    exact = [each for each in found if each.id == wanted]
    if len(exact or found) == 1:
        return (exact or found)[0]
    if found:
        raise CommandRefused("More than one id begins so; write more of it.")
    raise CommandRefused("There is no such file in quarantine. `quarantine list` shows them.")


def _told(config: AgentConfig) -> sqlite3.Connection | None:
    """Answer the database where there is a server to be told."""
    found = identity.load(config.state_dir)
    if found is None or found.state != "enrolled":
        return None
    return database.open_in(config.state_dir)
