"""Engines behind one port. They are asked only inside worker processes (`engines.worker`), never by
the agent itself.

``yara`` looks at every file and at every member of an archive; ``clamav`` asks a clamd that already
runs.
"""

from dataclasses import dataclass
from typing import Protocol


class EngineFailed(Exception):
    """The engine gave no verdict; the message says why. The content is not clean."""

    how = "failed"


class EngineTimeout(EngineFailed):
    """The engine needed longer than it may."""

    how = "timeout"


@dataclass(frozen=True, slots=True)
class Limit:
    """Why something was not seen: a word of ours to count by, and what else is known."""

    reason: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Hit:
    """One thing an engine found in one piece of content."""

    rule: str
    title: str
    engine: str
    severity: str
    kind: str
    reason: str


class Engine(Protocol):
    """What every engine can do. Both calls return every hit, or raise EngineFailed."""

    @property
    def name(self) -> str:
        """Return the engine's short name, as it appears in a detection."""

    @property
    def version(self) -> str:
        """Return what makes its verdicts differ: a new version forgets what was found clean."""

    @property
    def unpacks(self) -> bool:
        """Tell whether it looks into archives by itself (then it is not given the members)."""

    def scan(self, content: bytes) -> list[Hit]:
        """Look at content in memory."""

    def scan_file(self, descriptor: int, size: int) -> list[Hit]:
        """Look at an open file from its beginning."""
