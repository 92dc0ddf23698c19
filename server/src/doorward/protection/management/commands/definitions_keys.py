"""``definitions-keys``: make, show, renew and replace the keys that sign definitions."""

from __future__ import annotations

import logging
from argparse import ArgumentParser
from pathlib import Path
from typing import Any, Final

from django.core.management.base import BaseCommand

from doorward.protection.definitions import keys, named_keys, passphrases, repository
from doorward.protection.definitions.keys import Ceremony

_PLACES: Final = "key files, or folders that hold them"


class Command(BaseCommand):
    help = (
        "The keys that sign definitions. Two of three root keys say which other keys count; they "
        "belong on media that is put away, never on the server."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        acts = parser.add_subparsers(dest="act", required=True, metavar="make|show|renew|replace")
        make = acts.add_parser("make", help="Make all keys, once, and begin to sign.")
        make.add_argument("folder", type=Path, help="where root and targets keys are written")
        make.add_argument("--roots", type=int, default=keys.ROOT_KEYS, help="root keys (3)")
        make.add_argument(
            "--threshold", type=int, default=keys.THRESHOLD, help="how many must sign (2)"
        )
        _new_passphrase(make)
        acts.add_parser("show", help="Which keys count, and until when signatures last.")
        renew = acts.add_parser("renew", help="Sign root and targets for another year.")
        named_keys.add_options(renew, places=_PLACES)
        replace = acts.add_parser("replace", help="Take one key out and a fresh one in.")
        replace.add_argument("role", choices=("root", "targets", "snapshot", "timestamp"))
        replace.add_argument("old", help="the key that leaves, as `show` begins it")
        replace.add_argument("--new", type=Path, metavar="FILE", help="where the new key goes")
        named_keys.add_options(replace, places=_PLACES)
        _new_passphrase(replace, "--new-passphrase-file")

    def handle(self, *_args: Any, **options: Any) -> None:
        logging.getLogger("tuf").setLevel(logging.WARNING)
        with named_keys.refusals_told("changed"):
            getattr(self, f"_{options['act']}")(options)

    def _make(self, options: dict[str, Any]) -> None:
        ceremony = keys.make(
            options["folder"],
            passphrase=self._passphrase(options, "passphrase_file"),
            now=repository.moment(),
            roots=options["roots"],
            threshold=options["threshold"],
        )
        self.stdout.write("These keys were made:")
        for path in ceremony.files:
            self.stdout.write(f"  {path}")
        self._say_root(ceremony)
        self.stdout.write(
            "Put each root key on a medium of its own, apart from the others, and keep targets.pem "
            "where definitions are imported. Nobody can replace a lost threshold of root keys: "
            "devices would have to be enrolled anew."
        )

    def _show(self, options: dict[str, Any]) -> None:
        tree = repository.load()
        self.stdout.write(
            f"root {tree.root.signed.version}, threshold {tree.root.signed.roles['root'].threshold}"
        )
        for role, key in keys.names(tree.root.signed):
            self.stdout.write(f"  {role:<10} {key.keyid[:16]}")
        for signed in (
            tree.root.signed,
            tree.targets.signed,
            tree.snapshot.signed,
            tree.timestamp.signed,
        ):
            self.stdout.write(f"{signed.type:<10} signed until {signed.expires:%Y-%m-%d %H:%M} UTC")

    def _renew(self, options: dict[str, Any]) -> None:
        ceremony = keys.renew(
            keys.key_files(options["keys"]),
            ask=passphrases.of_files(options["passphrase_file"]),
            now=repository.moment(),
        )
        self._say_root(ceremony)

    def _replace(self, options: dict[str, Any]) -> None:
        online = options["role"] in repository.ONLINE
        ceremony = keys.replace(
            options["role"],
            keys.key_files(options["keys"]),
            old=options["old"],
            new_file=options["new"],
            passphrase=None if online else self._passphrase(options, "new_passphrase_file"),
            ask=passphrases.of_files(options["passphrase_file"]),
            now=repository.moment(),
        )
        for path in ceremony.files:
            self.stdout.write(f"The new key is {path}. Destroy the old one.")
        self._say_root(ceremony)

    def _passphrase(self, options: dict[str, Any], name: str) -> bytes | None:
        if options["no_passphrase"]:
            return None
        return passphrases.new(options[name])

    def _say_root(self, ceremony: Ceremony) -> None:
        self.stdout.write(
            f"Root {ceremony.root.signed.version} is published, signed until "
            f"{ceremony.expires:%Y-%m-%d}. Renew it before."
        )


def _new_passphrase(parser: ArgumentParser, name: str = "--passphrase-file") -> None:
    told = "holds the passphrase, instead of asking for it"
    named_keys.add_passphrase_file(parser, told, name=name)
    parser.add_argument(
        "--no-passphrase",
        action="store_true",
        help="write the new keys unencrypted: only onto media that encrypts by itself",
    )
