"""What a set of definitions is made of, as the server signs it and a device takes it.

A set is a manifest and its parts, all of them targets of a TUF repository (The Update Framework,
specification 1.0): their length and hash are signed. Parts are data. Nothing in a set is a program,
and a kind of part that a device does not know makes it refuse the whole set.
"""

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct

from doorward_protocol.messages import Count, Moment, Name, Version, Word

FORMAT: Final = 1
ENGINE: Final = "yara-x"
"""The engine that sets are made for."""

MAX_MANIFEST_BYTES: Final = 64 * 1024
MAX_PARTS: Final = 64
MAX_PART_BYTES: Final = 256 * 1024 * 1024
"""The longest part, in bytes, packed or unpacked."""
MAX_SET_BYTES: Final = 1024 * 1024 * 1024
"""All parts of a set unpacked, in bytes."""

RULES: Final = "rules"
"""YARA sources: a JSON object of file names and texts."""
HASHES: Final = "hashes"
"""A list of SHA-256 hashes (hash_list.py)."""
SIZES: Final = "sizes"
"""A list of the sizes at which another hash is looked up too (hash_list.py)."""
KINDS: Final = frozenset({RULES, HASHES, SIZES})

PROBLEMS: Final = (
    "unreachable",
    "no-root",
    "wrong-root",
    "wrong-key",
    "expired",
    "rollback",
    "mixed",
    "tampered",
    "too-long",
    "unreadable",
    "not-signed",
    "unknown-part",
    "other-engine",
    "not-compiling",
    "test-file-missed",
    "hits-clean",
    "no-space",
    "crash",
)
"""Why a device did not take new definitions: the codes of DefinitionsState."""


class Engine(Struct, frozen=True, kw_only=True):
    """What the rules need to be read by; a device with another engine refuses the set."""

    name: Word
    least: Word = ""


class Part(Struct, frozen=True, kw_only=True):
    """One file of a set, compressed with zstd. `size` is its length unpacked, in bytes."""

    kind: Word
    name: Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[a-z0-9][a-z0-9-]*$")]
    target: Name
    size: Annotated[int, Meta(ge=0, le=MAX_PART_BYTES)]
    marks: Literal["malicious", "suspicious"] = "malicious"


class Manifest(Struct, frozen=True, kw_only=True):
    """One set of definitions. A set with a higher `number` is newer, whatever is in it."""

    format: Version
    number: Version
    made_at: Moment
    engine: Engine
    rules: Count = 0
    hashes: Count = 0
    parts: Annotated[tuple[Part, ...], Meta(max_length=MAX_PARTS)] = ()


decoder: Final = msgspec.json.Decoder(Manifest)


def manifest_target(number: int) -> str:
    """Return the name under which a set's manifest is signed."""
    return f"sets/{number}.json"


def numbers_in(targets: list[str]) -> list[int]:
    """Return the numbers of the sets among signed names, lowest first."""
    found = []
    for target in targets:
        folder, _, name = target.partition("/")
        number, _, ending = name.partition(".")
        if folder == "sets" and ending == "json" and number.isascii() and number.isdecimal():
            found.append(int(number))
    return sorted(found)
