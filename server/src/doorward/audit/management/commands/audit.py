"""``audit verify``: is the record of what happened as it was written?"""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from doorward.audit import trail


class Command(BaseCommand):
    help = "Check the record of what happened: `audit verify` walks the whole chain of events."

    def add_arguments(self, parser: ArgumentParser) -> None:
        acts = parser.add_subparsers(dest="act", required=True, metavar="verify")
        acts.add_parser(
            "verify",
            help="Walk the chain; exit 1 and name the first event that is not as it was written.",
        )

    def handle(self, *_args: Any, **_options: Any) -> None:
        trail.seal()
        verdict = trail.verify()
        if not verdict.intact:
            raise CommandError(f"The record was tampered with: {verdict.fault}.", returncode=1)
        self.stdout.write(
            f"{verdict.events} events, none changed, removed or slipped in. "
            f"Last link {verdict.last}."
        )
