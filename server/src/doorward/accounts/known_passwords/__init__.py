"""The passwords guessers begin with, as a file of hashes that takes no memory of its own.

Made by ``tests/tools/build_known_passwords.py`` from public lists (NOTICE.md beside it). Of each
password, in lower case, 40 bits of a hash are kept: two say where, three stand there. A password
that is on no list is taken for one of them once in a million times.
"""

from __future__ import annotations

import hashlib
import mmap
import unicodedata
from array import array
from bisect import bisect_left
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import Final

FILE: Final = Path(__file__).with_name("known-passwords.bin")
MAGIC: Final = b"DWKP1\n"
SHELVES: Final = 1 << 16
REST_BYTES: Final = 3


class NoList(Exception):
    """The file is not one of ours, or was cut short."""


@dataclass(frozen=True)
class Shelves:
    """The file as it is read: where each shelf begins, and what stands on them."""

    begins: array[int]
    rests: mmap.mmap
    offset: int

    def __len__(self) -> int:
        return self.begins[-1]

    def holds(self, shelf: int, rest: bytes) -> bool:
        """Tell whether ``rest`` stands on this shelf."""
        first, after = self.begins[shelf], self.begins[shelf + 1]
        found = bisect_left(range(first, after), rest, key=self._at) + first
        return found < after and self._at(found) == rest

    def _at(self, place: int) -> bytes:
        start = self.offset + place * REST_BYTES
        return self.rests[start : start + REST_BYTES]


def contains(password: str) -> bool:
    """Tell whether the password, in whatever case, is on the lists guessers begin with."""
    shelf, rest = place_of(password)
    return shelves().holds(shelf, rest)


def place_of(password: str) -> tuple[int, bytes]:
    """Return the shelf a password would stand on, and what would stand there for it."""
    # Unpaired surrogates can come in by JSON, and are on no list.
    text = unicodedata.normalize("NFC", password.casefold()).encode("utf-8", "replace")
    digest = hashlib.blake2b(text, digest_size=2 + REST_BYTES, person=b"dw-known").digest()
    return int.from_bytes(digest[:2]), digest[2:]


@cache
def shelves() -> Shelves:
    """Return the list, mapped from its file: processes on one machine share it. Raises NoList."""
    with FILE.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    offset = len(MAGIC) + SHELVES
    if len(mapped) < offset or mapped[: len(MAGIC)] != MAGIC:
        raise NoList(str(FILE))
    begins = array("I", accumulate(mapped[len(MAGIC) : offset], initial=0))
    if len(mapped) != offset + begins[-1] * REST_BYTES:
        raise NoList(str(FILE))
    return Shelves(begins, mapped, offset)
