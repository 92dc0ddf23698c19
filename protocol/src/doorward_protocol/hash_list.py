# Why not pathlib: loading it costs 7 ms, which every rescan would pay.
# ruff: noqa: PTH123
"""A list of SHA-256 hashes that is looked up on disk, in place: sorted, with an index over the
first bits. And, beside it, the sizes of files that are known by another hash.

The server writes such lists, the agent looks files up in them.

Layout of a hash list, little endian: 32 bytes of header (magic, count, label bytes, index bits: 16,
or 8 for a short list); the index, 4 bytes for each prefix (where it begins) and for the end;
``count`` hashes of 32 bytes, sorted; ``count`` label numbers of 2 bytes; the labels, one a line,
UTF-8. Opening maps the file and checks its size; a look-up reads one index entry and bisects its
few hashes.

A file that is known by its size and its MD5 or SHA-1 alone has a place in the same list:
`sized_key` makes 32 bytes of the three. So that these two hashes are taken only where they can
matter, a list of sizes goes with it: 16 bytes of header (magic, count), then ``count`` numbers of 8
bytes, sorted, each a size times two, plus one for SHA-1.
"""

import mmap
import os
from collections.abc import Iterable, Iterator
from hashlib import sha256
from struct import Struct
from typing import Literal

_MAGIC = b"DWHASH1\n"
_HEADER = Struct("<8sIII12x")
_INDEX_AT = _HEADER.size
_SHORT_LIST = 4096
"""Up to here an index over 8 bits is enough, and the file stays small."""
_SIZE = 32
_SEARCHED = 64
"""So many hashes, 2 KiB, are searched as they lie."""
_POSITIONS = Struct("<II")
_SIZES_MAGIC = b"DWSIZE1\n"
_SIZES_HEADER = Struct("<8sQ")
MOST_LABELS = 1 << 16

Other = Literal["md5", "sha1"]
"""The hashes beside SHA-256 that feeds still name files by."""


class HashListDamaged(Exception):
    """The file is no hash list, or not a whole one."""


def build(entries: Iterable[tuple[bytes, str]]) -> bytes:
    """Return the list as bytes; of a hash given twice the first label stays. Labels are one line of
    text.

    Raises ValueError for a hash that is not 32 bytes, a label with a line end, or more than 65,536
    labels.
    """
    known: dict[bytes, str] = {}
    for value, label in entries:
        if len(value) != _SIZE:
            raise ValueError(f"a SHA-256 hash has {_SIZE} bytes, not {len(value)}")
        if len(label.splitlines()) > 1 or label.endswith("\n"):
            raise ValueError("a label is one line")
        known.setdefault(bytes(value), label)
    ordered = sorted(known)
    labels = sorted(set(known.values()))
    if len(labels) > MOST_LABELS:
        raise ValueError("too many different labels")
    numbers = {label: number for number, label in enumerate(labels)}
    bits = 8 if len(ordered) <= _SHORT_LIST else 16
    counts = [0] * ((1 << bits) + 1)
    for value in ordered:
        counts[int.from_bytes(value[: bits // 8], "big") + 1] += 1
    total = 0
    positions = []
    for count in counts:
        total += count
        positions.append(total)
    told = "\n".join(labels).encode()
    return b"".join(
        (
            _HEADER.pack(_MAGIC, len(ordered), len(told), bits),
            b"".join(position.to_bytes(4, "little") for position in positions),
            b"".join(ordered),
            b"".join(numbers[known[value]].to_bytes(2, "little") for value in ordered),
            told,
        )
    )


class HashList:
    """An open hash list; private memory stays near zero however long it is."""

    def __init__(self, path: str) -> None:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        try:
            size = os.fstat(handle).st_size
            if size < _HEADER.size:
                raise HashListDamaged(f"{path} is too short for a hash list")
            self._map = mmap.mmap(handle, size, access=mmap.ACCESS_READ)
        finally:
            os.close(handle)
        magic, count, label_bytes, bits = _HEADER.unpack_from(self._map)
        self._count: int = count
        self._prefix_bytes = 1 if bits == 8 else 2
        self._hashes_at = _INDEX_AT + ((1 << (self._prefix_bytes * 8)) + 1) * 4
        self._numbers_at = self._hashes_at + self._count * _SIZE
        self._labels_at = self._numbers_at + self._count * 2
        end = int.from_bytes(self._map[self._hashes_at - 4 : self._hashes_at], "little")
        whole = bits in {8, 16} and size == self._labels_at + label_bytes and end == self._count
        if magic != _MAGIC or not whole:
            self._map.close()
            raise HashListDamaged(f"{path} is not a whole hash list")

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[tuple[bytes, str]]:
        labels = self._labels()
        for position in range(self._count):
            start = self._hashes_at + position * _SIZE
            number = self._number(position)
            yield self._map[start : start + _SIZE], labels[number] if number < len(labels) else ""

    def find(self, value: bytes) -> str | None:
        """Return the label of a SHA-256 hash in the list, or None."""
        at = _INDEX_AT + int.from_bytes(value[: self._prefix_bytes], "big") * 4
        low, high = _POSITIONS.unpack_from(self._map, at)
        high = min(high, self._count)
        while high - low > _SEARCHED:
            middle = (low + high) // 2
            start = self._hashes_at + middle * _SIZE
            if self._map[start : start + _SIZE] <= value:
                low = middle
            else:
                high = middle
        # The last few at once: a search in C is faster than more steps here.
        few = self._map[self._hashes_at + low * _SIZE : self._hashes_at + high * _SIZE]
        at = few.find(value)
        while at % _SIZE and at > 0:
            at = few.find(value, at + 1)
        return None if at < 0 else self._label(low + at // _SIZE)

    def _label(self, position: int) -> str:
        labels, number = self._labels(), self._number(position)
        return labels[number] if number < len(labels) else ""

    def _labels(self) -> list[str]:
        return self._map[self._labels_at :].decode("utf-8", "replace").split("\n")

    def _number(self, position: int) -> int:
        at = self._numbers_at + position * 2
        return int.from_bytes(self._map[at : at + 2], "little")

    def close(self) -> None:
        """Let go of the file."""
        self._map.close()


# ------------------------------------------------------------------------- known by another hash


def sized_key(algorithm: Other, size: int, digest: bytes) -> bytes:
    """Return the place in a hash list of a file known by its size and an MD5 or SHA-1."""
    return sha256(b"%b %d " % (algorithm.encode(), size) + digest).digest()


def build_sizes(entries: Iterable[tuple[Other, int]]) -> bytes:
    """Return the list of sizes as bytes; an entry given twice is there once."""
    numbers = sorted({size << 1 | (algorithm == "sha1") for algorithm, size in entries})
    return _SIZES_HEADER.pack(_SIZES_MAGIC, len(numbers)) + b"".join(
        number.to_bytes(8, "little") for number in numbers
    )


class SizeList:
    """An open list of sizes; private memory stays near zero however long it is."""

    def __init__(self, path: str) -> None:
        with open(path, "rb") as source:
            size = os.fstat(source.fileno()).st_size
            if size < _SIZES_HEADER.size:
                raise HashListDamaged(f"{path} is too short for a list of sizes")
            self._map = mmap.mmap(source.fileno(), size, access=mmap.ACCESS_READ)
        magic, count = _SIZES_HEADER.unpack_from(self._map)
        self._count: int = count
        if magic != _SIZES_MAGIC or size != _SIZES_HEADER.size + count * 8:
            self._map.close()
            raise HashListDamaged(f"{path} is not a whole list of sizes")

    def __iter__(self) -> Iterator[tuple[Other, int]]:
        for position in range(self._count):
            number = self._at(position)
            yield "sha1" if number & 1 else "md5", number >> 1

    def algorithms(self, size: int) -> tuple[Other, ...]:
        """Return the hashes by which some file of this size is known."""
        low, high = 0, self._count
        while low < high:
            middle = (low + high) // 2
            if self._at(middle) < size << 1:
                low = middle + 1
            else:
                high = middle
        found: list[Other] = []
        while low < self._count and (number := self._at(low)) >> 1 == size:
            found.append("sha1" if number & 1 else "md5")
            low += 1
        return tuple(found)

    def _at(self, position: int) -> int:
        start = _SIZES_HEADER.size + position * 8
        return int.from_bytes(self._map[start : start + 8], "little")

    def close(self) -> None:
        """Let go of the file."""
        self._map.close()
