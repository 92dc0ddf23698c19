"""A backup holds everything, is checked before use, and never overwrites what is in use."""

from __future__ import annotations

import io
import sqlite3
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conftest import Server, new_server


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running server whose data the tests of this file may touch."""
    running = new_server(tmp_path_factory.mktemp("served"))
    running.start()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def backup(served: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backup of a running server that knows Alice's account."""
    target = tmp_path_factory.mktemp("backups") / "one.backup"
    with sqlite3.connect(served.data / "doorward.sqlite3") as database:
        database.execute(
            "INSERT INTO accounts_account (id, name, created_at) VALUES (?, 'Alice', ?)",
            ["0" * 32, "2026-11-22 10:00:00"],
        )
    answer = served.run("backup", str(target))
    assert answer.returncode == 0, answer.stderr
    return target


def names_in(data: Path) -> list[str]:
    """Return the names of the accounts in this data folder."""
    with sqlite3.connect(data / "doorward.sqlite3") as database:
        return [row[0] for row in database.execute("SELECT name FROM accounts_account")]


def test_d22_a_backup_comes_back_on_an_empty_host_by_one_command(
    served: Server, backup: Path, tmp_path: Path
) -> None:
    other = new_server(tmp_path / "other")
    answer = other.run("restore", str(backup))
    assert answer.returncode == 0, answer.stderr
    assert names_in(other.data) == ["Alice"]
    for key in ("secret", "field", "device-token"):
        assert (other.data / "keys" / key).read_bytes() == (served.data / "keys" / key).read_bytes()
    other.start()
    other.stop()


def test_a_backup_is_readable_by_its_owner_alone(backup: Path) -> None:
    assert backup.stat().st_mode & 0o077 == 0


def test_d22_a_flipped_byte_or_a_cut_file_is_refused_and_changes_nothing(
    backup: Path, tmp_path: Path
) -> None:
    whole = backup.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0xFF
    for number, content in enumerate((bytes(flipped), whole[: len(whole) // 2], b"no backup")):
        bad = tmp_path / f"bad-{number}"
        bad.write_bytes(content)
        other = new_server(tmp_path / f"other-{number}")
        answer = other.run("restore", str(bad))
        assert answer.returncode == 1, number
        assert "Traceback" not in answer.stderr
        assert not (other.data / "doorward.sqlite3").exists()


def test_a_file_that_was_exchanged_inside_the_backup_is_refused(
    backup: Path, tmp_path: Path
) -> None:
    inside = tmp_path / "inside"
    with tarfile.open(backup) as archive:
        archive.extractall(inside)  # noqa: S202 - made by the test itself
        names = archive.getnames()
    (inside / "keys" / "secret").write_bytes(b"x" * 32)
    forged = tmp_path / "forged"
    with tarfile.open(forged, "w:gz") as archive:
        for name in names:
            archive.add(inside / name, name)
    answer = new_server(tmp_path / "other").run("restore", str(forged))
    assert answer.returncode == 1
    assert "damaged" in answer.stderr


@pytest.mark.parametrize(
    "name", ["keys/more", "definitions/more", "more", "/etc/more", "../more", "mail/1.eml"]
)
def test_a_file_that_was_never_backed_up_is_not_restored(
    backup: Path, tmp_path: Path, name: str
) -> None:
    forged, other = tmp_path / "forged", new_server(tmp_path / "other")
    with tarfile.open(backup) as archive, tarfile.open(forged, "w:gz") as target:
        for member in archive:
            target.addfile(member, archive.extractfile(member))
        entry = tarfile.TarInfo(name)
        entry.size = 4
        target.addfile(entry, io.BytesIO(b"more"))
    answer = other.run("restore", str(forged))
    assert answer.returncode == 1
    assert "no place" in answer.stderr
    assert "Traceback" not in answer.stderr
    assert not list(tmp_path.rglob("*more*"))
    assert not (other.data / "doorward.sqlite3").exists()


@pytest.mark.parametrize(
    "manifest",
    [
        b"[]",
        b"{",
        b'{"format": 1}',
        b'{"format": 9, "made": "", "database": "sqlite", "sha256": {}}',
        b'{"format": 1, "made": "", "database": "sqlite", "sha256": {"../x": "0"}}',
        b'{"format": 1, "made": "", "database": "sqlite", "sha256": {"doorward.sqlite3": "0"}}',
    ],
)
def test_a_manifest_that_is_none_is_told_in_words(tmp_path: Path, manifest: bytes) -> None:
    forged = tmp_path / "forged"
    with tarfile.open(forged, "w:gz") as target:
        entry = tarfile.TarInfo("manifest.json")
        entry.size = len(manifest)
        target.addfile(entry, io.BytesIO(manifest))
    answer = new_server(tmp_path / "other").run("restore", str(forged))
    assert answer.returncode == 1
    assert "Traceback" not in answer.stderr
    assert str(forged) in answer.stderr


def test_a_data_folder_in_use_is_never_overwritten(served: Server, backup: Path) -> None:
    answer = served.run("restore", str(backup))
    assert answer.returncode == 1
    assert "in use" in answer.stderr


def test_a_backup_never_replaces_a_file(served: Server, backup: Path) -> None:
    answer = served.run("backup", str(backup))
    assert answer.returncode == 1
    assert "exists" in answer.stderr


def test_the_doctor_finds_a_served_folder_well(served: Server) -> None:
    answer = served.run(
        "doctor", "--port", str(served.port), "--device-port", str(served.device_port)
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert "the door for people is open" in answer.stdout
    assert "the door for devices is open" in answer.stdout
    assert "tables are up to date" in answer.stdout


def test_the_doctor_names_a_key_that_others_can_read(served: Server) -> None:
    (served.data / "keys" / "secret").chmod(0o644)
    try:
        answer = served.run("doctor")
    finally:
        (served.data / "keys" / "secret").chmod(0o600)
    assert answer.returncode == 1
    assert "chmod 600" in answer.stdout


def test_the_doctor_of_a_mistyped_folder_says_so_and_makes_nothing(tmp_path: Path) -> None:
    nowhere = Server(tmp_path / "nowhere", 0, 0, {})
    answer = nowhere.run("doctor")
    assert answer.returncode == 1
    assert "nothing is installed" in answer.stderr
    assert not (tmp_path / "nowhere").exists()


def test_backup_and_restore_name_what_is_missing(served: Server, tmp_path: Path) -> None:
    no_folder = served.run("backup", str(tmp_path / "no" / "folder" / "x.backup"))
    assert no_folder.returncode == 1
    assert "there is no folder" in no_folder.stderr
    no_file = new_server(tmp_path / "other").run("restore", str(tmp_path / "missing.backup"))
    assert no_file.returncode == 1
    assert "there is no file" in no_file.stderr
