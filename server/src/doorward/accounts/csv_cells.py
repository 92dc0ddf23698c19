"""Cells of a CSV file that no spreadsheet takes for a formula."""

from __future__ import annotations

import json
from typing import Final

# What spreadsheets read as the beginning of a formula, also in full width, and what they skip
# before it. A file name or a device's name comes from outside.
ACTS: Final = frozenset("=+-@;|%\t\r\n＝＋－＠")  # noqa: RUF001 - these are meant


def cell(value: object) -> str:
    """Return what stands in the cell: text that could act gets an apostrophe before it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = text.replace("\x00", "")
    return f"'{text}" if text.lstrip(" \u00a0")[:1] in ACTS and text.strip() else text
