"""The documents say what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from doorward import environment
from doorward import settings as _settings_fill_the_registry  # noqa: F401

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([ROOT / "README.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("bench/*.md")])


def test_the_settings_reference_lists_every_variable_with_its_default_and_nothing_else() -> None:
    rows = re.findall(
        r"^\| `(DOORWARD_\w+)` \| (.*?) \| (.*?) \|$",
        (ROOT / "docs" / "settings.md").read_text(),
        re.MULTILINE,
    )
    written = {name: (default.strip("`"), help) for name, default, help in rows}
    known = {
        name: (variable.default or "(empty)", variable.help)
        for name, variable in environment.REGISTRY.items()
    }
    assert written == known


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_inside_the_repository_leads_somewhere(document: Path) -> None:
    targets = re.findall(r"\]\((?!https?:|mailto:|#)([^)#\s]+)", document.read_text())
    missing = [target for target in targets if not (document.parent / target).exists()]
    assert not missing


def test_the_readme_names_the_two_commands_that_a_stranger_types() -> None:
    text = (ROOT / "README.md").read_text()
    assert "./doorward demo" in text
    assert "./doorward test" in text


def test_every_decision_is_numbered_once() -> None:
    numbers = [path.name[:4] for path in (ROOT / "docs" / "adr").glob("[0-9]*.md")]
    assert len(numbers) == len(set(numbers))


def test_no_committed_lock_names_a_registry() -> None:
    for path in (ROOT / "requirements").iterdir():
        assert not re.search(r"https?://|--index|--find-links", path.read_text()), path
