"""The agent's one database: what happened and is not yet told, and what is still to be done.

Outbox and journal share it so that both change in one transaction. Several processes open it at
once (`run`, and a `scan` beside it); SQLite's write lock keeps them apart.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

FILE: Final = "agent.db"
# How long one process waits for another's write; each write takes milliseconds.
BUSY_SECONDS: Final = 10.0

_SCHEMA: Final = (
    """
    CREATE TABLE event (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        uid TEXT NOT NULL UNIQUE,
        rank INTEGER NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('waiting', 'parked')),
        body BLOB NOT NULL,
        reason TEXT NOT NULL DEFAULT ''
    ) STRICT;
    CREATE INDEX event_next ON event (state, id);
    CREATE INDEX event_least ON event (state, rank, id);
    -- Counters kept by triggers: the depth is asked for twice a second and must not cost a scan.
    CREATE TABLE depth (
        state TEXT PRIMARY KEY, events INTEGER NOT NULL, bytes INTEGER NOT NULL
    ) STRICT;
    INSERT INTO depth VALUES ('waiting', 0, 0), ('parked', 0, 0);
    CREATE TRIGGER event_in AFTER INSERT ON event BEGIN
        UPDATE depth SET events = events + 1, bytes = bytes + length(new.body)
        WHERE state = new.state;
    END;
    CREATE TRIGGER event_out AFTER DELETE ON event BEGIN
        UPDATE depth SET events = events - 1, bytes = bytes - length(old.body)
        WHERE state = old.state;
    END;
    CREATE TRIGGER event_moved AFTER UPDATE OF state ON event BEGIN
        UPDATE depth SET events = events - 1, bytes = bytes - length(old.body)
        WHERE state = old.state;
        UPDATE depth SET events = events + 1, bytes = bytes + length(new.body)
        WHERE state = new.state;
    END;
    -- Begun and not yet finished: what a killed process leaves for the next one to complete.
    CREATE TABLE intent (
        uid TEXT PRIMARY KEY,
        kind TEXT NOT NULL CHECK (kind IN ('finding', 'scan', 'remediation')),
        key TEXT NOT NULL,
        owner TEXT NOT NULL,
        body BLOB NOT NULL,
        UNIQUE (kind, key)
    ) STRICT;
    CREATE TABLE command (
        uid TEXT PRIMARY KEY,
        seq INTEGER NOT NULL,
        kind TEXT NOT NULL,
        args BLOB NOT NULL,
        not_after INTEGER,
        state TEXT NOT NULL,
        code TEXT NOT NULL DEFAULT '',
        detail TEXT NOT NULL DEFAULT '',
        received_at INTEGER NOT NULL,
        started_at INTEGER,
        ended_at INTEGER,
        answered TEXT NOT NULL DEFAULT ''
    ) STRICT;
    CREATE TABLE note (name TEXT PRIMARY KEY, value ANY) STRICT;
    """,
    """
    -- What the last word about a command tells beside its state.
    ALTER TABLE command ADD COLUMN report TEXT NOT NULL DEFAULT '';
    ALTER TABLE command ADD COLUMN files INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE command ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE command ADD COLUMN threats INTEGER NOT NULL DEFAULT 0;
    """,
)


class DatabaseUnusable(Exception):
    """The database cannot be opened or written; the message says what to do."""


def open_in(state: Path) -> sqlite3.Connection:
    """Open the state folder's database, made or brought up to date where needed.

    A damaged file is moved aside, kept, and replaced by an empty one: protection goes on. Raises
    DatabaseUnusable where not even that works (no space, no permission).
    """
    path = state / FILE
    try:
        try:
            return _open(path)
        except sqlite3.DatabaseError as problem:
            if problem.sqlite_errorcode not in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
                raise
            stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
            path.rename(path.with_name(f"{FILE}.damaged-{stamp}"))
            for leftover in (f"{FILE}-wal", f"{FILE}-shm"):
                path.with_name(leftover).unlink(missing_ok=True)
            return _open(path)
    except (sqlite3.Error, OSError) as problem:
        raise DatabaseUnusable(
            f"{path} cannot be used: {problem}. Check the free space and the owner of that folder."
        ) from problem


@contextlib.contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """Make everything inside happen together or not at all; inside another one, be part of it."""
    if _inside(db):
        yield
        return
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        # A failed COMMIT (disk full) may leave the transaction open.
        if _inside(db):
            db.execute("ROLLBACK")
        raise


def note(db: sqlite3.Connection, name: str, value: str | int | float | bytes | None) -> None:
    """Remember one value under this name."""
    db.execute(
        "INSERT INTO note VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        (name, value),
    )


def noted(db: sqlite3.Connection, name: str) -> str | int | float | bytes | None:
    """Answer what was remembered under this name, or None."""
    row = db.execute("SELECT value FROM note WHERE name = ?", (name,)).fetchone()
    return None if row is None else row[0]


def noted_int(db: sqlite3.Connection, name: str, default: int = 0) -> int:
    """Answer the whole number remembered under this name, or the default."""
    found = noted(db, name)
    return found if isinstance(found, int) else default


def version(db: sqlite3.Connection) -> int:
    """Answer a number that changes when another process has written; costs a few microseconds."""
    return int(db.execute("PRAGMA data_version").fetchone()[0])


def _inside(db: sqlite3.Connection) -> bool:
    return db.in_transaction


def _open(path: Path) -> sqlite3.Connection:
    # Made by hand first, since SQLite would take the mode from the umask.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    for part in (path, path.with_name(f"{FILE}-wal"), path.with_name(f"{FILE}-shm")):
        _close_to_others(part)
    db = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        db.execute("PRAGMA journal_mode = WAL")
        # FULL: what has been noted must outlive a power cut, not only a killed process.
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA trusted_schema = OFF")
        if db.execute("PRAGMA user_version").fetchone()[0] < len(_SCHEMA):
            with transaction(db):
                done = db.execute("PRAGMA user_version").fetchone()[0]
                for number, script in enumerate(_SCHEMA[done:], start=done + 1):
                    for statement in _statements(script):
                        db.execute(statement)
                    db.execute(f"PRAGMA user_version = {number}")
    except BaseException:
        db.close()
        raise
    return db


def _close_to_others(file: Path) -> None:
    """Make a file its owner's alone, also one that was brought back without its mode."""
    with contextlib.suppress(FileNotFoundError):
        if os.name == "posix" and file.stat().st_mode & 0o077:
            file.chmod(0o600)


def _statements(script: str) -> Iterator[str]:
    """Split a script where SQLite itself says that a statement is complete.

    `executescript` would commit on its own, and half a schema could stay behind.
    """
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
