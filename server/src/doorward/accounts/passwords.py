"""Turns passwords into hashes, and refuses the ones a guesser would try first."""

from __future__ import annotations

import base64
import os
import re
import sys
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final, TypeVar

import nacl.exceptions
import nacl.pwhash.argon2id
from django.contrib.auth.hashers import BasePasswordHasher, mask_hash
from django.utils.translation import gettext_noop

# m=47104 KiB, t=1, p=1: the first of OWASP's equivalent choices for argon2id
# (Password Storage Cheat Sheet).
MEMORY_KIB: Final = 47104
TIME_COST: Final = 1
# More is refused before it is hashed: nobody types it, and hashing it would be free work for
# an attacker.
MOST_BYTES: Final = 4096

_PHC: Final = re.compile(
    r"\$(?P<variety>argon2id)\$v=(?P<version>\d+)\$m=(?P<m>\d+),t=(?P<t>\d+),p=(?P<p>\d+)"
    r"\$(?P<salt>[A-Za-z0-9+/]+)\$(?P<hash>[A-Za-z0-9+/]+)"
)
# How much less of a core a hash gets than a page that wants it too (setpriority(2), "nice").
NICER: Final = 5


class PasswordTooLong(ValueError):
    """The password is longer than MOST_BYTES bytes."""


Hash = TypeVar("Hash")


class Hashing:
    """The threads that hash, as many as cores we may use, behind the threads that make pages.

    Each hash takes 46 MiB and a whole core for tens of milliseconds; more at once would only wait,
    holding memory. A page wants a core for a few: where it waits in line with hashes, each of them
    takes its turn of the core in the midst of the page, and leaves nothing of it in the caches.
    """

    def __init__(self, most: int) -> None:
        self._threads = ThreadPoolExecutor(most, "hash", _stand_back)

    def run(self, hash_it: Callable[[], Hash]) -> Hash:
        """Return what it returns, or raise what it raises, once one of the threads has done it."""
        return self._threads.submit(hash_it).result()


def _stand_back() -> None:
    # Elsewhere it would hold for the whole process.
    if sys.platform == "linux":
        os.nice(NICER)


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


_hashing = Hashing(_cores())


class SodiumArgon2Hasher(BasePasswordHasher):
    """Argon2id by libsodium: faster than argon2-cffi's wheel, the same string in the database."""

    algorithm = "argon2"
    library = "nacl.pwhash"
    memory_kib = MEMORY_KIB
    time_cost = TIME_COST

    def salt(self) -> str:
        """Return nothing: libsodium draws the salt itself, 16 bytes from the system."""
        return ""

    def encode(self, password: str, salt: str) -> str:
        """Return the hash in the PHC form, behind Django's name for it. Raises PasswordTooLong."""
        raw = as_bytes(password)
        if len(raw) > MOST_BYTES:
            raise PasswordTooLong(f"a password has at most {MOST_BYTES} bytes")
        encoded: bytes = _hashing.run(
            partial(
                nacl.pwhash.argon2id.str,
                raw,
                opslimit=self.time_cost,
                memlimit=self.memory_kib * 1024,
            )
        )
        return self.algorithm + encoded.rstrip(b"\0").decode("ascii")

    def verify(self, password: str, encoded: str) -> bool:
        """Tell whether this is the password; one that is too long is not, and costs nothing."""
        raw = as_bytes(password)
        if len(raw) > MOST_BYTES:
            return False
        stored = encoded.removeprefix(self.algorithm).encode("ascii")
        try:
            return bool(_hashing.run(partial(nacl.pwhash.argon2id.verify, stored, raw)))
        except nacl.exceptions.InvalidkeyError:
            return False

    def decode(self, encoded: str) -> dict[str, Any]:
        """Return the parts of a stored hash."""
        match = _PHC.fullmatch(encoded.removeprefix(self.algorithm))
        if match is None:
            raise ValueError("not an argon2id hash")
        salt = match["salt"]
        return {
            "algorithm": self.algorithm,
            "variety": match["variety"],
            "version": int(match["version"]),
            "memory_cost": int(match["m"]),
            "time_cost": int(match["t"]),
            "parallelism": int(match["p"]),
            "salt": base64.b64decode(salt + "=" * (-len(salt) % 4)).decode("latin1"),
            "hash": match["hash"],
        }

    def must_update(self, encoded: str) -> bool:
        """Tell whether the next sign-in shall store the password anew, by today's parameters."""
        parts = self.decode(encoded)
        return (parts["memory_cost"], parts["time_cost"], parts["parallelism"]) != (
            self.memory_kib,
            self.time_cost,
            1,
        )

    def safe_summary(self, encoded: str) -> dict[Any, Any]:
        """Return what may be shown of a hash."""
        parts = self.decode(encoded)
        return {
            gettext_noop("algorithm"): parts["algorithm"],
            gettext_noop("memory cost"): parts["memory_cost"],
            gettext_noop("time cost"): parts["time_cost"],
            gettext_noop("hash"): mask_hash(parts["hash"]),
        }

    def harden_runtime(self, password: str, encoded: str) -> None:
        """Do nothing: parameters are only raised together with a rehash at the next sign-in."""


def as_bytes(password: str) -> bytes:
    """Return what is hashed for a password, for any text there is: its NFC form in UTF-8.

    One keyboard sends "é" as one character, another as "e" and an accent: they are one password.
    Nothing else is changed, neither case nor spaces.
    """
    # Unpaired surrogates can arrive in JSON; they have no UTF-8, and must be a wrong password
    # and not an error.
    raw = password.encode("utf-8", "surrogatepass")
    # Putting accents in order takes time with the square of their number.
    if len(raw) > MOST_BYTES or password.isascii():
        return raw
    return unicodedata.normalize("NFC", password).encode("utf-8", "surrogatepass")
