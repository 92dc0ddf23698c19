"""`update`: take the definitions that the server means for this computer, now."""

from __future__ import annotations

import argparse
import json
import sys

from doorward_agent import database, hosts, link
from doorward_agent.commands import CommandRefused, config_of
from doorward_agent.terminal import say
from doorward_agent.updates import trust, updating


def run(arguments: argparse.Namespace) -> int:
    """Update, and say what is in force afterwards; whatever fails leaves what was."""
    config = config_of(arguments)
    hosts.lower_priority()
    db = database.open_in(config.state_dir)
    try:
        outcome = updating.run(config, db)
    except (trust.Refused, link.LinkProblem, updating.AlreadyUpdating) as problem:
        code = problem.code if isinstance(problem, trust.Refused) else "unreachable"
        if arguments.json:
            sys.stdout.write(json.dumps({"updated": False, "code": code, "why": str(problem)}))
            sys.stdout.write("\n")
            return 2
        raise CommandRefused(
            f"No new definitions ({code}): {str(problem).rstrip('.')}. What was in force, stays."
        ) from None
    finally:
        db.close()
    if arguments.json:
        sys.stdout.write(json.dumps({"updated": outcome.changed, "set": outcome.number}) + "\n")
    elif outcome.changed:
        say(f"Definitions {outcome.number} are in force.")
    else:
        which = outcome.number or "that came with the agent"
        say(f"Nothing new: definitions {which} stay in force.")
    return 0
