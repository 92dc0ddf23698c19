"""The operator's commands as they are typed: what they print and how they end."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

from tests.conftest import free_port


def doorward(data: Path, *words: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "doorward", *words, "--data", str(data)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, "DOORWARD_DATABASE_URL": "", **settings},
    )


def test_v6_3_2_the_first_operator_is_made_before_the_first_start(tmp_path: Path) -> None:
    done = doorward(tmp_path, "create-operator", "olga@example.org")
    assert done.returncode == 0, done.stderr
    assert "olga@example.org was created as an operator." in done.stdout
    assert "http://localhost:8000/password/reset/key/" in done.stdout
    again = doorward(tmp_path, "create-operator", "olga@example.org")
    assert "is now an operator" in again.stdout


def test_wrong_use_ends_with_a_sentence_and_2(tmp_path: Path) -> None:
    for words in (
        ["create-operator"],
        ["create-operator", "not-an-address"],
        ["create-operator", "olga@example.org", "--password", "x"],
        ["audit"],
        ["unlock"],
    ):
        done = doorward(tmp_path, *words)
        assert done.returncode == 2, words
        assert done.stderr.strip()
        assert "Traceback" not in done.stderr


def test_each_command_explains_itself(tmp_path: Path) -> None:
    for command in ("create-operator", "audit", "unlock"):
        done = doorward(tmp_path, command, "--help")
        assert done.returncode == 0
        assert f"usage: doorward {command}" in done.stdout


def test_a62_a_removed_event_is_noticed(tmp_path: Path) -> None:
    doorward(tmp_path, "create-operator", "olga@example.org")
    done = doorward(tmp_path, "audit", "verify")
    assert (done.returncode, "none changed" in done.stdout) == (0, True)
    with sqlite3.connect(tmp_path / "doorward.sqlite3") as database:
        # As somebody would who has the file.
        database.execute("DROP TRIGGER audit_event_delete")
        database.execute("DELETE FROM audit_event WHERE seq = 1")
    done = doorward(tmp_path, "audit", "verify")
    assert done.returncode == 1
    assert "event 1 is missing" in done.stderr


def test_unlocking_says_whether_there_was_anything_to_unlock(tmp_path: Path) -> None:
    done = doorward(tmp_path, "unlock", "olga@example.org")
    assert done.returncode == 0
    assert "Nothing was locked" in done.stdout


def test_a_way_out_for_mail_that_would_give_the_password_away_refuses_the_start(
    tmp_path: Path,
) -> None:
    way = "smtp://alice:s3cret@mail.example.org"
    # Ports that nobody else has: whether they are free is looked at first.
    ports = ("--port", str(free_port()), "--device-port", str(free_port()))
    done = doorward(tmp_path, "serve", *ports, DOORWARD_EMAIL_URL=way)
    assert done.returncode == 2
    assert "in clear" in done.stderr
    assert "s3cret" not in done.stderr + done.stdout
    assert "Traceback" not in done.stderr
