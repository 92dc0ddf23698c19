"""People at the computer are told what was found, in words that are only words."""

from __future__ import annotations

import ctypes
import dataclasses
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from doorward_agent import announce, hosts, loop, scan
from doorward_agent.findings import Outcome
from doorward_agent.hosts import linux, macos, windows
from doorward_protocol.settings import Settings


class Screen:
    """Keeps what would be shown."""

    def __init__(self) -> None:
        self.shown: list[str] = []
        self.told = threading.Event()

    def show(self, title: str, text: str) -> int:
        assert title == "Doorward"
        self.shown.append(text)
        self.told.set()
        return 1


def test_one_finding_is_told_by_name_and_place(detection: scan.Detection) -> None:
    screen = Screen()
    announcer = announce.Announcer(wanted=lambda: True, show=screen.show, settle=0.01)
    announcer.found(detection, Outcome(action="quarantined"))
    assert screen.told.wait(10)
    announcer.close()
    assert screen.shown == [f"{detection.title} in {detection.path}. It was put into quarantine."]


def test_many_findings_are_one_message_and_the_last_is_not_lost(detection: scan.Detection) -> None:
    screen = Screen()
    announcer = announce.Announcer(wanted=lambda: True, show=screen.show, settle=60.0)
    for number in range(30):
        announcer.found(
            dataclasses.replace(detection, path=f"/home/alice/{number}"),
            Outcome(action="quarantined" if number else "uncorrected"),
        )
    announcer.close()
    (text,) = screen.shown
    assert text.startswith("30 threats found: ")
    assert text.endswith(" and others. 1 of them are still there.")


def test_who_does_not_want_it_is_not_told(detection: scan.Detection) -> None:
    screen = Screen()
    announcer = announce.Announcer(wanted=lambda: False, show=screen.show)
    announcer.found(detection, Outcome(action="detected"))
    announcer.close()
    assert screen.shown == []
    assert announcer._thread is None


def test_a_screen_that_cannot_be_reached_harms_nothing(detection: scan.Detection) -> None:
    def broken(title: str, text: str) -> int:
        raise OSError("nobody there")

    announcer = announce.Announcer(wanted=lambda: True, show=broken, settle=0.0)
    for _ in range(3):
        announcer.found(detection, Outcome(action="quarantined"))
    announcer.close()


def test_a_long_path_keeps_its_end() -> None:
    assert announce._short("/a" * 100 + "/invoice.com").endswith("/invoice.com")
    assert len(announce._short("x" * 500)) == announce._LONGEST


# ------------------------------------------------------------------------------------------- Linux


def test_linux_finds_the_buses_of_people_who_are_signed_in(tmp_path: Path) -> None:
    uid = os.geteuid()
    for name in (str(uid), "123456", "not a number"):
        (tmp_path / name).mkdir()
    assert linux.sessions(tmp_path) == [], "no bus, no desktop"
    listening = []
    here = Path.cwd()
    for name in (str(uid), "123456"):
        bus = socket.socket(socket.AF_UNIX)
        # At most 107 bytes: bind by the short name.
        os.chdir(tmp_path / name)
        bus.bind("bus")
        os.chdir(here)
        listening.append(bus)
    # The second folder bears the number of somebody whose it is not.
    assert [session.user for session in linux.sessions(tmp_path)] == [uid]
    assert linux.sessions(tmp_path / "nowhere") == []
    for bus in listening:
        bus.close()


def test_linux_takes_no_name_of_a_file_for_markup_or_an_option() -> None:
    words = linux.message_words("Doorward", "--icon=x <b>&</b> in /tmp/'\"")
    assert words[-3:] == ["--", "Doorward", "--icon=x &lt;b&gt;&amp;&lt;/b&gt; in /tmp/'\""]


@pytest.mark.skipif(os.name != "posix", reason="a shell script")
def test_linux_shows_it_as_the_person_whose_session_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = tmp_path / "told"
    program = tmp_path / "notify-send"
    program.write_text(
        f'#!/bin/sh\nprintf "%s\\n" "$DBUS_SESSION_BUS_ADDRESS" "$(id -u)" "$@" > {told}\n'
    )
    program.chmod(0o755)
    uid, gid = os.geteuid(), os.getegid()
    session = linux.Session(uid, gid, tmp_path / "bus")
    monkeypatch.setattr(linux, "sessions", lambda folder: [session])
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert hosts.can_show_messages()
    assert linux.show_message("Doorward", "found") == 1
    assert told.read_text().splitlines()[:2] == [f"unix:path={tmp_path / 'bus'}", str(uid)]
    # One that hangs, or fails, is no screen.
    program.write_text("#!/bin/sh\nexit 3\n")
    assert linux.show_message("Doorward", "found") == 0
    monkeypatch.setattr(hosts, "MESSAGE_SECONDS", 0.2)
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    assert linux.show_message("Doorward", "found") == 0


@pytest.mark.skipif(
    not sys.platform.startswith("linux") or os.geteuid() != 0, reason="root becomes another user"
)
def test_linux_root_is_nobody_else_on_somebodys_bus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[bytes]:
        asked.update(options, command=command)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", run)
    assert linux._shown(["/usr/bin/notify-send", "x"], linux.Session(1000, 1001, tmp_path / "bus"))
    assert (asked["user"], asked["group"], asked["extra_groups"]) == (1000, 1001, [])
    assert not [name for name in asked["env"] if name.startswith(("DOORWARD", "HOME"))]


def test_a_computer_without_the_program_says_that_it_cannot(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert not linux.can_show_messages()
    assert linux.show_message("Doorward", "found") == 0
    facts = loop.device_facts("1.0", Settings())
    assert facts.capabilities is not None
    assert "notify" not in facts.capabilities


# --------------------------------------------------------------------- macOS and Windows, recorded


def test_macos_shows_it_to_whoever_sits_at_the_screen() -> None:
    text = 'x" & (do shell script "true") & "'
    as_root = macos.message_command("Doorward", text, console="501", own=0)
    assert as_root[:6] == ["/bin/launchctl", "asuser", "501", "/usr/bin/sudo", "-u", "#501"]
    assert as_root[-2:] == ["Doorward", text], "an argument, no part of the script"
    assert macos.message_command("Doorward", text, console="501", own=501) == as_root[6:]
    assert macos.message_command("Doorward", text, console="501", own=502) == []
    assert macos.message_command("Doorward", text, console="0", own=0) == []
    assert macos.message_command("Doorward", text, console="", own=0) == []


def test_windows_shows_it_in_the_session_at_the_console(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    class Library:
        session = 2

        def WTSGetActiveConsoleSessionId(self) -> int:  # noqa: N802 - Windows' own name
            return self.session

        def WTSSendMessageW(self, *words: Any) -> int:  # noqa: N802 - Windows' own name
            asked.append(words)
            return 1

    library = Library()
    monkeypatch.setattr(windows, "_library", lambda name: library)
    assert windows.show_message("Doorward", "gefunden: Prüfung") == 1
    server, session, title, size, text, length = asked[0][:6]
    assert (server, session.value, title.value, size.value) == (None, 2, "Doorward", 16)
    assert (text.value, length.value) == ("gefunden: Prüfung", 34)
    assert isinstance(asked[0][6], ctypes.c_uint32)
    library.session = 0xFFFFFFFF
    assert windows.show_message("Doorward", "nobody is there") == 0
