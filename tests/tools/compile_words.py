"""`python -m tests.tools.compile_words`: make the .mo that gettext reads of each .po beside it.

Only what our .po files use: no contexts, no fuzzy entries. Debian's msgfmt makes the same of them.
"""

from __future__ import annotations

import ast
import re
import struct
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "server" / "src" / "doorward" / "locale"
MAGIC = 0x950412DE
_LINE = re.compile(r'(?:(?P<key>msgid|msgid_plural|msgstr(?:\[\d\])?) )?(?P<text>".*")')


def read(text: str) -> dict[str, str]:
    """Return each sentence of a .po and what is said in its place, plurals parted by NUL."""
    said: dict[str, str] = {}
    for block in re.split(r"\n\s*\n", text):
        parts: dict[str, str] = {}
        key = ""
        for line in block.splitlines():
            if line.startswith("#") or not line:
                continue
            found = _LINE.fullmatch(line)
            if found is None:
                raise ValueError(line)
            key = found["key"] or key
            parts[key] = parts.get(key, "") + str(ast.literal_eval(found["text"]))
        if not parts:
            continue
        plural = parts.pop("msgid_plural", None)
        of = parts.pop("msgid")
        said[of if plural is None else f"{of}\0{plural}"] = "\0".join(parts.values())
    return said


def compiled(said: dict[str, str]) -> bytes:
    """Return the .mo: a table of the sentences in order, and one of what is said."""
    pairs = sorted((of.encode(), by.encode()) for of, by in said.items())
    begins = 28 + 16 * len(pairs)
    tables: list[list[int]] = [[], []]
    words = b""
    for side in (0, 1):
        for pair in pairs:
            tables[side] += [len(pair[side]), begins + len(words)]
            words += pair[side] + b"\0"
    head = [MAGIC, 0, len(pairs), 28, 28 + 8 * len(pairs), 0, begins]
    return struct.pack(f"<{len(head) + 4 * len(pairs)}I", *head, *tables[0], *tables[1]) + words


def main() -> int:
    """Write each .mo; 0."""
    for source in FOLDER.rglob("*.po"):
        made = compiled(read(source.read_text(encoding="utf-8")))
        source.with_suffix(".mo").write_bytes(made)
        sys.stdout.write(f"{source.relative_to(ROOT)}: {len(made)} bytes\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
