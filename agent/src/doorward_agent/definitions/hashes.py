"""A list of SHA-256 hashes that is looked up on disk, in place: sorted, with an index over the
first bits.

Layout, little endian: 32 bytes of header (magic, count, label bytes, index bits: 16, or 8 for a
short list); the index, 4 bytes for each prefix (where it begins) and for the end; ``count`` hashes
of 32 bytes, sorted; ``count`` label numbers of 2 bytes; the labels, one a line, UTF-8. Opening maps
the file and checks its size; a look-up reads one index entry and bisects its few hashes.
"""

import mmap
import os
from collections.abc import Iterable
from struct import Struct

_MAGIC = b"DWHASH1\n"
_HEADER = Struct("<8sIII12x")
_INDEX_AT = _HEADER.size
_SHORT_LIST = 4096
"""Up to here an index over 8 bits is enough, and the file stays small."""
_SIZE = 32
_POSITIONS = Struct("<II")


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
    if len(labels) > 1 << 16:
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

    def find(self, value: bytes) -> str | None:
        """Return the label of a SHA-256 hash in the list, or None."""
        at = _INDEX_AT + int.from_bytes(value[: self._prefix_bytes], "big") * 4
        low, high = _POSITIONS.unpack_from(self._map, at)
        high = min(high, self._count)
        while low < high:
            middle = (low + high) // 2
            start = self._hashes_at + middle * _SIZE
            held = self._map[start : start + _SIZE]
            if held == value:
                return self._label(middle)
            if held < value:
                low = middle + 1
            else:
                high = middle
        return None

    def _label(self, position: int) -> str:
        at = self._numbers_at + position * 2
        number = int.from_bytes(self._map[at : at + 2], "little")
        labels = self._map[self._labels_at :].decode("utf-8", "replace").split("\n")
        return labels[number] if number < len(labels) else ""

    def close(self) -> None:
        """Let go of the file."""
        self._map.close()
