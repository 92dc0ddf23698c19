"""`unenroll`: this computer leaves its account."""

from __future__ import annotations

import argparse
import asyncio
from importlib.metadata import version as version_of
from typing import Final

from doorward_agent import database, identity, link, outbox, upkeep
from doorward_agent.commands import CommandRefused, config_of
from doorward_agent.config import AgentConfig
from doorward_agent.terminal import say

_NEVER_JOINED: Final = "This computer is in no account: there is nothing to leave."


def run(arguments: argparse.Namespace) -> int:
    """Free the seat on the server, then forget key, account and undelivered events here.

    Quarantine stays. With --local the server is not told, for the day it cannot be.
    """
    config = config_of(arguments)
    if arguments.local:
        if not identity.leaves_traces(config.state_dir):
            raise CommandRefused(_NEVER_JOINED)
        _forget(config)
        say("Forgotten here. Remove the device on the account's page too, to free its seat.")
        return 0
    found = identity.load(config.state_dir)
    if found is None:
        raise CommandRefused(_NEVER_JOINED)
    if found.state == "enrolled":
        try:
            asyncio.run(_leave(config, found))
        except (link.ServerUnreachable, link.ServerBusy) as problem:
            raise CommandRefused(
                f"{problem} The seat is not free yet. Try again later, or run `unenroll --local` "
                "and remove the device on the account's page."
            ) from None
    _forget(config)
    say(
        {
            "enrolled": f"This computer has left the account at {found.server}.",
            "removed": f"This computer was removed from the account at {found.server} before; "
            "now it has forgotten it too.",
            "pending": f"This computer had not joined {found.server} yet; the try is forgotten.",
        }[found.state]
        + " It keeps its quarantine."
    )
    return 0


async def _leave(config: AgentConfig, found: identity.Identity) -> None:
    server = link.Link(
        found.server,
        identity.key(config.state_dir),
        version=version_of("doorward-agent"),
        clock_offset=found.clock_offset,
        insecure_http=found.insecure_http,
        ca_file=found.ca_file,
    )
    try:
        await server.leave()
    finally:
        await server.close()


def _forget(config: AgentConfig) -> None:
    identity.forget(config.state_dir)
    db = database.open_in(config.state_dir)
    try:
        outbox.clear(db)
        with database.transaction(db):
            db.execute(
                "DELETE FROM note WHERE name LIKE 'sent%' OR name IN"
                " ('facts_told', 'checked_in', 'entitlement', 'trouble', 'trouble_since',"
                " 'policy', 'policy_version', 'policy_refused', 'policy_pointer', 'seq')"
            )
            db.execute("DELETE FROM command")
            upkeep.begin_anew(config, db, None)
    finally:
        db.close()
