"""Keeps how far the chain of events goes, sealed with a key that is not in the database.

Whoever can write to the database can cut the chain's end, or reckon all of it anew. They can't say
so here without the key. A copy of the head lies beside the database too, so that setting back both
tables together is noticed; it is no part of a backup, and restoring one begins a new copy.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

import structlog
from django.conf import settings
from django.db import connection

log = structlog.get_logger(__name__)

GENESIS: Final = "0" * 64
FILE: Final = "audit-head"
"""In the data folder, beside the keys and not among them: a backup takes those along."""


@dataclass(frozen=True)
class Mark:
    """So many events, and the link of the last of them."""

    events: int
    chain: str


class HeadBroken(Exception):
    """There is no head, or it was not written by who has the key."""


def mark_of(events: int, chain: str) -> str:
    """Return what only the holder of the field key can write beside these two."""
    return hashlib.blake2b(
        f"{events} {chain}".encode(),
        key=settings.FIELD_KEY,
        person=b"doorward-audit",
        digest_size=32,
    ).hexdigest()


def read() -> Mark:
    """Return how far the chain was last sealed. Raises HeadBroken."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT events, chain, mark FROM audit_head WHERE id = 1")
        row = cursor.fetchone()
    return _checked(*row) if row else _broken("is missing")


def move(before: Mark, after: Mark) -> None:
    """Take the head along in the transaction that lengthened the chain from ``before``.

    A head that stands elsewhere stays as it is: it is what tells that events were cut off.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE audit_head SET events = %s, chain = %s, mark = %s"
            " WHERE id = 1 AND events = %s AND chain = %s AND mark = %s",
            [
                *(after.events, after.chain, mark_of(after.events, after.chain)),
                *(before.events, before.chain, mark_of(before.events, before.chain)),
            ],
        )
        moved = cursor.rowcount
    if moved != 1:
        log.error("audit.head.elsewhere", events=before.events)


def keep_apart() -> int:
    """Write the head beside the database, unless that copy is further; returns 1 when it wrote."""
    try:
        now, kept = read(), kept_apart()
    except HeadBroken:
        log.exception("audit.head.broken")
        return 0
    if kept is not None and kept.events >= now.events:
        if kept.events > now.events:
            log.error("audit.head.behind", events=now.events, were=kept.events)
        return 0
    path: Path = settings.DATA / FILE
    fresh = path.with_name(f".{FILE}.{secrets.token_hex(8)}")
    content = {"events": now.events, "chain": now.chain, "mark": mark_of(now.events, now.chain)}
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        json.dump(content, file)
    fresh.replace(path)
    return 1


def kept_apart() -> Mark | None:
    """Return the copy beside the database; None where none was written yet. Raises HeadBroken."""
    try:
        said: dict[str, Any] = json.loads((settings.DATA / FILE).read_bytes())
        return _checked(int(said["events"]), str(said["chain"]), str(said["mark"]))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        _broken("kept beside the database can't be read")


def _checked(events: int, chain: str, mark: str) -> Mark:
    if not secrets.compare_digest(mark.encode(), mark_of(events, chain).encode()):
        _broken("was written without the key")
    return Mark(events, chain)


def _broken(why: str) -> NoReturn:
    raise HeadBroken(f"the sealed count of events {why}")
