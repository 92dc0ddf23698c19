"""What people read: plain lines, in which nothing can steer the terminal."""

from __future__ import annotations

import sys


def say(line: str = "") -> None:
    """Print one line to whoever started the command."""
    sys.stdout.write(printable(line) + "\n")


def complain(line: str) -> None:
    """Print one line about what went wrong."""
    sys.stderr.write(printable(line) + "\n")


def printable(text: str) -> str:
    """Answer the text with everything that is no plain character made visible.

    File names may hold control sequences, or letters that turn the reading direction.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape", "surrogatepass").decode()
        for each in text
    )


def since(milliseconds: int, now: float) -> str:
    """Answer how long ago a moment was, in the words people use; `now` in seconds."""
    if not milliseconds:
        return "never"
    seconds = int(now - milliseconds / 1000)
    if seconds < 0:
        return "in the future (was the clock changed?)"
    for size, name in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size:
            count = seconds // size
            return f"{count} {name}{'s' if count > 1 else ''} ago"
    return "just now" if seconds < 5 else f"{seconds} seconds ago"


def counted(count: int, one: str) -> str:
    """Answer a number of things in the words people use: `1 file`, `1,200 files`."""
    return f"{count:,} {one}{'' if count == 1 else 's'}"


def size(count: float) -> str:
    """Answer a number of bytes in the words people use."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return ""
