"""Makes a signed set of all sources: whole rules, and of hashes only those that are new.

A list of hashes is a long base and short additions to it, so that a device fetches what it lacks.
Now and then, and whenever a hash was taken out, the lists are joined into a new base.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final, Literal
from uuid import UUID

import msgspec
import zstandard
from securesystemslib.signer import Signer
from tuf.api.metadata import TargetFile, Targets

from doorward.audit import trail
from doorward.protection.definitions import joining, keys, repository, rollout, sources
from doorward.protection.definitions.repository import Tree
from doorward.protection.models import DefinitionSet, DefinitionSource, SetState
from doorward_protocol import definitions, hash_list
from doorward_protocol.definitions import HASHES, RULES, SIZES, Engine, Manifest, Part
from doorward_protocol.hash_list import HashList, Other, SizeList

PUBLISHED_SETS: Final = 5
"""So many of the newest sets stay signed."""
MOST_ADDITIONS: Final = 12
SHORT_LIST: Final = 20_000
"""So many hashes may be additions, however short the base is."""
LEVEL: Final = 19

Marks = Literal["malicious", "suspicious"]
MARKS: Final[tuple[Marks, ...]] = ("malicious", "suspicious")


class NothingToSign(Exception):
    """The newest set is made of the very same."""


@dataclass
class _Marked:
    """All that one kind of source holds together."""

    hashes: dict[bytes, str] = field(default_factory=dict)
    sizes: set[tuple[Other, int]] = field(default_factory=set)


@dataclass(frozen=True)
class _Earlier:
    """The lists of a published set that a new one can go on from."""

    parts: tuple[Part, ...]
    counts: tuple[int, ...]
    """Hashes in each list, the base first."""
    hashes: frozenset[bytes]
    sizes: frozenset[tuple[Other, int]]


def make(
    signer: Signer, *, by: str, now: datetime, why: str = "", like: int | None = None
) -> DefinitionSet:
    """Sign a set of all sources and begin to give it to devices; the row tells its number.

    With `like` it brings an earlier set back, and goes to every device at once. Raises
    repository.NoRepository, repository.RepositoryDamaged, NothingToSign.
    """
    with repository.locked():
        tree = repository.load()
        _complete(tree, now)
        published = {number: _manifest(tree, number) for number in _numbers(tree)}
        counts = DefinitionSource.objects.values_list("rules", "hashes")
        newest = _newest(tree, now)
        made = DefinitionSet.objects.create(
            number=newest,
            made_at=now,
            made_by=by,
            state_at=now,
            rules=sum(rules for rules, _ in counts),
            hashes=sum(hashes for _, hashes in counts),
            sources=sources.described(),
            why=why[:200],
            like=like,
        )
        files: dict[str, TargetFile] = {}
        parts = tuple(_parts(tree, published, files))
        before = published[max(published)] if published else None
        if before is not None and before.parts == parts and like is None:
            made.delete()
            raise NothingToSign
        manifest = Manifest(
            format=definitions.FORMAT,
            number=made.number,
            made_at=int(now.timestamp() * 1000),
            engine=Engine(name=definitions.ENGINE, least=_least_engine()),
            rules=made.rules,
            hashes=made.hashes,
            parts=parts,
        )
        name = definitions.manifest_target(made.number)
        files[name] = repository.put(name, msgspec.json.encode(manifest))
        targets = Targets(targets=_kept(tree, published, files))
        repository.publish(targets, signer=signer, online=keys.read_online(), now=now, before=tree)
        rollout.begin(made, now, everybody=like is not None)
        repository.clear([tree, repository.load()], now)
        sources.clear()
    return made


def _complete(tree: Tree, now: datetime) -> None:
    """Settle what a killed process left: a set that was signed is begun, any other never was."""
    for left in DefinitionSet.objects.filter(state=SetState.PREPARING):
        if left.number in _numbers(tree):
            rollout.begin(left, now)
        else:
            left.delete()


def _newest(tree: Tree, now: datetime) -> int:
    """A number beyond all there ever were: this day's first, or one more."""
    last = max(
        [
            0,
            *_numbers(tree),
            *DefinitionSet.objects.order_by("-number").values_list("number", flat=True)[:1],
        ]
    )
    return max(last + 1, int(now.strftime("%Y%m%d")) * 100 + 1)


def _numbers(tree: Tree) -> list[int]:
    return definitions.numbers_in(list(tree.targets.signed.targets))


def _manifest(tree: Tree, number: int) -> Manifest:
    target = tree.targets.signed.targets[definitions.manifest_target(number)]
    return definitions.decoder.decode(repository.content(target))


def _kept(
    tree: Tree, published: dict[int, Manifest], files: dict[str, TargetFile]
) -> dict[str, TargetFile]:
    """The new files, and those of the sets before that a device may still be told to take."""
    # The newest for everybody stays even when many were stopped after it.
    for_all = DefinitionSet.objects.filter(state=SetState.ALL).order_by("-number").first()
    stay = set(sorted(published)[-PUBLISHED_SETS:])
    if for_all is not None:
        stay.add(for_all.number)
    kept = dict(files)
    for number, manifest in published.items():
        if number in stay:
            names = [definitions.manifest_target(number), *(part.target for part in manifest.parts)]
            kept |= {name: tree.targets.signed.targets[name] for name in names}
    return kept


def _parts(
    tree: Tree, published: dict[int, Manifest], files: dict[str, TargetFile]
) -> Iterator[Part]:
    marked = {marks: _Marked() for marks in MARKS}
    for source in DefinitionSource.objects.order_by("name"):
        content = sources.read(UUID(str(source.content)))
        marks: Marks = "suspicious" if source.suspicious else "malicious"
        marked[marks].hashes |= content.hashes
        marked[marks].sizes |= content.sizes
        if content.rules:
            text = msgspec.json.encode(joining.joined(content.rules), order="sorted")
            yield _part(RULES, source.name, text, marks, files)
    for key in marked["malicious"].hashes:
        marked["suspicious"].hashes.pop(key, None)
    for marks in MARKS:
        yield from _lists(tree, published, marks, marked[marks], files)


def _lists(
    tree: Tree,
    published: dict[int, Manifest],
    marks: Marks,
    wanted: _Marked,
    files: dict[str, TargetFile],
) -> Iterator[Part]:
    if not wanted.hashes:
        return
    earlier = _to_go_on_from(tree, published, marks, wanted)
    if earlier is None:
        yield from _list("base", wanted.hashes, wanted.sizes, marks, files)
        return
    for part in earlier.parts:
        files[part.target] = tree.targets.signed.targets[part.target]
        yield part
    added = {key: label for key, label in wanted.hashes.items() if key not in earlier.hashes}
    if added:
        name = f"add-{len(earlier.counts):02}"
        yield from _list(name, added, wanted.sizes - earlier.sizes, marks, files)


def _list(
    name: str,
    hashes: dict[bytes, str],
    sizes: Iterable[tuple[Other, int]],
    marks: Marks,
    files: dict[str, TargetFile],
) -> Iterator[Part]:
    yield _part(HASHES, name, hash_list.build(hashes.items()), marks, files)
    if sizes:
        yield _part(SIZES, name, hash_list.build_sizes(sizes), marks, files)


def _part(kind: str, name: str, content: bytes, marks: Marks, files: dict[str, TargetFile]) -> Part:
    packed = zstandard.ZstdCompressor(level=LEVEL).compress(content)
    target = f"parts/{kind}-{name}.zst"
    if marks == "suspicious":
        target = f"parts/{kind}-{name}-suspicious.zst"
    # Signed under a name of its content, so that sets share what is the same.
    digest = TargetFile.from_data(target, packed, ["sha256"]).hashes["sha256"]
    target = f"parts/{digest[:20]}.zst"
    files[target] = repository.put(target, packed)
    return Part(kind=kind, name=name, target=target, size=len(content), marks=marks)


def _to_go_on_from(
    tree: Tree, published: dict[int, Manifest], marks: Marks, wanted: _Marked
) -> _Earlier | None:
    """The newest published lists that hold nothing but what is wanted, unless they are many."""
    for number in sorted(published, reverse=True):
        parts = tuple(
            part
            for part in published[number].parts
            if part.kind in {HASHES, SIZES} and part.marks == marks
        )
        if not parts:
            continue
        earlier = _earlier(tree, parts)
        if not (earlier.hashes <= wanted.hashes.keys() and earlier.sizes <= wanted.sizes):
            continue
        base, *additions = earlier.counts
        added = len(wanted.hashes) - base
        if len(additions) >= MOST_ADDITIONS or added > max(base, SHORT_LIST):
            return None
        return earlier
    return None


def _earlier(tree: Tree, parts: tuple[Part, ...]) -> _Earlier:
    counts = []
    hashes: set[bytes] = set()
    sizes: set[tuple[Other, int]] = set()
    for part in parts:
        with _unpacked(tree.targets.signed.targets[part.target], part) as path:
            if part.kind == HASHES:
                with contextlib.closing(HashList(path)) as found:
                    counts.append(len(found))
                    hashes.update(key for key, _ in found)
            else:
                with contextlib.closing(SizeList(path)) as listed:
                    sizes.update(listed)
    return _Earlier(parts, tuple(counts), frozenset(hashes), frozenset(sizes))


@contextlib.contextmanager
def _unpacked(target: TargetFile, part: Part) -> Iterator[str]:
    packed = repository.content(target)
    content = zstandard.ZstdDecompressor().decompress(packed, max_output_size=part.size)
    with tempfile.TemporaryDirectory(prefix="doorward-") as folder:
        path = Path(folder) / "part"
        path.write_bytes(content)
        yield os.fspath(path)


def _least_engine() -> str:
    # Rules are tried by this server's engine; what an older one would make of them is not known.
    from importlib.metadata import version

    major, _, _ = version(definitions.ENGINE).partition(".")
    return f"{major}.0"


def take_back(
    signer: Signer, *, to: DefinitionSet | None, by: str, now: datetime, why: str
) -> DefinitionSet:
    """Bring an earlier set back as a new one, for every device at once.

    Without `to`, the one that was for every device before. Raises rollout.NotPossible, and what
    `make` does.
    """
    bad, good = rollout.to_take_back(to)
    sources.bring_back(good.sources)
    made = make(signer, by=by, now=now, why=why or f"takes back {bad.number}", like=good.number)
    rollout.withdraw(since=good.number, until=made.number, now=now)
    trail.record(
        "definitions.taken_back",
        target=str(bad.number),
        by=by,
        like=good.number,
        number=made.number,
        why=why,
    )
    return made
