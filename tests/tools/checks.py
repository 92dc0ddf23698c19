"""`./doorward test --checks`: which tests stand behind each row of docs/security/checks.md."""

from __future__ import annotations

import re
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TABLE = ROOT / "docs" / "security" / "checks.md"
NOT_YET = "not yet"
_ROW = re.compile(r"^\| (?P<id>[A-Z]?\d[\d.]*) \| (?P<says>.*?) \|", re.MULTILINE)
_TEST = re.compile(r"^(?:async )?def test_(?P<words>\w+)\(", re.MULTILINE)
# A test may carry several ids, all of them in front: test_a01_l4_l5_sixty_guesses…, perhaps behind
# the number of a row in a list of its own: test_row59_v14_2_1_…
_ID = re.compile(r"(?:v(?P<asvs>\d+_\d+_\d+)|(?P<case>[adl]\d+)|row\d+)(?:_|$)")


@dataclass(frozen=True)
class Row:
    """A check: its id, what holds, and how many tests carry its id."""

    id: str
    says: str
    tests: int

    @property
    def applies(self) -> bool:
        """Whether what the row is about exists."""
        return not self.says.startswith(NOT_YET)


def rows() -> list[Row]:
    """Return every row of the document, in its order."""
    found = tests_by_id()
    return [
        Row(row["id"], row["says"], found[row["id"]]) for row in _ROW.finditer(TABLE.read_text())
    ]


def tests_by_id() -> Counter[str]:
    """Return how many tests of the project carry each id."""
    found: Counter[str] = Counter()
    for part in ("server/tests", "tests", "agent/tests", "protocol/tests"):
        for path in (ROOT / part).rglob("test_*.py"):
            for test in _TEST.finditer(path.read_text()):
                found.update(ids_of(test["words"]))
    return found


def ids_of(words: str) -> set[str]:
    """Return the ids at the beginning of a test's name."""
    ids = set()
    while match := _ID.match(words):
        if match["asvs"]:
            ids.add(match["asvs"].replace("_", "."))
        elif match["case"]:
            ids.add(match["case"].upper())
        words = words[match.end() :]
    return ids


def main() -> int:
    """Print the report; 1 when a row that applies has no test."""
    every = rows()
    for row in every:
        state = str(row.tests) if row.tests else ("-" if not row.applies else "NONE")
        sys.stdout.write(f"{row.id:8}{state:>5}  {row.says}\n")
    applicable = [row for row in every if row.applies]
    covered = [row for row in applicable if row.tests]
    sys.stdout.write(f"covered {len(covered)} of {len(applicable)} applicable\n")
    return 0 if len(covered) == len(applicable) else 1


if __name__ == "__main__":
    sys.exit(main())
