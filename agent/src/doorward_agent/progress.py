"""How a scan shows itself on a terminal while it works."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

from doorward_agent.terminal import counted, printable, size

if TYPE_CHECKING:
    from rich.live import Live

    from doorward_agent.scan import Progress

# A scan of known files is over before anybody could read: nothing is loaded or drawn for it.
_SHOW_AFTER: Final = 0.4


class Display:
    """One line that is drawn again and again: files, speed, found, left out, where."""

    def __init__(self) -> None:
        """Prepare; nothing is drawn yet."""
        self._live: Live | None = None

    def update(self, progress: Progress) -> None:
        """Draw how far the scan is."""
        if progress.seconds < _SHOW_AFTER:
            return
        from rich.console import Console
        from rich.live import Live
        from rich.spinner import Spinner
        from rich.text import Text

        if self._live is None:
            console = Console(file=sys.stderr)
            self._spinner = Spinner("dots", style="cyan")
            self._live = Live(self._spinner, console=console, transient=True, refresh_per_second=10)
            self._live.start()
        rate = progress.bytes / progress.seconds if progress.seconds else 0.0
        line = Text.assemble(
            (counted(progress.files, "file"), "bold"),
            f"  {size(rate)}/s  {progress.cached:,} known clean  ",
            (
                f"{progress.detections} found",
                "bold red" if progress.detections else "green",
            ),
            f"  {progress.skipped + progress.errors:,} not looked into  ",
        )
        # What is left of the line, so that it never becomes two.
        room = self._live.console.width - len(line) - 3
        if room > 8:
            line.append(_end_of(printable(progress.path), room), "dim")
        self._spinner.update(text=line)

    def say(self, line: str) -> None:
        """Print a line that stays."""
        if self._live is None:
            sys.stdout.write(printable(line) + "\n")
            return
        self._live.stop()
        self._live = None
        sys.stdout.write(printable(line) + "\n")
        sys.stdout.flush()

    def close(self) -> None:
        """Take the line away."""
        if self._live is not None:
            self._live.stop()
            self._live = None


def _end_of(text: str, length: int) -> str:
    return text if len(text) <= length else "…" + text[1 - length :]
