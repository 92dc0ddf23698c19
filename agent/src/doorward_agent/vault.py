# Why not pathlib: plain descriptors and paths: what is written here is flushed step by step.
# ruff: noqa: PTH105, PTH123
"""Files put away: encrypted with AES-256-GCM, piece by piece, with what is needed to bring them
back.

A vault file is ``DWVAULT1``, 16 bytes of salt, the size of a piece, 4 bytes of length and the
sealed facts (JSON), then the sealed pieces. Each file has a key of its own (HKDF-SHA256 of the
vault's key and the salt). Each piece is sealed under its number and whether it is the last (the
STREAM construction: Hoang, Reyhanitabar, Rogaway, Vizár 2015), so that pieces cannot be cut off,
swapped or taken from another file.

Encryption keeps what is inside from running, and from being found again by any scanner; it does not
keep it from the person who runs the agent, who has the key.
"""

import json
import os
from collections.abc import Iterator
from hashlib import sha256
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_MAGIC = b"DWVAULT1"
_SALT = 16
_TAG = 16
_KEY = 32
_LARGEST_FACTS = 256 * 1024
_LARGEST_PIECE = 64 * 1024 * 1024
_FACTS, _PIECE, _LAST = 2, 0, 1


class VaultDamaged(Exception):
    """The vault file, or the key, is not what was written."""


class ContentDiffers(Exception):
    """The file does not hold what it held when it was scanned."""


def key(path: str, *, may_make: bool) -> bytes:
    """Return the vault's key, made on first use and on disk before it is used.

    Raises VaultDamaged where the key is missing though files are put away, or is not a key.
    """
    try:
        handle = os.open(
            path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
        )
    except FileNotFoundError:
        if not may_make:
            raise VaultDamaged(
                f"the key {path} is missing; the files in the vault cannot be opened"
            ) from None
        return _made_key(path)
    try:
        held = os.read(handle, _KEY + 1)
    finally:
        os.close(handle)
    if len(held) != _KEY:
        raise VaultDamaged(f"{path} is not a key")
    return held


def _made_key(path: str) -> bytes:
    fresh = os.urandom(_KEY)
    # Aside first: a key cut short by a power cut would lock the vault for good.
    aside = f"{path}.new"
    handle = os.open(
        aside,
        os.O_WRONLY
        | os.O_CREAT
        | os.O_TRUNC
        | getattr(os, "O_NOFOLLOW", 0)
        | getattr(os, "O_BINARY", 0),
        0o600,
    )
    try:
        os.write(handle, fresh)
        os.fsync(handle)
    finally:
        os.close(handle)
    os.replace(aside, path)
    return fresh


def _cipher(vault_key: bytes, salt: bytes) -> AESGCM:
    derived = HKDF(algorithm=SHA256(), length=_KEY, salt=salt, info=b"doorward agent vault 1")
    return AESGCM(derived.derive(vault_key))


def _nonce(number: int, kind: int) -> bytes:
    return bytes(3) + number.to_bytes(8, "big") + bytes((kind,))


def seal(
    vault_key: bytes,
    facts: dict[str, Any],
    *,
    source: int,
    target: int,
    size: int,
    digest: str,
    piece_bytes: int,
) -> None:
    """Write an open file into an open, empty vault file, flushed to disk.

    Raises ContentDiffers where the content is not that of this size and SHA-256; the vault file is
    then worthless.
    """
    salt = os.urandom(_SALT)
    cipher = _cipher(vault_key, salt)
    told = json.dumps(facts, separators=(",", ":")).encode()
    start = _MAGIC + salt + piece_bytes.to_bytes(4, "big")
    sealed = cipher.encrypt(_nonce(0, _FACTS), told, start)
    with open(target, "wb", closefd=False) as out:
        out.write(start + len(sealed).to_bytes(4, "big") + sealed)
        state = sha256()
        os.lseek(source, 0, os.SEEK_SET)
        number = 0
        seen = 0
        piece = _full(source, piece_bytes)
        while True:
            following = _full(source, piece_bytes)
            number += 1
            state.update(piece)
            seen += len(piece)
            out.write(cipher.encrypt(_nonce(number, _PIECE if following else _LAST), piece, _MAGIC))
            if not following:
                break
            piece = following
        if seen != size or state.hexdigest() != digest:
            raise ContentDiffers("the file changed after it was scanned")
        out.flush()
        os.fsync(target)


def _full(source: int, length: int) -> bytes:
    piece = os.read(source, length)
    while piece and len(piece) < length:
        more = os.read(source, length - len(piece))
        if not more:
            break
        piece += more
    return piece


class Opened:
    """A vault file open for reading."""

    def __init__(self, vault_key: bytes, path: str) -> None:
        self._file = open(path, "rb")  # noqa: SIM115 (closed by close)
        try:
            head = self._file.read(len(_MAGIC) + _SALT + 8)
            if len(head) < len(_MAGIC) + _SALT + 8 or not head.startswith(_MAGIC):
                raise VaultDamaged(f"{path} is no vault file")
            salt = head[len(_MAGIC) : len(_MAGIC) + _SALT]
            self._piece_bytes = int.from_bytes(head[-8:-4], "big")
            length = int.from_bytes(head[-4:], "big")
            if length > _LARGEST_FACTS or not 0 < self._piece_bytes <= _LARGEST_PIECE:
                raise VaultDamaged(f"{path} is damaged")
            self._cipher = _cipher(vault_key, salt)
            sealed = self._file.read(length)
            self.facts: dict[str, Any] = json.loads(
                self._cipher.decrypt(_nonce(0, _FACTS), sealed, head[:-4])
            )
        except InvalidTag:
            self._file.close()
            raise VaultDamaged(f"{path} is damaged, or was written with another key") from None
        except BaseException:
            self._file.close()
            raise

    def pieces(self) -> Iterator[bytes]:
        """Yield the content. Raises VaultDamaged at a piece that is not what was written."""
        number = 0
        piece = self._file.read(self._piece_bytes + _TAG)
        while True:
            following = self._file.read(self._piece_bytes + _TAG)
            number += 1
            try:
                opened = self._cipher.decrypt(
                    _nonce(number, _PIECE if following else _LAST), piece, _MAGIC
                )
            except InvalidTag:
                raise VaultDamaged("a piece of the vault file is damaged") from None
            yield opened
            if not following:
                return
            piece = following

    def close(self) -> None:
        """Close the file."""
        self._file.close()
