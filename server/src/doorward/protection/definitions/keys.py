"""The keys that sign definitions: made in a ceremony, renewed, replaced.

Root and targets keys belong to people. They are written where the operator says, never into the
data folder, as PKCS #8 encrypted by a passphrase. The keys of snapshot and timestamp lie in the
data folder, since the worker signs with them; whoever steals these can hold newer definitions back
for a few days, and can put nothing into a set.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.conf import settings
from securesystemslib.signer import CryptoSigner, Key
from tuf.api.exceptions import UnsignedMetadataError
from tuf.api.metadata import Metadata, Role, Root, Snapshot, Targets, Timestamp

from doorward.audit import trail
from doorward.protection.definitions import repository
from doorward.protection.definitions.repository import ONLINE

ROOT_KEYS: Final = 3
THRESHOLD: Final = 2
LEAST_PASSPHRASE: Final = 12
"""Characters; the file may be copied and guessed at for years."""

Ask = Callable[[Path], bytes | None]
"""Answers the passphrase of a key file, or None for one without."""


class KeysRefused(Exception):
    """The ceremony cannot go on; the text says why and what to do."""


@dataclass(frozen=True)
class Ceremony:
    """What a ceremony made."""

    root: Metadata[Root]
    files: tuple[Path, ...]

    @property
    def expires(self) -> datetime:
        """When the root must have been renewed."""
        return self.root.signed.expires


def make(
    folder: Path,
    *,
    passphrase: bytes | None,
    now: datetime,
    roots: int = ROOT_KEYS,
    threshold: int = THRESHOLD,
) -> Ceremony:
    """Make all keys and begin an empty repository; nothing is made where one exists.

    Raises KeysRefused.
    """
    if not 1 <= threshold <= roots <= 9:
        raise KeysRefused("the threshold must be from 1 to the number of root keys, at most 9.")
    _allowed_place(folder)
    with repository.locked():
        if any(repository.published().glob("*.root.json")):
            raise KeysRefused(
                "there are keys already: devices trust them. Use renew or replace, not make."
            )
        names = [*(f"root-{number}" for number in range(1, roots + 1)), Targets.type]
        files = [folder / f"{name}.pem" for name in names]
        for path in files:
            if path.exists():
                raise KeysRefused(f"{path} exists already; name another folder.")
        signers = []
        for path in files:
            signer, key = _fresh()
            _save(path, key, passphrase)
            signers.append(signer)
        online = {}
        for role in ONLINE:
            online[role], key = _fresh()
            _save_online(role, key)
        root = Root(version=1, expires=(now + repository.LIFE[Root.type]).replace(microsecond=0))
        for signer in signers[:-1]:
            root.add_key(signer.public_key, Root.type)
        root.roles[Root.type].threshold = threshold
        root.add_key(signers[-1].public_key, Targets.type)
        for role, signer in online.items():
            root.add_key(signer.public_key, role)
        signed = Metadata(root)
        for signer in signers[:-1]:
            signed.sign(signer, append=True)
        repository.publish_root(signed)
        repository.publish(Targets(), signer=signers[-1], online=online, now=now, before=None)
        _remember("definitions.keys.made", signed)
    return Ceremony(signed, tuple(files))


def renew(files: Iterable[Path], *, ask: Ask, now: datetime) -> Ceremony:
    """Sign a root like the one before, for another year; and the targets, where their key is there.

    Raises KeysRefused where the files are not a threshold of root keys.
    """
    signers = [read(path, ask) for path in files]
    with repository.locked():
        tree = repository.load()
        signed = _next_root(tree.root, now)
        _sign(signed, tree.root, signers)
        repository.publish_root(signed)
        targets = _among(signers, tree.root.signed.roles[Targets.type])
        if targets is not None:
            repository.publish(
                tree.targets.signed,
                signer=targets,
                online=read_online(),
                now=now,
                before=tree,
            )
        _remember("definitions.keys.renewed", signed)
    return Ceremony(signed, ())


def replace(
    role: str,
    files: Iterable[Path],
    *,
    old: str,
    new_file: Path | None,
    passphrase: bytes | None,
    ask: Ask,
    now: datetime,
) -> Ceremony:
    """Take one key out of a role and a fresh one in; `old` begins the id of the one that leaves.

    The new root is signed by a threshold of the old root keys and of the new ones. Raises
    KeysRefused.
    """
    signers = [read(path, ask) for path in files]
    with repository.locked():
        tree = repository.load()
        root = tree.root.signed
        matching = [keyid for keyid in root.roles[role].keyids if keyid.startswith(old)]
        if len(matching) != 1:
            raise KeysRefused(f"{old!r} does not name one key of {role}; `show` lists them.")
        if role not in ONLINE:
            if new_file is None:
                raise KeysRefused("say with --new where the new key is to be written.")
            _allowed_place(new_file.parent)
        fresh, key = _fresh()
        signed = _next_root(tree.root, now)
        signed.signed.revoke_key(matching[0], role)
        signed.signed.add_key(fresh.public_key, role)
        _sign(signed, tree.root, [*signers, fresh])
        if new_file is not None and role not in ONLINE:
            _save(new_file, key, passphrase)
        else:
            _save_online(role, key)
        repository.publish_root(signed)
        online = read_online()
        if role == Targets.type:
            repository.publish(
                tree.targets.signed, signer=fresh, online=online, now=now, before=tree
            )
        elif role in ONLINE:
            repository.publish_snapshot(
                tree.targets.signed.version, online=online, now=now, before=tree
            )
        _remember("definitions.keys.replaced", signed, role=role, old=matching[0][:16])
    return Ceremony(signed, () if role in ONLINE or new_file is None else (new_file,))


def targets_signer(files: Sequence[Path], *, ask: Ask) -> CryptoSigner:
    """The key among these files that signs sets. Raises KeysRefused, repository.NoRepository."""
    role = repository.load().root.signed.roles[Targets.type]
    for path in files:
        signer = read(path, ask)
        if signer.public_key.keyid in role.keyids:
            return signer
    raise KeysRefused("none of these files is the key that signs definitions (targets.pem).")


def read_online() -> Mapping[str, CryptoSigner]:
    """The keys that the worker signs with. Raises KeysRefused where they are missing."""
    return {role: read(_online_file(role), lambda path: None) for role in ONLINE}


def read(path: Path, ask: Ask) -> CryptoSigner:
    """The key in a file. Raises KeysRefused."""
    try:
        pem = path.read_bytes()
    except OSError as error:
        raise KeysRefused(f"{path}: {(error.strerror or 'unreadable').lower()}.") from None
    encrypted = b"ENCRYPTED PRIVATE KEY" in pem
    try:
        key = serialization.load_pem_private_key(pem, ask(path) if encrypted else None)
    except (ValueError, TypeError):
        raise KeysRefused(f"{path} is no key, or the passphrase is wrong.") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise KeysRefused(f"{path} is a key of another kind than Ed25519.")
    return CryptoSigner(key)


def key_files(places: Iterable[Path]) -> list[Path]:
    """The key files that these files and folders are or hold. Raises KeysRefused for none."""
    found: list[Path] = []
    for place in places:
        found.extend(sorted(place.glob("*.pem")) if place.is_dir() else [place])
    if not found:
        raise KeysRefused("no key file (*.pem) is there.")
    return found


def checked_passphrase(text: str) -> bytes:
    """The passphrase as bytes. Raises KeysRefused for one that is too short."""
    if len(text) < LEAST_PASSPHRASE:
        raise KeysRefused(f"the passphrase needs at least {LEAST_PASSPHRASE} characters.")
    return text.encode()


# ------------------------------------------------------------------------------------- underneath


def _next_root(before: Metadata[Root], now: datetime) -> Metadata[Root]:
    root = Metadata[Root].from_bytes(before.to_bytes()).signed
    root.version += 1
    root.expires = (now + repository.LIFE[Root.type]).replace(microsecond=0)
    return Metadata(root)


def _sign(signed: Metadata[Root], before: Metadata[Root], signers: Sequence[CryptoSigner]) -> None:
    """Sign with every root key that is there; refuse where that is not enough for a device."""
    both = {*before.signed.roles[Root.type].keyids, *signed.signed.roles[Root.type].keyids}
    for signer in signers:
        if signer.public_key.keyid in both:
            signed.sign(signer, append=True)
    for judge in (before.signed, signed.signed):
        try:
            judge.verify_delegate(Root.type, signed.signed_bytes, signed.signatures)
        except UnsignedMetadataError:
            role = judge.roles[Root.type]
            raise KeysRefused(
                f"{role.threshold} of the {len(role.keyids)} root keys are needed; "
                "name more of their files."
            ) from None


def _among(signers: Iterable[CryptoSigner], role: Role) -> CryptoSigner | None:
    return next((each for each in signers if each.public_key.keyid in role.keyids), None)


def _allowed_place(folder: Path) -> None:
    data = Path(settings.DATA).resolve()
    if folder.resolve().is_relative_to(data):
        raise KeysRefused(
            f"{folder} is in the data folder. Whoever breaks into the server would have these "
            "keys too: name a folder elsewhere, best on media that is put away."
        )


def _online_file(role: str) -> Path:
    return Path(settings.DATA) / "keys" / f"definitions-{role}.pem"


def _fresh() -> tuple[CryptoSigner, Ed25519PrivateKey]:
    key = Ed25519PrivateKey.generate()
    return CryptoSigner(key), key


def _save(path: Path, key: Ed25519PrivateKey, passphrase: bytes | None) -> None:
    encryption = (
        serialization.BestAvailableEncryption(passphrase)
        if passphrase
        else serialization.NoEncryption()
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
    )
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise KeysRefused(f"{path}: {(error.strerror or 'not writable').lower()}.") from None
    with os.fdopen(descriptor, "wb") as file:
        file.write(pem)
        file.flush()
        os.fsync(file.fileno())


def _save_online(role: str, key: Ed25519PrivateKey) -> None:
    path = _online_file(role)
    beside = path.with_suffix(".next")
    beside.unlink(missing_ok=True)
    _save(beside, key, None)
    beside.replace(path)


def names(root: Root) -> list[tuple[str, Key]]:
    """Each role with each of its keys, in order."""
    roles = (Root.type, Targets.type, Snapshot.type, Timestamp.type)
    return [(role, root.keys[keyid]) for role in roles for keyid in root.roles[role].keyids]


def _remember(tag: str, signed: Metadata[Root], *, role: str = "", old: str = "") -> None:
    trail.record(
        tag,
        target=f"root {signed.signed.version}",
        expires=signed.signed.expires.date().isoformat(),
        keys=len(signed.signatures),
        role=role,
        replaced=old,
    )
