"""Make accounts/known_passwords/known-passwords.bin from lists of passwords, one in each line.

    python tests/tools/build_known_passwords.py OUTPUT LIST [LIST …]

The order of lines and lists does not matter: the same passwords make the same file.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from doorward.accounts import known_passwords

# Shorter ones are refused for their length alone (password_rules.LEAST_WITH_SECOND_STEP).
SHORTEST = 8


def main() -> int:
    """Write the file and say how many passwords it knows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("lists", type=Path, nargs="+")
    wanted = parser.parse_args()
    places = {known_passwords.place_of(word) for path in wanted.lists for word in words(path)}
    shelves: list[list[bytes]] = [[] for _ in range(known_passwords.SHELVES)]
    for shelf, rest in places:
        shelves[shelf].append(rest)
    with wanted.output.open("wb") as file:
        file.write(known_passwords.MAGIC)
        file.write(bytes(len(shelf) for shelf in shelves))
        file.write(b"".join(rest for shelf in shelves for rest in sorted(shelf)))
    print(f"{len(places)} passwords, {wanted.output.stat().st_size} bytes")  # noqa: T201 - a tool's answer
    return 0


def words(path: Path) -> Iterator[str]:
    """Yield each password of a list that is long enough to matter."""
    for line in path.read_text("utf-8", "replace").split("\n"):
        word = line.removesuffix("\r")
        if len(word) >= SHORTEST and "\ufffd" not in word:
            yield word


if __name__ == "__main__":
    sys.exit(main())
