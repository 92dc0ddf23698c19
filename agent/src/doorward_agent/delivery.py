"""Delivering the outbox: batches up, what is stored is forgotten, what is refused is set aside."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
import time
from collections.abc import Callable
from importlib.metadata import version as version_of
from typing import Final

import msgspec

from doorward_agent import identity, link, outbox
from doorward_agent.config import AgentConfig
from doorward_agent.database import note, noted, transaction
from doorward_agent.terminal import counted
from doorward_protocol import messages

log = logging.getLogger("doorward_agent")

# Room for `{"events":[]}` and for what an HTTP server in between may add to its count.
_REPORT_BYTES: Final = messages.MAX_REPORT_BYTES - 1024
# How long a command waits for its own report; `run` has all the time there is.
_ONCE_SECONDS: Final = 20.0


async def all_waiting(
    db: sqlite3.Connection,
    server: link.Link,
    *,
    max_parked: int,
    clock: Callable[[], float] = time.time,
) -> int:
    """Deliver everything that waits in the outbox; answer how many events the server has stored.

    What the server will never take is parked, so that one bad event holds nothing up.
    """
    total = 0
    most = messages.MAX_EVENTS
    while batch := outbox.waiting(db, max_events=most, max_bytes=_REPORT_BYTES):
        try:
            answer = await server.report([event.body for event in batch])
        except link.MessageRefused as problem:
            if problem.rejected:
                answer = messages.ReportAnswer(rejected=problem.rejected)
            elif len(batch) > 1:
                # Something in it is refused and not named: halves of it will tell what.
                most = len(batch) // 2
                continue
            else:
                outbox.park(db, [(batch[0].uid, str(problem))], max_parked=max_parked)
                most = messages.MAX_EVENTS
                continue
        stored = {str(uid) for uid in (*answer.accepted, *answer.duplicate)}
        mine = [event.uid for event in batch if event.uid in stored]
        refused = [
            (batch[each.index].uid, each.detail)
            for each in answer.rejected
            if each.index < len(batch)
        ]
        if not mine and not refused:
            raise link.AnswerUnreadable("The server's answer names none of the events it was sent.")
        with transaction(db):
            outbox.delivered(db, mine)
            outbox.park(db, refused, max_parked=max_parked)
            note(db, "delivered", int(clock() * 1000))
        for _, reason in refused:
            log.warning("the server refused an event: %s", reason)
        total += len(mine)
        most = messages.MAX_EVENTS
    return total


def once(config: AgentConfig, who: identity.Identity, db: sqlite3.Connection) -> str:
    """Deliver now, for a command that ends soon; answer a sentence for people about how it went."""
    try:
        total = asyncio.run(_once(config, who, db))
    except link.DeviceRemoved as problem:
        mark_removed(config, who)
        return str(problem)
    except (link.LinkProblem, identity.IdentityProblem, TimeoutError, sqlite3.Error) as problem:
        reason = str(problem) or "The server was too slow."
        return f"Not reported yet: {reason} It stays in the outbox."
    return f"Reported to {who.server} ({counted(total, 'event')})."


def by_another(config: AgentConfig, db: sqlite3.Connection) -> str:
    """Watch `run` deliver what waits, for a moment; answer a sentence for people about how far it
    came."""
    last = outbox.newest(db)
    deadline = time.monotonic() + config.watch_patience
    while outbox.is_waiting(db, last):
        if isinstance(trouble := noted(db, "trouble"), str):
            return f"Not reported yet: {trouble} It stays in the outbox."
        if time.monotonic() > deadline:
            return "Not reported yet: it waits in the outbox, and the running agent delivers it."
        time.sleep(0.05)
    return "Reported by the running agent."


async def _once(config: AgentConfig, who: identity.Identity, db: sqlite3.Connection) -> int:
    server = link.Link(
        who.server,
        identity.key(config.state_dir),
        version=version_of("doorward-agent"),
        clock_offset=who.clock_offset,
        insecure_http=who.insecure_http,
        ca_file=who.ca_file,
        sent=lambda path, body, compressed: remember_sent(
            db, path, body, compressed=compressed, now=int(time.time() * 1000)
        ),
    )
    try:
        async with asyncio.timeout(_ONCE_SECONDS):
            return await all_waiting(db, server, max_parked=config.outbox_parked)
    finally:
        await server.close()


def mark_removed(config: AgentConfig, who: identity.Identity) -> None:
    """Note that the server no longer knows this device: it protects, and reports nothing."""
    import dataclasses
    import datetime as dt

    stamp = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    identity.save(config.state_dir, dataclasses.replace(who, state="removed", removed_at=stamp))


def remember_sent(
    db: sqlite3.Connection, path: str, body: bytes, *, compressed: bool, now: int
) -> None:
    """Keep the last bytes sent to each path, so that people can see what leaves this computer."""
    shown = body
    if path == "/enroll":
        # A code joins one device once; still, it does not belong on a disk.
        found = msgspec.json.decode(body)
        found["code"] = "(not kept)"
        shown = msgspec.json.encode(found)
    with contextlib.suppress(sqlite3.Error), transaction(db):
        note(db, f"sent{path}", shown)
        note(db, f"sent_at{path}", now)
        note(db, f"sent_compressed{path}", int(compressed))
