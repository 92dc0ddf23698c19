# Why not pathlib: at its bound the vault has ten thousand files, looked at while a threat waits.
# ruff: noqa: PTH116, PTH118
"""How much the vault holds, without looking at each of its files for every file put away.

To be asked under the quarantine's lock. What was counted holds as long as the folder's own time
does: whoever adds or removes a file changes that. A sealed file never changes. (Older kernels tell
that time by ticks of 4 ms, so that it may be off by what another process did in the same tick.)
"""

import os
from contextlib import suppress
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Held:
    """What lies in the vault: how many files, of how many bytes together."""

    files: int
    bytes: int


_counted: Final[dict[str, tuple[int, Held]]] = {}


def held(folder: str, suffix: str) -> Held:
    """Return what the vault holds: files that end with this suffix. Raises OSError."""
    changed = os.stat(folder).st_mtime_ns
    known = _counted.get(folder)
    if known is not None and known[0] == changed:
        return known[1]
    files = used = 0
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(suffix):
                with suppress(FileNotFoundError):
                    used += entry.stat(follow_symlinks=False).st_size
                    files += 1
    found = Held(files, used)
    _counted[folder] = (changed, found)
    return found


def added(folder: str, before: Held, name: str) -> None:
    """Remember that one file more lies there than were held before. Raises OSError."""
    size = os.stat(os.path.join(folder, name)).st_size
    _counted[folder] = (os.stat(folder).st_mtime_ns, Held(before.files + 1, before.bytes + size))
