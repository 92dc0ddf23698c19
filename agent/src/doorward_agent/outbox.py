"""Events not yet delivered: none lost, none delivered twice, and never more than fits.

An event is stored under an id it keeps for ever; the server stores an id once. So delivering is:
send, and forget what the server says it has. Killed anywhere in between, the agent sends again.
"""

from __future__ import annotations

import dataclasses
import sqlite3
from collections.abc import Iterable, Sequence
from typing import Final

from doorward_agent.database import note, noted_int, transaction

# What may be dropped when there is no room, least worth keeping first.
CHATTER: Final = 0  # "a scan began": the summary at its end says more
SUMMARY: Final = 1  # what a scan did
FINDING: Final = 2  # what was found and what became of it: never dropped


@dataclasses.dataclass(frozen=True)
class Event:
    """One message to the server, ready to be sent; `body` is JSON."""

    uid: str
    rank: int
    body: bytes


@dataclasses.dataclass(frozen=True)
class Depth:
    """How full the outbox is; `dropped` counts since this device was enrolled."""

    waiting: int
    waiting_bytes: int
    parked: int
    dropped: int


def next_sequence(db: sqlite3.Connection) -> int:
    """Answer the number of the next event, higher than any before."""
    with transaction(db):
        number = noted_int(db, "sequence") + 1
        note(db, "sequence", number)
    return number


def put(
    db: sqlite3.Connection,
    events: Iterable[Event],
    *,
    max_bytes: int,
    max_events: int,
) -> None:
    """Store the events, each id once, and make room by dropping what is least worth keeping."""
    with transaction(db):
        for event in events:
            db.execute(
                "INSERT INTO event (uid, rank, state, body) VALUES (?, ?, 'waiting', ?)"
                " ON CONFLICT (uid) DO NOTHING",
                (event.uid, event.rank, event.body),
            )
        _make_room(db, max_bytes=max_bytes, max_events=max_events)


def waiting(db: sqlite3.Connection, *, max_events: int, max_bytes: int) -> list[Event]:
    """Answer the oldest undelivered events that fit one message; at least one if there is any."""
    found: list[Event] = []
    size = 0
    cursor = db.execute(
        "SELECT uid, rank, body FROM event WHERE state = 'waiting' ORDER BY id LIMIT ?",
        (max_events,),
    )
    for uid, rank, body in cursor:
        size += len(body) + 1
        if found and size > max_bytes:
            break
        found.append(Event(uid, rank, body))
    return found


def newest(db: sqlite3.Connection) -> int:
    """Answer the number of the event that was put in last; 0 where there is none."""
    return int(db.execute("SELECT coalesce(max(id), 0) FROM event").fetchone()[0])


def is_waiting(db: sqlite3.Connection, up_to: int) -> bool:
    """Whether any event up to this number is still undelivered."""
    found = db.execute(
        "SELECT EXISTS (SELECT 1 FROM event WHERE state = 'waiting' AND id <= ?)", (up_to,)
    ).fetchone()
    return bool(found[0])


def delivered(db: sqlite3.Connection, uids: Sequence[str]) -> None:
    """Forget the events that the server has stored."""
    with transaction(db):
        db.executemany("DELETE FROM event WHERE uid = ?", [(uid,) for uid in uids])


def park(db: sqlite3.Connection, rejected: Iterable[tuple[str, str]], *, max_parked: int) -> None:
    """Set aside, with the reason, what the server will never accept; keep the newest ones."""
    with transaction(db):
        db.executemany(
            "UPDATE event SET state = 'parked', reason = ? WHERE uid = ? AND state = 'waiting'",
            [(reason[:500], uid) for uid, reason in rejected],
        )
        dropped = db.execute(
            "DELETE FROM event WHERE state = 'parked' AND id NOT IN"
            " (SELECT id FROM event WHERE state = 'parked' ORDER BY id DESC LIMIT ?)",
            (max_parked,),
        ).rowcount
        _count_dropped(db, dropped)


def parked(db: sqlite3.Connection) -> list[tuple[str, str]]:
    """Answer id and reason of each event the server refused."""
    return db.execute("SELECT uid, reason FROM event WHERE state = 'parked' ORDER BY id").fetchall()


def depth(db: sqlite3.Connection) -> Depth:
    """Answer how full the outbox is."""
    rows = {
        state: (events, size)
        for state, events, size in db.execute("SELECT state, events, bytes FROM depth")
    }
    return Depth(
        waiting=rows["waiting"][0],
        waiting_bytes=rows["waiting"][1],
        parked=rows["parked"][0],
        dropped=noted_int(db, "dropped"),
    )


def clear(db: sqlite3.Connection) -> None:
    """Forget every event and count: what one server was to be told is not another's business."""
    with transaction(db):
        db.execute("DELETE FROM event")
        note(db, "dropped", 0)


def intend(
    db: sqlite3.Connection, *, kind: str, key: str, uid: str, owner: str, body: bytes
) -> str:
    """Note what is about to be done, and answer its id.

    The same thing begun before and never finished keeps its first id, so that it is told once; its
    new owner and newest description replace the old ones.
    """
    with transaction(db):
        row = db.execute(
            "INSERT INTO intent (uid, kind, key, owner, body) VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT (kind, key) DO UPDATE SET owner = excluded.owner, body = excluded.body"
            " RETURNING uid",
            (uid, kind, key, owner, body),
        ).fetchone()
    return str(row[0])


def claim(db: sqlite3.Connection, uid: str, *, before: str, owner: str) -> bool:
    """Take over what an ended process had begun; answer whether nobody else was faster."""
    with transaction(db):
        changed = db.execute(
            "UPDATE intent SET owner = ? WHERE uid = ? AND owner = ?", (owner, uid, before)
        )
        return bool(changed.rowcount)


def fulfill(
    db: sqlite3.Connection,
    uid: str,
    events: Sequence[Event],
    *,
    max_bytes: int,
    max_events: int,
) -> None:
    """Store the events that tell how it ended and forget the intent, in one transaction.

    An intent that somebody else has fulfilled already stores nothing.
    """
    with transaction(db):
        if db.execute("DELETE FROM intent WHERE uid = ?", (uid,)).rowcount and events:
            put(db, events, max_bytes=max_bytes, max_events=max_events)


def intents(db: sqlite3.Connection) -> list[tuple[str, str, str, bytes]]:
    """Answer uid, kind, owner and body of everything begun and not finished, oldest first."""
    return db.execute("SELECT uid, kind, owner, body FROM intent ORDER BY rowid").fetchall()


def _make_room(db: sqlite3.Connection, *, max_bytes: int, max_events: int) -> None:
    dropped = 0
    while True:
        found = depth(db)
        over_events = found.waiting - max_events
        if found.waiting_bytes <= max_bytes and over_events <= 0:
            break
        rows = db.execute(
            "SELECT id, length(body) FROM event WHERE state = 'waiting' AND rank < ?"
            " ORDER BY rank, id LIMIT 100",
            (FINDING,),
        ).fetchall()
        if not rows:  # findings alone: they stay, whatever they weigh
            break
        over_bytes = found.waiting_bytes - max_bytes
        for identifier, size in rows:
            if over_bytes <= 0 and over_events <= 0:
                break
            db.execute("DELETE FROM event WHERE id = ?", (identifier,))
            over_bytes -= size
            over_events -= 1
            dropped += 1
    _count_dropped(db, dropped)


def _count_dropped(db: sqlite3.Connection, more: int) -> None:
    if more:
        note(db, "dropped", noted_int(db, "dropped") + more)
