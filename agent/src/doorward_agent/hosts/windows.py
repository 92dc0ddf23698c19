"""What Windows says about the computer. Not yet tried on a real machine: tested on recordings.

Everything that needs Windows itself is kept in small functions that load its libraries only when
called, so that the rest can be imported, and tested, anywhere.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import sys
from pathlib import Path
from typing import Any, Final

from doorward_agent.hosts import MachineType, Power

# GetSystemPowerStatus: "no system battery" and "unknown status".
_NO_BATTERY: Final = 128
_UNKNOWN: Final = 255
# OSVERSIONINFOEX.wProductType: a workstation; the others are servers.
_WORKSTATION: Final = 1
_CRYPTPROTECT_LOCAL_MACHINE: Final = 0x4
_CRYPTPROTECT_UI_FORBIDDEN: Final = 0x1
# WTSGetActiveConsoleSessionId: nobody is there; MessageBox: MB_ICONWARNING.
_NO_SESSION: Final = 0xFFFFFFFF
_ICON_WARNING: Final = 0x30
_SECONDS_SHOWN: Final = 30
_IDLE_PRIORITY_CLASS: Final = 0x40
_BACKGROUND_BEGIN: Final = 0x00100000


class _PowerStatus(ctypes.Structure):
    _fields_ = [
        ("ACLineStatus", ctypes.c_ubyte),
        ("BatteryFlag", ctypes.c_ubyte),
        ("BatteryLifePercent", ctypes.c_ubyte),
        ("SystemStatusFlag", ctypes.c_ubyte),
        ("BatteryLifeTime", ctypes.c_uint32),
        ("BatteryFullLifeTime", ctypes.c_uint32),
    ]


class _Blob(ctypes.Structure):
    _fields_ = [("cbData", ctypes.c_uint32), ("pbData", ctypes.POINTER(ctypes.c_char))]


def version() -> str:
    """Answer the version as Windows names it."""
    release, build, _, _ = platform.win32_ver()
    return version_from(release, build, platform.win32_edition() or "")


def version_from(release: str, build: str, edition: str) -> str:
    """Answer the name for people out of release, build and edition."""
    return " ".join(
        part for part in ("Windows", release, edition, f"({build})" * bool(build)) if part
    )


def machine_type() -> MachineType:
    """Answer what kind of computer this is, as the product type and the battery tell."""
    return machine_type_from(_product_type(), power())


def machine_type_from(product_type: int, source: Power) -> MachineType:
    """Answer the kind: servers by product type, laptops by their battery."""
    if product_type != _WORKSTATION:
        return "server"
    return "laptop" if source.percent is not None else "desktop"


def power() -> Power:
    """Answer the power source as GetSystemPowerStatus tells it."""
    status = _PowerStatus()
    if not _library("kernel32").GetSystemPowerStatus(ctypes.byref(status)):
        return Power(on_mains=True)
    return power_from(status.ACLineStatus, status.BatteryFlag, status.BatteryLifePercent)


def power_from(line: int, flag: int, percent: int) -> Power:
    """Answer the power source out of SYSTEM_POWER_STATUS; unknown means mains."""
    if flag == _UNKNOWN or flag & _NO_BATTERY:
        return Power(on_mains=True)
    return Power(on_mains=line != 0, percent=percent if percent != _UNKNOWN else 0)


def lower_priority() -> None:
    """Idle priority class and background mode for this process."""
    kernel = _library("kernel32")
    process = kernel.GetCurrentProcess()
    kernel.SetPriorityClass(process, _IDLE_PRIORITY_CLASS)
    kernel.SetPriorityClass(process, _BACKGROUND_BEGIN)


def trim_memory() -> None:
    """Nothing to do: the system takes free pages back by itself."""


def can_show_messages() -> bool:
    """Every Windows can."""
    return True


def show_message(title: str, text: str) -> int:
    """Show it in the session at the console, as a box that goes by itself; works for a service."""
    session = _library("kernel32").WTSGetActiveConsoleSessionId()
    if session == _NO_SESSION:
        return 0
    answer = ctypes.c_uint32()
    # Lengths are in bytes of UTF-16, without the end.
    shown = _library("wtsapi32").WTSSendMessageW(
        None,
        ctypes.c_uint32(session),
        ctypes.c_wchar_p(title),
        ctypes.c_uint32(len(title.encode("utf-16-le"))),
        ctypes.c_wchar_p(text),
        ctypes.c_uint32(len(text.encode("utf-16-le"))),
        ctypes.c_uint32(_ICON_WARNING),
        ctypes.c_uint32(_SECONDS_SHOWN),
        ctypes.byref(answer),
        False,
    )
    return int(bool(shown))


def homes() -> list[Path]:
    """Answer every person's home that this user may look into."""
    users = Path(os.environ.get("PUBLIC", r"C:\Users\Public")).parent
    with contextlib.suppress(OSError):
        return [path for path in users.iterdir() if path.is_dir()]
    return [Path.home()]


def quick_paths(home: Path) -> list[Path]:
    """Answer where downloads land, what starts by itself, and the folders for temporary files."""
    roaming = Path(os.environ.get("APPDATA", home / "AppData" / "Roaming"))
    common = Path(os.environ.get("PROGRAMDATA", r"C:\ProgramData"))
    startup = Path("Microsoft", "Windows", "Start Menu", "Programs", "Startup")
    return [
        home / "Downloads",
        home / "Desktop",
        home / "AppData" / "Local" / "Temp",
        roaming / startup,
        common / startup,
        Path(os.environ.get("SYSTEMROOT", r"C:\Windows")) / "Temp",
        Path(os.environ.get("PUBLIC", r"C:\Users\Public")),
    ]


def full_paths() -> list[Path]:
    """Answer every fixed drive."""
    return [Path(f"{letter}:\\") for letter in drives_from(_library("kernel32").GetLogicalDrives())]


def drives_from(mask: int) -> list[str]:
    """Answer the drive letters out of the bits of GetLogicalDrives, without A and B (diskettes)."""
    return [chr(ord("A") + bit) for bit in range(2, 26) if mask >> bit & 1]


def seal(body: bytes) -> bytes:
    """Encrypt so that only this computer can read it (DPAPI). Raises OSError."""
    return _protect("CryptProtectData", body)


def unseal(body: bytes) -> bytes:
    """Decrypt what `seal` made on this computer. Raises OSError."""
    return _protect("CryptUnprotectData", body)


def _protect(function: str, body: bytes) -> bytes:
    buffer = ctypes.create_string_buffer(body, len(body))
    given = _Blob(len(body), ctypes.cast(buffer, ctypes.POINTER(ctypes.c_char)))
    taken = _Blob()
    flags = _CRYPTPROTECT_LOCAL_MACHINE | _CRYPTPROTECT_UI_FORBIDDEN
    done = getattr(_library("crypt32"), function)(
        ctypes.byref(given), None, None, None, None, flags, ctypes.byref(taken)
    )
    if not done:
        raise OSError(f"{function} failed")
    try:
        return ctypes.string_at(taken.pbData, taken.cbData)
    finally:
        _library("kernel32").LocalFree(taken.pbData)


def _product_type() -> int:
    asked: Any = getattr(sys, "getwindowsversion", None)
    return int(asked().product_type) if asked else _WORKSTATION


def _library(name: str) -> Any:
    """Load one of Windows' own libraries; elsewhere there is none."""
    loader: Any = getattr(ctypes, "WinDLL", None)
    if loader is None:
        raise OSError(f"{name} exists on Windows only")
    return loader(name, use_last_error=True)
