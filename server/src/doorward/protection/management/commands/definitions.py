"""``definitions``: how sets of definitions are on their way, and holding or taking them back."""

from __future__ import annotations

import getpass
import json
import logging
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from doorward.protection.definitions import (
    importing,
    named_keys,
    overview,
    repository,
    rollout,
    sets,
    sources,
)
from doorward.protection.models import DefinitionSet


class Command(BaseCommand):
    help = "Sets of definitions: who has which, and pause, resume, release, take-back, remove."

    def add_arguments(self, parser: ArgumentParser) -> None:
        acts = parser.add_subparsers(dest="act", metavar="status|pause|resume|release|take-back")
        status = acts.add_parser("status", help="Who has which set; also without a word.")
        status.add_argument("--json", action="store_true", help="print it as JSON")
        for act, what in (
            ("pause", "Give a set to no further device; those that have it keep it."),
            ("resume", "Let a held set go on to a few devices first."),
            ("release", "Give a set to every device now."),
        ):
            acts.add_parser(act, help=what).add_argument("number", type=int, help="the set")
        back = acts.add_parser(
            "take-back", help="Bring an earlier set back as a new one, for every device at once."
        )
        back.add_argument("--to", type=int, metavar="NUMBER", help="which; else the one before")
        back.add_argument("--why", default="", help="remembered, and shown to operators")
        named_keys.add_options(back)
        remove = acts.add_parser("remove", help="Take what was imported under a name out again.")
        remove.add_argument("name", help="as `status` shows it")
        named_keys.add_options(remove)

    def handle(self, *_args: Any, **options: Any) -> None:
        logging.getLogger("tuf").setLevel(logging.WARNING)
        act = (options["act"] or "status").replace("-", "_")
        with named_keys.refusals_told("changed", rollout.NotPossible, sources.SourceRefused):
            try:
                getattr(self, f"_{act}")(options)
            except sets.NothingToSign:
                raise CommandError("Nothing was changed: it is the same.", returncode=1) from None

    def _status(self, options: dict[str, Any]) -> None:
        found = overview.all_of_it()
        if options.get("json"):
            self.stdout.write(json.dumps(found, indent=2, default=str))
            return
        if not found["signed_until"]:
            self.stdout.write("Nothing is signed yet: `definitions-keys make FOLDER` begins.")
            return
        for role, until in found["signed_until"].items():
            self.stdout.write(f"{role:<10} signed until {until:%Y-%m-%d %H:%M} UTC")
        self.stdout.write("")
        if not found["sets"]:
            self.stdout.write("No set yet: `import-definitions PATH` makes one.")
        for one in found["sets"]:
            self.stdout.write(
                f"{one['number']}  {one['words']:<26} {one['taken']} have it, "
                f"{one['refused']} refused; {one['rules']} rules, {one['hashes']} hashes"
            )
            if one["why"]:
                self.stdout.write(f"            {one['why']}")
        self.stdout.write("")
        for source in found["sources"]:
            marks = ", only suspicious" if source["suspicious"] else ""
            self.stdout.write(
                f"{source['name']}: {source['rules']} rules, {source['hashes']} hashes{marks}; "
                f"imported {source['imported_at']:%Y-%m-%d %H:%M} UTC"
            )
        devices = found["devices"]
        self.stdout.write(
            f"Devices: {devices['up_to_date']} up to date, {devices['behind']} behind, "
            f"{devices['refusing']} refuse the newest, {devices['unable']} take none."
        )

    def _pause(self, options: dict[str, Any]) -> None:
        made = rollout.pause(options["number"], by=getpass.getuser(), now=timezone.now())
        self._moved(made)

    def _resume(self, options: dict[str, Any]) -> None:
        self._moved(self._go_on(options, everybody=False))

    def _release(self, options: dict[str, Any]) -> None:
        self._moved(self._go_on(options, everybody=True))

    def _go_on(self, options: dict[str, Any], *, everybody: bool) -> DefinitionSet:
        return rollout.resume(
            options["number"], by=getpass.getuser(), now=timezone.now(), everybody=everybody
        )

    def _take_back(self, options: dict[str, Any]) -> None:
        to = None
        if options["to"] is not None:
            to = DefinitionSet.objects.filter(pk=options["to"]).first()
            if to is None:
                raise rollout.NotPossible(f"there is no set {options['to']}.")
        made = sets.take_back(
            named_keys.targets_signer(options),
            to=to,
            by=getpass.getuser(),
            now=repository.moment(),
            why=options["why"],
        )
        self.stdout.write(f"Set {made.number} holds what {made.like} held, for every device.")

    def _remove(self, options: dict[str, Any]) -> None:
        made = importing.remove(
            options["name"],
            named_keys.targets_signer(options),
            by=getpass.getuser(),
            now=repository.moment(),
        )
        self.stdout.write(f"{options['name']} is out of it.")
        if made is not None:
            self._moved(made)

    def _moved(self, made: DefinitionSet) -> None:
        self.stdout.write(f"Set {made.number}: {made.get_state_display().lower()}.")
