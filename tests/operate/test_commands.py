"""Operators' commands as they are typed."""

from __future__ import annotations

from pathlib import Path

from tests.conftest import new_server


def test_v6_3_2_an_operator_is_made_and_an_account_unlocked_by_the_command_line(
    tmp_path: Path,
) -> None:
    served = new_server(tmp_path / "data")
    served.start()
    try:
        made = served.run("create-operator", "olga@example.org")
        assert made.returncode == 0, made.stderr
        assert "/password/reset/key/" in made.stdout
        unlocked = served.run("unlock", "olga@example.org")
        assert unlocked.returncode == 0, unlocked.stderr
        wrong = served.run("create-operator", "no address")
        assert (wrong.returncode, "Traceback" in wrong.stderr) == (2, False)
        missing = served.run("create-operator")
        assert (missing.returncode, "Traceback" in missing.stderr) == (2, False)
    finally:
        served.stop()
