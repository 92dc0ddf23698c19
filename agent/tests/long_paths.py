"""Files at the end of paths that are longer than the system takes (PATH_MAX, 4096 bytes)."""

import os
from pathlib import Path

from doorward_agent.definitions.build import eicar


def deeper_than_a_path(home: Path) -> None:
    """Put the test file into a folder so deep that no path leads to it."""
    descriptor = os.open(home, os.O_RDONLY)
    try:
        for _ in range(24):
            descriptor = _below(descriptor, "x" * 200)
        handle = os.open("deep.com", os.O_CREAT | os.O_WRONLY, dir_fd=descriptor)
        os.write(handle, eicar())
        os.close(handle)
    finally:
        os.close(descriptor)


def beside_too_long(home: Path) -> list[Path]:
    """Put eight test files into one folder with eight files whose paths are too long; return
    where the test files are."""
    at, descriptor = home, os.open(home, os.O_RDONLY)
    try:
        while len(os.fsencode(at)) < 3890:
            name = "x" * min(200, 3895 - len(os.fsencode(at)))
            descriptor, at = _below(descriptor, name), at / name
        for number in range(8):
            os.close(os.open(f"{number}" + "y" * 230, os.O_CREAT | os.O_WRONLY, dir_fd=descriptor))
            (at / f"{number}.com").write_bytes(eicar())
    finally:
        os.close(descriptor)
    return [at / f"{number}.com" for number in range(8)]


def _below(descriptor: int, name: str) -> int:
    """Make a folder in this one and go into it."""
    os.mkdir(name, dir_fd=descriptor)
    below = os.open(name, os.O_RDONLY, dir_fd=descriptor)
    os.close(descriptor)
    return below
