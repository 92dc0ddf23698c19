"""How settings of several layers become those of one device: pure, and the same each time.

Each layer holds only what differs there. A layer below wins over one above, except where the one
above has locked a value.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

import msgspec

from doorward_protocol.settings import Settings

Json = Any
Document = dict[str, Json]


@dataclass(frozen=True)
class Layer:
    """What one layer says: values that differ there, and pointers of what lies below may not."""

    values: Document = field(default_factory=dict)
    locked: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether the layer says nothing at all."""
        return not self.values and not self.locked


NOTHING: Final = Layer()
"""A layer that says nothing."""


@dataclass(frozen=True)
class GroupLayer:
    """A group, as the layer that it is."""

    name: str
    layer: Layer


@dataclass(frozen=True)
class State:
    """All layers of an account at one moment."""

    newest: int = 0
    account: Layer = NOTHING
    groups: Mapping[UUID, GroupLayer] = field(default_factory=dict)
    own: Mapping[UUID, Document] = field(default_factory=dict)
    places: Mapping[UUID, UUID] = field(default_factory=dict)

    def layers(self, device: UUID) -> list[Layer]:
        """Return the layers above a device, and its own."""
        group = self.groups.get(self.places[device]) if device in self.places else None
        found = [self.account, *([group.layer] if group is not None else [])]
        return [*found, Layer(self.own.get(device, {}))]

    def text(self, device: UUID) -> str:
        """Return what the device is told, as its one text."""
        return text_of(self.layers(device))

    def in_group(self, group: UUID) -> list[UUID]:
        """Return the devices of a group."""
        return [device for device, place in self.places.items() if place == group]


def plain(settings: Settings) -> Document:
    """Return the settings as JSON has them, every default written out."""
    found: Document = msgspec.json.decode(msgspec.json.encode(settings))
    return found


PRODUCT: Final[Document] = plain(Settings())
"""What holds where nobody has said anything."""


def merged(target: Json, patch: Json) -> Json:
    """Return the target as the patch changes it (RFC 7396); neither is touched.

    An object is merged key by key, ``None`` takes a key away, and all else replaces.
    """
    if not isinstance(patch, dict):
        return patch
    found = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            found.pop(key, None)
        else:
            found[key] = merged(found.get(key), value)
    return found


def without_empty(document: Document) -> Document:
    """Return the document without objects that hold nothing: they say nothing."""
    found: Document = {}
    for key, value in document.items():
        kept = without_empty(value) if isinstance(value, dict) else value
        if not (isinstance(kept, dict) and not kept):
            found[key] = kept
    return found


def parts(pointer: str) -> list[str]:
    """Return the keys that a JSON Pointer (RFC 6901) goes through."""
    return [each.replace("~1", "/").replace("~0", "~") for each in pointer.split("/")[1:]]


def pointer_of(*keys: str) -> str:
    """Return the JSON Pointer that goes through these keys."""
    return "".join("/" + key.replace("~", "~0").replace("/", "~1") for key in keys)


def at(document: Json, pointer: str) -> Json:
    """Return what stands at the pointer; nothing where nothing does."""
    for key in parts(pointer):
        if not isinstance(document, dict) or key not in document:
            return None
        document = document[key]
    return document


def holds(document: Json, pointer: str) -> bool:
    """Tell whether something stands at the pointer."""
    for key in parts(pointer):
        if not isinstance(document, dict) or key not in document:
            return False
        document = document[key]
    return True


def put(document: Document, pointer: str, value: Json) -> Document:
    """Return the document with the value at the pointer; ``None`` takes it away."""
    patch: Json = value
    for key in reversed(parts(pointer)):
        patch = {key: patch}
    # As a whole: an object at the pointer is replaced, not merged into.
    cleared: Json = None
    for key in reversed(parts(pointer)):
        cleared = {key: cleared}
    found: Document = merged(document, cleared)
    return without_empty(merged(found, patch))


def leaves(
    document: Document, known: Iterable[str], prefix: str = ""
) -> Iterator[tuple[str, Json]]:
    """Yield what the document says, by pointer: known settings whole, all else at its depth."""
    pointers = set(known)
    for key, value in document.items():
        here = prefix + pointer_of(key)
        if here in pointers or not isinstance(value, dict):
            yield here, value
        else:
            yield from leaves(value, pointers, here)


def effective(layers: Sequence[Layer]) -> tuple[Document, tuple[str, ...]]:
    """Return what holds below these layers (the widest first), and all that they lock."""
    document, locked = PRODUCT, set[str]()
    for layer in layers:
        said = layer.values
        for pointer in locked:
            said = put(said, pointer, None)
        document = merged(document, said)
        locked.update(layer.locked)
    # Read as a device reads it: every default is written out, and what nobody knows any more goes.
    return plain(msgspec.convert(document, Settings)), tuple(sorted(locked))


def canonical(document: Mapping[str, Json]) -> str:
    """Return the document as the one text that means it: what is equal is equal byte by byte."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def text_of(layers: Sequence[Layer]) -> str:
    """Return what a device below these layers is told, as its one text."""
    document, locked = effective(layers)
    return canonical({"effective": document, "locked": list(locked)})
