"""What each operating system says about the computer, read out of recorded answers."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from doorward_agent import hosts
from doorward_agent.hosts import Power, linux, macos, windows

MAINS = Power(on_mains=True)
BATTERY = Power(on_mains=False, percent=40)


def supply(folder: Path, name: str, **files: str) -> None:
    (folder / name).mkdir(parents=True)
    for file, text in files.items():
        (folder / name / file).write_text(text + "\n")


def test_this_computer_has_facts() -> None:
    found = hosts.facts()
    assert found.hostname == socket.gethostname()
    assert found.os_name in {"linux", "macos", "windows"}


def test_linux_names_its_version() -> None:
    debian = {"NAME": "Debian GNU/Linux", "PRETTY_NAME": "Debian GNU/Linux 12 (bookworm)"}
    assert linux.version_from(debian) == "Debian GNU/Linux 12 (bookworm)"
    assert linux.version_from({"NAME": "Alpine", "VERSION_ID": "3.20"}) == "Alpine 3.20"
    assert linux.version_from({}) == ""


@pytest.mark.parametrize(
    ("chassis", "source", "kind"),
    [
        ("10", MAINS, "laptop"),
        ("3", MAINS, "desktop"),
        ("23", MAINS, "server"),
        ("30", BATTERY, "tablet"),
        ("1", MAINS, "other"),
        ("1", BATTERY, "laptop"),
        ("", MAINS, "other"),
        ("nonsense", MAINS, "other"),
    ],
)
def test_linux_tells_what_kind_of_computer_it_is(chassis: str, source: Power, kind: str) -> None:
    assert linux.machine_type_from(chassis, source) == kind


def test_linux_without_any_power_supply_runs_on_mains(tmp_path: Path) -> None:
    assert linux.power(tmp_path) == MAINS
    assert linux.power(tmp_path / "missing") == MAINS


def test_linux_laptop_on_battery(tmp_path: Path) -> None:
    supply(tmp_path, "AC", type="Mains", online="0")
    supply(tmp_path, "BAT0", type="Battery", status="Discharging", capacity="40")
    assert linux.power(tmp_path) == BATTERY


def test_linux_laptop_on_mains(tmp_path: Path) -> None:
    supply(tmp_path, "AC", type="Mains", online="1")
    supply(tmp_path, "BAT0", type="Battery", status="Charging", capacity="40")
    assert linux.power(tmp_path) == Power(on_mains=True, percent=40)


def test_a_mouse_does_not_make_a_laptop(tmp_path: Path) -> None:
    supply(tmp_path, "hidpp", type="Battery", scope="Device", status="Discharging", capacity="9")
    assert linux.power(tmp_path) == MAINS


def test_linux_looks_after_people_not_after_programs() -> None:
    people = [(0, "/root"), (33, "/var/www"), (1000, "/home/alice"), (65534, "/nonexistent")]
    assert linux.homes_from(people) == [Path("/root"), Path("/home/alice")]
    assert linux.homes_from([(1001, "/"), (1002, "")]) == []


def test_quick_paths_exist_and_come_once() -> None:
    found = hosts.quick_paths()
    assert len(set(found)) == len(found)
    assert all(path.exists() for path in found)


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux itself")
def test_lower_priority_is_nice_19_and_idle_disk() -> None:
    code = (
        "import os, ctypes\nfrom doorward_agent import hosts\nhosts.lower_priority()\n"
        "print(os.getpriority(os.PRIO_PROCESS, 0))\n"
        "import psutil; print(int(psutil.Process().ionice().ioclass))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603 - our own interpreter
    assert found.stdout.split() == ["19", "3"]


@pytest.mark.parametrize(
    ("answer", "power"),
    [
        ("Now drawing from 'AC Power'\n", MAINS),
        (
            "Now drawing from 'Battery Power'\n -InternalBattery-0 (id=4653155)\t40%; "
            "discharging; 4:32 remaining present: true\n",
            BATTERY,
        ),
        (
            "Now drawing from 'AC Power'\n -InternalBattery-0 (id=4653155)\t100%; charged; "
            "0:00 remaining present: true\n",
            Power(on_mains=True, percent=100),
        ),
        ("", MAINS),
    ],
)
def test_macos_tells_its_power(answer: str, power: Power) -> None:
    assert macos.power_from(answer) == power


@pytest.mark.parametrize(
    ("model", "source", "kind"),
    [
        ("MacBookPro18,1", MAINS, "laptop"),
        ("Mac14,2", BATTERY, "laptop"),
        ("Macmini9,1", MAINS, "desktop"),
        ("iMac21,1", MAINS, "desktop"),
        ("", MAINS, "other"),
    ],
)
def test_macos_tells_what_kind_of_computer_it_is(model: str, source: Power, kind: str) -> None:
    assert macos.machine_type_from(model, source) == kind


@pytest.mark.parametrize(
    ("status", "power"),
    [
        ((1, 128, 255), MAINS),
        ((0, 1, 40), BATTERY),
        ((1, 8, 90), Power(on_mains=True, percent=90)),
        ((255, 255, 255), MAINS),
    ],
)
def test_windows_tells_its_power(status: tuple[int, int, int], power: Power) -> None:
    assert windows.power_from(*status) == power


def test_windows_tells_what_kind_of_computer_it_is() -> None:
    assert windows.machine_type_from(1, MAINS) == "desktop"
    assert windows.machine_type_from(1, BATTERY) == "laptop"
    assert windows.machine_type_from(3, MAINS) == "server"


def test_windows_names_its_version() -> None:
    assert windows.version_from("11", "10.0.26100", "Professional") == (
        "Windows 11 Professional (10.0.26100)"
    )


def test_windows_lists_fixed_drives_without_diskettes() -> None:
    assert windows.drives_from(0b1101) == ["C", "D"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has it")
def test_windows_own_functions_say_where_they_are_missing() -> None:
    with pytest.raises(OSError, match="on Windows only"):
        windows.seal(b"secret")
