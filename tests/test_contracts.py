"""The house rules bite: planted breaches of the import contracts are refused."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def copy_of_the_house(place: Path) -> Path:
    """Copy the sources and the contracts, so that a breach can be planted."""
    shutil.copy(ROOT / "pyproject.toml", place)
    ignored = shutil.ignore_patterns("__pycache__", "static", "templates", "definitions")
    for part in ("protocol", "agent", "server"):
        shutil.copytree(ROOT / part / "src", place / part / "src", ignore=ignored)
    return place


def lint_imports(house: Path) -> subprocess.CompletedProcess[str]:
    """Check the copy's contracts, and only the copy's."""
    path = os.pathsep.join(str(house / part / "src") for part in ("protocol", "agent", "server"))
    return subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"],
        cwd=house,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


def plant(house: Path, file: str, line: str) -> None:
    """Add a line to a file of the copy."""
    path = house / file
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as opened:
        opened.write(f"\n{line}\n")


def test_the_house_as_it_stands_keeps_its_contracts(tmp_path: Path) -> None:
    answer = lint_imports(copy_of_the_house(tmp_path))
    assert answer.returncode == 0, answer.stdout + answer.stderr


@pytest.mark.parametrize(
    ("file", "line", "broken"),
    [
        (
            "server/src/doorward/billing/models.py",
            "from doorward.devices import models as planted",
            "Server: edges, then domain, then ground BROKEN",
        ),
        (
            "server/src/doorward/devices/models.py",
            "import doorward.portal.wsgi as planted",
            "Server: edges, then domain, then ground BROKEN",
        ),
        (
            "agent/src/doorward_agent/config.py",
            "import django as planted",
            "The agent carries no Django BROKEN",
        ),
        (
            "agent/src/doorward_agent/config.py",
            "import doorward.settings as planted",
            "Server and agent meet only in the protocol BROKEN",
        ),
    ],
    ids=["upward import", "domain imports an edge", "Django in the agent", "agent imports server"],
)
def test_a_planted_breach_is_refused(tmp_path: Path, file: str, line: str, broken: str) -> None:
    house = copy_of_the_house(tmp_path)
    plant(house, file, line)
    answer = lint_imports(house)
    assert answer.returncode != 0
    assert broken in answer.stdout, answer.stdout + answer.stderr


def test_a_new_app_without_a_place_is_refused(tmp_path: Path) -> None:
    house = copy_of_the_house(tmp_path)
    plant(house, "server/src/doorward/gadgets/__init__.py", "")
    answer = lint_imports(house)
    assert answer.returncode != 0
    assert "not listed as layers:\n\n- doorward.gadgets" in answer.stdout
