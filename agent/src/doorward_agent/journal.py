"""Commands received, running, done: each is carried out at most once and answered truthfully.

A command moves only forward: received → running → one of the terminal states, which is final. The
answer still owed to the server is part of the same row, so no crash can part the two.
"""

from __future__ import annotations

import dataclasses
import sqlite3
from collections.abc import Collection
from typing import Final

from doorward_agent.database import transaction

RECEIVED: Final = "received"
RUNNING: Final = "running"
TERMINAL: Final = frozenset(
    {"succeeded", "failed", "rejected", "interrupted", "expired", "canceled"}
)
# Kinds that a crash leaves either done, which shows, or not begun: they may simply run again.
REPEATABLE: Final = frozenset(
    {
        "definitions.update",
        "quarantine.restore",
        "quarantine.delete",
        "key.rotate",
        "diagnostics.collect",
    }
)


class CommandMisplaced(Exception):
    """The command is unknown, or not in a state from which this step is possible."""


@dataclasses.dataclass(frozen=True)
class Command:
    """One command as it came, with how far it got; times in milliseconds UTC."""

    uid: str
    seq: int
    kind: str
    args: bytes
    not_after: int | None
    state: str = RECEIVED
    code: str = ""
    detail: str = ""
    received_at: int = 0
    started_at: int | None = None
    ended_at: int | None = None
    answered: str = ""
    report: str = ""
    files: int = 0
    bytes: int = 0
    threats: int = 0


@dataclasses.dataclass(frozen=True)
class Counts:
    """How much a scan has looked at."""

    files: int = 0
    bytes: int = 0
    threats: int = 0


_REFUSALS: Final = {
    "switched-off-here": "Remote actions are switched off on this computer.",
    "not-allowed": "The protection settings do not allow such remote actions.",
    "invalid": "The command is not one that this agent carries out.",
}
_COLUMNS: Final = ", ".join(field.name for field in dataclasses.fields(Command))


def receive(
    db: sqlite3.Connection,
    *,
    uid: str,
    seq: int,
    kind: str,
    args: bytes,
    not_after: int | None,
    now: int,
    known: Collection[str],
    refusal: str = "",
) -> bool:
    """Note a command; answer whether it is new. The same one again is only answered again: a
    server that was restored from a backup has forgotten what it was told.

    One of a kind this agent does not know is `rejected` at once, as is any with a `refusal` (the
    code that says why), and one that came too late is `expired`: none of them is ever begun.
    """
    state, code, detail = RECEIVED, "", ""
    if refusal:
        state, code, detail = "rejected", refusal, _REFUSALS.get(refusal, "")
    elif kind not in known:
        state, code = "rejected", "unsupported"
        detail = "This agent does not know this kind of command."
    elif not_after is not None and now > not_after:
        state, code, detail = "expired", "expired", "The command came after its last moment."
    with transaction(db):
        is_new = bool(
            db.execute(
                "INSERT INTO command (uid, seq, kind, args, not_after, state, code, detail,"
                " received_at, ended_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
                " ON CONFLICT (uid) DO NOTHING",
                (uid, seq, kind, args, not_after, state, code, detail, now)
                + ((now,) if state in TERMINAL else (None,)),
            ).rowcount
        )
        if not is_new:
            db.execute("UPDATE command SET answered = '' WHERE uid = ?", (uid,))
        return is_new


def start(db: sqlite3.Connection, uid: str, *, now: int) -> bool:
    """Begin a received command; answer False where its last moment has passed (it is `expired`)."""
    with transaction(db):
        found = _require(db, uid, RECEIVED)
        # One that a crash interrupted was begun in time, and is brought to its end.
        is_late = found.not_after is not None and now > found.not_after
        if is_late and found.started_at is None:
            _move(db, uid, "expired", code="expired", detail="Not begun in time.", now=now)
            return False
        db.execute(
            "UPDATE command SET state = ?, started_at = coalesce(started_at, ?) WHERE uid = ?",
            (RUNNING, now, uid),
        )
        return True


def finish(
    db: sqlite3.Connection,
    uid: str,
    state: str,
    *,
    now: int,
    code: str = "",
    detail: str = "",
    report: str = "",
    counts: Counts | None = None,
) -> None:
    """End a running command in a terminal state, for good."""
    if not settle(db, uid, state, now=now, code=code, detail=detail, report=report, counts=counts):
        raise CommandMisplaced(f"command {uid} is not {RUNNING}")


def settle(
    db: sqlite3.Connection,
    uid: str,
    state: str,
    *,
    now: int,
    code: str = "",
    detail: str = "",
    report: str = "",
    counts: Counts | None = None,
) -> bool:
    """End a command in a terminal state if it is running; answer whether it was.

    Called within the transaction that stores what is to be told of it: both happen or neither.
    """
    if state not in TERMINAL:
        raise CommandMisplaced(f"{state} is no end of a command")
    with transaction(db):
        found = get(db, uid)
        if found is None or found.state != RUNNING:
            return False
        _move(db, uid, state, code=code, detail=detail, now=now)
        seen = counts or Counts()
        db.execute(
            "UPDATE command SET report = ?, files = ?, bytes = ?, threats = ? WHERE uid = ?",
            (report, seen.files, seen.bytes, seen.threats, uid),
        )
    return True


def cancel(db: sqlite3.Connection, uid: str, *, now: int) -> str:
    """Take back a command that has not begun; answer the state that it is in, "" for none.

    One that runs is not changed: whoever carries it out has to stop first.
    """
    with transaction(db):
        found = get(db, uid)
        if found is None:
            return ""
        if found.state != RECEIVED:
            return found.state
        _move(db, uid, "canceled", code="canceled", detail="", now=now)
        return "canceled"


def get(db: sqlite3.Connection, uid: str) -> Command | None:
    """Answer the command, or None where it was never received."""
    found = _select(db, "uid = ?", uid)
    return found[0] if found else None


def recover(
    db: sqlite3.Connection,
    *,
    now: int,
    repeatable: Collection[str],
    alive: Collection[str] = (),
) -> list[str]:
    """Settle what a crash left running, and answer the ids that may simply run again.

    Other kinds end as `interrupted`: nobody knows how far they got. Those `alive`, which a process
    that outlived the crash still carries out, are left to it.
    """
    again = []
    with transaction(db):
        for found in _select(db, "state = ?", RUNNING):
            if found.uid in alive:
                continue
            if found.kind in repeatable:
                db.execute("UPDATE command SET state = ? WHERE uid = ?", (RECEIVED, found.uid))
                again.append(found.uid)
            else:
                _move(
                    db,
                    found.uid,
                    "interrupted",
                    code="crash",
                    detail="The agent ended while this was running.",
                    now=now,
                )
    return again


def ready(db: sqlite3.Connection) -> list[Command]:
    """Answer the commands to carry out, in the server's order."""
    return _select(db, "state = ?", RECEIVED)


def unanswered(db: sqlite3.Connection, limit: int = 100) -> list[Command]:
    """Answer the commands whose present state the server has not been told, in its order."""
    return _select(db, "answered <> state", limit=limit)


def answered(db: sqlite3.Connection, uid: str, state: str) -> None:
    """Note that the server knows this state of the command."""
    with transaction(db):
        db.execute("UPDATE command SET answered = ? WHERE uid = ?", (state, uid))


def forget_before(db: sqlite3.Connection, moment: int) -> int:
    """Remove commands that ended, and were answered, before this moment; answer how many."""
    with transaction(db):
        return db.execute(
            "DELETE FROM command WHERE ended_at < ? AND answered = state", (moment,)
        ).rowcount


def _require(db: sqlite3.Connection, uid: str, state: str) -> Command:
    found = _select(db, "uid = ?", uid)
    if not found or found[0].state != state:
        raise CommandMisplaced(f"command {uid} is not {state}")
    return found[0]


def _move(
    db: sqlite3.Connection, uid: str, state: str, *, code: str, detail: str, now: int
) -> None:
    db.execute(
        "UPDATE command SET state = ?, code = ?, detail = ?, ended_at = ? WHERE uid = ?",
        (state, code, detail[:500], now, uid),
    )


def _select(db: sqlite3.Connection, where: str, *values: str, limit: int = 1000) -> list[Command]:
    rows = db.execute(
        f"SELECT {_COLUMNS} FROM command WHERE {where} ORDER BY seq, rowid LIMIT ?",  # nosec B608 # noqa: S608 - our own words only
        (*values, limit),
    )
    return [Command(*row) for row in rows]
