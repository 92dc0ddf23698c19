# Why not pathlib: one small file, written aside, flushed and put in place step by step.
# ruff: noqa: PTH105, PTH120, PTH123
"""What a person has decided to keep: restored files, which are not put away again.

An entry is for exactly these bytes in exactly this place. A changed file is a new file, and a copy
elsewhere is a new finding: whoever trusts one invoice has not trusted each that arrives later.
"""

import hashlib
import json
import os
import re
import time
from dataclasses import asdict, dataclass

from doorward_agent.config import AgentConfig

_SHA256 = re.compile(r"[0-9a-f]{64}")


class AllowedUnreadable(Exception):
    """The list is damaged; nothing is allowed until it is repaired or removed."""


@dataclass(frozen=True, slots=True)
class Allowed:
    """One file that may stay where it is."""

    sha256: str
    location: bytes
    """Where it was restored to, as the system names it."""
    path: str
    """The same, for people."""
    since: float
    until: float | None = None
    """When the decision ends; None is never."""

    @property
    def id(self) -> str:
        """What people call the entry by: the same bytes in the same place have the same one."""
        return _id(self.sha256, self.location)


def _id(sha256: str, location: bytes) -> str:
    return hashlib.blake2b(location + b"\0" + sha256.encode(), digest_size=8).hexdigest()


def read(config: AgentConfig) -> dict[str, Allowed]:
    """Return what is allowed, by id, oldest first. Raises AllowedUnreadable."""
    try:
        with open(config.allowed_file, encoding="utf-8") as source:
            entries = json.load(source)
        found = [
            Allowed(
                str(entry["sha256"]),
                bytes.fromhex(entry["location"]),
                str(entry["path"]),
                float(entry["since"]),
                None if entry.get("until") is None else float(entry["until"]),
            )
            for entry in entries
        ]
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AllowedUnreadable(f"{config.allowed_file} cannot be read: {error}") from error
    return {entry.id: entry for entry in sorted(found, key=lambda each: each.since)}


def holds(config: AgentConfig, sha256: str, location: bytes, *, now: float | None = None) -> bool:
    """Whether these bytes may stay in this place now. Raises AllowedUnreadable."""
    entry = read(config).get(_id(sha256, location))
    if entry is None:
        return False
    return entry.until is None or entry.until > (time.time() if now is None else now)


def add(
    config: AgentConfig,
    sha256: str,
    *,
    location: bytes,
    path: str,
    now: float | None = None,
    until: float | None = None,
) -> None:
    """Allow these bytes in this place, for ever or ``until`` then; it is on disk when this returns.

    Past ``allowed_most`` the oldest entry goes: what it kept would be put away again, which can be
    undone. Raises AllowedUnreadable, ValueError.
    """
    if not _SHA256.fullmatch(sha256):
        raise ValueError("not a SHA-256 hash")
    entry = Allowed(sha256, location, path, time.time() if now is None else now, until)
    held = {**read(config), entry.id: entry}
    _write(config, list(held.values())[-config.allowed_most :])


def remove(config: AgentConfig, sha256: str, *, location: bytes) -> bool:
    """Allow these bytes in this place no longer; tells whether they were. Raises
    AllowedUnreadable."""
    held = read(config)
    if held.pop(_id(sha256, location), None) is None:
        return False
    _write(config, list(held.values()))
    return True


def _write(config: AgentConfig, held: list[Allowed]) -> None:
    path = os.fspath(config.allowed_file)
    aside = f"{path}.{os.getpid()}.new"
    handle = os.open(
        aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_NOFOLLOW", 0), 0o600
    )
    with open(handle, "w", encoding="utf-8") as target:
        entries = [{**asdict(entry), "location": entry.location.hex()} for entry in held]
        json.dump(entries, target, indent=1)
        target.flush()
        os.fsync(handle)
    os.replace(aside, path)
    flush_folder(os.path.dirname(path))


def flush_folder(folder: str | bytes | int) -> None:
    """Make what was renamed, made or removed in a folder survive a power cut (POSIX; elsewhere the
    system's own care)."""
    if os.name != "posix":
        return
    handle = folder if isinstance(folder, int) else os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        if not isinstance(folder, int):
            os.close(handle)
