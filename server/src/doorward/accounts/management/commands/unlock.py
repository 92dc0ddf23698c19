"""``unlock EMAIL``: let new browsers try again at once."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from doorward.accounts import unlock


class Command(BaseCommand):
    help = "Forget the wrong passwords counted for an address, so that new browsers may try again."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("email", metavar="EMAIL", help="The address they sign in with.")

    def handle(self, *_args: Any, **options: Any) -> None:
        if unlock.by_operator(options["email"]):
            self.stdout.write("Unlocked: new browsers may try again now.")
        else:
            self.stdout.write("Nothing was locked for this address.")
