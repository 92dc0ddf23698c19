"""Every DOORWARD_ variable in one list; docs/settings.md is tested against it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final

REGISTRY: Final[dict[str, Variable]] = {}


class SettingRefused(Exception):
    """A variable holds something Doorward won't start with; the text is for the operator."""


@dataclass(frozen=True)
class Variable:
    """One variable as the reference shows it."""

    name: str
    default: str
    help: str


def text(name: str, default: str, help: str) -> str:
    """Return the variable's text, stripped; its default when unset or empty."""
    REGISTRY[name] = Variable(name, default, help)
    return os.environ.get(name, "").strip() or default


def number(name: str, default: int, help: str, *, least: int, most: int) -> int:
    """Return the variable as a whole number between ``least`` and ``most``.

    Raises SettingRefused naming the variable and its bounds.
    """
    raw = text(name, str(default), f"{help} ({least} to {most})")
    try:
        value = int(raw)
    except ValueError:
        raise SettingRefused(f"{name} is {raw!r}, which is not a whole number.") from None
    if not least <= value <= most:
        raise SettingRefused(f"{name} is {value}; it must be from {least} to {most}.")
    return value


def switch(name: str, default: bool, help: str) -> bool:
    """Return the variable as yes or no. Raises SettingRefused for any other word."""
    raw = text(name, "yes" if default else "no", f"{help} (yes or no)").lower()
    if raw in {"yes", "true", "1", "on"}:
        return True
    if raw in {"no", "false", "0", "off"}:
        return False
    raise SettingRefused(f"{name} is {raw!r}; say yes or no.")
