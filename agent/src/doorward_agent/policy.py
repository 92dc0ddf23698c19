"""What this device must do: the last settings received, and safe ones without.

Settings that cannot be applied change nothing: the last good ones stay in force and the server is
told which value was wrong, once per version, so that a mistake makes no loop.
"""

from __future__ import annotations

import dataclasses
import os
import sqlite3
import time
from typing import Final

import msgspec

from doorward_agent import schedule
from doorward_agent.config import MEBIBYTE, AgentConfig
from doorward_agent.database import note, noted, noted_int, transaction
from doorward_protocol import messages
from doorward_protocol.settings import DAYS, CustomScan, Exclusion, FullScan, QuickScan, Settings

DEFAULT: Final = Settings()
_decoder = msgspec.json.Decoder(Settings)

# Folders in which a system keeps itself: opening is never held back there.
_OF_THE_SYSTEM: Final = frozenset(
    (
        "/",
        "/bin",
        "/boot",
        "/dev",
        "/etc",
        "/lib",
        "/lib64",
        "/opt",
        "/proc",
        "/run",
        "/sbin",
        "/sys",
        "/usr",
        "/usr/bin",
        "/usr/lib",
        "/var",
        "/var/lib",
    )
)
# Which setting must be on for a command to be carried out.
REMOTE: Final = {
    "scan.run": "remote_scan",
    "quarantine.restore": "remote_quarantine",
    "quarantine.delete": "remote_quarantine",
    "definitions.update": "remote_upkeep",
    "key.rotate": "remote_upkeep",
    "diagnostics.collect": "remote_upkeep",
}


class Refused(msgspec.Struct, frozen=True):
    """Settings that could not be applied: their version, where in them the mistake is, and why."""

    version: int
    pointer: str
    code: str = "invalid"


class Unsound(Exception):
    """Settings that are well formed and still can't be put in force on this computer."""

    def __init__(self, pointer: str, code: str) -> None:
        super().__init__(f"{pointer}: {code}")
        self.pointer, self.code = pointer, code


def current(db: sqlite3.Connection) -> tuple[int, Settings]:
    """Answer the settings in force and their version, 0 for the built-in ones."""
    body = noted(db, "policy")
    if isinstance(body, bytes):
        try:
            return noted_int(db, "policy_version"), messages.decode(_decoder, body)
        except messages.InvalidMessage:
            pass  # written by a newer agent: the built-in ones protect
    return 0, DEFAULT


def receive(db: sqlite3.Connection, version: int, body: bytes) -> Settings:
    """Put settings in force if they are sound; answer what is in force afterwards."""
    try:
        found = messages.decode(_decoder, body)
        _check(found)
    except messages.InvalidMessage as problem:
        _refuse(db, version, _pointer(body, str(problem)), "invalid")
        return current(db)[1]
    except Unsound as problem:
        _refuse(db, version, problem.pointer, problem.code)
        return current(db)[1]
    with transaction(db):
        note(db, "policy", body)
        note(db, "policy_version", version)
        note(db, "policy_refused", None)
        note(db, "policy_pointer", None)
        note(db, "policy_code", None)
    return found


def forget(db: sqlite3.Connection) -> None:
    """Put the built-in settings in force: what another account wanted holds no longer."""
    with transaction(db):
        for name in ("", "_version", "_refused", "_pointer", "_code"):
            note(db, f"policy{name}", None)


def refused(db: sqlite3.Connection) -> Refused | None:
    """Answer which settings could not be applied last, if those in force are older."""
    version = noted_int(db, "policy_refused", -1)
    if version < 0:
        return None
    pointer, code = noted(db, "policy_pointer"), noted(db, "policy_code")
    return Refused(version, str(pointer or ""), str(code or "invalid"))


def _refuse(db: sqlite3.Connection, version: int, pointer: str, code: str) -> None:
    with transaction(db):
        note(db, "policy_refused", version)
        note(db, "policy_pointer", pointer)
        note(db, "policy_code", code)


def _check(settings: Settings) -> None:
    for index, folder in enumerate(settings.real_time.block):
        # Holding back what the system itself opens would make it crawl.
        if is_here(folder) and os.path.realpath(folder) in _OF_THE_SYSTEM:
            raise Unsound(f"/real_time/block/{index}", "too-broad")
    for name, entry in settings.exclusions.items():
        if not entry.active or entry.sha256 or not is_here(entry.path):
            continue
        # Only this computer knows where a link leads.
        real = os.path.realpath(entry.path)
        if os.path.dirname(real) == real:  # noqa: PTH120 - a string, as realpath answers
            key = name.replace("~", "~0").replace("/", "~1")
            raise Unsound(f"/exclusions/{key}/path"[: messages.MAX_NAME], "too-broad")


# ------------------------------------------------------------------------------------ carrying out


def plans(settings: Settings) -> tuple[schedule.Plan, ...]:
    """Answer the scans these settings ask for."""
    found = []
    if settings.quick_scan.enabled:
        found.append(_plan("quick", settings.quick_scan))
    if settings.full_scan.enabled:
        found.append(_plan("full", settings.full_scan))
    if settings.custom_scan.enabled and folders(settings):
        found.append(_plan("custom", settings.custom_scan))
    return tuple(found)


def _plan(kind: schedule.Kind, when: QuickScan | FullScan | CustomScan) -> schedule.Plan:
    hour, minute = when.start.split(":")
    return schedule.Plan(
        kind=kind,
        hour=int(hour),
        minute=int(minute),
        days=frozenset(DAYS.index(day) for day in when.days),
        spread=when.window,
        on_battery=when.on_battery,
        catch_up=when.catch_up,
    )


def folders(settings: Settings) -> tuple[str, ...]:
    """Answer the folders of the custom scan that can be on such a system as this one."""
    return tuple(folder for folder in settings.custom_scan.folders if is_here(folder))


def is_here(path: str) -> bool:
    """Tell whether this is a whole path of this system's kind."""
    return bool(path) and "\0" not in path and os.path.isabs(path)  # noqa: PTH117 - text as it came


def limits(config: AgentConfig, settings: Settings, *, now: float | None = None) -> AgentConfig:
    """Answer the configuration as these settings want scans to be; `now` in seconds since 1970."""
    scanning = settings.scanning
    moment = (time.time() if now is None else now) * 1000
    counted = [entry for entry in settings.exclusions.values() if _holds(entry, moment)]
    share = (os.cpu_count() or 1) * scanning.processor_share // 100
    return dataclasses.replace(
        config,
        open_archives=config.open_archives and scanning.archives,
        max_file_bytes=scanning.largest_file * MEBIBYTE,
        scan_network_mounts=scanning.network_folders,
        clamd=config.clamd and scanning.second_engine,
        workers=max(1, share),
        excluded=config.excluded
        + tuple(each.path for each in counted if not each.sha256 and is_here(each.path)),
        excluded_files=config.excluded_files
        + tuple(
            (each.sha256, each.path)
            for each in counted
            if each.sha256 and (not each.path or is_here(each.path))
        ),
    )


def _holds(entry: Exclusion, moment: float) -> bool:
    return entry.active and (entry.until is None or entry.until > moment)


def may(settings: Settings, kind: str) -> bool:
    """Tell whether members may have this device carry out a command of this kind."""
    allowed = REMOTE.get(kind)
    return allowed is None or bool(getattr(settings.on_device, allowed))


# ----------------------------------------------------------------------------------------- pointing


def pointer_in(problem: str) -> str:
    """Answer the JSON Pointer (RFC 6901) out of msgspec's `- at `$.a.b[2]`` words."""
    _, found, path = problem.rpartition("`$")
    if not found:
        return ""
    path = path.rstrip("`").replace("[...]", "[*]")
    return path.replace("[", ".").replace("]", "").replace(".", "/")[: messages.MAX_NAME]


def _pointer(body: bytes, problem: str) -> str:
    """Answer where in the settings the mistake is; an exclusion by its own name."""
    pointer = pointer_in(problem)
    if not pointer.startswith("/exclusions/*"):
        return pointer
    rest = pointer.removeprefix("/exclusions/*")
    for name, entry in msgspec.json.decode(body)["exclusions"].items():
        try:
            msgspec.convert(entry, Exclusion)
        except msgspec.ValidationError:
            key = str(name).replace("~", "~0").replace("/", "~1")
            return f"/exclusions/{key}{rest}"[: messages.MAX_NAME]
    return pointer
