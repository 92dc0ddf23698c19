# Why not pathlib: loading it costs 7 ms, which every rescan would pay.
# ruff: noqa: PTH100, PTH118, PTH119, PTH120, PTH123, PTH208
"""What is looked for: YARA rule sources and a list of SHA-256 hashes, as one set with one version.

The bundled set is package data, and the one in use. Its VERSION file holds ``<date> <digest>``: the
digest is over the set's files, is checked by a test, and makes two different sets never share a
version. Every function takes any other folder of the same files too.
"""

import os
from dataclasses import dataclass
from hashlib import blake2b

BUNDLED = os.path.dirname(os.path.abspath(__file__))


class DefinitionsUnusable(Exception):
    """The set is incomplete or does not fit its version."""


@dataclass(frozen=True, slots=True)
class DefinitionSet:
    """One set of definitions on disk."""

    folder: str
    version: str

    @property
    def rule_files(self) -> tuple[str, ...]:
        """Return the rule sources, in a fixed order."""
        names = sorted(name for name in os.listdir(self.folder) if name.endswith(".yar"))
        return tuple(os.path.join(self.folder, name) for name in names)

    @property
    def hash_file(self) -> str:
        """Return the hash list; a set always has one."""
        return os.path.join(self.folder, "known.hashes")


def current(folder: str = BUNDLED) -> DefinitionSet:
    """Return the set in a folder with the version it says it has; reads one small file.

    Raises DefinitionsUnusable.
    """
    try:
        with open(os.path.join(folder, "VERSION"), encoding="ascii") as source:
            version = source.read(200).strip()
    except (OSError, ValueError) as error:
        raise DefinitionsUnusable(f"no readable VERSION in {folder}") from error
    if not version or not version.isprintable():
        raise DefinitionsUnusable(f"VERSION in {folder} is empty or unprintable")
    return DefinitionSet(folder, version)


def digest(folder: str = BUNDLED) -> str:
    """Return the digest over a set's files that belongs into its VERSION."""
    definitions = DefinitionSet(folder, "")
    state = blake2b(digest_size=8)
    for path in (*definitions.rule_files, definitions.hash_file):
        with open(path, "rb") as source:
            content = source.read()
        # Line ends may differ where git converts them; the rules are the same.
        if path.endswith(".yar"):
            content = content.replace(b"\r\n", b"\n")
        state.update(
            os.path.basename(path).encode() + b"\0" + len(content).to_bytes(8, "little") + content
        )
    return state.hexdigest()


def verify(definitions: DefinitionSet) -> None:
    """Check that the files are those the version was given to; raises DefinitionsUnusable."""
    expected = definitions.version.rpartition(" ")[2]
    if digest(definitions.folder) != expected:
        raise DefinitionsUnusable(
            f"the files in {definitions.folder} are not those of version {definitions.version}"
        )
