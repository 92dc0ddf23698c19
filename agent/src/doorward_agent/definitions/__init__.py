# Why not pathlib: loading it costs 7 ms, which every rescan would pay.
# ruff: noqa: PTH100, PTH118, PTH119, PTH120, PTH123, PTH208
"""What is looked for: YARA rule sources and lists of hashes, as one set with one version.

The bundled set is package data. A set that came from the server (`definitions.update`) is a folder
under the state folder that holds the bundled rules too, so that a set can only add to what is
found; a file there names the one in force. Each set's VERSION file holds ``<date> <digest>``: the
digest is over the set's files, and makes two different sets never share a version.

What bears SUSPICIOUS at the beginning of its name may only make a file suspicious: it is told, and
the file stays where it is.
"""

import os
from dataclasses import dataclass
from hashlib import blake2b

BUNDLED = os.path.dirname(os.path.abspath(__file__))
FOLDER = "definitions"
"""Under the state folder: what came from the server."""
CURRENT = "CURRENT"
"""The file that names the set in force."""
SUSPICIOUS = "suspicious"


class DefinitionsUnusable(Exception):
    """The set is incomplete or does not fit its version."""


@dataclass(frozen=True, slots=True)
class DefinitionSet:
    """One set of definitions on disk."""

    folder: str
    version: str

    @property
    def rule_files(self) -> tuple[str, ...]:
        """Return the rule sources, in a fixed order: the bundled ones first."""
        return self._files(".yar") + self._files(".rules")

    @property
    def hash_files(self) -> tuple[str, ...]:
        """Return the hash lists; a set always has one."""
        return self._files(".hashes")

    @property
    def size_files(self) -> tuple[str, ...]:
        """Return the lists of sizes at which another hash than SHA-256 is looked up."""
        return self._files(".sizes")

    def _files(self, ending: str) -> tuple[str, ...]:
        names = sorted(name for name in os.listdir(self.folder) if name.endswith(ending))
        return tuple(os.path.join(self.folder, name) for name in names)


def in_force(state_dir: str | os.PathLike[str]) -> DefinitionSet:
    """Return the set to scan by: the server's newest that was found good, else the bundled one.

    Raises DefinitionsUnusable where not even that can be read.
    """
    folder = folder_in_force(state_dir)
    if folder:
        try:
            return current(folder)
        except DefinitionsUnusable:
            pass  # Damaged on disk: what the agent came with still protects.
    return current()


def folder_in_force(state_dir: str | os.PathLike[str]) -> str:
    """Return the folder of the set from the server that is in force, "" where none is."""
    home = os.path.join(state_dir, FOLDER)
    try:
        with open(os.path.join(home, CURRENT), encoding="ascii") as source:
            name = source.read(200).strip()
    except (OSError, ValueError):
        return ""
    # Written by us alone; still, nothing in it leads elsewhere.
    if not name or name != os.path.basename(name) or name.startswith("."):
        return ""
    return os.path.join(home, "sets", name)


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
    found = DefinitionSet(folder, "")
    state = blake2b(digest_size=8)
    for path in (*found.rule_files, *found.hash_files, *found.size_files):
        name = os.path.basename(path)
        with open(path, "rb") as source:
            content = source.read()
        # Line ends may differ where git converts them; the rules are the same.
        if name.endswith(".yar"):
            content = content.replace(b"\r\n", b"\n")
        state.update(name.encode() + b"\0" + len(content).to_bytes(8, "little") + content)
    return state.hexdigest()


def verify(definitions: DefinitionSet) -> None:
    """Check that the files are those the version was given to; raises DefinitionsUnusable."""
    expected = definitions.version.rpartition(" ")[2]
    if digest(definitions.folder) != expected:
        raise DefinitionsUnusable(
            f"the files in {definitions.folder} are not those of version {definitions.version}"
        )
