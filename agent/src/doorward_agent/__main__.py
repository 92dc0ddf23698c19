"""`doorward-agent`: the commands of the agent.

Only the parser lives here. Each command loads what it needs itself: a scan of files that are all
known clean takes a fraction of a second, and must not spend it on loading an HTTP client.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

CLEAN, FOUND, ERROR = 0, 1, 2
_STATUS = "Exit status: 0 clean or done, 1 something was found, 2 an error."


def main(words: Sequence[str] | None = None) -> int:
    """Carry out one command and answer its exit status."""
    arguments = _parser().parse_args(words)
    module = importlib.import_module(f"doorward_agent.commands.{arguments.module}")
    try:
        return int(module.run(arguments))
    except KeyboardInterrupt:
        sys.stderr.write("\nStopped.\n")
        return ERROR
    except BrokenPipeError:
        # Whoever read our output has gone; what is still buffered must not raise once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ERROR
    except Exception as problem:
        if arguments.debug or not _is_for_people(problem):
            raise
        from doorward_agent import terminal

        terminal.complain(str(problem))
        return ERROR


def _is_for_people(problem: Exception) -> bool:
    """Whether the message is a sentence of ours; every other error is a fault and shows itself.

    By name, so that looking does not load the modules they come from.
    """
    return any(
        f"{kind.__module__}.{kind.__name__}"
        in {
            "sqlite3.Error",
            "doorward_agent.config.StateUnusable",
            "doorward_agent.database.DatabaseUnusable",
            "doorward_agent.definitions.DefinitionsUnusable",
            "doorward_agent.identity.IdentityProblem",
            "doorward_agent.link.LinkProblem",
            "doorward_agent.scan.NothingToScan",
            "doorward_agent.commands.CommandRefused",
        }
        for kind in type(problem).__mro__
    )


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--state",
        metavar="DIR",
        help="the folder that holds everything of this agent (key, outbox, quarantine); "
        "default: DOORWARD_AGENT_STATE, else the usual place of the system",
    )
    common.add_argument(
        "--debug", action="store_true", help="show where an error came from, in full"
    )
    parser = argparse.ArgumentParser(
        prog="doorward-agent",
        description="Scans this computer, puts what it finds into quarantine, and reports.",
        epilog=_STATUS,
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def command(name: str, summary: str, module: str | None = None) -> argparse.ArgumentParser:
        made = commands.add_parser(
            name, parents=[common], help=summary, description=summary, epilog=_STATUS
        )
        made.set_defaults(module=module or name)
        return made

    enroll = command("enroll", "Add this computer to an account.")
    enroll.add_argument("--server", required=True, metavar="URL", help="the devices' address")
    enroll.add_argument(
        "--code",
        required=True,
        help='the code from "Add a device" on the account\'s page; - reads it from standard input',
    )
    enroll.add_argument("--name", default="", help="what to call this computer")
    enroll.add_argument(
        "--ca-file", default="", metavar="FILE", help="trust only the authorities in this PEM file"
    )
    enroll.add_argument(
        "--insecure-http",
        action="store_true",
        help="allow plain http:// to another computer: everybody on the way can listen and lie",
    )

    run = command("run", "Work in the background: check in, report, and scan when due.")
    run.add_argument(
        "--no-schedule",
        action="store_true",
        help="neither scan by itself nor watch files; only report",
    )
    run.add_argument("--verbose", action="store_true", help="say more about what happens")

    scan = command("scan", "Scan files and folders now; works without a server.")
    scan.add_argument("paths", nargs="*", metavar="PATH", help="what to scan")
    scan.add_argument("--json", action="store_true", help="print the result as JSON")
    scan.add_argument(
        "--no-quarantine", action="store_true", help="report only; leave every file where it is"
    )
    scan.add_argument("--no-report", action="store_true", help="tell the server nothing")
    scan.add_argument("--full-speed", action="store_true", help="do not wait for other programs")
    scan.add_argument("--scheduled", choices=("quick", "full", "custom"), help=argparse.SUPPRESS)

    update = command("update", "Take new definitions from the server now.")
    update.add_argument("--json", action="store_true", help="print the result as JSON")

    status = command("status", "Show how this computer is protected.")
    status.add_argument("--json", action="store_true", help="print it as JSON")
    status.add_argument(
        "--last-payload",
        nargs="?",
        const="newest",
        choices=("newest", "enroll", "token", "check-in", "commands", "reports"),
        help="print the very last bytes sent to the server (or the last to one of its paths)",
    )

    quarantine = command(
        "quarantine",
        "List, restore or delete what is in quarantine; list and end what was allowed.",
    )
    # The option may stand before or after the action.
    actions = quarantine.add_subparsers(title="actions", metavar="ACTION", required=True)
    later = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    later.add_argument("--state", metavar="DIR", help=argparse.SUPPRESS)
    later.add_argument("--debug", action="store_true", help=argparse.SUPPRESS)
    listing = actions.add_parser("list", parents=[later], help="what is in quarantine")
    listing.add_argument("--json", action="store_true", help="print it as JSON")
    listing.set_defaults(action="list")
    restore = actions.add_parser(
        "restore",
        parents=[later],
        help="put a file back where it was, and allow it there",
    )
    restore.add_argument("id", nargs="+", help="as `quarantine list` shows it")
    restore.add_argument("--to", metavar="PATH", help="put it here instead")
    restore.set_defaults(action="restore")
    delete = actions.add_parser("delete", parents=[later], help="destroy a quarantined file")
    delete.add_argument("id", nargs="+", help="as `quarantine list` shows it")
    delete.set_defaults(action="delete")
    permitted = actions.add_parser(
        "allowed", parents=[later], help="which restored files may stay where they are"
    )
    permitted.add_argument("--json", action="store_true", help="print it as JSON")
    permitted.set_defaults(action="allowed")
    forbid = actions.add_parser("forbid", parents=[later], help="allow a restored file no longer")
    forbid.add_argument("id", nargs="+", help="as `quarantine allowed` shows it")
    forbid.set_defaults(action="forbid")

    distant = command(
        "remote",
        "Say whether members may have this computer do things from afar: scan, restore, delete.",
    )
    distant.add_argument(
        "switch",
        nargs="?",
        choices=("on", "off"),
        help="allow it or refuse it from now on; without this word, show how it is",
    )

    # Started by `run` alone.
    watch = commands.add_parser("watch", parents=[common])
    watch.add_argument("--since", type=float)
    watch.set_defaults(module="watch")
    act = commands.add_parser("act", parents=[common])
    act.add_argument("uid")
    act.set_defaults(module="act")

    unenroll = command("unenroll", "Take this computer out of the account; its seat is free then.")
    unenroll.add_argument(
        "--local",
        action="store_true",
        help="only forget the account here, without telling the server (then remove it there too)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
