"""`run`: the agent at work, until it is told to stop."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import sys
from importlib.metadata import version as version_of

from doorward_agent import database, identity, lock, loop
from doorward_agent.commands import CommandRefused, config_of


def run(arguments: argparse.Namespace) -> int:
    """Check in, report and scan when due, until SIGTERM; only one process may for one folder."""
    config = config_of(arguments)
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.DEBUG if arguments.verbose else logging.INFO,
        format="%(asctime)s %(levelname)s %(message)s",
    )
    # They name every request; ours say what matters, and never a secret.
    for noisy in ("httpx2", "httpcore2", "asyncio", "http_message_signatures"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(lock.held(config.state_dir / lock.RUN_FILE))
        except lock.LockHeld:
            raise CommandRefused(
                f"Another agent is already running on {config.state_dir}. One is enough."
            ) from None
        found = identity.load(config.state_dir)
        if found is None or found.state == "pending":
            logging.getLogger("doorward_agent").info(
                "not enrolled: protecting this computer without reporting to anybody"
            )
        db = database.open_in(config.state_dir)
        stack.callback(db.close)
        work = loop.Loop(
            config,
            db,
            version=version_of("doorward-agent"),
            scheduled_scans=not arguments.no_schedule,
            real_time=not arguments.no_schedule,
        )
        asyncio.run(work.run())
    return 0
