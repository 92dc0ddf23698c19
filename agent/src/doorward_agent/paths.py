# Why not pathlib: paths are bytes here.
# ruff: noqa: PTH114, PTH120
"""Names on disk: kept as their bytes, shown as clean text, opened without following a link."""

import os
import unicodedata

from doorward_agent.config import AgentConfig

LONGEST_SHOWN = 4096
"""Characters of a path that are shown: PATH_MAX of Linux."""


def readable(path: str | bytes) -> str:
    """Return a path as text that is safe to store, send and show.

    Bytes that are no UTF-8 and characters that control, reorder or hide text come out as ``\\x..``
    or ``\\u....``; two different paths may look alike only if longer than LONGEST_SHOWN.
    """
    text = os.fsdecode(path)
    if text.isascii() and text.isprintable():
        return text[:LONGEST_SHOWN]
    return "".join(_shown(character) for character in text)[:LONGEST_SHOWN]


def _shown(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        # surrogateescape: the byte that was no UTF-8
        return f"\\x{code - 0xDC00:02x}"
    # Cc control, Cf format (bidi overrides, zero width), Cs surrogate, Co private use, Cn
    # unassigned, Zl/Zp line ends
    if unicodedata.category(character) in {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}:
        if code < 0x100:
            return f"\\x{code:02x}"
        return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
    return character


class LinkInPath(Exception):
    """A folder on the way is a symbolic link, or no folder at all: somebody may have swapped it."""


def open_folder(folder: bytes) -> int:
    """Open a folder by its absolute path, one component at a time, following no link; the caller
    closes it.

    POSIX only. Raises LinkInPath, FileNotFoundError, PermissionError.
    """
    if not folder.startswith(b"/"):
        raise ValueError("an absolute path is needed")
    # O_PATH needs only search permission on the folders between, as an ordinary lookup would.
    passing = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | getattr(os, "O_PATH", os.O_RDONLY)
    parts = [part for part in folder.split(b"/") if part]
    if any(part in {b".", b".."} for part in parts):
        raise ValueError("the path must be normalized")
    here = os.open(b"/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    for position, part in enumerate(parts):
        last = position == len(parts) - 1
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC if last else passing
        try:
            deeper = os.open(part, flags, dir_fd=here)
        except NotADirectoryError as error:
            raise LinkInPath(readable(folder)) from error
        except OSError as error:
            if os.path.islink(b"/" + b"/".join(parts[: position + 1])):
                raise LinkInPath(readable(folder)) from error
            raise
        finally:
            os.close(here)
        here = deeper
    return here


def own_places(config: AgentConfig) -> tuple[bytes, ...]:
    """Return the folders that are the agent itself: its state and its program."""
    places = (config.state_dir, os.path.dirname(__file__))
    return tuple(os.path.realpath(os.fsencode(place)) for place in places)


def is_within(path: bytes, folders: tuple[bytes, ...]) -> bool:
    """Tell whether a path is one of these folders or inside one."""
    return any(path == folder or path.startswith(folder.rstrip(b"/") + b"/") for folder in folders)
