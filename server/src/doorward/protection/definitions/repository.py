"""The signed repository of definitions on disk: read it, put a new state in place of the one there.

The Update Framework (specification 1.0) with consistent snapshots. Nothing that a device reads is
changed in place: new files are written beside the old ones, and ``timestamp.json`` is replaced
last, in one step. A process that is killed before leaves the state that was there.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from django.conf import settings
from securesystemslib.signer import CryptoSigner, Signer
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import (
    Metadata,
    MetaFile,
    Root,
    Signed,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)
from tuf.api.serialization.json import JSONSerializer

from doorward_protocol.messages import DefinitionsRoot

LIFE: Final[Mapping[str, timedelta]] = {
    Root.type: timedelta(days=365),
    Targets.type: timedelta(days=365),
    Snapshot.type: timedelta(days=14),
    Timestamp.type: timedelta(days=3),
}
"""How long each signature counts. A device that is shown an older one says `expired`: nobody can
hold newer definitions back for longer than the timestamp's life unnoticed."""
ONLINE: Final = (Snapshot.type, Timestamp.type)
"""Roles that the worker signs; their keys lie in the data folder."""
OLD_FILES_STAY: Final = timedelta(days=2)
"""Files that no set names any more stay so long for devices that are under way."""


class NoRepository(Exception):
    """No keys were made yet (`doorward definitions-keys make`)."""


class RepositoryDamaged(Exception):
    """The files on disk do not belong together; the message says which."""


@dataclass(frozen=True)
class Tree:
    """The metadata that is published now."""

    root: Metadata[Root]
    targets: Metadata[Targets]
    snapshot: Metadata[Snapshot]
    timestamp: Metadata[Timestamp]


def home() -> Path:
    """The folder of everything about definitions; other processes use it too."""
    return Path(settings.DATA) / "definitions"


def published() -> Path:
    """The folder whose files the gateway serves."""
    return home() / "repository"


def exists() -> bool:
    """Tell whether there is something to serve."""
    return (published() / "timestamp.json").exists()


@contextlib.contextmanager
def locked() -> Iterator[None]:
    """Be the only process that publishes; waits for another one. A killed holder holds nothing."""
    home().mkdir(mode=0o700, parents=True, exist_ok=True)
    handle = os.open(home() / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        _take(handle)
        yield
    finally:
        os.close(handle)


if sys.platform == "win32":

    def _take(handle: int) -> None:
        import msvcrt

        msvcrt.locking(handle, msvcrt.LK_LOCK, 1)

else:

    def _take(handle: int) -> None:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX)


def load() -> Tree:
    """Read what is published. Raises NoRepository, RepositoryDamaged."""
    newest = newest_root()
    try:
        root = Metadata[Root].from_bytes(_read(f"{newest}.root.json"))
        timestamp = Metadata[Timestamp].from_bytes(_read("timestamp.json"))
        at = timestamp.signed.snapshot_meta.version
        snapshot = Metadata[Snapshot].from_bytes(_read(f"{at}.snapshot.json"))
        at = snapshot.signed.meta["targets.json"].version
        targets = Metadata[Targets].from_bytes(_read(f"{at}.targets.json"))
    except (OSError, RepositoryError, KeyError) as error:
        raise RepositoryDamaged(f"definitions can't be read: {error}") from error
    return Tree(root, targets, snapshot, timestamp)


def newest_root() -> int:
    """The version of the newest root. Raises NoRepository."""
    numbers = [
        int(path.name.split(".")[0])
        for path in published().glob("*.root.json")
        if path.name.split(".")[0].isdecimal()
    ]
    if not numbers:
        raise NoRepository
    return max(numbers)


def to_pin() -> DefinitionsRoot | None:
    """What a device is told to begin with, or None while nothing is signed here."""
    try:
        newest = newest_root()
        digest = hashlib.sha256(_read(f"{newest}.root.json")).hexdigest()
    except (NoRepository, OSError):
        return None
    return DefinitionsRoot(version=newest, sha256=digest)


def _read(name: str) -> bytes:
    return (published() / name).read_bytes()


# ------------------------------------------------------------------------------------- publishing


def publish_root(root: Metadata[Root]) -> None:
    """Put a new root beside the old ones; what was signed by keys that left must be signed anew."""
    _write(f"{root.signed.version}.root.json", encoded(root))


def publish(
    targets: Targets,
    *,
    signer: Signer,
    online: Mapping[str, Signer],
    now: datetime,
    before: Tree | None,
) -> None:
    """Sign and publish these targets, whose files lie in place already (see `put`)."""
    targets.version = _next(None if before is None else before.targets.signed, now)
    targets.expires = _expires(Targets.type, now)
    signed = Metadata(targets)
    signed.sign(signer)
    _write(f"{targets.version}.targets.json", encoded(signed))
    publish_snapshot(
        targets.version, online=online, now=now, before=None if before is None else before
    )


def publish_snapshot(
    targets_version: int, *, online: Mapping[str, Signer], now: datetime, before: Tree | None
) -> None:
    """Sign a snapshot with these targets, and the timestamp that names it."""
    snapshot = Snapshot(
        version=_next(None if before is None else before.snapshot.signed, now),
        expires=_expires(Snapshot.type, now),
        meta={"targets.json": MetaFile(version=targets_version)},
    )
    signed = Metadata(snapshot)
    signed.sign(online[Snapshot.type])
    _write(f"{snapshot.version}.snapshot.json", encoded(signed))
    publish_timestamp(snapshot.version, online=online, now=now, before=before)


def publish_timestamp(
    snapshot_version: int, *, online: Mapping[str, Signer], now: datetime, before: Tree | None
) -> None:
    """Sign the timestamp: from its replacement on, devices see the new state."""
    timestamp = Timestamp(
        version=_next(None if before is None else before.timestamp.signed, now),
        expires=_expires(Timestamp.type, now),
        snapshot_meta=MetaFile(version=snapshot_version),
    )
    signed = Metadata(timestamp)
    signed.sign(online[Timestamp.type])
    _write("timestamp.json", encoded(signed))


def sign_what_is_due(online: Mapping[str, CryptoSigner], now: datetime) -> int:
    """Sign timestamp and snapshot anew after half their life; answer how many were signed."""
    tree = load()
    if _half_over(tree.snapshot.signed, now):
        publish_snapshot(tree.targets.signed.version, online=online, now=now, before=tree)
        return 2
    if _half_over(tree.timestamp.signed, now):
        publish_timestamp(tree.snapshot.signed.version, online=online, now=now, before=tree)
        return 1
    return 0


def encoded(metadata: Metadata[Any]) -> bytes:
    """The metadata as it is published, without a byte too many."""
    return metadata.to_bytes(JSONSerializer(compact=True))


def put(target: str, content: bytes) -> TargetFile:
    """Lay a target's file in place under its hash; answer how it is signed."""
    described = TargetFile.from_data(target, content, ["sha256"])
    folder, slash, name = target.rpartition("/")
    place = f"{folder}{slash}{described.hashes['sha256']}.{name}"
    if not (published() / place).exists():
        _write(place, content)
    return described


def content(target: TargetFile) -> bytes:
    """A published target's file, compared with its hash. Raises RepositoryDamaged."""
    folder, slash, name = target.path.rpartition("/")
    try:
        found = _read(f"{folder}{slash}{target.hashes['sha256']}.{name}")
        target.verify_length_and_hashes(found)
    except (OSError, RepositoryError) as error:
        raise RepositoryDamaged(f"{target.path}: {error}") from error
    return found


def clear(kept: Iterable[Tree], now: datetime) -> int:
    """Delete what no metadata names any more and is old; answer how many files that was."""
    names = {"timestamp.json"}
    for tree in kept:
        names.add(f"{tree.snapshot.signed.version}.snapshot.json")
        names.add(f"{tree.targets.signed.version}.targets.json")
        for target in tree.targets.signed.targets.values():
            folder, slash, name = target.path.rpartition("/")
            names.add(f"{folder}{slash}{target.hashes['sha256']}.{name}")
    oldest = (now - OLD_FILES_STAY).timestamp()
    gone = 0
    for path in published().rglob("*"):
        place = path.relative_to(published()).as_posix()
        if not path.is_file() or place in names or place.endswith(".root.json"):
            continue
        if path.stat().st_mtime < oldest:
            path.unlink(missing_ok=True)
            gone += 1
    return gone


def _write(place: str, content: bytes) -> None:
    path = published() / place
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def _next(before: Signed | None, now: datetime) -> int:
    # By the clock: after a restored backup the next version is beyond all that devices have seen.
    return max(0 if before is None else before.version + 1, int(now.timestamp()))


def _expires(role: str, now: datetime) -> datetime:
    # TUF knows whole seconds.
    return (now + LIFE[role]).replace(microsecond=0)


def _half_over(signed: Signed, now: datetime) -> bool:
    return signed.expires - now < LIFE[signed.type] / 2


def moment(seconds: float | None = None) -> datetime:
    """Now, or another moment, as TUF writes moments."""
    return datetime.fromtimestamp(time.time() if seconds is None else seconds, UTC)
