"""``end-sessions EMAIL | --everybody``: sign somebody, or everybody, out everywhere."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from doorward.accounts import for_operators


class Command(BaseCommand):
    help = "Sign somebody out of every browser and app, or everybody. Devices stay as they are."

    def add_arguments(self, parser: ArgumentParser) -> None:
        whose = parser.add_mutually_exclusive_group(required=True)
        whose.add_argument(
            "email", metavar="EMAIL", nargs="?", help="The address they sign in with."
        )
        whose.add_argument("--everybody", action="store_true", help="Every person on this server.")

    def handle(self, *_args: Any, **options: Any) -> None:
        if options["everybody"]:
            ended = for_operators.end_all_sessions()
        else:
            try:
                ended = for_operators.end_sessions(options["email"])
            except for_operators.NoSuchPerson as nobody:
                raise CommandError(f"Nobody signs in as {nobody}.", returncode=2) from None
        self.stdout.write(f"Ended {ended} session{'' if ended == 1 else 's'}.")
