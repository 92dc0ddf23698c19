"""Takes the set of definitions that the server means for this device: fetched, believed, tried,
and put in force in one step.

Everything happens beside the set in force. Whatever is wrong, and wherever this process is killed,
that set stays as it was; what was fetched whole is not fetched again.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import json
import os
import shutil
import sqlite3
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version as version_of
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
import zstandard
from tuf.api.metadata import TargetFile

from doorward_agent import definitions, identity, link, lock, protection
from doorward_agent.config import AgentConfig
from doorward_agent.database import note, noted, noted_int, transaction
from doorward_agent.updates import canary
from doorward_agent.updates.trust import Refused, Trust
from doorward_protocol import definitions as signed
from doorward_protocol.definitions import Manifest, Part
from doorward_protocol.messages import DefinitionsRoot

if TYPE_CHECKING:
    from doorward_agent.link import Files

MAX_WINDOW: Final = 128 * 1024 * 1024
"""Memory that a zstd frame may ask for, in bytes."""
_PIECE: Final = 1024 * 1024
_ENDINGS: Final = {signed.RULES: ".rules", signed.HASHES: ".hashes", signed.SIZES: ".sizes"}
_pin: Final = msgspec.json.Decoder(DefinitionsRoot)


@dataclass(frozen=True)
class Outcome:
    """What an update did: the set in force afterwards, and whether that is a new one."""

    number: int
    changed: bool


class AlreadyUpdating(Exception):
    """Another process of this agent is at it."""


def home(config: AgentConfig) -> Path:
    """The folder of everything about definitions from the server."""
    return config.state_dir / definitions.FOLDER


def number_in_force(config: AgentConfig) -> int:
    """The number of the server's set in force, 0 while it is the bundled one."""
    folder = definitions.folder_in_force(config.state_dir)
    if not folder:
        return 0
    try:
        return protection.version_number(definitions.current(folder).version)
    except definitions.DefinitionsUnusable:
        return 0


# --------------------------------------------------------------------------------------- noting


def run(config: AgentConfig, db: sqlite3.Connection) -> Outcome:
    """Take what the server means for this device, and note what became of it.

    Raises Refused, link.LinkProblem, AlreadyUpdating; each but the last is noted for the server and
    for `status`.
    """
    who = identity.load(config.state_dir)
    if who is None or who.state != "enrolled":
        raise Refused("no-root", "this computer is in no account")
    files = link.Files(who.server, insecure_http=who.insecure_http, ca_file=who.ca_file)
    try:
        return noted_run(config, db, files, clock_offset=who.clock_offset)
    finally:
        files.close()


def noted_run(
    config: AgentConfig, db: sqlite3.Connection, files: Files, *, clock_offset: float = 0.0
) -> Outcome:
    """The same with these files; `clock_offset` in seconds leads to the server's time."""
    now = dt.datetime.fromtimestamp(time.time() + clock_offset, dt.UTC)
    try:
        outcome = update(config, db, files, now=now)
    except Refused as problem:
        _note(db, problem.code, str(problem), problem.number)
        raise
    except link.LinkProblem as problem:
        _note(db, "unreachable", str(problem), 0)
        raise
    except OSError as problem:
        _note(db, "no-space", str(problem), 0)
        raise Refused("no-space", f"it cannot be written to disk: {problem}") from problem
    _note(db, "", "", 0)
    return outcome


def _note(db: sqlite3.Connection, code: str, detail: str, refused: int) -> None:
    with transaction(db):
        note(db, "definitions_code", code)
        note(db, "definitions_detail", detail[:500])
        note(db, "definitions_refused", refused)
        note(db, "definitions_checked", int(time.time() * 1000))


# -------------------------------------------------------------------------------------- updating


def update(
    config: AgentConfig, db: sqlite3.Connection, files: Files, *, now: dt.datetime
) -> Outcome:
    """Take the set that the server means for this device; `now` is the server's time.

    Raises Refused, link.LinkProblem, OSError, AlreadyUpdating.
    """
    place = home(config)
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(lock.held(place / "lock"))
        except lock.LockHeld as problem:
            raise AlreadyUpdating("Definitions are being updated already.") from problem
        return _update(config, db, files, now)


def _update(config: AgentConfig, db: sqlite3.Connection, files: Files, now: dt.datetime) -> Outcome:
    place = home(config)
    for left in (place / "sets").glob(".new-*"):
        shutil.rmtree(left, ignore_errors=True)
    root = noted(db, "definitions_root")
    if not isinstance(root, bytes):
        raise Refused("no-root", "the server signs no definitions, or has not told with what yet")
    trust = Trust(place / "metadata", files, _pin.decode(root), now=now)
    targets = trust.refresh()
    have, wanted = number_in_force(config), noted_int(db, "definitions_wanted")
    if wanted < have or not wanted or (wanted == have and not _outdated(config)):
        # A lower one is never taken: what was in force once is not given up for less.
        return Outcome(have, changed=False)
    try:
        manifest = _manifest(trust, targets, wanted, place)
        folder = place / "sets" / f".new-{os.getpid()}"
        folder.mkdir(mode=0o700, parents=True)
        _build(folder, trust, targets, manifest, place)
        canary.try_out(config, os.fspath(folder), place)
        _put_in_force(place, folder, manifest)
    except Refused as problem:
        raise Refused(problem.code, str(problem), number=wanted) from problem
    _clear(place, {_digest(targets[part.target]) for part in manifest.parts})
    return Outcome(wanted, changed=True)


def _outdated(config: AgentConfig) -> bool:
    """Tell whether the set in force was built with other rules than this agent brings."""
    folder = definitions.folder_in_force(config.state_dir)
    try:
        bundled = Path(folder, "BUNDLED").read_text(encoding="ascii")
    except OSError:
        return True
    return bundled != definitions.current().version


def _manifest(
    trust: Trust, targets: Mapping[str, TargetFile], wanted: int, place: Path
) -> Manifest:
    name = signed.manifest_target(wanted)
    target = targets.get(name)
    if target is None:
        raise Refused("not-signed", f"set {wanted} is not among the signed ones")
    if target.length > signed.MAX_MANIFEST_BYTES:
        raise Refused("too-long", "the manifest is longer than it may be")
    body = _fetched(trust, target, place).read_bytes()
    try:
        manifest = signed.decoder.decode(body)
    except msgspec.MsgspecError as problem:
        raise Refused("unreadable", f"the manifest: {problem}") from problem
    if manifest.format != signed.FORMAT or manifest.number != wanted:
        raise Refused("unreadable", "the manifest is of another format or set")
    for part in manifest.parts:
        if part.kind not in signed.KINDS:
            # Data only: whatever a program would be called, it is not taken.
            raise Refused("unknown-part", f"it holds {part.kind!r}, which is no rule and no hash")
        if part.target not in targets:
            raise Refused("not-signed", f"{part.target} is not signed")
    if sum(part.size for part in manifest.parts) > signed.MAX_SET_BYTES:
        raise Refused("too-long", "the set is longer than it may be")
    _same_engine(manifest.engine)
    return manifest


def _same_engine(engine: signed.Engine) -> None:
    """Refuse a set for another engine: which one scans here, its owner decides by installing it."""
    have = version_of(signed.ENGINE)
    if engine.name != signed.ENGINE or _numbers(engine.least) > _numbers(have):
        raise Refused(
            "other-engine",
            f"its rules need {engine.name} {engine.least}, and this agent has {signed.ENGINE} "
            f"{have}: install a newer agent",
        )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(each) for each in version.split(".") if each.isascii() and each.isdecimal())


# -------------------------------------------------------------------------------------- fetching


def _fetched(trust: Trust, target: TargetFile, place: Path) -> Path:
    """The target's file, fetched if need be from where an earlier try stopped. Raises Refused."""
    digest = _digest(target)
    if target.length > signed.MAX_PART_BYTES:
        raise Refused("too-long", f"{target.path} is longer than it may be")
    whole = place / "files" / digest
    if whole.exists() and _sha256(whole) == digest:
        return whole
    part = whole.with_suffix(".part")
    part.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    held = part.stat().st_size if part.exists() else 0
    # What an earlier try left may be spoiled: then once more, from the beginning.
    for start in (held, 0) if 0 < held <= target.length else (0,):
        if start < target.length:
            _fetch_into(trust, target, part, start)
        if part.stat().st_size == target.length and _sha256(part) == digest:
            part.replace(whole)
            return whole
        part.unlink()
    raise Refused("tampered", f"{target.path} is not the file that was signed")


def _fetch_into(trust: Trust, target: TargetFile, part: Path, start: int) -> None:
    folder, slash, name = target.path.rpartition("/")
    place = f"{folder}{slash}{_digest(target)}.{name}"
    size = start
    with part.open("ab" if start else "wb") as out:
        try:
            for piece in trust.files.fetch(place, start=start):
                size += len(piece)
                if size > target.length:
                    raise Refused("too-long", f"{target.path} is longer than what was signed")
                out.write(piece)
        except link.NotServed as problem:
            raise Refused("tampered", f"{target.path} is signed and not there") from problem


def _digest(target: TargetFile) -> str:
    digest = target.hashes.get("sha256", "")
    if len(digest) != 64 or not all(each in "0123456789abcdef" for each in digest):
        raise Refused("unreadable", f"{target.path} is signed without its SHA-256")
    return digest


def _sha256(path: Path) -> str:
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


# -------------------------------------------------------------------------------------- building


def _build(
    folder: Path,
    trust: Trust,
    targets: Mapping[str, TargetFile],
    manifest: Manifest,
    place: Path,
) -> None:
    """Write the set as the engine reads it: what the agent came with, and what was signed."""
    bundled = definitions.current()
    for path in (*bundled.rule_files, *bundled.hash_files):
        shutil.copyfile(path, folder / Path(path).name)
    for part in manifest.parts:
        mark = f"{definitions.SUSPICIOUS}-" if part.marks == "suspicious" else ""
        name = f"{mark}{part.name}{_ENDINGS[part.kind]}"
        packed = _fetched(trust, targets[part.target], place)
        try:
            with (folder / name).open("xb") as out:
                _unpack(packed, part, out.fileno())
        except FileExistsError:
            raise Refused("unreadable", f"two parts are called {name}") from None
        if part.kind == signed.RULES:
            _check_rules(folder / name)
    number = str(manifest.number)
    version = f"{number[:4]}.{number[4:6]}.{number[6:8]}.{number[8:]}"
    digest = definitions.digest(os.fspath(folder))
    (folder / "BUNDLED").write_text(bundled.version, encoding="ascii")
    (folder / "VERSION").write_text(f"{version} {digest}\n", encoding="ascii")


def _unpack(packed: Path, part: Part, out: int) -> None:
    """Unpack into an open file; never more than was signed."""
    size = 0
    decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW)
    try:
        with packed.open("rb") as source, decompressor.stream_reader(source) as reader:
            while piece := reader.read(_PIECE):
                size += len(piece)
                if size > part.size:
                    raise Refused("too-long", f"{part.name} unpacks to more than was signed")
                os.write(out, piece)
    except zstandard.ZstdError as problem:
        raise Refused("unreadable", f"{part.name}: {problem}") from problem
    if size != part.size:
        raise Refused("tampered", f"{part.name} unpacks to less than was signed")


def _check_rules(path: Path) -> None:
    try:
        found = json.loads(path.read_bytes())
    except ValueError as problem:
        raise Refused("unreadable", f"{path.name}: {problem}") from problem
    if not isinstance(found, dict) or not all(isinstance(text, str) for text in found.values()):
        raise Refused("unreadable", f"{path.name} holds no rules")


# -------------------------------------------------------------------------------------- in force


def _put_in_force(place: Path, folder: Path, manifest: Manifest) -> None:
    """Make the set the one to scan by; until the last step the former one is."""
    version = (folder / "VERSION").read_text(encoding="ascii")
    name = f"{manifest.number}-{version.rpartition(' ')[2].strip()}"
    ready = place / "sets" / name
    for path in folder.iterdir():
        _flush(path)
    _flush(folder)
    if ready.exists():
        shutil.rmtree(ready)
    folder.rename(ready)
    _flush(ready.parent)
    fresh = place / f".{definitions.CURRENT}.{os.getpid()}"
    fresh.write_text(name, encoding="ascii")
    _flush(fresh)
    fresh.replace(place / definitions.CURRENT)
    _flush(place)


def _clear(place: Path, needed: set[str]) -> None:
    """Delete what neither the set in force nor the one before it needs."""
    sets = sorted((place / "sets").iterdir(), key=lambda path: path.stat().st_mtime)
    current = (place / definitions.CURRENT).read_text(encoding="ascii")
    for path in [each for each in sets if each.name != current][:-1]:
        shutil.rmtree(path, ignore_errors=True)
    for path in (place / "files").iterdir():
        if path.stem not in needed:
            path.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    if os.name != "posix" and path.is_dir():
        return  # Windows has no such thing.
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
