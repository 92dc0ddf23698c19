"""The key files that an operator names to a command, and what it says where it can’t sign."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from django.core.management.base import CommandError
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Targets

from doorward.protection.definitions import keys, passphrases, repository
from doorward.protection.definitions.keys import KeysRefused

ONLY_TARGETS: Final = "targets.pem, or the folder that holds it"


def add_options(
    parser: ArgumentParser, *, places: str = ONLY_TARGETS, required: bool = True
) -> None:
    """Let the command be told where the keys are and where their passphrase is."""
    parser.add_argument(
        "--keys",
        type=Path,
        nargs="+",
        required=required,
        default=[],
        metavar="PLACE",
        help=places,
    )
    add_passphrase_file(parser, "instead of asking for it")


def add_passphrase_file(
    parser: ArgumentParser, told: str, *, name: str = "--passphrase-file"
) -> None:
    """Let the command be told of a file that holds a passphrase."""
    parser.add_argument(name, type=Path, metavar="FILE", help=told)


def targets_signer(options: dict[str, Any]) -> CryptoSigner:
    """The named key that signs sets. Raises KeysRefused, repository.NoRepository."""
    # The one that is called as it was made first: the others need not be opened.
    files = sorted(keys.key_files(options["keys"]), key=lambda path: path.stem != Targets.type)
    return keys.targets_signer(files, ask=passphrases.of_files(options["passphrase_file"]))


@contextmanager
def refusals_told(nothing_was: str, *also: type[Exception], hint: str = "") -> Iterator[None]:
    """Turn what keeps a command from signing, and these refusals, into a sentence and status 1."""
    refusals: tuple[type[Exception], ...] = (KeysRefused, *also)
    try:
        yield
    except refusals as refused:
        raise CommandError(f"Nothing was {nothing_was}: {refused}", returncode=1) from None
    except repository.NoRepository:
        raise CommandError(
            f"There are no keys yet: `definitions-keys make FOLDER` makes them.{hint}",
            returncode=1,
        ) from None
    except repository.RepositoryDamaged as damaged:
        raise CommandError(f"{damaged}. Restore a backup.", returncode=1) from None
