"""`status`: how this computer is protected, and what was last sent to the server."""

from __future__ import annotations

import argparse
import datetime as dt
import json
import sqlite3
import sys
import time
from typing import Any, Final

import msgspec

from doorward_agent import database, identity, lock, outbox, policy, protection, remote, schedule
from doorward_agent.commands import config_of, own_command
from doorward_agent.config import AgentConfig
from doorward_agent.database import noted, noted_int
from doorward_agent.terminal import complain, printable, say, since, size
from doorward_protocol import messages
from doorward_protocol import protection as words

NOT_RUNNING: Final = "not-running"
"""The one reason that only the device itself can give: who does not run tells nobody."""
_REASONS: Final = {**words.REASONS, NOT_RUNNING: "its agent is not running"}


def run(arguments: argparse.Namespace) -> int:
    """Print the state, for people or as JSON; or the last bytes sent."""
    config = config_of(arguments)
    db = database.open_in(config.state_dir)
    try:
        if arguments.last_payload:
            return _last_payload(db, arguments.last_payload)
        found = gather(config, db, start=own_command(arguments, "run"))
    finally:
        db.close()
    if arguments.json:
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
    else:
        _print(found)
    return 0


def gather(config: AgentConfig, db: sqlite3.Connection, *, start: str) -> dict[str, Any]:
    """Answer everything there is to know; times in milliseconds UTC, 0 for never."""
    who = identity.load(config.state_dir)
    depth = outbox.depth(db)
    guard = protection.state(config, db)
    settings, in_force = policy.current(db)
    running = lock.is_held(config.state_dir / lock.RUN_FILE)
    scanned = noted_int(db, "scanned")
    upcoming = schedule.next_moment(
        policy.plans(in_force),
        dt.datetime.now(dt.UTC),
        device=who.device_id if who else "",
    )
    return {
        "state_dir": str(config.state_dir),
        "enrollment": {
            "state": who.state if who else "none",
            "server": who.server if who else "",
            "device_id": who.device_id if who else "",
            "name": who.name if who else "",
            "since": who.enrolled_at if who else "",
        },
        "running": running,
        "remote_actions": not remote.is_off(config),
        "start": start,
        "real_time": _real_time(db, running=running),
        "protection": _protection(guard, running=running),
        "definitions_version": protection.definitions_version(config),
        "definitions": {
            "wanted": noted_int(db, "definitions_wanted"),
            "refused": noted_int(db, "definitions_refused"),
            "code": str(noted(db, "definitions_code") or ""),
            "why": str(noted(db, "definitions_detail") or ""),
            "checked": noted_int(db, "definitions_checked"),
        },
        "settings_version": settings,
        "settings_refused": msgspec.to_builtins(policy.refused(db)),
        "entitlement": str(noted(db, "entitlement") or ""),
        "last_check_in": noted_int(db, "checked_in"),
        "last_delivery": noted_int(db, "delivered"),
        "trouble": str(noted(db, "trouble") or ""),
        "trouble_since": noted_int(db, "trouble_since") if noted(db, "trouble") else 0,
        "outbox": {
            "waiting": depth.waiting,
            "bytes": depth.waiting_bytes,
            "refused": depth.parked,
            "dropped": depth.dropped,
        },
        "last_scan": scanned,
        "last_quick_scan": noted_int(db, "started.quick"),
        "last_full_scan": noted_int(db, "started.full"),
        "next_scan": int(upcoming.timestamp() * 1000) if upcoming else 0,
    }


def _real_time(db: sqlite3.Connection, *, running: bool) -> dict[str, Any]:
    """Answer how files are watched as they are written; only `run` does it."""
    found = protection.real_time(db) if running else None
    if found is None:
        return {"state": "off", "words": "off: the agent is not running, or with --no-schedule"}
    return {**msgspec.to_builtins(found), "words": found.words}


def _protection(guard: messages.ProtectionState, *, running: bool) -> dict[str, Any]:
    """Answer the state as it is now: what `run` tells of itself holds only while it runs."""
    reasons = list(guard.reasons)
    if not running:
        reasons.append(NOT_RUNNING)
    state = "attention" if reasons and guard.state == "protected" else guard.state
    return {"state": state, "reasons": reasons}


def _print(found: dict[str, Any]) -> None:
    now = time.time()
    who = found["enrollment"]
    lines = {
        "none": "not enrolled; scans work, nobody is told",
        "pending": f"not yet enrolled with {who['server']}: run `enroll` again",
        "enrolled": f"{who['server']} (device {who['device_id']})",
        "removed": f"removed from {who['server']}: it protects, but reports nothing",
    }
    beside = [_REASONS.get(reason, reason) for reason in found["protection"]["reasons"]]
    if not found["last_scan"]:
        beside.append(words.NOT_SCANNED)
    told = f" ({', '.join(beside)})" if beside else ""
    say(f"Protection    {words.STATES[found['protection']['state']]}{told}")
    say(f"Real-time     {printable(found['real_time']['words'])}")
    say(f"Definitions   {found['definitions_version'] or 'none'}")
    newer = found["definitions"]
    if newer["checked"]:
        say(f"              asked for newer ones {since(newer['checked'], now)}")
    if newer["code"]:
        say(f"              not taken ({newer['code']}): {printable(newer['why'])}")
    say(f"Account       {lines[who['state']]}")
    if who["name"]:
        say(f"Name          {who['name']}")
    start = found["start"]
    say(f"Agent         {'running' if found['running'] else f'not running; start it: {start}'}")
    if lapsed := subscription(found["entitlement"]):
        say(f"Subscription  {lapsed}")
    if not found["remote_actions"]:
        say("Remote        off: what members ask from afar is refused (`remote on` allows it)")
    if who["state"] == "enrolled":
        say(f"Last check-in {since(found['last_check_in'], now)}")
        waiting = found["outbox"]
        say(
            f"Outbox        {waiting['waiting']} waiting ({size(waiting['bytes'])}), "
            f"{waiting['refused']} refused, {waiting['dropped']} dropped"
        )
        if found["trouble"]:
            say(f"Trouble       {found['trouble']} (since {since(found['trouble_since'], now)})")
    if refused := found["settings_refused"]:
        where = printable(refused["pointer"]) or "the whole"
        say(f"Settings      the newest could not be applied ({refused['code']} at {where});")
        say("              the ones before stay in force")
    say(f"Last scan     {since(found['last_scan'], now)}")
    say(f"Quick scan    {since(found['last_quick_scan'], now)}")
    say(f"Full scan     {since(found['last_full_scan'], now)}")
    if found["next_scan"]:
        moment = dt.datetime.fromtimestamp(found["next_scan"] / 1000).astimezone()
        say(f"Next scan     {moment:%A %d %B, %H:%M}")


def subscription(state: str) -> str:
    """Say it when the account's subscription has lapsed; "" while there is nothing to say."""
    if state in {"", "active", "grace"}:
        return ""
    return f"{state}: this computer goes on protecting; see the account's page"


def _last_payload(db: sqlite3.Connection, which: str) -> int:
    """Print the last bytes sent, exactly; everything said about them goes to standard error."""
    rows = db.execute(
        "SELECT substr(name, 8), value FROM note WHERE name LIKE 'sent_at%' ORDER BY value DESC"
    ).fetchall()
    chosen = [(path, at) for path, at in rows if which in {"newest", path.strip("/")}]
    if not chosen:
        complain("Nothing was sent to the server yet.")
        return 0
    path, at = chosen[0]
    body = noted(db, f"sent{path}")
    body = body if isinstance(body, bytes) else b""
    moment = dt.datetime.fromtimestamp(at / 1000, dt.UTC).isoformat(timespec="seconds")
    complain(f"Sent to {path} at {moment}, {len(body)} bytes of JSON:")
    if noted_int(db, f"sent_compressed{path}"):
        complain("(it went over the wire compressed with zstd; shown here unpacked)")
    if path == "/enroll":
        complain("(the code is left out here)")
    if sys.stdout.isatty():
        # A file name inside could steer a terminal; a pipe gets the bytes as they were.
        say(printable(body.decode(errors="replace")))
    else:
        sys.stdout.buffer.write(body)
        sys.stdout.buffer.flush()
    return 0
