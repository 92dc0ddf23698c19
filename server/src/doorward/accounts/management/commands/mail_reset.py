"""``mail-reset EMAIL``: mail somebody the link to choose a new password."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from doorward.accounts import for_operators


class Command(BaseCommand):
    help = "Mail somebody the link to a new password: seen by them alone, good once, for 1 hour."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("email", metavar="EMAIL", help="The address they sign in with.")

    def handle(self, *_args: Any, **options: Any) -> None:
        try:
            user = for_operators.mail_reset(options["email"])
        except for_operators.NoSuchPerson as nobody:
            raise CommandError(f"Nobody signs in as {nobody}.", returncode=2) from None
        self.stdout.write(f"The link is on its way to {user.email}. Their second step stays.")
