"""``reset-2fa EMAIL``: two operators vouch for somebody who lost their second step and mailbox."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from getpass import getpass
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from doorward.accounts import operators, recovery
from doorward.accounts.models import User, canonical_email


class Command(BaseCommand):
    help = (
        "Vouch that somebody lost their second step. One operator asks with a reason, another "
        "confirms; then the person waits, announced to them, and gets in once with a link from "
        "you and their password."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("email", metavar="EMAIL", help="The address the person signs in with.")
        parser.add_argument(
            "--by", metavar="OPERATOR", required=True, help="Your own address, as an operator."
        )
        act = parser.add_mutually_exclusive_group(required=True)
        act.add_argument(
            "--reason",
            help="Ask, and say how you know that it is them (at least ten letters).",
        )
        act.add_argument(
            "--confirm", action="store_true", help="Confirm what another operator asked for."
        )
        act.add_argument("--refuse", action="store_true", help="End it, confirmed or not.")

    def handle(self, *_args: Any, **options: Any) -> None:
        reason = options["reason"]
        if reason is not None and len(" ".join(reason.split())) < recovery.LEAST_REASON:
            raise CommandError(
                f"Say in at least {recovery.LEAST_REASON} letters how you know that it is them.",
                returncode=2,
            )
        operator = self._operator(options["by"])
        user = User.objects.filter(email=canonical_email(options["email"]), is_active=True).first()
        if user is None:
            raise CommandError("There is no account with this address.")
        try:
            if reason is not None:
                self._ask(user, operator, reason)
            elif options["confirm"]:
                self._confirm(user, operator)
            else:
                recovery.refuse_as_operator(user, operator)
                self.stdout.write("Ended. Their second step stays as it is.")
        except recovery.SameOperator:
            raise CommandError(
                "Two different operators have to vouch, and neither for themselves."
            ) from None
        except recovery.NotOpen:
            raise CommandError(
                "Nothing waits for that. Ask first: reset-2fa EMAIL --by OPERATOR --reason ..."
            ) from None
        except recovery.AskedAlready:
            raise CommandError(
                "This was asked for already. Another operator may --confirm or --refuse it."
            ) from None
        except recovery.NoSecondStep:
            raise CommandError("Only their password is asked: there is nothing to reset.") from None

    def _operator(self, address: str) -> User:
        password = self._asked("Your password: ")
        code = self._asked("A code from your authenticator app, or a recovery code: ")
        try:
            return operators.prove(address, password, code)
        except operators.NotProven:
            raise CommandError(
                "That is no operator's address, password and fresh code, or it was tried too often."
            ) from None
        except operators.NoFactor:
            raise CommandError(
                "You have no authenticator app and no recovery codes. Set one up where you sign in."
            ) from None

    def _ask(self, user: User, operator: User, reason: str) -> None:
        asked = recovery.ask_as_operator(user, operator, reason)
        self.stdout.write(f"Asked for {user.email}. Nothing has changed yet.")
        self.stdout.write(
            f"Another operator confirms it until {asked.ends_at:%Y-%m-%d %H:%M} UTC with:"
        )
        self.stdout.write(f"  doorward reset-2fa {user.email} --by THEIR-ADDRESS --confirm")

    def _confirm(self, user: User, operator: User) -> None:
        asked = recovery.asked_by_operator(user)
        if asked is not None and asked.first_operator is not None:
            self.stdout.write(f"{asked.first_operator.email} asked for it: {asked.reason}")
        began, link = recovery.confirm_as_operator(user, operator)
        self.stdout.write(
            f"Confirmed. {user.email} is told by mail and on every page where they are signed in, "
            f"and can stop it. The wait of {settings.RECOVERY_DELAY_HOURS} h ends "
            f"{began.ready_at:%Y-%m-%d %H:%M} UTC."
        )
        self.stdout.write("Give them this link yourself. It opens once, then, by their password:")
        self.stdout.write(link)

    @staticmethod
    def _asked(question: str) -> str:
        # Never an argument: the shell would remember it. From a pipe, a line each.
        if sys.stdin.isatty():
            return getpass(question)
        return sys.stdin.readline().rstrip("\r\n")
