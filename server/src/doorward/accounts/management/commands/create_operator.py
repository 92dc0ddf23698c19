"""``create-operator EMAIL``: make an operator, who chooses a password by a link."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from doorward.accounts import setup


class Command(BaseCommand):
    help = (
        "Make somebody an operator and print a link, good once for 72 hours, to choose a password."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("email", metavar="EMAIL", help="The address they will sign in with.")

    def handle(self, *_args: Any, **options: Any) -> None:
        try:
            made = setup.make_operator(options["email"])
        except setup.NotAnAddress:
            raise CommandError("That is not an email address.", returncode=2) from None
        verb = "was created as" if made.is_new else "is now"
        self.stdout.write(f"{made.user.email} {verb} an operator.")
        if made.link:
            self.stdout.write("Open this link within 72 hours to choose a password. It works once:")
            self.stdout.write(made.link)
        else:
            self.stdout.write("They sign in with the password they have.")
