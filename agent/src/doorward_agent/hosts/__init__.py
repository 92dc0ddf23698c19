"""What differs between operating systems, behind one small interface.

Each system's module offers the same functions: `version`, `machine_type`, `power`,
`lower_priority`, `trim_memory`, `homes`, `quick_paths`, `full_paths`, `can_show_messages` and
`show_message`. How each answer is read out of what the system says is a pure function of its own,
tested against recorded answers. Linux was tried on real machines; macOS and Windows are not yet
tried on a real machine.
"""

from __future__ import annotations

import dataclasses
import gc
import socket
import sys
from pathlib import Path
from types import ModuleType
from typing import Final, Literal

MESSAGE_SECONDS: Final = 5.0
"""A program that shows a message is given so long, and no longer."""
MachineType = Literal["desktop", "laptop", "server", "phone", "tablet", "other"]


@dataclasses.dataclass(frozen=True)
class Facts:
    """What this computer says about itself: all that a server learns of it."""

    hostname: str
    os_name: str
    os_version: str
    type: MachineType


@dataclasses.dataclass(frozen=True)
class Power:
    """Where the power comes from; `percent` is None without a battery."""

    on_mains: bool
    percent: int | None = None


def facts() -> Facts:
    """Answer what this computer is; unknown parts are empty or `other`, never guessed."""
    host = _host()
    return Facts(socket.gethostname(), _name(), host.version(), host.machine_type())


def power() -> Power:
    """Answer where the power comes from; no battery reported means mains."""
    found: Power = _host().power()
    return found


def lower_priority() -> None:
    """Let everything else on this computer go first, for processor and disk."""
    _host().lower_priority()


def give_back_memory() -> None:
    """Return to the system what starting up has used and nobody needs any more."""
    gc.collect()
    # What is here now stays: the collector need not look at it again and again.
    gc.freeze()
    _host().trim_memory()


def quick_paths() -> list[Path]:
    """Answer the existing folders where unwanted files usually arrive or start from.

    For a service, which may look everywhere, those of every person; for a person, their own.
    """
    host = _host()
    found: list[Path] = [path for home in host.homes() for path in host.quick_paths(home)]
    return [path for path in dict.fromkeys(found) if _exists(path)]


def watched_paths() -> list[Path]:
    """Answer people's own folders, and those where unwanted files usually arrive or start from."""
    host = _host()
    homes: list[Path] = host.homes()
    return [path for path in dict.fromkeys([*homes, *quick_paths()]) if _exists(path)]


def full_paths() -> list[Path]:
    """Answer the roots of everything that belongs to this computer."""
    found: list[Path] = _host().full_paths()
    return [path for path in found if _exists(path)]


def can_show_messages() -> bool:
    """Answer whether this computer has what shows a message to people, were one there."""
    return bool(_host().can_show_messages())


def show_message(title: str, text: str) -> int:
    """Show people at this computer a message; answer on how many screens. Raises OSError."""
    return int(_host().show_message(title, text))


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # somebody else's folder
        return False


def _name() -> str:
    return {"darwin": "macos", "win32": "windows"}.get(sys.platform, sys.platform)


def _host() -> ModuleType:
    if sys.platform == "win32":
        from doorward_agent.hosts import windows

        return windows
    if sys.platform == "darwin":
        from doorward_agent.hosts import macos

        return macos
    from doorward_agent.hosts import linux

    return linux
