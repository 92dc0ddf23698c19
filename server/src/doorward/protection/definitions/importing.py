"""Imports what others publish: reads it, tries it, keeps what is good, signs a new set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from securesystemslib.signer import Signer

from doorward.audit import trail
from doorward.protection.definitions import sets, sources, vetting
from doorward.protection.definitions.importers import clamav, hash_lists
from doorward.protection.definitions.importers.reading import Feed, FileRefused, Refusal, text_of
from doorward.protection.definitions.vetting import Vetted, VettingFailed
from doorward.protection.models import DefinitionSet, DefinitionSource

MOST_FILES: Final = 50_000
HIDDEN: Final = "its name begins with a dot"
LINK: Final = "it is a link, which may lead elsewhere"
KINDS: Final = {
    ".yar": "yara",
    ".yara": "yara",
    ".rule": "yara",
    ".rules": "yara",
    ".hdb": "clamav-hashes",
    ".hsb": "clamav-hashes",
    ".hdu": "clamav-hashes",
    ".hsu": "clamav-hashes",
    ".ndb": "clamav-bodies",
    ".ndu": "clamav-bodies",
    ".txt": "hashes",
    ".csv": "hashes",
    ".hashes": "hashes",
    ".sha256": "hashes",
}
"""How a file is read, by its ending."""
ONLY_CLAMD: Final = frozenset({".ldb", ".ldu", ".cbc", ".cdb", ".mdb", ".msb", ".cvd", ".cld"})
SIDE_FILES: Final = frozenset({"", ".md", ".git", ".gitignore", ".rst", ".json", ".yml", ".yaml"})
"""What a folder of rules holds besides; left out without a word."""


@dataclass(frozen=True)
class Imported:
    """What became of an import."""

    name: str
    files: int
    vetted: Vetted
    passed_over: tuple[Refusal, ...]
    source: DefinitionSource | None
    made: DefinitionSet | None
    """The signed set; None where it was only tried, or changes nothing."""


def read(path: Path, kind: str = "") -> Feed:
    """Read a file or a folder of them. Raises VettingFailed for one that holds nothing to read."""
    feed = Feed()
    root = path if path.is_dir() else path.parent
    named = 0
    for number, each in enumerate(_files(path, feed)):
        if number >= MOST_FILES:
            raise VettingFailed(f"more than {MOST_FILES} files")
        how = kind or KINDS.get(each.suffix.lower(), "")
        place = each.relative_to(root).as_posix()
        if not how:
            ending = each.suffix.lower()
            if ending in ONLY_CLAMD:
                why = f"{ending} can be read by ClamAV alone: serve it as a mirror"
                feed.refuse(place, 0, "", why)
            elif ending not in SIDE_FILES or each == path:
                feed.refuse(place, 0, "", "of no kind that can be read; --kind says which it is")
            continue
        named += 1
        try:
            _read(how, text_of(each), place, feed)
        except FileRefused as refused:
            feed.refuse(place, 0, "", str(refused))
    feed.files = named
    if not named:
        why = "nothing there can be read: no .yar, .hdb, .hsb, .ndb, .txt or .csv"
        if feed.passed_over:
            first = feed.passed_over[0]
            why += f"; {len(feed.passed_over)} passed over, first {first.file}: {first.why}"
        raise VettingFailed(why)
    return feed


def _read(how: str, text: str, place: str, feed: Feed) -> None:
    match how:
        case "yara":
            feed.rules[place] = text
        case "clamav-hashes":
            clamav.read_hashes(text, place, feed)
        case "clamav-bodies":
            clamav.read_bodies(text, place, feed)
        case _:
            hash_lists.read(text, place, feed)


def _files(path: Path, feed: Feed) -> Iterator[Path]:
    """Every file to be read; what is passed over on the way is noted in the feed."""
    if path.is_file():
        yield path
        return
    told = set()
    # Links lead elsewhere, and hidden folders hold histories.
    for each in sorted(path.rglob("*")):
        parts = each.relative_to(path).parts
        hidden = next((n for n, part in enumerate(parts, 1) if part.startswith(".")), 0)
        if hidden:
            place = "/".join(parts[:hidden])
            if place not in told:
                told.add(place)
                feed.pass_over(place, HIDDEN)
        elif each.is_symlink():
            feed.pass_over("/".join(parts), LINK)
        elif each.is_file():
            yield each


def take(
    path: Path,
    *,
    name: str,
    kind: str = "",
    clean: Sequence[Path] = (),
    suspicious: bool = False,
    signer: Signer | None,
    by: str,
    now: datetime,
) -> Imported:
    """Import a file or folder under a name and begin to give the new set to devices.

    Without a signer it is only tried, and nothing is kept. Raises VettingFailed, SourceRefused, and
    what `sets.make` does but NothingToSign.
    """
    name = sources.checked_name(name)
    feed = read(path, kind)
    vetted = vetting.vet(feed, clean=clean, suspicious=suspicious)
    passed_over = tuple(feed.passed_over)
    if signer is None or not (vetted.rules or vetted.hashes):
        return Imported(name, feed.files, vetted, passed_over, None, None)
    source = sources.keep(
        name,
        vetted,
        feed.sizes,
        origin=str(path),
        by=by,
        suspicious=suspicious,
        now=now,
    )
    made = _made(signer, by=by, now=now, why=f"import of {name}")
    trail.record(
        "definitions.imported",
        target=name,
        by=by,
        origin=str(path),
        rules=vetted.rule_count,
        hashes=len(vetted.hashes),
        refused=len(vetted.refused),
        number=made.number if made else 0,
    )
    return Imported(name, feed.files, vetted, passed_over, source, made)


def remove(name: str, signer: Signer, *, by: str, now: datetime) -> DefinitionSet | None:
    """Take a source out of what devices get. Raises sources.SourceRefused."""
    if not DefinitionSource.objects.filter(pk=name).delete()[0]:
        raise sources.SourceRefused(f"there is no source {name!r}.")
    made = _made(signer, by=by, now=now, why=f"without {name}")
    trail.record("definitions.removed", target=name, by=by, number=made.number if made else 0)
    return made


def _made(signer: Signer, *, by: str, now: datetime, why: str) -> DefinitionSet | None:
    try:
        return sets.make(signer, by=by, now=now, why=why)
    except sets.NothingToSign:
        return None
