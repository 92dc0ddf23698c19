"""What was imported and found good, kept by name: a set is made of all of it."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final
from uuid import UUID, uuid4

import msgspec

from doorward.protection.definitions import repository
from doorward.protection.definitions.vetting import Vetted
from doorward.protection.models import LONGEST_SOURCE, DefinitionSet, DefinitionSource
from doorward_protocol import hash_list
from doorward_protocol.hash_list import HashList, Other, SizeList

MOST_SOURCES: Final = 24
KEPT_SETS: Final = 10
"""What the newest so many sets were made of stays on disk, so that one can be brought back."""

_rules: Final = msgspec.json.Decoder(dict[str, str])


class SourceRefused(Exception):
    """It can't be kept under this name; the text says why."""


@dataclass(frozen=True)
class Content:
    """What lies on disk of one import."""

    rules: dict[str, str]
    hashes: dict[bytes, str]
    sizes: frozenset[tuple[Other, int]]


def checked_name(text: str) -> str:
    """A name for what is imported, made from a file's name. Raises SourceRefused."""
    name = re.sub("[^a-z0-9]+", "-", text.lower()).strip("-")[:LONGEST_SOURCE].strip("-")
    if not name or name.startswith("suspicious"):
        raise SourceRefused(f"{text!r} can't be a name; choose another with --name.")
    return name


def keep(
    name: str,
    vetted: Vetted,
    sizes: Iterable[tuple[Other, int]],
    *,
    origin: str,
    by: str,
    suspicious: bool,
    now: datetime,
) -> DefinitionSource:
    """Keep what was found good under this name, in place of what was kept there before.

    Raises SourceRefused where there are too many names already.
    """
    others = DefinitionSource.objects.exclude(pk=name).count()
    if others >= MOST_SOURCES:
        raise SourceRefused(f"there are {others} sources already; remove one first.")
    content = uuid4()
    _write(content, "rules", msgspec.json.encode(vetted.rules, order="sorted"))
    _write(content, "hashes", hash_list.build(_fewer_labels(vetted.hashes, name)))
    _write(content, "sizes", hash_list.build_sizes(sizes))
    source, _ = DefinitionSource.objects.update_or_create(
        pk=name,
        defaults={
            "content": content,
            "imported_at": now,
            "imported_by": by,
            "origin": origin[:1000],
            "suspicious": suspicious,
            "rules": vetted.rule_count,
            "hashes": len(vetted.hashes),
            "refused": len(vetted.refused),
        },
    )
    return source


def read(content: UUID) -> Content:
    """What was kept. Raises repository.RepositoryDamaged."""
    try:
        rules = _rules.decode(_place(content, "rules").read_bytes())
        with contextlib.closing(HashList(os.fspath(_place(content, "hashes")))) as hashes:
            known = dict(hashes)
        with contextlib.closing(SizeList(os.fspath(_place(content, "sizes")))) as sizes:
            found = frozenset(sizes)
    except (OSError, msgspec.MsgspecError, hash_list.HashListDamaged) as error:
        raise repository.RepositoryDamaged(f"the imported content {content}: {error}") from error
    return Content(rules, known, found)


def described() -> list[dict[str, object]]:
    """Every source as a set remembers it, so that it can be brought back."""
    return [
        {
            "name": source.name,
            "content": str(source.content),
            "imported_at": source.imported_at.isoformat(),
            "imported_by": source.imported_by,
            "origin": source.origin,
            "suspicious": source.suspicious,
            "rules": source.rules,
            "hashes": source.hashes,
            "refused": source.refused,
        }
        for source in DefinitionSource.objects.order_by("name")
    ]


def bring_back(found: Iterable[dict[str, object]]) -> None:
    """Make the sources those that a set remembers, and no others.

    Raises repository.RepositoryDamaged where their content is not there any more.
    """
    wanted = list(found)
    for one in wanted:
        read(UUID(str(one["content"])))
    DefinitionSource.objects.exclude(name__in=[one["name"] for one in wanted]).delete()
    for one in wanted:
        values = {key: value for key, value in one.items() if key != "name"}
        values["imported_at"] = datetime.fromisoformat(str(one["imported_at"]))
        DefinitionSource.objects.update_or_create(pk=one["name"], defaults=values)


def clear() -> None:
    """Delete what neither a source nor one of the newest sets is made of."""
    used = {str(each) for each in DefinitionSource.objects.values_list("content", flat=True)}
    for made_of in DefinitionSet.objects.order_by("-number").values_list("sources", flat=True)[
        :KEPT_SETS
    ]:
        used |= {str(one["content"]) for one in made_of}
    folder = repository.home() / "sources"
    for path in folder.glob("*.*") if folder.is_dir() else ():
        if path.stem not in used:
            path.unlink(missing_ok=True)


def _fewer_labels(hashes: dict[bytes, str], name: str) -> Iterator[tuple[bytes, str]]:
    """The same, with the source's name for every label beyond those that a list can hold."""
    labels: set[str] = set()
    for key in sorted(hashes):
        label = hashes[key]
        if label not in labels and len(labels) >= hash_list.MOST_LABELS // 2:
            label = name
        labels.add(label)
        yield key, label


def _place(content: UUID, kind: str) -> Path:
    return repository.home() / "sources" / f"{content}.{kind}"


def _write(content: UUID, kind: str, data: bytes) -> None:
    path = _place(content, kind)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
