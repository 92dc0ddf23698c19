# Why not pathlib: as in the package.
# ruff: noqa: PTH119
"""Looks a file up in every hash list of a set."""

import os
from collections.abc import Callable, Iterable
from hashlib import md5, sha1

from doorward_agent.definitions import SUSPICIOUS, DefinitionSet
from doorward_protocol.hash_list import HashList, Other, SizeList, sized_key

_HASHES = {"md5": md5, "sha1": sha1}


class Known:
    """All lists of one set, open; hardly any private memory however long they are."""

    def __init__(self, found: DefinitionSet) -> None:
        """Open them. Raises hash_list.HashListDamaged, OSError."""
        # What is malicious goes before what is only suspicious.
        self._lists = sorted(
            ((_is_suspicious(path), HashList(path)) for path in found.hash_files),
            key=lambda each: each[0],
        )
        self._sizes = [SizeList(path) for path in found.size_files]

    def find(
        self, sha256: bytes, size: int, content: Callable[[], Iterable[bytes]]
    ) -> tuple[str, bool] | None:
        """Return the label of a file in the lists, and whether it is only suspicious; None where
        it is in none. `content` gives the file in pieces, and is asked only where its size is that
        of a file known by another hash.
        """
        keys = [sha256]
        for algorithm in self._others(size):
            # Not for security: these are the names that feeds give to files.
            state = _HASHES[algorithm](usedforsecurity=False)
            for piece in content():
                state.update(piece)
            keys.append(sized_key(algorithm, size, state.digest()))
        for suspicious, hashes in self._lists:
            for key in keys:
                label = hashes.find(key)
                if label is not None:
                    return label, suspicious
        return None

    def _others(self, size: int) -> list[Other]:
        found = {each for sizes in self._sizes for each in sizes.algorithms(size)}
        return sorted(found)


def _is_suspicious(path: str) -> bool:
    return os.path.basename(path).startswith(SUSPICIOUS)
