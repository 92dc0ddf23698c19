"""What a reader makes of a file: rules, hashes, and what it had to leave out, with the reason."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from doorward_protocol.hash_list import Other

MOST_FILE_BYTES: Final = 256 * 1024 * 1024
"""No file of a feed is longer; a longer one is refused before it is read."""
LONGEST_LABEL: Final = 120


@dataclass(frozen=True)
class Refusal:
    """Something that was not taken: where it stands, what it is called, why."""

    file: str
    line: int
    """From 1; 0 where it is the whole file."""
    name: str
    why: str

    @property
    def place(self) -> str:
        """Where to look: the file and, if there is one, the line."""
        return f"{self.file}:{self.line}" if self.line else self.file


@dataclass
class Feed:
    """What was read so far."""

    rules: dict[str, str] = field(default_factory=dict)
    """YARA source by file name."""
    hashes: dict[bytes, str] = field(default_factory=dict)
    """The label of each hash, by its place in a hash list (doorward_protocol/hash_list.py)."""
    sizes: set[tuple[Other, int]] = field(default_factory=set)
    """Sizes at which another hash than SHA-256 is looked up."""
    refused: list[Refusal] = field(default_factory=list)
    passed_over: list[Refusal] = field(default_factory=list)
    """What was not even opened: a folder stands for all that is in it."""
    files: int = 0

    def refuse(self, file: str, line: int, name: str, why: str) -> None:
        """Leave something out."""
        self.refused.append(Refusal(file, line, name[:LONGEST_LABEL], why))

    def pass_over(self, file: str, why: str) -> None:
        """Leave a file or folder unopened."""
        self.passed_over.append(Refusal(file, 0, "", why))


class FileRefused(Exception):
    """The whole file cannot be read; the text says why."""


def text_of(path: Path) -> str:
    """The file as text. Raises FileRefused."""
    try:
        if path.stat().st_size > MOST_FILE_BYTES:
            raise FileRefused(f"longer than {MOST_FILE_BYTES // 1024**2} MiB")
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise FileRefused((error.strerror or "unreadable").lower()) from None
    except UnicodeDecodeError as error:
        raise FileRefused(f"no UTF-8 at byte {error.start}") from None


def label(text: str) -> str:
    """Text as a label in a hash list: one printable line, not too long."""
    return "".join(each if each.isprintable() else " " for each in text).strip()[:LONGEST_LABEL]
