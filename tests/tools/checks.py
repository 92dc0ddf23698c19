"""`./doorward test --checks`: which tests stand behind each row of docs/security/checks.md.

The table there is what this file reads: each row's id, what holds, and, where tests do not carry
the id in their names, their names. Tests are those pytest collects; how they went is what the last
`./doorward test` and `./doorward test --slow` left in .checks/.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TABLE = ROOT / "docs" / "security" / "checks.md"
RESULTS = ROOT / ".checks"
# What the root's conftest.py reads and writes.
KEEP_AT = "DOORWARD_KEEP_RESULTS"
THERE, PASSED, SKIPPED, FAILED, NOT_RUN = "there", "passed", "skipped", "failed", "not run"
# Of a test that ran on both databases the first of these counts.
WORST_FIRST = (FAILED, PASSED, SKIPPED)
NOT_YET = "not yet"
# Columns of the table that do not say what holds.
NO_WORDS = {"A1", "id", "tests"}
# A test may carry several ids, all of them in front: test_a01_l4_l5_sixty_guesses…, perhaps behind
# the number of a row in a list of its own: test_row59_v14_2_1_…
_ID = re.compile(r"(?:v(?P<asvs>\d+_\d+_\d+)|(?P<case>[acdl]\d+)|row\d+)(?:_|$)")


@dataclass(frozen=True)
class Row:
    """A check: its id, what holds, and its numbers in the list of checks that asked for it."""

    id: str
    says: str
    asked: str = ""
    # Of tests that hold it without its id in their names.
    named: frozenset[str] = frozenset()

    @property
    def applies(self) -> bool:
        """Whether what the row is about exists."""
        return not self.says.startswith(NOT_YET)


@dataclass
class Standing:
    """A row, how many of its tests went how, and which of those named there are none of."""

    row: Row
    went: Counter[str] = field(default_factory=Counter)
    missing: frozenset[str] = frozenset()

    @property
    def is_covered(self) -> bool:
        """Whether a test ran or, without results, would run; none failed, none is missing."""
        good = self.went[PASSED] + self.went[THERE]
        return good > 0 and not self.went[FAILED] and not self.missing

    def __str__(self) -> str:
        if not self.row.applies:
            return "-"
        words = [f"{count} {how}" for how, count in sorted(self.went.items())]
        words += [f"no {name}" for name in sorted(self.missing)]
        return f"{'' if self.is_covered else 'NOT COVERED: '}{', '.join(words) or 'no test'}"


def rows(text: str | None = None) -> list[Row]:
    """Return every row of the document, in its order."""
    found = []
    columns: list[str] = []
    for line in (TABLE.read_text() if text is None else text).splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if not line.startswith("|"):
            columns = []
        elif not columns:
            columns = cells
        elif "id" in columns and not set(line) <= set("|- "):
            cell = dict(zip(columns, cells, strict=True))
            told = zip(columns, cells, strict=True)
            says = ": ".join(text for name, text in told if name not in NO_WORDS and text)
            named = frozenset(re.findall(r"`test_(\w+)`", cell.get("tests", "")))
            found.append(Row(cell["id"], says, cell.get("A1", ""), named))
    return found


def standings(every: Iterable[Row], went: Mapping[str, str]) -> list[Standing]:
    """Return how each row stands, by how each test of the project (its node id) went."""
    by_id: defaultdict[str, set[str]] = defaultdict(set)
    by_name: defaultdict[str, set[str]] = defaultdict(set)
    for node in went:
        name = node.partition("[")[0].rpartition("::")[2].removeprefix("test_")
        by_name[name].add(node)
        for each in ids_of(name):
            by_id[each].add(node)
    found = []
    for row in every:
        nodes = by_id[row.id].union(*(by_name[name] for name in row.named))
        missing = frozenset(name for name in row.named if not by_name[name])
        found.append(Standing(row, Counter(went[node] for node in nodes), missing))
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


class NotCollected(Exception):
    """Pytest could not tell which tests there are; what it said."""


def collected() -> dict[str, str]:
    """Return every test there is, and whether it would run."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "collected.json"
        ran = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "--collect-only", "-p", "no:cacheprovider"],
            cwd=ROOT,
            env={**os.environ, KEEP_AT: str(file)},
            check=False,
            capture_output=True,
            text=True,
        )
        if ran.returncode or not file.exists():
            raise NotCollected(ran.stdout[-2000:] + ran.stderr[-2000:])
        found: dict[str, str] = json.loads(file.read_text())
        return found


def results(folder: Path) -> dict[str, str]:
    """Return how each test went in the last runs; nothing where there were none."""
    went: defaultdict[str, set[str]] = defaultdict(set)
    for file in folder.glob("*.json"):
        for node, how in json.loads(file.read_text()).items():
            went[node].add(how)
    return {node: next(how for how in WORST_FIRST if how in hows) for node, hows in went.items()}


def main() -> int:
    """Print the report; 1 when a row that applies is not covered."""
    try:
        there = collected()
    except NotCollected as error:
        sys.stdout.write(f"{error}\nThe tests could not be collected.\n")
        return 1
    ran = results(RESULTS)
    if ran:
        # A result of a test that is no more counts for nothing.
        there = {node: ran.get(node, NOT_RUN) for node in there}
    every = standings(rows(), there)
    for each in every:
        sys.stdout.write(f"{each.row.id:8}{each.row.says}\n{'':8}{each}\n")
    applicable = [each for each in every if each.row.applies]
    covered = [each for each in applicable if each.is_covered]
    sys.stdout.write(
        f"covered {len(covered)} of {len(applicable)} applicable, "
        + ("by the last runs\n" if ran else "by collection only: nothing has been run\n")
    )
    return 0 if len(covered) == len(applicable) else 1


if __name__ == "__main__":
    sys.exit(main())
