"""ClamAV's plain signatures: hashes of files (.hdb, .hsb) and bodies (.ndb), turned into ours.

What has no equal here is refused line by line: signatures over what ClamAV normalized first, and
logical or bytecode signatures (.ldb, .cbc), which only clamd itself can use.
"""

from __future__ import annotations

import re
from typing import Final

from doorward.protection.definitions.importers.hash_lists import EMPTY
from doorward.protection.definitions.importers.reading import Feed, label
from doorward_protocol.hash_list import Other, sized_key

LONGEST_SIGNATURE: Final = 16 * 1024
"""Characters of one body; longer ones are no signatures."""
ENDING: Final = ".ndb"
"""Of a file of bodies."""
REASON: Final = 'reason = "The file holds what a ClamAV signature describes."'
"""What every rule made here says."""
FEWEST_BYTES: Final = 4
"""A body needs so many fixed bytes in a row, or it would be looked for nearly everywhere."""


class _Refused(Exception):
    pass


# ----------------------------------------------------------------------------------------- hashes


def read_hashes(text: str, file: str, feed: Feed) -> None:
    """Take each `hash:size:name` line."""
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        parts = line.strip().split(":")
        if len(parts) < 3:
            feed.refuse(file, number, line, "not hash:size:name")
            continue
        value, size, name = parts[0].lower(), parts[1], parts[2]
        if not re.fullmatch("[0-9a-f]{32}|[0-9a-f]{40}|[0-9a-f]{64}", value):
            feed.refuse(file, number, name, "no MD5, SHA-1 or SHA-256")
        elif len(value) == 64:
            if value == EMPTY:
                feed.refuse(file, number, name, "the hash of an empty file")
            else:
                feed.hashes.setdefault(bytes.fromhex(value), label(_family(name)))
        elif not (size.isascii() and size.isdecimal()):
            why = "of unknown size: every file would have to be hashed once more for it"
            feed.refuse(file, number, name, why)
        elif not 0 < int(size) < 2**40:
            feed.refuse(file, number, name, f"a size of {size} bytes")
        else:
            algorithm: Other = "md5" if len(value) == 32 else "sha1"
            key = sized_key(algorithm, int(size), bytes.fromhex(value))
            feed.hashes.setdefault(key, label(_family(name)))
            feed.sizes.add((algorithm, int(size)))


def _family(name: str) -> str:
    # `Win.Trojan.Agent-1234567-0`: the numbers say nothing to people, and labels are counted.
    return re.sub(r"-\d+(-\d+)?$", "", name)


# ----------------------------------------------------------------------------------------- bodies

_TARGETS: Final = {
    "0": "",
    "1": "uint16(0) == 0x5A4D",
    "2": "uint32be(0) == 0xD0CF11E0",
    "6": "uint32be(0) == 0x7F454C46",
    "9": "(uint32be(0) == 0xCEFAEDFE or uint32be(0) == 0xCFFAEDFE or uint32be(0) == 0xFEEDFACE"
    " or uint32be(0) == 0xFEEDFACF)",
    "10": "uint32be(0) == 0x25504446",
    "12": "uint32be(0) == 0xCAFEBABE",
}
_TARGET_NAMES: Final = {
    "3": "HTML, which ClamAV normalizes first",
    "4": "mail, which ClamAV takes apart first",
    "5": "graphics, which ClamAV alone tells apart",
    "7": "text, which ClamAV normalizes first",
    "11": "Flash, which ClamAV unpacks first",
}


def read_bodies(text: str, file: str, feed: Feed) -> None:
    """Turn each `name:target:offset:body` line into a rule, on the line of the same number."""
    rules = []
    for number, line in enumerate(text.splitlines(), 1):
        rule = ""
        if line.strip() and not line.startswith("#"):
            parts = line.strip().split(":")
            name = parts[0]
            try:
                rule = _rule(parts, number)
            except _Refused as refused:
                feed.refuse(file, number, name, str(refused))
        rules.append(rule)
    if any(rules):
        modules = [each for each in ("pe", "elf") if any(f"{each}." in rule for rule in rules)]
        # On the first line too, so that each rule keeps its line.
        rules[0] = "".join(f'import "{each}" ' for each in modules) + rules[0]
        feed.rules[file] = "\n".join(rules) + "\n"


def _rule(parts: list[str], number: int) -> str:
    if len(parts) < 4:
        raise _Refused("not name:target:offset:body")
    name, target, offset, body = parts[:4]
    if target in _TARGET_NAMES:
        raise _Refused(f"for {_TARGET_NAMES[target]}")
    if target not in _TARGETS:
        raise _Refused(f"for files of type {target}, which is not known here")
    string = _hex_string(body)
    where, shift = _place(offset, target)
    found = "$body"
    if where:
        found = f"$body in ({where}..{where} + {shift})" if shift else f"$body at {where}"
    condition = " and ".join(each for each in (_TARGETS[target], found) if each)
    safe = re.sub("[^A-Za-z0-9_]", "_", name)[:90]
    title = label(name).replace("\\", " ").replace('"', "'")
    return (
        f'rule clamav_{safe}_{number} {{ meta: title = "{title}" {REASON} '
        f"strings: $body = {{ {string} }} condition: {condition} }}"
    )


def _place(offset: str, target: str) -> tuple[str, int]:
    """Return where the body must begin, as an expression, and how many bytes later it still may."""
    if offset == "*":
        return "", 0
    at, _, shift = offset.partition(",")
    if shift and not shift.isdecimal():
        raise _Refused(f"the offset {offset} is not known here")
    later = int(shift) if shift else 0
    if at.isdecimal():
        return at, later
    if found := re.fullmatch(r"EOF-(\d+)", at):
        return f"(filesize - {found[1]})", later
    module = {"1": "pe", "6": "elf"}.get(target)
    if module is None:
        raise _Refused(f"the offset {offset} needs a program's file type")
    if found := re.fullmatch(r"EP([+-]\d+)", at):
        return f"({module}.entry_point {found[1][0]} {found[1][1:]})", later
    start = "raw_data_offset" if module == "pe" else "offset"
    if found := re.fullmatch(r"S(\d+)([+-]\d+)", at):
        section = f"{module}.sections[{found[1]}].{start}"
        return f"({section} {found[2][0]} {found[2][1:]})", later
    if found := re.fullmatch(r"SL([+-]\d+)", at):
        section = f"{module}.sections[{module}.number_of_sections - 1].{start}"
        return f"({section} {found[1][0]} {found[1][1:]})", later
    raise _Refused(f"the offset {offset} is not known here")


_TOKEN: Final = re.compile(
    r"(?P<bytes>(?:[0-9a-fA-F?]{2})+)"
    r"|(?P<any>\*)"
    r"|\{(?P<jump>\d+|-\d+|\d+-|\d+-\d+)\}"
    r"|\((?P<choice>[0-9a-fA-F?]+(?:\|[0-9a-fA-F?]+)+)\)"
    r"|!\((?P<byte>[0-9a-fA-F]{2})\)"
)


def _hex_string(body: str) -> str:
    if not body or len(body) > LONGEST_SIGNATURE:
        raise _Refused(f"a body of {len(body)} characters")
    out: list[str] = []
    at = 0
    while at < len(body):
        found = _TOKEN.match(body, at)
        if found is None:
            raise _Refused(f"at {body[at : at + 12]!r}, which is not known here")
        at = found.end()
        out.append(_part(found))
    if out[0].startswith("[") or out[-1].startswith("["):
        raise _Refused("a body that begins or ends with any bytes")
    longest = max((len(run) // 2 for run in re.findall("(?:[0-9a-fA-F]{2})+", body)), default=0)
    if longest < FEWEST_BYTES:
        raise _Refused(f"fewer than {FEWEST_BYTES} fixed bytes in a row")
    return " ".join(out)


def _part(found: re.Match[str]) -> str:
    if found["bytes"] is not None:
        return _spaced(found["bytes"])
    if found["any"] is not None:
        return "[-]"
    if found["jump"] is not None:
        low, dash, high = found["jump"].partition("-")
        return f"[{low or 0}-{high}]" if dash else f"[{low}]"
    if found["byte"] is not None:
        return f"~{found['byte']}"
    choices = found["choice"].split("|")
    if any(len(each) % 2 for each in choices):
        raise _Refused("a choice of half bytes")
    return "(" + " | ".join(_spaced(each) for each in choices) + ")"


def _spaced(digits: str) -> str:
    return " ".join(digits[at : at + 2] for at in range(0, len(digits), 2))
