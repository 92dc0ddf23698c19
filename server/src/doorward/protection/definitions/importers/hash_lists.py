"""Lists of SHA-256 hashes: one a line, with or without a comment, or a CSV with a head."""

from __future__ import annotations

import csv
import re
from typing import Final

from doorward.protection.definitions.importers.reading import Feed, label

_HEX: Final = re.compile(r"[0-9a-fA-F]{32,128}")
_LENGTHS: Final = {32: "MD5", 40: "SHA-1", 56: "SHA-224", 96: "SHA-384", 128: "SHA-512"}
_NAMES: Final = ("signature", "malware", "family", "name", "label", "tags", "comment", "threat")
EMPTY: Final = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def read(text: str, file: str, feed: Feed) -> None:
    """Take every SHA-256 hash in the text; refuse each other line that says something."""
    lines = text.splitlines()
    head = next((line for line in lines if line.strip() and not line.startswith("#")), "")
    columns = [each.strip().strip('"').lower() for each in head.lstrip("# ").split(",")]
    if len(columns) > 1 and not _HEX.fullmatch(columns[0]):
        _read_csv(lines, file, feed)
        return
    for number, line in enumerate(lines, 1):
        value, comment = _parted(line.strip())
        if value:
            _take(value, comment, file, number, feed)


def _parted(line: str) -> tuple[str, str]:
    if not line or line.startswith(("#", ";", "//")):
        return "", ""
    found = re.match(r"""["']?([^\s;,|"']+)["']?[\s;,|*]*(.*)""", line)
    return (found[1], found[2].strip().strip("\"'")) if found else (line, "")


def _read_csv(lines: list[str], file: str, feed: Feed) -> None:
    """Take the column of SHA-256 hashes, named by the head."""
    # Several feeds put the head behind a comment sign.
    rows = csv.reader(
        [line.lstrip("# ") if number == 0 else line for number, line in enumerate(lines)],
        skipinitialspace=True,
    )
    place = name = -1
    width = 0
    while True:
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            feed.refuse(file, rows.line_num, "", f"no CSV: {error}")
            return
        if not row or row[0].startswith("#"):
            continue
        if not width:
            head = [re.sub("[^a-z0-9]", "", each.lower()) for each in row]
            width = len(row)
            place = next((at for at, each in enumerate(head) if "sha256" in each), -1)
            name = next((at for word in _NAMES for at, each in enumerate(head) if word in each), -1)
            if place < 0:
                feed.refuse(file, rows.line_num, "", "no column of this CSV is called sha256")
                return
            continue
        if len(row) <= place:
            feed.refuse(file, rows.line_num, "", f"{len(row)} columns, the head has {width}")
            continue
        comment = row[name] if 0 <= name < len(row) else ""
        _take(row[place].strip(), comment, file, rows.line_num, feed)


def _take(value: str, comment: str, file: str, line: int, feed: Feed) -> None:
    if not _HEX.fullmatch(value) or len(value) not in {*_LENGTHS, 64}:
        feed.refuse(file, line, value, "no hash")
    elif len(value) != 64:
        kind = _LENGTHS[len(value)]
        feed.refuse(
            file,
            line,
            value,
            f"{kind}: a file is looked up by SHA-256; with the file's size, "
            "a .hdb or .hsb line, MD5 and SHA-1 will do",
        )
    elif value.lower() == EMPTY:
        feed.refuse(file, line, value, "the hash of an empty file")
    else:
        feed.hashes.setdefault(bytes.fromhex(value), label(comment) or "Known malicious file")
