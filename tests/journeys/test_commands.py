"""What a member asks is done by the real agent, told as it goes, and never called done before."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import psutil
import pytest
from tests.agent_at_work import EICAR, enrolled, until, working_agent
from tests.conftest import Server, agent
from tests.journeys.people import Alice, Member

from doorward_agent import identity
from doorward_protocol import signing

RUNNING_WITHIN_S = 1.0


def much(home: Path, archives: int = 150) -> None:
    """So many different archives that looking into them takes seconds."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(200):
            archive.writestr(f"{number}.txt", f"Letter {number}. " * 3000)
    for number in range(archives):
        (home / f"{number}.zip").write_bytes(packed.getvalue() + str(number).encode())


def seconds_until_it_runs(member: Member, device: str, home: Path) -> float:
    """Ask for a scan of the folder, and wait for its end; the seconds until it ran."""
    uid = member.ask(device, "scan.run", paths=[str(home)])
    took = until(lambda: member("look", uid)["state"] in {"running", "done"}, 5)
    until(lambda: member("look", uid)["state"] == "done", 120)
    return took


def test_n4_scan_now_runs_within_a_second_moves_and_is_done(
    server: Server, alice: Alice, member: Member, state: Path, home: Path
) -> None:
    device = enrolled(state, server, alice.codes()[0])
    much(home, 100)
    (home / "zz.com").write_text(EICAR)
    with working_agent(state):
        uid = member.ask(device, "scan.run", paths=[str(home)])
        took = until(lambda: member("look", uid)["state"] == "running", 5)
        seen = set()

        def moved() -> bool:
            found = member("look", uid)
            seen.add((found["state"], found["files"]))
            return found["state"] not in {"queued", "delivered", "running"}

        until(moved, 120)
        found = member("look", uid)
        until(lambda: member("quarantined", device) != [])
        until(lambda: [uid, 2] in member("scans", device))
        # Other programs on this machine may have held the cores just then: the best of three.
        for _ in range(2):
            if took >= RUNNING_WITHIN_S:
                took = seconds_until_it_runs(member, device, home)
    assert (found["state"], found["files"], found["threats"]) == ("done", 101, 1)
    assert len({files for state_, files in seen if state_ == "running"}) > 2
    assert not (home / "zz.com").exists()
    assert took < RUNNING_WITHIN_S, f"running only after {took:.2f} s"


def test_a_canceled_scan_stops_and_says_so(
    server: Server, alice: Alice, member: Member, state: Path, home: Path
) -> None:
    device = enrolled(state, server, alice.codes()[0])
    much(home, 5000)
    with working_agent(state):
        uid = member.ask(device, "scan.run", paths=[str(home)])
        member.wait_for(uid, "running")
        member("cancel", uid)
        found = member.wait_for(uid, "canceled", "done", "interrupted")
        until(lambda: [uid, 3] in member("scans", device))
    assert found["state"] == "canceled"


@pytest.mark.parametrize("victim", ["agent", "scan"])
def test_n4_an_agent_killed_mid_scan_is_interrupted_never_done(
    server: Server, alice: Alice, member: Member, state: Path, home: Path, victim: str
) -> None:
    device = enrolled(state, server, alice.codes()[0])
    much(home, 2000)
    with working_agent(state) as work:
        uid = member.ask(device, "scan.run", paths=[str(home)])
        until(lambda: member("look", uid)["files"] > 0)
        scans = [each for each in psutil.Process(work.pid).children() if "act" in each.cmdline()]
        (work if victim == "agent" else scans[0]).kill()
        if victim == "agent":
            # Its scan ends with it: nobody could stop it any more.
            until(lambda: not scans[0].is_running() or scans[0].status() == "zombie")
            assert member("look", uid)["state"] == "running"
            with working_agent(state):
                found = member.wait_for(uid, "interrupted", "done", "failed")
        else:
            found = member.wait_for(uid, "interrupted", "done", "failed")
    assert found["state"] == "interrupted"


def test_quarantine_is_restored_and_deleted_from_afar(
    server: Server, alice: Alice, member: Member, state: Path, home: Path
) -> None:
    device = enrolled(state, server, alice.codes()[0])
    files = [home / "first.com", home / "second.com"]
    for number, file in enumerate(files):
        file.write_text(EICAR + "\n" * number)
    assert agent(state, "scan", str(home)).returncode == 1
    first, second = [found[0] for found in member("quarantined", device)]
    with working_agent(state):
        back = member.ask(device, "quarantine.restore", quarantine_id=first)
        gone = member.ask(device, "quarantine.delete", quarantine_id=second)
        assert member.wait_for(back, "done", "failed")["state"] == "done"
        assert member.wait_for(gone, "done", "failed")["state"] == "done"
        until(lambda: {found[1] for found in member("quarantined", device)} == {9, 5})
        again = member.ask(device, "quarantine.delete", quarantine_id=second)
        found = member.wait_for(again, "done", "failed")
        assert (found["state"], found["code"]) == ("failed", "not-in-quarantine")
    # N14: the same bytes in the same place, and only of the one.
    assert [file.exists() and file.read_text() for file in files].count(False) == 1
    assert sum(file.exists() and file.read_text().startswith(EICAR) for file in files) == 1


def test_a_new_key_is_taken_and_spoken_with(
    server: Server, alice: Alice, member: Member, state: Path
) -> None:
    device = enrolled(state, server, alice.codes()[0])
    before = member("thumbprint", device)
    with working_agent(state):
        uid = member.ask(device, "key.rotate")
        assert member.wait_for(uid, "done", "failed")["state"] == "done"
        after = member("thumbprint", device)
        assert after != before
        other = member.ask(device, "diagnostics.collect")
        found = member.wait_for(other, "done", "failed")
    mine = signing.thumbprint(signing.jwk_of(identity.key(state).public_key()))
    assert mine == after
    assert "definitions:" in found["report"]
    assert str(state) not in found["report"]


def test_a51_what_is_switched_off_on_the_computer_is_refused(
    server: Server, alice: Alice, member: Member, state: Path, home: Path
) -> None:
    device = enrolled(state, server, alice.codes()[0])
    with working_agent(state):
        # Asked while the server still believes that it may.
        (state / "remote-actions-off").touch()
        uid = member.ask(device, "scan.run", paths=[str(home)])
        found = member.wait_for(uid, "rejected", "done", "failed")
        assert (found["state"], found["code"]) == ("rejected", "switched-off-here")
        until(lambda: "remote.off" in member("capabilities", device))
    assert "Remote actions are off" in agent(state, "remote").stdout
    assert agent(state, "remote", "on").returncode == 0
    assert not (state / "remote-actions-off").exists()


def test_a48_a_folder_swapped_for_a_link_gets_no_file_from_afar(
    server: Server, alice: Alice, member: Member, state: Path, home: Path, tmp_path: Path
) -> None:
    device = enrolled(state, server, alice.codes()[0])
    folder, elsewhere = home / "letters", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.mkdir()
    (folder / "invoice.com").write_text(EICAR)
    assert agent(state, "scan", str(home)).returncode == 1
    ((held, _),) = member("quarantined", device)
    folder.rmdir()
    folder.symlink_to(elsewhere)
    with working_agent(state):
        uid = member.ask(device, "quarantine.restore", quarantine_id=held)
        found = member.wait_for(uid, "done", "failed")
    assert (found["state"], found["code"]) == ("failed", "link-in-path")
    assert list(elsewhere.iterdir()) == []
    assert held in agent(state, "quarantine", "list").stdout
