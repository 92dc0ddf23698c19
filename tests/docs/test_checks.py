"""The table of security checks is whole, and its report tells what came of each row's tests."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.tools import checks
from tests.tools.checks import FAILED, NOT_RUN, PASSED, SKIPPED, THERE, Row

A1 = {*range(1, 43), 59, 60, *range(63, 70)}
# Of the numbers to A30 those that were given out.
CASES = {1, 2, 5, 8, 9, 10, 12, 13, 14, 15, 16, 17, 19, 20, 21, 24, 25, 26, 28, 29, 30}

TABLE = """
| A1 | id | what holds | tests |
|---|---|---|---|
| 15 | 6.3.4 | one list of stages | |
| 68 | 3.5.2 | nothing unasked | `test_other`, `test_and_another` |

Words between.

| id | the attack | what happens |
|---|---|---|
| A29 | not yet: no other site vouches | |
"""


def test_every_check_that_was_asked_for_has_its_row() -> None:
    rows = checks.rows()
    ids = [row.id for row in rows]
    assert len(set(ids)) == len(ids)
    assert {int(row.asked) for row in rows if row.asked} == A1
    assert {int(one[1:]) for one in ids if one.startswith("A")} == CASES
    assert [one for one in ids if one.startswith("C")] == [f"C{n}" for n in range(1, 13)]
    assert [one for one in ids if one.startswith("L")] == [f"L{n}" for n in range(1, 8)]
    assert {"3.4.7", "3.5.2", "3.5.3", "6.2.2", "11.5.1"} <= set(ids)


def test_every_row_that_applies_names_or_numbers_a_test_that_is_written() -> None:
    """The quick half of `./doorward test --checks`, which asks pytest instead of reading files."""
    root = checks.ROOT
    written = {
        f"{path}::{name}": THERE
        for part in ("server/tests", "tests", "agent/tests", "protocol/tests")
        for path in (root / part).rglob("test_*.py")
        for name in re.findall(r"^(?:async )?def (test_\w+)\(", path.read_text(), re.MULTILINE)
    }
    every = checks.standings(checks.rows(), written)
    assert [f"{one.row.id}: {one}" for one in every if one.row.applies and not one.is_covered] == []


def test_a_tests_name_tells_its_checks() -> None:
    assert checks.ids_of("a01_l4_sixty_guesses_at_once") == {"A01", "L4"}
    assert checks.ids_of("row59_v14_2_1_a_link") == {"14.2.1"}
    assert checks.ids_of("v6_2_10_no_age") == {"6.2.10"}
    assert checks.ids_of("a_sentence") == set()


def test_the_tables_are_read_by_the_names_of_their_columns() -> None:
    assert checks.rows(TABLE) == [
        Row("6.3.4", "one list of stages", "15"),
        Row("3.5.2", "nothing unasked", "68", frozenset({"other", "and_another"})),
        Row("A29", "not yet: no other site vouches"),
    ]


@pytest.mark.parametrize(
    ("went", "is_covered", "says"),
    [
        ({}, False, "NOT COVERED: no test"),
        ({"test_v6_3_4_x": THERE}, True, "1 there"),
        ({"test_v6_3_4_x": SKIPPED}, False, "NOT COVERED: 1 skipped"),
        ({"test_v6_3_4_x": NOT_RUN}, False, "NOT COVERED: 1 not run"),
        ({"test_v6_3_4_x[1]": PASSED, "test_v6_3_4_x[2]": SKIPPED}, True, "1 passed, 1 skipped"),
        (
            {"test_v6_3_4_x": PASSED, "test_v6_3_4_y[a::b]": FAILED},
            False,
            "NOT COVERED: 1 failed, 1 passed",
        ),
        ({"test_v6_3_5_x": PASSED, "test_rows_v6_3_4": PASSED}, False, "NOT COVERED: no test"),
    ],
)
def test_a_row_is_covered_by_a_test_that_passed_and_none_that_failed(
    went: dict[str, str], is_covered: bool, says: str
) -> None:
    nodes = {f"server/tests/test_it.py::{name}": how for name, how in went.items()}
    first, *_others = checks.standings(checks.rows(TABLE), nodes)
    assert (first.is_covered, str(first)) == (is_covered, says)


def test_a_row_whose_named_test_is_no_more_is_not_covered() -> None:
    nodes = {"a.py::test_other": PASSED, "a.py::test_and_another_one": PASSED}
    _first, second, third = checks.standings(checks.rows(TABLE), nodes)
    assert str(second) == "NOT COVERED: 1 passed, no and_another"
    assert str(third) == "-"


SUITE = """
import pytest

def test_v6_3_4_good(): pass

@pytest.mark.parametrize("number", [1, 2])
def test_v6_3_4_bad(number): assert number == 1

@pytest.mark.skip(reason="no")
def test_v6_3_4_marked(): raise AssertionError

@pytest.mark.skipif(True, reason="no")
def test_v6_3_4_marked_on_a_condition(): raise AssertionError

def test_v6_3_4_skips(): pytest.skip("no")

@pytest.fixture
def broken(): raise OSError

def test_v6_3_4_not_set_up(broken): pass
"""


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """A few tests that go every way there is, beside the conftest.py of this repository."""
    shutil.copy(checks.ROOT / "conftest.py", tmp_path)
    (tmp_path / "test_it.py").write_text(SUITE)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    return tmp_path


def kept(suite: Path, *words: str) -> dict[str, str]:
    """Run pytest there; what it wrote down, by the name of each test."""
    file = suite / ".checks" / "one.json"
    subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *words],
        cwd=suite,
        env={**os.environ, checks.KEEP_AT: str(file)},
        check=False,
        capture_output=True,
    )
    found = json.loads(file.read_text())
    return {node.removeprefix("test_it.py::test_v6_3_4_"): how for node, how in found.items()}


@pytest.mark.parametrize("words", [(), ("-n", "2")], ids=["alone", "on two cores"])
def test_a_run_keeps_how_each_test_went(suite: Path, words: tuple[str, ...]) -> None:
    assert kept(suite, *words) == {
        "good": PASSED,
        "bad[1]": PASSED,
        "bad[2]": FAILED,
        "marked": SKIPPED,
        "marked_on_a_condition": SKIPPED,
        "skips": SKIPPED,
        "not_set_up": FAILED,
    }


def test_collecting_tells_what_would_run(suite: Path) -> None:
    assert kept(suite, "--collect-only") == {
        "good": THERE,
        "bad[1]": THERE,
        "bad[2]": THERE,
        "marked": SKIPPED,
        "marked_on_a_condition": SKIPPED,
        "skips": THERE,
        "not_set_up": THERE,
    }


def test_of_two_runs_the_worse_result_counts_and_a_skip_least(tmp_path: Path) -> None:
    (tmp_path / "one.json").write_text(json.dumps({"a": PASSED, "b": SKIPPED, "c": FAILED}))
    (tmp_path / "two.json").write_text(json.dumps({"a": SKIPPED, "b": SKIPPED, "c": PASSED}))
    assert checks.results(tmp_path) == {"a": PASSED, "b": SKIPPED, "c": FAILED}
    assert checks.results(tmp_path / "nowhere") == {}


@pytest.mark.parametrize(
    ("there", "ran", "status", "line"),
    [
        ({"test_v6_3_4_x": THERE}, {}, 0, "covered 1 of 1 applicable, by collection only"),
        ({"test_v6_3_4_x": THERE}, {"test_v6_3_4_x": PASSED}, 0, "covered 1 of 1 applicable, by"),
        ({"test_v6_3_4_x": THERE}, {"test_v6_3_4_x": FAILED}, 1, "covered 0 of 1 applicable, by"),
        # It was renamed since: what came of it under its old name counts for nothing.
        ({"test_new_name": THERE}, {"test_v6_3_4_x": PASSED}, 1, "covered 0 of 1 applicable, by"),
    ],
)
def test_the_report_fails_where_a_row_is_not_covered(
    there: dict[str, str],
    ran: dict[str, str],
    status: int,
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(checks, "rows", lambda: [Row("6.3.4", "one list"), Row("A29", "not yet")])
    monkeypatch.setattr(checks, "collected", lambda: there)
    monkeypatch.setattr(checks, "results", lambda _folder: ran)
    assert checks.main() == status
    assert line in capsys.readouterr().out
