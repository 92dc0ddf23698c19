"""Seats, copies, replacements, stolen cookies and what is sent: the real agent, the real pages."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.agent_at_work import EICAR, enrolled, status, until, working_agent
from tests.conftest import Server, agent
from tests.journeys.at_pages import Alice
from tests.journeys.test_commands import much

from doorward_agent import database, policy

FREED_WITHIN_S = 1.0
PATIENCE_S = 40.0


@pytest.fixture
def alice(server: Server, request: pytest.FixtureRequest) -> Iterator[Alice]:
    found = Alice(server, f"alice-{abs(hash(request.node.name))}@example.org")
    yield found
    found.close()


def trouble(state: Path) -> str:
    return str(status(state)["trouble"])


def test_n4_an_offline_devices_seat_is_free_within_a_second_and_it_is_told_why(
    server: Server, alice: Alice, tmp_path: Path
) -> None:
    codes = [alice.code() for _ in range(6)]
    devices = [
        enrolled(tmp_path / str(number), server, code) for number, code in enumerate(codes[:5])
    ]
    old = tmp_path / "0"
    with working_agent(old):
        pass  # It has called; now it is offline.
    # All five places are taken.
    words = ("enroll", "--server", server.device_url, "--code", codes[5])
    assert "covers no further device" in agent(tmp_path / "new", *words).stderr
    began = time.monotonic()
    assert alice.posts(f"/devices/{devices[0]}/remove/").location == "/devices/"
    seat = time.monotonic() - began
    assert agent(tmp_path / "new", *words).returncode == 0
    assert seat < FREED_WITHIN_S
    assert len(alice("devices")) == 5
    with working_agent(old, connected=False):
        until(lambda: status(old)["enrollment"]["state"] == "removed")  # type: ignore[index]  # a dict
    log = (old / "run.log").read_text()
    assert "It was removed on the account’s pages." in log
    assert len(alice("devices")) == 5


def test_n5_wiped_and_enrolled_again_a_computer_has_its_seat_and_its_name_back(
    server: Server, alice: Alice, tmp_path: Path
) -> None:
    if not Path("/etc/machine-id").exists():
        pytest.skip("this system has no name for itself")
    state = tmp_path / "agent"
    device = enrolled(state, server, alice.code())
    alice.posts(f"/devices/{device}/rename/", name="Kitchen")
    with working_agent(state):
        pass
    shutil.rmtree(state)
    assert enrolled(state, server, alice.code()) == device
    with working_agent(state):
        assert alice("devices") == [device]
        assert alice("device", device)["name"] == "Kitchen"
        assert not alice("device", device)["cloned"]


@pytest.mark.parametrize("which", ["current", "other"])
def test_n5_a_copied_computer_is_flagged_costs_no_seat_and_is_settled_in_two_clicks(
    server: Server, alice: Alice, tmp_path: Path, which: str
) -> None:
    original, copy = tmp_path / "original", tmp_path / "copy"
    device = enrolled(original, server, alice.code())
    with working_agent(original):
        pass
    shutil.copytree(original, copy)
    kept, other = (original, copy) if which == "current" else (copy, original)
    with working_agent(original):
        with working_agent(copy, connected=False):
            until(lambda: alice("device", device)["cloned"], PATIENCE_S)
        page = alice.opens(f"/devices/{device}/")
        assert "Two computers call as this device" in page.words
        assert len(alice("devices")) == 1
        before = alice("device", device)["thumbprint"]
        # Click one leads to what it means, click two does it.
        first = re.search(rf'id="keep-{which}" href="([^"]+)"', page.body)
        assert first is not None
        assert alice.opens(first[1]).status == 200
        alice.posts(f"/devices/{device}/copies/", keep=which)
        # After having been refused it pauses for minutes; started anew it calls at once.
        with working_agent(copy, connected=False):
            until(lambda: alice("device", device)["thumbprint"] != before, PATIENCE_S)
            until(lambda: "Another computer uses the same key" in trouble(other), PATIENCE_S)
            until(lambda: trouble(kept) == "", PATIENCE_S)
            uid = alice("ask", device, "diagnostics.collect", {})["uid"]
            until(lambda: alice("state", uid) == "done")
    assert not alice("device", device)["cloned"]
    assert len(alice("devices")) == 1


def test_a_new_computer_takes_an_old_ones_place_and_the_old_one_is_told(
    server: Server, alice: Alice, tmp_path: Path
) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    device = enrolled(old, server, alice.code())
    alice.posts(f"/devices/{device}/rename/", name="Kitchen")
    alice.proves()
    page = alice.posts(f"/devices/{device}/replace/", what="code")
    code = re.search(r"--code ([0-9A-Z-]{14})", page.body)
    assert code is not None
    with working_agent(old):
        fresh = enrolled(new, server, code[1])
        until(lambda: status(old)["enrollment"]["state"] == "removed")  # type: ignore[index]  # a dict
    assert "Another computer has taken its place" in (old / "run.log").read_text()
    assert alice("devices") == [fresh]
    assert alice("device", fresh)["name"] == "Kitchen"


def test_n6_a_killed_agent_is_never_called_done_and_protected_fades(
    server: Server, alice: Alice, tmp_path: Path
) -> None:
    state, home = tmp_path / "agent", tmp_path / "home"
    home.mkdir()
    much(home, 2000)
    device = enrolled(state, server, alice.code())
    with working_agent(state) as work:
        until(lambda: alice("device", device)["state"] == "protected")
        assert "Protected" in alice.opens(f"/devices/{device}/").words
        uid = alice("ask", device, "scan.run", {"paths": [str(home)]})["uid"]
        until(lambda: alice("state", uid) == "running")
        work.kill()
        work.wait()
    assert alice("state", uid) == "running", "nobody has said anything else"
    alice("seen", device, 20)
    told = alice.opens(f"/devices/{device}/").words
    assert "Away" in told
    assert "After 15 minutes without a word we call it away" in told
    assert "last told how far it is" in told
    alice("seen", device, 25 * 60)
    assert "State unknown" in alice.opens(f"/devices/{device}/").words
    with working_agent(state):
        until(lambda: alice("state", uid) == "interrupted")
        until(lambda: "Protected" in alice.opens(f"/devices/{device}/").words)


def test_n7_a_stolen_cookie_switches_nothing_off_and_lets_nothing_out(
    server: Server, alice: Alice, tmp_path: Path
) -> None:
    state, home = tmp_path / "agent", tmp_path / "home"
    home.mkdir()
    (home / "invoice.com").write_text(EICAR)
    device = enrolled(state, server, alice.code())
    with working_agent(state):
        agent(state, "scan", str(home))
        until(lambda: len(alice("found", device)) == 1)
        ((find, _path, _disposition),) = alice("found", device)
        before = alice("told", device)
        # Whoever has her cookie has this session, and no proof.
        alice("anew")
        off = {"mode": "off"}
        for place in ("/protection/settings", f"/devices/{device}/settings"):
            looked = alice.posts(f"{place}/real-time/", **off, **{"own-mode": "on"})
            saved = alice.posts("/protection/save/", change=looked.hidden("change"))
            assert saved.location.startswith("/reauthenticate/"), place
        wrong = alice.posts(f"/reports/threats/{find}/wrong/", where="account", lasts="365")
        here = f"/reports/threats/{find}/wrong/save/"
        assert alice.posts(here, change=wrong.hidden("change")).location.startswith("/reauth")
        for what in ("restore", "delete"):
            out = alice.posts("/reports/quarantine/act/", what=what, item=[find], sure="1")
            assert out.location.startswith("/reauthenticate/")
        many = alice.posts("/devices/choose/act/", what="remove", item=[device], sure="1")
        assert many.location.startswith("/reauthenticate/")
        taken = alice.posts(f"/devices/{device}/replace/", what="code")
        assert taken.location.startswith("/reauthenticate/")
        for token in (False, True):
            answer = alice(
                "api",
                token,
                "PATCH",
                "/api/v1/settings",
                {"values": {"real_time": {"mode": "off"}}},
            )
            assert (answer["status"], answer["code"]) == (403, "reauthentication-required"), answer
            answer = alice(
                "api",
                token,
                "PATCH",
                f"/api/v1/devices/{device}/settings",
                {"values": {"exclusions": {"x": {"path": "/srv/x"}}}},
            )
            assert answer["status"] == 403
            answer = alice(
                "api",
                token,
                "POST",
                f"/api/v1/devices/{device}/commands",
                {"kind": "quarantine.restore", "args": {}},
            )
            assert answer["status"] == 403
        # The cookie itself opens nothing of the API.
        assert alice("api", None, "PATCH", "/api/v1/settings", {"values": {}})["status"] == 401
    assert alice("told", device) == before
    assert alice("devices") == [device]
    assert not (home / "invoice.com").exists()
    assert alice("command", device, "quarantine.restore") == {}


def test_n12_the_page_shows_the_very_bytes_that_the_agent_says_it_sent(
    server: Server, alice: Alice, tmp_path: Path
) -> None:
    state, home = tmp_path / "agent", tmp_path / "home"
    home.mkdir()
    (home / "invoice.com").write_text(EICAR)
    device = enrolled(state, server, alice.code())
    here = f"/devices/{device}/sends/"

    def shown(kind: str) -> bytes:
        found = re.search(
            rf'<pre[^>]+id="sent-{kind}"[^>]*>(.*?)</pre>', alice.opens(here).body, re.DOTALL
        )
        return html.unescape(found[1]).encode() if found else b""

    def said(kind: str) -> bytes:
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "doorward_agent",
                "status",
                "--last-payload",
                kind,
                "--state",
                str(state),
            ],
            capture_output=True,
            check=True,
            timeout=60,
        )
        return done.stdout

    with working_agent(state):
        agent(state, "scan", str(home))
        until(lambda: len(alice("found", device)) == 1)
        until(lambda: status(state)["outbox"]["waiting"] == 0)  # type: ignore[index]  # a dict
        until(lambda: shown("reports") == said("reports") != b"")
        assert str(home).encode() in shown("reports")
        before = json.loads(said("check-in"))["seq"]
        began = time.monotonic()
        assert alice.posts(f"{here}watch/").location == here
        until(lambda: json.loads(said("check-in"))["seq"] > before, 5)
        until(lambda: shown("check-in") == said("check-in"), 5)
        took = time.monotonic() - began
        # What is optional is left out from the next call on.
        assert json.loads(alice.opens(f"{here}reports.json").body)["events"]
        alice.posts(f"{here}switch/", pointer="/sharing/scanned_folders", on="0")
        until(lambda: alice("device", device)["applied"] == alice("device", device)["wanted"])
        uid = alice("ask", device, "scan.run", {"paths": [str(home)]})["uid"]
        until(lambda: alice("state", uid) == "done")
        # Its last report, and not still the one before.
        until(
            lambda: (
                all(part in shown("reports") for part in (b'"end_time"', str(uid).encode()))
                and shown("reports") == said("reports")
            )
        )
        assert str(home).encode() not in shown("reports")
    assert took < 10


def test_d23_after_a_restore_a_device_does_what_the_restored_server_says_and_nothing_twice(
    own_server: Server, tmp_path: Path
) -> None:
    alice = Alice(own_server, "alice@example.org")
    state, saved = tmp_path / "agent", tmp_path / "saved.backup"
    device = enrolled(state, own_server, alice.code())

    def applied() -> bool:
        found = alice("device", device)
        return bool(found["applied"] == found["wanted"] > 0)

    with working_agent(state):
        alice("save", {"quick_scan": {"start": "20:00"}})
        until(applied)
    # Asked and not yet heard of when the backup is made; done by the time it is restored.
    uid = alice("ask", device, "diagnostics.collect", {})["uid"]
    done = own_server.run("backup", str(saved))
    assert done.returncode == 0, done.stderr
    with working_agent(state):
        until(lambda: alice("state", uid) == "done")
        alice("save", {"quick_scan": {"start": "21:00"}})
        until(applied)
    heard = alice("device", device)["applied"]
    began = (state / "run.log").read_text().count("diagnostics.collect begins")
    alice.close()
    own_server.stop()
    restored = Server(tmp_path / "restored", own_server.port, own_server.device_port, {})
    restored.data.mkdir()
    answer = restored.run("restore", str(saved))
    assert answer.returncode == 0, answer.stderr
    restored.start()
    alice = Alice(restored, "alice@example.org")
    try:
        assert alice("device", device)["wanted"] < heard, "this is the older server"
        with working_agent(state):
            until(lambda: alice("device", device)["wanted"] > heard)
            until(applied)
            until(lambda: alice("state", uid) == "done")
        assert json.loads(alice("told", device))["effective"]["quick_scan"]["start"] == "20:00"
        db = database.open_in(state)
        version, in_force = policy.current(db)
        db.close()
        assert (version, in_force.quick_scan.start) == (alice("device", device)["wanted"], "20:00")
        log = (state / "run.log").read_text()
        assert began == 1
        assert log.count("diagnostics.collect begins") == 1, "done once, told twice"
    finally:
        alice.close()
        restored.stop()
