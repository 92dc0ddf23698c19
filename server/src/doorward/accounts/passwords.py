"""Turns passwords into hashes, and refuses the ones a guesser would try first."""

from __future__ import annotations

import base64
import hmac
import os
import re
import unicodedata
from typing import Any, Final

import nacl.exceptions
import nacl.pwhash.argon2id
import structlog
from django.contrib.auth.hashers import BasePasswordHasher, mask_hash
from django.utils.translation import gettext_noop

from doorward.accounts import hashing

log = structlog.get_logger(__name__)

# m=47104 KiB, t=1, p=1: the first of OWASP's equivalent choices for argon2id
# (Password Storage Cheat Sheet).
MEMORY_KIB: Final = 47104
TIME_COST: Final = 1
# More is refused before it is hashed: nobody types it, and hashing it would be free work for
# an attacker.
MOST_BYTES: Final = 4096

_PHC: Final = re.compile(
    r"\$(?P<variety>argon2id)\$v=(?P<version>[0-9]{1,3})"
    r"\$m=(?P<m>[0-9]{1,7}),t=(?P<t>[0-9]{1,3}),p=(?P<p>[0-9]{1,3})"
    r"\$(?P<salt>[A-Za-z0-9+/]{2,88})\$(?P<hash>[A-Za-z0-9+/]{2,88})"
)
# Brought along from elsewhere, a hash may take so much memory and so many passes over it, 89 times
# what ours does. Without bounds, one try could hold a core for as long as the string says.
LEAST_MEMORY_KIB: Final = 8
MOST_MEMORY_KIB: Final = 262_144
MOST_TIME: Final = 16
MOST_LANES: Final = 16

# Version 1.3, one lane, and the lengths that hashing.argon2id has.
_OURS: Final = (19, 1, hashing.SALT_BYTES, hashing.HASH_BYTES)


class PasswordTooLong(ValueError):
    """The password is longer than MOST_BYTES bytes."""


_hashing = hashing.Hashing(hashing.cores())


class Argon2idHasher(BasePasswordHasher):
    """Argon2id as quick as this system can (hashing.py); the same string in the database by each.

    The string is what every Argon2 library understands, behind Django's name for it.
    """

    algorithm = "argon2"
    memory_kib = MEMORY_KIB
    time_cost = TIME_COST

    def salt(self) -> str:
        """Return nothing: each hash draws its own salt, 16 bytes from the system."""
        return ""

    def encode(self, password: str, salt: str) -> str:
        """Return the hash in the PHC form, behind Django's name for it. Raises PasswordTooLong."""
        raw = as_bytes(password)
        if len(raw) > MOST_BYTES:
            raise PasswordTooLong(f"a password has at most {MOST_BYTES} bytes")
        drawn = os.urandom(hashing.SALT_BYTES)
        found = _hash(raw, drawn, self.memory_kib, self.time_cost)
        cost = f"m={self.memory_kib},t={self.time_cost},p=1"
        return f"{self.algorithm}$argon2id$v=19${cost}${_base64(drawn)}${_base64(found)}"

    def verify(self, password: str, encoded: str) -> bool:
        """Tell whether this is the password; one that is too long is not, and costs nothing."""
        raw = as_bytes(password)
        if len(raw) > MOST_BYTES:
            return False
        try:
            parts = self.decode(encoded)
            salt, stored = parts["salt"].encode("latin1"), _bytes(parts["hash"])
        except ValueError:
            log.warning("accounts.password.unreadable")
            return False
        if _form(parts, salt, stored) == _OURS:
            found = _hash(raw, salt, parts["memory_cost"], parts["time_cost"])
            return hmac.compare_digest(found, stored)
        # Of another program, brought along: by the library that takes it as it is.
        phc = encoded.removeprefix(self.algorithm).encode("ascii")
        try:
            return bool(_hashing.run(lambda _memory: nacl.pwhash.argon2id.verify(phc, raw)))
        except nacl.exceptions.InvalidkeyError:
            return False
        except nacl.exceptions.CryptoError:
            log.warning("accounts.password.unreadable")
            return False

    def decode(self, encoded: str) -> dict[str, Any]:
        """Return the parts of a stored hash. Raises ValueError for one that nothing can check."""
        match = _PHC.fullmatch(encoded.removeprefix(self.algorithm))
        if match is None:
            raise ValueError("not an argon2id hash")
        memory_kib, time_cost, lanes = int(match["m"]), int(match["t"]), int(match["p"])
        if not (
            LEAST_MEMORY_KIB * lanes <= memory_kib <= MOST_MEMORY_KIB
            and 1 <= time_cost <= MOST_TIME
            and 1 <= lanes <= MOST_LANES
        ):
            raise ValueError("an argon2id hash of a cost that is not taken")
        return {
            "algorithm": self.algorithm,
            "variety": match["variety"],
            "version": int(match["version"]),
            "memory_cost": memory_kib,
            "time_cost": time_cost,
            "parallelism": lanes,
            "salt": _bytes(match["salt"]).decode("latin1"),
            "hash": match["hash"],
        }

    def must_update(self, encoded: str) -> bool:
        """Tell whether the next sign-in shall store the password anew, by today's parameters."""
        try:
            parts = self.decode(encoded)
            salt, stored = parts["salt"].encode("latin1"), _bytes(parts["hash"])
        except ValueError:
            return True
        own = (self.memory_kib, self.time_cost)
        return (
            _form(parts, salt, stored) != _OURS or (parts["memory_cost"], parts["time_cost"]) != own
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
        """Hash as much more as a cheaper hash costs less: else it could be told by its time.

        A dearer one can't be made cheaper. Its owner's next sign-in makes it one of ours.
        """
        try:
            parts = self.decode(encoded)
        except ValueError:
            parts = {"memory_cost": 0, "time_cost": 1}
        missing = self.memory_kib * self.time_cost - parts["memory_cost"] * parts["time_cost"]
        if missing < LEAST_MEMORY_KIB:
            return
        try:
            _hash(as_bytes(password), os.urandom(hashing.SALT_BYTES), missing, 1)
        except hashing.Busy as busy:
            # The password was looked at and is wrong. That stays so, and counts, whatever time it
            # took: raised from here, the try would be given back as one nobody could look at.
            log.warning("accounts.password.not_filled_up", why=str(busy))


def _form(parts: dict[str, Any], salt: bytes, stored: bytes) -> tuple[int, int, int, int]:
    return parts["version"], parts["parallelism"], len(salt), len(stored)


def _hash(password: bytes, salt: bytes, memory_kib: int, time_cost: int) -> bytes:
    return _hashing.run(
        lambda memory: hashing.argon2id(
            password, salt, memory, memory_kib=memory_kib, time_cost=time_cost
        )
    )


def _base64(raw: bytes) -> str:
    # Without what fills it up: the PHC form has none.
    return base64.b64encode(raw).decode("ascii").rstrip("=")


def _bytes(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4))


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
