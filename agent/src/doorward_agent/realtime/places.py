# Why not pathlib: paths are bytes here.
# ruff: noqa: PTH112
"""Which folders are watched, by the settings and by what this computer has."""

import os
from collections.abc import Iterable
from dataclasses import dataclass

from doorward_agent import hosts, mounts
from doorward_agent.config import AgentConfig
from doorward_agent.paths import is_within, own_places, readable
from doorward_agent.policy import is_here
from doorward_protocol.settings import RealTime


@dataclass(frozen=True, slots=True)
class Places:
    """What is watched: folders by their real paths, none of them inside another."""

    folders: tuple[bytes, ...]
    gated: tuple[bytes, ...] = ()
    """Of these and what is below them, opening waits for the verdict; each is watched too."""
    left_out: tuple[bytes, ...] = ()
    """Never looked at: what the settings exclude, and the agent itself."""
    missing: tuple[str, ...] = ()
    """Folders of the settings that are not on this computer, as safe text."""

    def holds(self, path: bytes) -> bool:
        """Tell whether a file with this path is to be looked at."""
        return is_within(path, self.folders) and not is_within(path, self.left_out)

    def gates(self, path: bytes) -> bool:
        """Tell whether opening this path may be held back."""
        return is_within(path, self.gated) and not is_within(path, self.left_out)


def chosen(settings: RealTime, config: AgentConfig) -> Places:
    """Answer what these settings ask to be watched, as far as it is here."""
    wanted = [*map(os.fsencode, settings.folders), *map(os.fsencode, settings.block)]
    there, missing = _there(wanted)
    usual: list[bytes] = []
    if settings.usual_places:
        usual, _ = _there(os.fsencode(path) for path in hosts.watched_paths())
    refused = mounts.not_entered(mounts.mounted(), network=config.scan_network_mounts)
    kernel = tuple(place for place, why in refused.items() if why == "kernel-view")
    folders = [path for path in (*there, *usual) if path != b"/" or path in there]
    gated, _ = _there(map(os.fsencode, settings.block))
    return Places(
        folders=_outermost(folders),
        gated=_outermost(gated),
        left_out=(
            *(os.path.realpath(os.fsencode(each)) for each in config.excluded),
            *own_places(config),
            # /dev/shm and its like are memory that people write to: watched where it is asked for.
            *(place for place in kernel if not _has_watched(place, folders)),
        ),
        missing=tuple(readable(path) for path in missing),
    )


def _has_watched(place: bytes, folders: Iterable[bytes]) -> bool:
    return any(is_within(folder, (place,)) for folder in folders)


def _there(paths: Iterable[bytes]) -> tuple[list[bytes], list[bytes]]:
    """Answer the real paths of the folders that exist, and those that don't."""
    found: list[bytes] = []
    missing: list[bytes] = []
    for path in dict.fromkeys(paths):
        try:
            real = os.path.realpath(path)
            if is_here(os.fsdecode(path)) and os.path.isdir(real):
                found.append(real)
                continue
        except (OSError, ValueError):
            pass
        missing.append(path)
    return list(dict.fromkeys(found)), missing


def _outermost(folders: Iterable[bytes]) -> tuple[bytes, ...]:
    """Answer the folders without those that are inside another."""
    kept: list[bytes] = []
    for folder in sorted(set(folders)):
        if not is_within(folder, tuple(kept)):
            kept.append(folder)
    return tuple(kept)
