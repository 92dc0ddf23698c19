"""What macOS says about the computer. Not yet tried on a real machine: tested on recordings."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import subprocess
from pathlib import Path

from doorward_agent.hosts import MachineType, Power


def version() -> str:
    """Answer the version as macOS names it."""
    release = platform.mac_ver()[0]
    return f"macOS {release}" if release else "macOS"


def machine_type() -> MachineType:
    """Answer what kind of Mac this is, as its model name or its battery tells."""
    return machine_type_from(_ask("/usr/sbin/sysctl", "-n", "hw.model"), power())


def machine_type_from(model: str, source: Power) -> MachineType:
    """Answer the kind out of `hw.model`; newer models all begin with `Mac`, the battery tells."""
    if model.startswith("MacBook") or source.percent is not None:
        return "laptop"
    return "desktop" if model.startswith(("Mac", "iMac")) else "other"


def power() -> Power:
    """Answer the power source as the power manager tells it."""
    return power_from(_ask("/usr/bin/pmset", "-g", "batt"))


def power_from(answer: str) -> Power:
    """Answer the power source out of what `pmset -g batt` prints."""
    charge = re.search(r"InternalBattery\S*.*?(\d{1,3})%", answer, re.DOTALL)
    if charge is None:
        return Power(on_mains=True)
    return Power(on_mains="'Battery Power'" not in answer, percent=int(charge[1]))


def lower_priority() -> None:
    """Nice 19 for this process and those it starts from now on."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, 19)


def trim_memory() -> None:
    """Nothing to do: the system takes free pages back by itself."""


# The words come as arguments: nothing in them is ever a part of the script.
_SCRIPT = (
    "on run argv",
    "display notification (item 2 of argv) with title (item 1 of argv)",
    "end run",
)


def can_show_messages() -> bool:
    """Every Mac can."""
    return True


def show_message(title: str, text: str) -> int:
    """Show it to whoever sits at the screen."""
    user = _ask("/usr/bin/stat", "-f", "%u", "/dev/console")
    command = message_command(title, text, console=user, own=os.geteuid())
    return int(bool(command) and _done(*command))


def message_command(title: str, text: str, *, console: str, own: int) -> list[str]:
    """Answer the command that shows a message at the console; empty when nobody is there."""
    if not console.isdecimal() or int(console) == 0:
        return []  # nobody has signed in: the login window is root's
    script = [word for line in _SCRIPT for word in ("-e", line)]
    command = ["/usr/bin/osascript", *script, title, text]
    if own == 0:
        user = f"#{console}"
        return ["/bin/launchctl", "asuser", console, "/usr/bin/sudo", "-u", user, *command]
    return command if own == int(console) else []


def homes() -> list[Path]:
    """Answer every person's home for root, one's own for everybody else."""
    if os.geteuid() != 0:
        return [Path.home()]
    with contextlib.suppress(OSError):
        return [path for path in Path("/Users").iterdir() if path.is_dir()]
    return []


def quick_paths(home: Path) -> list[Path]:
    """Answer where downloads land, what starts by itself, and what everybody can write to."""
    return [
        home / "Downloads",
        home / "Desktop",
        home / "Library" / "LaunchAgents",
        Path("/Library/LaunchAgents"),
        Path("/Library/LaunchDaemons"),
        Path("/Library/StartupItems"),
        Path("/usr/local/bin"),
        Path("/private/tmp"),
        Path("/private/var/tmp"),
    ]


def full_paths() -> list[Path]:
    """Answer the folders of people and programs; the system's own volume is sealed by macOS."""
    return [Path("/Applications"), Path("/Library"), Path("/Users"), Path("/private"), Path("/opt")]


def _done(*command: str) -> bool:
    """Tell whether a program of the system did what it was asked to."""
    try:
        return (
            subprocess.run(  # noqa: S603 - full paths of the system's own programs
                command, capture_output=True, check=False, timeout=5
            ).returncode
            == 0
        )
    except (OSError, subprocess.SubprocessError):
        return False


def _ask(*command: str) -> str:
    """Answer what a program of the system prints, empty where it fails or hangs."""
    try:
        return subprocess.run(  # noqa: S603 - full paths of the system's own programs
            command, capture_output=True, check=False, encoding="utf-8", timeout=5
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return ""
