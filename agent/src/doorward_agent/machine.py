"""A mark of this computer and the agent's folder on it: installed anew, the agent is known again.

It is made for one server alone: two servers can't tell that they know the same computer.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

_LINUX: Final = (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id"))
_UNSET: Final = frozenset({"", "uninitialized"})


def mark(state: Path, server: str) -> str:
    """Answer the mark; empty where the system has no name for itself."""
    name = _system_name()
    if not name:
        return ""
    # An application's own: machine-id(5) asks that the name itself is never shown to a network.
    hidden = hashlib.blake2b(
        b"\0".join((name.encode(), os.fsencode(state.resolve()))),
        key=hashlib.sha256(server.rstrip("/").encode()).digest(),
        person=b"doorward-machine",
        digest_size=32,
    ).digest()
    return base64.urlsafe_b64encode(hidden).rstrip(b"=").decode()


def _system_name() -> str:
    try:
        if sys.platform == "darwin":
            return name_from_ioreg(_ask("/usr/sbin/ioreg", "-rd1", "-c", "IOPlatformExpertDevice"))
        if sys.platform == "win32":
            return _from_registry()
    except OSError:
        return ""
    for path in _LINUX:
        try:
            found = path.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            continue
        if found not in _UNSET:
            return found
    return ""


def name_from_ioreg(answer: str) -> str:
    """Answer the hardware's id out of what ioreg prints; empty where it prints none."""
    found = re.search(r'"IOPlatformUUID"\s*=\s*"([0-9A-Fa-f-]{36})"', answer)
    return found[1].lower() if found else ""


def _ask(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)  # noqa: S603 - a program of the system, no shell
    return done.stdout


def _from_registry() -> str:
    # Not yet tried on a real machine.
    import winreg

    place = r"SOFTWARE\Microsoft\Cryptography"
    with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, place) as key:  # type: ignore[attr-defined,unused-ignore]  # on Windows alone
        return str(winreg.QueryValueEx(key, "MachineGuid")[0])  # type: ignore[attr-defined,unused-ignore]  # on Windows alone
