# Why not pathlib: one small file, written aside, flushed and put in place step by step.
# ruff: noqa: PTH105, PTH120, PTH123
"""What a person has decided to keep: hashes of restored files, which are not reported again.

The entry is for exactly these bytes. A changed file is a new file.
"""

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
    """One file that may stay."""

    sha256: str
    path: str
    """Where it was restored to, for people; what counts is the hash."""
    since: float


def read(config: AgentConfig) -> dict[str, Allowed]:
    """Return what is allowed, by hash. Raises AllowedUnreadable."""
    try:
        with open(config.allowed_file, encoding="utf-8") as source:
            entries = json.load(source)
        return {
            entry["sha256"]: Allowed(
                str(entry["sha256"]), str(entry["path"]), float(entry["since"])
            )
            for entry in entries
        }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AllowedUnreadable(f"{config.allowed_file} cannot be read: {error}") from error


def add(config: AgentConfig, sha256: str, *, path: str, now: float | None = None) -> None:
    """Allow a file by its hash; it is on disk when this returns. Raises AllowedUnreadable,
    ValueError."""
    if not _SHA256.fullmatch(sha256):
        raise ValueError("not a SHA-256 hash")
    held = read(config)
    held[sha256] = Allowed(sha256, path, time.time() if now is None else now)
    _write(config, held)


def remove(config: AgentConfig, sha256: str) -> bool:
    """Take a hash off the list; tells whether it was on it. Raises AllowedUnreadable."""
    held = read(config)
    if held.pop(sha256, None) is None:
        return False
    _write(config, held)
    return True


def _write(config: AgentConfig, held: dict[str, Allowed]) -> None:
    path = os.fspath(config.allowed_file)
    aside = f"{path}.{os.getpid()}.new"
    handle = os.open(
        aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_NOFOLLOW", 0), 0o600
    )
    with open(handle, "w", encoding="utf-8") as target:
        json.dump([asdict(entry) for entry in held.values()], target, indent=1)
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
