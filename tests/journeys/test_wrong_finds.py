"""N14: a file that was taken wrongly comes back byte for byte, and is let be until its time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.agent_at_work import EICAR, enrolled, until, working_agent
from tests.conftest import Server, agent
from tests.journeys.at_pages import Alice

LET_BE_S = 12.0
RESTORED, QUARANTINED = 9, 3


@pytest.fixture
def alice(server: Server, request: pytest.FixtureRequest) -> Iterator[Alice]:
    found = Alice(server, f"alice-{abs(hash(request.node.name))}@example.org")
    yield found
    found.close()


def taken(alice: Alice, device: str, state: Path, folder: Path) -> str:
    """Have the folder scanned, in which one file is found and put away; the find's id."""
    known = {uid for uid, _path, _disposition in alice("found", device)}
    assert agent(state, "scan", str(folder)).returncode == 1

    def fresh() -> list[str]:
        return [each[0] for each in alice("found", device) if each[0] not in known]

    until(lambda: len(fresh()) == 1)
    return fresh()[0]


def scanned(alice: Alice, device: str, folder: Path) -> int:
    """Have the device scan the folder, asked from afar; how many threats it found."""
    uid = alice("ask", device, "scan.run", {"paths": [str(folder)]})["uid"]
    until(lambda: alice("state", uid) == "done")
    return int(alice("command", device, "scan.run")["threats"])


def test_n14_it_was_wrong_brings_the_file_back_and_the_next_scans_let_it_be(
    server: Server, alice: Alice, tmp_path: Path
) -> None:
    state, home = tmp_path / "agent", tmp_path / "home"
    home.mkdir()
    device = enrolled(state, server, alice.code())
    file = home / "invoice.com"
    file.write_text(EICAR)
    file.chmod(0o640)
    before = (file.read_bytes(), file.stat().st_mode, file.stat().st_mtime_ns)
    with working_agent(state):
        find = taken(alice, device, state, home)
        assert not file.exists()
        here = f"/reports/threats/{find}/"
        looked = alice.posts(f"{here}wrong/", where="device", lasts="7", words="Ours")
        assert "1 device changes" in looked.words
        change = looked.hidden("change")
        # Whoever only has her cookie lets nothing out.
        stolen = alice.posts(f"{here}wrong/save/", change=change)
        assert stolen.location.startswith("/reauthenticate/")
        assert alice("command", device, "quarantine.restore") == {}
        alice("anew")
        alice.proves()
        assert alice.posts(f"{here}wrong/save/", change=change).location == here
        until(file.exists)
        until(lambda: alice("command", device, "quarantine.restore")["state"] == "done")
        assert (file.read_bytes(), file.stat().st_mode, file.stat().st_mtime_ns) == before
        until(lambda: alice("device", device)["applied"] == alice("device", device)["wanted"])
        assert scanned(alice, device, home) == 0
        # Not by the decision kept in its place alone: the settings themselves let it be there.
        (state / "allowed.json").unlink()
        assert scanned(alice, device, home) == 0
        # A copy elsewhere, and another content in its place, are judged anew.
        copy = home / "copy.com"
        copy.write_text(EICAR)
        assert scanned(alice, device, home) == 1
        assert file.exists()
        assert not copy.exists()
        until(lambda: len(alice("found", device)) == 2)
        # Taken back, the next scan takes it again.
        undo = alice.posts(f"{here}wrong/back/")
        alice.posts("/protection/save/", change=undo.hidden("change"))
        until(lambda: alice("device", device)["applied"] == alice("device", device)["wanted"])
        assert scanned(alice, device, home) == 1
        assert not file.exists()


def test_n14_after_its_time_the_file_is_judged_like_any_other(
    server: Server, alice: Alice, tmp_path: Path
) -> None:
    state, home = tmp_path / "agent", tmp_path / "home"
    home.mkdir()
    device = enrolled(state, server, alice.code())
    file = home / "invoice.com"
    file.write_text(EICAR)
    with working_agent(state):
        find = taken(alice, device, state, home)
        uid = alice("let be for", find, LET_BE_S)["uid"]
        until(lambda: alice("state", uid) == "done")
        assert file.read_text() == EICAR
        assert scanned(alice, device, home) == 0
        assert file.exists()
        until(lambda: scanned(alice, device, home) == 1, 60)
        until(lambda: not file.exists())
