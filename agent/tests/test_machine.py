"""The mark by which an agent that was installed anew is known again."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from doorward_agent import machine


@pytest.fixture(autouse=True)
def _named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = tmp_path / "machine-id"
    name.write_text("0123456789abcdef0123456789abcdef\n")
    monkeypatch.setattr(machine, "_LINUX", (name,))
    monkeypatch.setattr("sys.platform", "linux")


def test_it_is_the_same_after_the_folder_was_wiped_and_fits_the_protocol(tmp_path: Path) -> None:
    before = machine.mark(tmp_path / "state", "https://example.org")
    (tmp_path / "state").mkdir()
    assert machine.mark(tmp_path / "state", "https://example.org/") == before
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}", before)


def test_another_folder_server_or_computer_has_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marks = {
        machine.mark(tmp_path / "a", "https://example.org"),
        machine.mark(tmp_path / "b", "https://example.org"),
        machine.mark(tmp_path / "a", "https://example.net"),
    }
    (tmp_path / "machine-id").write_text("fedcba9876543210fedcba9876543210\n")
    marks.add(machine.mark(tmp_path / "a", "https://example.org"))
    assert len(marks) == 4
    assert not any("0123456789abcdef" in each for each in marks)


@pytest.mark.parametrize("text", ["", "uninitialized\n"])
def test_a_system_without_a_name_has_no_mark(tmp_path: Path, text: str) -> None:
    (tmp_path / "machine-id").write_text(text)
    assert machine.mark(tmp_path, "https://example.org") == ""


def test_a_mac_is_named_by_its_hardware() -> None:
    answer = '    "IOPlatformUUID" = "4C4C4544-0035-3510-8052-B3C04F4D3332"\n'
    assert machine.name_from_ioreg(answer) == "4c4c4544-0035-3510-8052-b3c04f4d3332"
    assert machine.name_from_ioreg("nothing") == ""
