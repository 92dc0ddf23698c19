"""Asks for passphrases: from a file that the operator names, else at the terminal."""

from __future__ import annotations

import getpass
from collections.abc import Callable
from pathlib import Path

from doorward.protection.definitions import keys
from doorward.protection.definitions.keys import KeysRefused


def of_files(source: Path | None) -> Callable[[Path], bytes | None]:
    """What answers the passphrase of each key file; each is asked for once."""
    known: dict[Path, bytes] = {}
    given = None if source is None else _in_file(source)

    def ask(path: Path) -> bytes | None:
        if given is not None:
            return given
        if path not in known:
            known[path] = _typed(f"Passphrase of {path}: ").encode()
        return known[path]

    return ask


def new(source: Path | None) -> bytes:
    """A passphrase for new keys. Raises KeysRefused for one that is too short or typed unlike."""
    if source is not None:
        try:
            return keys.checked_passphrase(_in_file(source).decode())
        except UnicodeDecodeError:
            raise KeysRefused(f"{source} holds no text: a passphrase can be typed.") from None
    first = _typed("Passphrase for the new keys: ")
    checked = keys.checked_passphrase(first)
    if _typed("The same again: ") != first:
        raise KeysRefused("the two are not the same.")
    return checked


def _typed(question: str) -> str:
    try:
        return getpass.getpass(question)
    except EOFError:
        raise KeysRefused(
            "nobody is there to type the passphrase; name a file that holds it."
        ) from None


def _in_file(source: Path) -> bytes:
    try:
        return source.read_bytes().strip()
    except OSError as error:
        raise KeysRefused(f"{source}: {(error.strerror or 'unreadable').lower()}.") from None
