"""What Linux says about the computer: files under /etc, /sys and /proc, no programs run."""

from __future__ import annotations

import contextlib
import dataclasses
import html
import os
import platform
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from doorward_agent.hosts import MachineType, Power

# System Management BIOS reference 3.7, "System Enclosure or Chassis Types" (table 17).
_CHASSIS: Final[Mapping[str, MachineType]] = {
    **dict.fromkeys(("3", "4", "5", "6", "7", "13", "15", "16", "24", "35", "36"), "desktop"),
    **dict.fromkeys(("8", "9", "10", "14", "31", "32"), "laptop"),
    **dict.fromkeys(("17", "23", "25", "28", "29"), "server"),
    "30": "tablet",
    "11": "phone",
}

_POWER_SUPPLIES: Final = Path("/sys/class/power_supply")
_NOBODY: Final = 65534
_IOPRIO_WHO_PROCESS: Final = 1
# ioprio_set(2): class 3 is "idle", in the three highest bits of sixteen.
_IOPRIO_IDLE: Final = 3 << 13
# Its number differs by architecture and the C library has no name for it.
_IOPRIO_SET: Final[Mapping[str, int]] = {
    "x86_64": 251,
    "aarch64": 30,
    "riscv64": 30,
    "loongarch64": 30,
    "armv7l": 314,
    "i686": 289,
    "ppc64le": 273,
    "s390x": 282,
}


def version() -> str:
    """Answer the distribution's own name for its version, empty where it has none."""
    try:
        return version_from(platform.freedesktop_os_release())
    except OSError:
        return ""


def version_from(os_release: Mapping[str, str]) -> str:
    """Answer the name for people out of the fields of os-release(5)."""
    named = f"{os_release.get('NAME', '')} {os_release.get('VERSION_ID', '')}".strip()
    return os_release.get("PRETTY_NAME") or named


def machine_type() -> MachineType:
    """Answer what kind of computer this is, as its enclosure and its battery tell."""
    return machine_type_from(_read(Path("/sys/class/dmi/id/chassis_type")), power())


def machine_type_from(chassis: str, source: Power) -> MachineType:
    """Answer the kind out of the SMBIOS chassis number; a battery of its own means a laptop."""
    found = _CHASSIS.get(chassis)
    if found:
        return found
    return "laptop" if source.percent is not None else "other"


def power(supplies: Path = _POWER_SUPPLIES) -> Power:
    """Answer the power source as the kernel's power supply class tells it."""
    mains: list[bool] = []
    batteries: list[tuple[str, int | None]] = []
    with contextlib.suppress(OSError):
        for supply in sorted(supplies.iterdir()):
            kind = _read(supply / "type")
            if kind in {"Mains", "USB", "Wireless"}:
                mains.append(_read(supply / "online") not in {"", "0"})
            # A mouse or a headset reports a battery too, of scope "Device": not ours.
            elif kind == "Battery" and _read(supply / "scope") != "Device":
                capacity = _read(supply / "capacity")
                batteries.append(
                    (_read(supply / "status"), int(capacity) if capacity.isdecimal() else None)
                )
    if not batteries:
        return Power(on_mains=True)
    charges = [charge for _, charge in batteries if charge is not None]
    discharging = any(status == "Discharging" for status, _ in batteries)
    return Power(
        on_mains=any(mains) or not discharging,
        percent=min(charges) if charges else 0,
    )


def lower_priority() -> None:
    """Nice 19 and idle input/output for this process and those it starts from now on."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, 19)
    number = _IOPRIO_SET.get(platform.machine())
    if number is None:
        return
    import ctypes

    with contextlib.suppress(OSError, AttributeError):
        # A kernel without it answers -1, and nice alone has to do.
        ctypes.CDLL(None).syscall(number, _IOPRIO_WHO_PROCESS, 0, _IOPRIO_IDLE)


def trim_memory() -> None:
    """Have the C library return its free pages, where it can (glibc)."""
    import ctypes

    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


_PROGRAM: Final = "notify-send"
_SESSIONS: Final = Path("/run/user")


def can_show_messages() -> bool:
    """Tell whether the desktops' own program for messages is installed."""
    return shutil.which(_PROGRAM) is not None


def show_message(title: str, text: str) -> int:
    """Show it on each desktop that can be reached: everybody's for root, one's own for others."""
    program = shutil.which(_PROGRAM)
    if program is None:
        return 0
    return sum(
        _shown([program, *message_words(title, text)], session) for session in sessions(_SESSIONS)
    )


@dataclasses.dataclass(frozen=True)
class Session:
    """Somebody who is signed in, and the bus of their session."""

    user: int
    group: int
    bus: Path


def sessions(folder: Path) -> list[Session]:
    """Answer the session buses that this process may speak on, as systemd lays them out."""
    found = []
    with contextlib.suppress(OSError):
        for home in sorted(folder.iterdir()):
            bus = home / "bus"
            with contextlib.suppress(OSError):
                facts = home.stat()
                mine = os.geteuid() in {0, facts.st_uid}
                # Named after the user, and theirs: nobody leaves a bus for somebody else.
                if mine and home.name == str(facts.st_uid) and bus.is_socket():
                    found.append(Session(facts.st_uid, facts.st_gid, bus))
    return found


def message_words(title: str, text: str) -> list[str]:
    """Answer the program's words for a message; a text is never taken for markup or an option."""
    return [
        "--app-name=Doorward",
        "--icon=security-high",
        "--urgency=normal",
        "--",
        html.escape(title, quote=False),
        html.escape(text, quote=False),
    ]


def _shown(command: list[str], session: Session) -> bool:
    from doorward_agent import hosts

    # As the very person whose session it is: a bus refuses others, root too.
    other = os.geteuid() == 0 and session.user != 0
    try:
        done = subprocess.run(  # noqa: S603 - the system's own program, with our words
            command,
            env={
                "DBUS_SESSION_BUS_ADDRESS": f"unix:path={session.bus}",
                "XDG_RUNTIME_DIR": str(session.bus.parent),
                "PATH": "/usr/bin:/bin",
                "LANG": "C.UTF-8",
            },
            user=session.user if other else None,
            group=session.group if other else None,
            extra_groups=[] if other else None,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=hosts.MESSAGE_SECONDS,
            cwd="/",
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return done.returncode == 0


def homes() -> list[Path]:
    """Answer every person's home for root, one's own for everybody else."""
    if os.geteuid() != 0:
        return [Path.home()]
    import pwd

    return homes_from([(entry.pw_uid, entry.pw_dir) for entry in pwd.getpwall()])


def homes_from(people: list[tuple[int, str]]) -> list[Path]:
    """Answer root's home and those of people; other users are programs (login.defs(5), UID_MIN)."""
    return [
        Path(home)
        for number, home in people
        if (number == 0 or 1000 <= number < _NOBODY) and home not in {"", "/"}
    ]


def quick_paths(home: Path) -> list[Path]:
    """Answer where downloads land, what starts by itself, and what everybody can write to."""
    return [
        home / "Downloads",
        home / "Desktop",
        home / ".config" / "autostart",
        home / ".config" / "systemd",
        home / ".local" / "bin",
        Path("/etc/cron.d"),
        Path("/etc/systemd/system"),
        Path("/usr/local/bin"),
        Path("/tmp"),  # nosec B108 # noqa: S108 - looked into, never written to
        Path("/var/tmp"),  # nosec B108 # noqa: S108
        Path("/dev/shm"),  # nosec B108 # noqa: S108
    ]


def full_paths() -> list[Path]:
    """Answer everything below the root."""
    return [Path("/")]


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
