# Why not pathlib: paths here are bytes relative to held folders.
# ruff: noqa: PTH100, PTH104, PTH105, PTH108, PTH110, PTH112, PTH118, PTH119, PTH120, PTH123, PTH208
"""Put away what was found, list it, bring it back as it was, or delete it for good.

`put_away` takes the file out of everybody's reach by renaming it into a closed folder, makes sure
that it is the very file that was scanned, seals it into the vault and only then removes it.
`restore` brings back the same bytes, mode, times and owner, and allows exactly these bytes from
then on.

Nothing is lost however the agent ends: before anything moves, a journal entry says what is about to
happen, and `recover` (which every operation runs first) finishes it or takes it back. One operation
runs at a time; a lock file says so, and the system releases it with the process.

A record's ``id`` is stable and never reused: whoever reports an act derives the report's id from
it, so that an act finished before a crash and found again after it is told once.

Refused, with a reason a person can act on (`Refused.reason`): ``hard-linked``, ``package-file``,
``own-file``, ``link-in-path``, ``changed``, ``gone``, ``no-permission``, ``read-only``,
``no-space``, ``vault-full``; on the way back ``occupied`` and ``folder-changed``. For want of space
the file stays where it is, but not as it is: its rights are taken (`_disarm`).
"""

import base64
import binascii
import errno
import json
import os
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields, replace
from hashlib import sha256
from typing import Any

import uuid_utils

from doorward_agent import allowed, folders, packages, vault, vault_room
from doorward_agent.config import AgentConfig, prepare
from doorward_agent.paths import LinkInPath, is_within, own_places, readable
from doorward_agent.scan import Detection

_SUFFIX = ".dwq"
_READ = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)
_MAKE = os.O_RDWR | os.O_CREAT | os.O_EXCL


class Refused(Exception):
    """Nothing was changed; `reason` is a fixed word, the message says it to a person."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class NotInQuarantine(Exception):
    """There is no file with this id."""


@dataclass(frozen=True, slots=True)
class QuarantineRecord:
    """One file that was put away, and all it takes to bring it back."""

    id: str
    path: str
    """Where it was, as text that is safe to show and send."""
    location: bytes
    sha256: str
    size: int
    rule: str
    title: str
    reason: str
    engine: str
    severity: str
    kind: str
    member: str
    found_at: float
    put_away_at: float
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    folder_device: int
    folder_inode: int


@dataclass(frozen=True, slots=True)
class Recovered:
    """What became of an operation that a crash had interrupted."""

    id: str
    operation: str
    """``put-away`` or ``restore``."""
    outcome: str
    """``finished``: as if nothing had happened; ``taken-back``: as if it had never begun."""
    path: str
    record: QuarantineRecord | None
    """For what is, or was, in the vault."""


def put_away(detection: Detection, config: AgentConfig) -> QuarantineRecord:
    """Move the file that was scanned into the vault; it is there, and nowhere else, when this
    returns.

    Raises Refused (nothing changed), vault.VaultDamaged.
    """
    with _locked(config):
        _recover(config)
        return _put_away(detection, config)


def list_records(config: AgentConfig) -> list[QuarantineRecord]:
    """Return what is in the vault, oldest first. Vault files that cannot be opened are left out
    (`unreadable`).

    Raises vault.VaultDamaged where the key is missing.
    """
    records = []
    identifiers = _identifiers(config)
    if identifiers:
        _key(config)
    for identifier in identifiers:
        try:
            records.append(find(config, identifier))
        except (vault.VaultDamaged, NotInQuarantine):
            continue
    return sorted(records, key=lambda record: (record.put_away_at, record.id))


def unreadable(config: AgentConfig) -> list[str]:
    """Return the ids of vault files that are damaged."""
    damaged = []
    for identifier in _identifiers(config):
        try:
            find(config, identifier)
        except vault.VaultDamaged:
            damaged.append(identifier)
        except NotInQuarantine:
            continue
    return damaged


def find(config: AgentConfig, identifier: str) -> QuarantineRecord:
    """Return one record. Raises NotInQuarantine, vault.VaultDamaged."""
    opened = _opened(config, identifier)
    try:
        return _record(opened.facts)
    finally:
        opened.close()


def restore(
    config: AgentConfig,
    identifier: str,
    *,
    destination: str | bytes | None = None,
    until: float | None = None,
) -> QuarantineRecord:
    """Bring a file back as it was and allow exactly these bytes; returns the record, now history.

    They are allowed for ever, or ``until`` then (seconds since 1970). Without a destination it goes
    where it was, provided the folder is still the same one. A destination that is a folder gets the
    file under its old name. Nothing that exists is ever replaced. Raises NotInQuarantine, Refused
    (nothing changed), vault.VaultDamaged, allowed.AllowedUnreadable.
    """
    with _locked(config):
        _recover(config)
        return _restore(config, identifier, destination, until)


def delete(config: AgentConfig, identifier: str) -> QuarantineRecord:
    """Delete a file for good; returns the record, now history. Raises NotInQuarantine,
    vault.VaultDamaged."""
    with _locked(config):
        _recover(config)
        record = find(config, identifier)
        os.unlink(_vault_path(config, identifier))
        allowed.flush_folder(_room(config, "vault"))
        return record


def recover(config: AgentConfig) -> tuple[Recovered, ...]:
    """Finish or take back whatever a crash interrupted; call it once at start. Nothing to do costs
    one folder listing.

    Raises vault.VaultDamaged where the key is missing.
    """
    with _locked(config):
        return _recover(config)


# -- putting away ---------------------------------------------------------------------------


def _put_away(detection: Detection, config: AgentConfig) -> QuarantineRecord:
    location = detection.location
    folder_path, name = os.path.split(location)
    if is_within(os.path.realpath(location), (*own_places(config), *_own_python())):
        raise Refused("own-file", f"{detection.path} belongs to the agent itself")
    package = packages.owner(location)
    if package is not None:
        raise Refused(
            "package-file",
            f"{detection.path} belongs to the package {package}; reinstall or remove the package",
        )
    with _refusing(detection.path), folders.hold(folder_path) as folder:
        source = folder.open(name, _READ)
        try:
            facts = os.fstat(source)
            _must_be(detection, facts)
            room = os.fspath(config.quarantine_dir / "vault")
            held = vault_room.held(room, _SUFFIX)
            full = _why_full(held, facts.st_size, config)
            if full:
                told = _disarm(detection, facts, source, config)
                raise Refused(
                    "vault-full",
                    f"{detection.path} is not put away: the quarantine is full ({full}); {told}. "
                    "Delete or restore what is in it, and scan again",
                )
            record = _as_record(detection, facts, folder.identity)
            known = _rights_before(config, facts, record.sha256)
            if known is not None:
                record = replace(record, mode=known)
            try:
                _take(record, facts, source, name, folder, config)
            except OSError as error:
                if _REASONS.get(error.errno or 0) != "no-space":
                    raise
                told = _disarm(detection, facts, source, config)
                raise Refused(
                    "no-space",
                    f"{detection.path} is not put away: no space left on the disk; {told}",
                ) from error
            with suppress(OSError):
                vault_room.added(room, held, f"{record.id}{_SUFFIX}")
            with suppress(OSError):
                os.unlink(_rights_path(config, facts))
        finally:
            os.close(source)
    return record


def _why_full(held: vault_room.Held, size: int, config: AgentConfig) -> str:
    """Return what of the vault is used up, were a file of this size put into it; "" if nothing."""
    if held.files >= config.vault_files:
        return f"{held.files:,} files"
    if held.bytes + size > config.vault_bytes:
        return f"{held.bytes:,} of {config.vault_bytes:,} bytes"
    return ""


def _disarm(detection: Detection, facts: os.stat_result, source: int, config: AgentConfig) -> str:
    """Take the file's rights, so that nobody opens or runs it by chance; returns that in words.

    Root reads it all the same, and so does this agent; under another user it has to keep the right
    to read its own file. What the rights were is kept, for when it is put away after all.
    """
    if not hasattr(os, "fchmod"):
        return "it is where it was and can be opened"
    mode, closed = stat.S_IMODE(facts.st_mode), _closed()
    if mode == closed:
        return "its rights were taken before"
    if _digest(source) != detection.sha256:
        raise Refused("changed", f"{detection.path} changed after it was scanned")
    with suppress(OSError):
        # A full disk: the words below say what they were.
        _keep_rights(config, facts, {"mode": mode, "sha256": detection.sha256})
    try:
        os.fchmod(source, closed)
    except OSError:
        return "it is where it was and can be opened: its rights could not be taken"
    return f"its rights were taken, so that it is not opened or run (they were {mode:04o})"


def _closed() -> int:
    return 0 if os.geteuid() == 0 else stat.S_IRUSR


def _rights_path(config: AgentConfig, facts: os.stat_result) -> str:
    return os.fspath(config.quarantine_dir / "disarmed" / f"{facts.st_dev}-{facts.st_ino}.json")


def _keep_rights(config: AgentConfig, facts: os.stat_result, kept: dict[str, Any]) -> None:
    room = config.quarantine_dir / "disarmed"
    there = sorted(room.iterdir(), key=lambda path: path.stat().st_mtime_ns)
    for old in there[: max(0, len(there) + 1 - config.vault_files)]:
        old.unlink(missing_ok=True)
    handle = os.open(
        _rights_path(config, facts), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600
    )
    with open(handle, "w", encoding="ascii") as target:
        json.dump(kept, target)
        target.flush()
        os.fsync(handle)


def _rights_before(config: AgentConfig, facts: os.stat_result, digest: str) -> int | None:
    """Return the rights that were taken from this very file, if they were."""
    if not hasattr(os, "fchmod") or stat.S_IMODE(facts.st_mode) != _closed():
        return None
    try:
        with open(_rights_path(config, facts), encoding="ascii") as source:
            kept = json.load(source)
        mode, of = int(kept["mode"]), kept["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return mode & 0o7777 if of == digest else None


def _own_python() -> tuple[bytes, ...]:
    """Return the virtual environment we run from; a Python of the system belongs to a package."""
    if sys.prefix == sys.base_prefix:
        return ()
    return (os.path.realpath(os.fsencode(sys.prefix)),)


def _must_be(detection: Detection, facts: os.stat_result) -> None:
    if not stat.S_ISREG(facts.st_mode) or (facts.st_dev, facts.st_ino) != (
        detection.device,
        detection.inode,
    ):
        raise Refused("changed", f"{detection.path} is not the file that was scanned any more")
    if facts.st_nlink != 1:
        raise Refused(
            "hard-linked",
            f"{detection.path} has {facts.st_nlink} names; putting one away would leave the others",
        )


def _as_record(
    detection: Detection, facts: os.stat_result, folder: tuple[int, int]
) -> QuarantineRecord:
    return QuarantineRecord(
        id=str(uuid_utils.uuid7()),
        path=detection.path,
        location=detection.location,
        sha256=detection.sha256,
        size=detection.size,
        rule=detection.rule,
        title=detection.title,
        reason=detection.reason,
        engine=detection.engine,
        severity=detection.severity,
        kind=detection.kind,
        member=detection.member,
        found_at=detection.found_at,
        put_away_at=time.time(),
        mode=stat.S_IMODE(facts.st_mode),
        uid=facts.st_uid,
        gid=facts.st_gid,
        mtime_ns=facts.st_mtime_ns,
        folder_device=folder[0],
        folder_inode=folder[1],
    )


def _take(
    record: QuarantineRecord,
    facts: os.stat_result,
    source: int,
    name: bytes,
    folder: folders.Folder,
    config: AgentConfig,
) -> None:
    """Move the file out of reach, make sure of it, seal it, remove it. Takes everything back on any
    error."""
    vault_key = _key(config)
    held_name = record.id.encode()
    entry = {
        "operation": "put-away",
        "id": record.id,
        "folder": _coded(os.path.dirname(record.location)),
        "name": _coded(name),
        "beside": False,
        "device": facts.st_dev,
        "inode": facts.st_ino,
    }
    _journal(config, entry)
    holding: folders.Folder | None = None
    beside = False
    moved = False
    try:
        holding = folders.hold(_room(config, "held"))
        try:
            folder.move(name, holding, held_name)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            # Another file system, or a bind mount: a closed folder beside the file is as good a
            # place to hold it.
            holding.close()
            _journal(config, {**entry, "beside": True})
            beside = True
            holding = folder.make(_beside(record.id))
            folder.move(name, holding, held_name)
        moved = True
        taken = holding.stat(held_name)
        if (taken.st_dev, taken.st_ino) != (facts.st_dev, facts.st_ino):
            raise Refused("changed", f"{record.path} was swapped while it was being put away")
        if taken.st_nlink != 1:
            raise Refused("hard-linked", f"{record.path} was given a second name meanwhile")
        _seal(vault_key, record, source, config)
    except BaseException:
        if holding is not None:
            if moved:
                _put_back(holding, held_name, folder, name)
            holding.close()
        if beside:
            with suppress(OSError):
                folder.remove_folder(_beside(record.id))
        _forget(config, record.id)
        raise
    # In the vault for good: from here on a crash is finished by `recover`, not taken back.
    holding.remove(held_name)
    holding.flush()
    holding.close()
    if beside:
        # Whoever owns the folder around it may have moved it away: it is empty, and no matter.
        with suppress(OSError):
            folder.remove_folder(_beside(record.id))
    folder.flush()
    _forget(config, record.id)


def _seal(vault_key: bytes, record: QuarantineRecord, source: int, config: AgentConfig) -> None:
    final = _vault_path(config, record.id)
    aside = final + ".new"
    target = os.open(aside, _MAKE | getattr(os, "O_BINARY", 0), 0o600)
    try:
        vault.seal(
            vault_key,
            {**asdict(record), "location": _coded(record.location)},
            source=source,
            target=target,
            size=record.size,
            digest=record.sha256,
            piece_bytes=config.vault_chunk_bytes,
        )
    except BaseException:
        os.close(target)
        os.unlink(aside)
        raise
    os.close(target)
    os.rename(aside, final)
    allowed.flush_folder(_room(config, "vault"))


def _put_back(
    holding: folders.Folder, held_name: bytes, folder: folders.Folder, name: bytes
) -> None:
    """Give a file its name back; beside it, under a name of its own, where another has taken the
    place."""
    try:
        holding.settle(held_name, folder, name)
    except FileExistsError:
        holding.settle(held_name, folder, name[:200] + b".returned-" + held_name)
    folder.flush()


# -- bringing back --------------------------------------------------------------------------


def _restore(
    config: AgentConfig, identifier: str, destination: str | bytes | None, until: float | None
) -> QuarantineRecord:
    opened = _opened(config, identifier)
    try:
        record = _record(opened.facts)
        location = record.location if destination is None else _chosen(destination, record)
        folder_path, name = os.path.split(location)
        shown = readable(location)
        with _refusing(shown), folders.hold(folder_path) as folder:
            same = folder.identity == (record.folder_device, record.folder_inode)
            if destination is None and not same:
                raise Refused(
                    "folder-changed",
                    f"the folder of {shown} is not the one it was taken from; choose a destination",
                )
            _must_be_free(folder, name, shown)
            known = allowed.holds(config, record.sha256, location)
            _journal(
                config,
                {
                    "operation": "restore",
                    "id": identifier,
                    "folder": _coded(folder_path),
                    "name": _coded(name),
                    "allowed": known,
                    "until": until,
                },
            )
            aside = _aside(identifier)
            try:
                allowed.add(config, record.sha256, location=location, path=shown, until=until)
                target = folder.open(aside, _MAKE, 0o600)
                try:
                    _write_back(opened, record, target)
                    if folders.BY_DESCRIPTOR:
                        folder.settle(aside, folder, name)
                        # Still open: a closed file's inode may be given to another at once.
                        _must_have_settled(folder, name, os.fstat(target), shown)
                finally:
                    os.close(target)
                if not folders.BY_DESCRIPTOR:
                    # Windows renames no open file.
                    folder.settle(aside, folder, name)
                folder.flush()
            except BaseException:
                with suppress(FileNotFoundError):
                    folder.remove(aside)
                if not known:
                    allowed.remove(config, record.sha256, location=location)
                _forget(config, identifier)
                raise
    finally:
        opened.close()
    os.unlink(_vault_path(config, identifier))
    allowed.flush_folder(_room(config, "vault"))
    _forget(config, identifier)
    return record


def _chosen(destination: str | bytes, record: QuarantineRecord) -> bytes:
    wanted = os.path.abspath(os.fsencode(destination))
    if os.path.isdir(wanted):
        return os.path.join(wanted, os.path.basename(record.location))
    return wanted


def _must_be_free(folder: folders.Folder, name: bytes, shown: str) -> None:
    try:
        folder.stat(name)
    except FileNotFoundError:
        return
    raise Refused("occupied", f"{shown} exists; nothing is replaced")


def _must_have_settled(
    folder: folders.Folder, name: bytes, written: os.stat_result, shown: str
) -> None:
    # Whoever owns the folder can swap what has a passing name there. Then what is in the vault is
    # all there is of the file, and stays.
    found = folder.stat(name)
    if (found.st_dev, found.st_ino) != (written.st_dev, written.st_ino):
        raise Refused("folder-changed", f"{shown} was swapped while it was being restored")


def _write_back(opened: vault.Opened, record: QuarantineRecord, target: int) -> None:
    """Write the file, as it was, into an open one; it is on disk when this returns."""
    state = sha256()
    size = 0
    for piece in opened.pieces():
        state.update(piece)
        size += len(piece)
        _write(target, piece)
    if state.hexdigest() != record.sha256 or size != record.size:
        raise vault.VaultDamaged("the content in the vault is not what was put away")
    _as_it_was(target, record)
    os.fsync(target)


def _as_it_was(target: int, record: QuarantineRecord) -> None:
    mode = record.mode
    if hasattr(os, "fchown"):
        try:
            # Before the mode: changing the owner clears the set-user-id bits.
            os.fchown(target, record.uid, record.gid)
        except PermissionError:
            # It becomes ours, or our group's: then it must not run as us for others.
            mode &= 0o777
    if hasattr(os, "fchmod"):
        os.fchmod(target, mode)
    if os.utime in os.supports_fd:
        os.utime(target, ns=(record.mtime_ns, record.mtime_ns))


def _write(target: int, piece: bytes) -> None:
    rest = memoryview(piece)
    while rest:
        rest = rest[os.write(target, rest) :]


# -- after a crash --------------------------------------------------------------------------


def _recover(config: AgentConfig) -> tuple[Recovered, ...]:
    outcomes = []
    room = _room(config, "journal")
    for file_name in sorted(os.listdir(room)):
        path = os.path.join(room, os.fsencode(file_name))
        if file_name.endswith(b".new"):
            os.unlink(path)
        if not file_name.endswith(b".json"):
            continue
        with open(path, "rb") as source:
            written = source.read()
        try:
            entry = json.loads(written)
            taken_up = _OPERATIONS[entry["operation"]]
        except (ValueError, KeyError, TypeError):
            # Written aside and put in place whole, so this is a failing disk. What it was about is
            # in the vault, in `held` or in its place; keep the entry for whoever looks into it.
            os.replace(path, path + b".damaged")
            continue
        outcomes.append(taken_up(config, entry))
        _forget(config, entry["id"])
    if outcomes:
        _sweep(config)
    return tuple(outcomes)


def _recover_put_away(config: AgentConfig, entry: dict[str, Any]) -> Recovered:
    identifier = str(entry["id"])
    name = _plain(entry["name"])
    folder_path = _plain(entry["folder"])
    held_name = identifier.encode()
    path = readable(os.path.join(folder_path, name))
    record = _whole_record(config, identifier)
    identity = (entry["device"], entry["inode"])
    with suppress(FileNotFoundError):
        os.unlink(_vault_path(config, identifier) + ".new")
    folder: folders.Folder | None
    try:
        folder = folders.hold(folder_path)
    except (OSError, LinkInPath):
        # The folder itself is gone or swapped: what we hold cannot go back there.
        folder = None
    holding: folders.Folder | None
    try:
        holding = (
            folders.hold(_room(config, "held"))
            if not entry["beside"]
            else None
            if folder is None
            else folder.enter(_beside(identifier))
        )
    except (OSError, LinkInPath):
        holding = None
    try:
        if holding is not None and _has(holding, held_name):
            taken = holding.stat(held_name)
            if record is not None and (taken.st_dev, taken.st_ino) == identity:
                holding.remove(held_name)
                holding.flush()
            elif folder is not None:
                _put_back(holding, held_name, folder, name)
            # Else it stays where it is held; nothing is lost, and `_sweep` does not touch it.
        if entry["beside"] and folder is not None:
            with suppress(OSError):
                folder.remove_folder(_beside(identifier))
    finally:
        for one in (holding, folder):
            if one is not None:
                one.close()
    outcome = "taken-back" if record is None else "finished"
    return Recovered(identifier, "put-away", outcome, path, record)


def _recover_restore(config: AgentConfig, entry: dict[str, Any]) -> Recovered:
    identifier = str(entry["id"])
    name = _plain(entry["name"])
    folder_path = _plain(entry["folder"])
    location = os.path.join(folder_path, name)
    path = readable(location)
    record = _whole_record(config, identifier)
    if record is None:
        # The vault file goes last: it is gone, so the file is in its place.
        return Recovered(identifier, "restore", "finished", path, None)
    aside = _aside(identifier)
    in_place = False
    try:
        with folders.hold(folder_path) as folder:
            in_place = _has(folder, name) and _is_the_file(folder, name, record)
            if _has(folder, aside):
                folder.remove(aside)
            folder.flush()
    except (OSError, LinkInPath):
        in_place = False
    if in_place:
        # Written by an agent before this one, the journal names no end.
        until = entry.get("until")
        allowed.add(config, record.sha256, location=location, path=path, until=until)
        os.unlink(_vault_path(config, identifier))
        allowed.flush_folder(_room(config, "vault"))
        return Recovered(identifier, "restore", "finished", path, record)
    if not entry["allowed"]:
        allowed.remove(config, record.sha256, location=location)
    return Recovered(identifier, "restore", "taken-back", path, record)


_OPERATIONS = {"put-away": _recover_put_away, "restore": _recover_restore}


def _is_the_file(folder: folders.Folder, name: bytes, record: QuarantineRecord) -> bool:
    try:
        handle = folder.open(name, _READ)
    except OSError:
        return False
    try:
        facts = os.fstat(handle)
        if not stat.S_ISREG(facts.st_mode) or facts.st_size != record.size:
            return False
        return _digest(handle) == record.sha256
    finally:
        os.close(handle)


def _digest(handle: int) -> str:
    state = sha256()
    os.lseek(handle, 0, os.SEEK_SET)
    while piece := os.read(handle, 1024 * 1024):
        state.update(piece)
    return state.hexdigest()


def _has(folder: folders.Folder, name: bytes) -> bool:
    try:
        folder.stat(name)
    except FileNotFoundError:
        return False
    return True


def _whole_record(config: AgentConfig, identifier: str) -> QuarantineRecord | None:
    try:
        return find(config, identifier)
    except NotInQuarantine:
        return None


def _sweep(config: AgentConfig) -> None:
    """Remove half-written vault files; the journal has already dealt with what they were for."""
    room = _room(config, "vault")
    for name in os.listdir(room):
        if name.endswith(b".new"):
            os.unlink(os.path.join(room, name))


# -- rooms, journal, lock -------------------------------------------------------------------


def _room(config: AgentConfig, name: str) -> bytes:
    return os.path.realpath(os.fsencode(config.quarantine_dir / name))


def _vault_path(config: AgentConfig, identifier: str) -> str:
    return os.fspath(config.quarantine_dir / "vault" / f"{identifier}{_SUFFIX}")


def _identifiers(config: AgentConfig) -> list[str]:
    try:
        names = os.listdir(config.quarantine_dir / "vault")
    except FileNotFoundError:
        return []
    return sorted(name.removesuffix(_SUFFIX) for name in names if name.endswith(_SUFFIX))


def _opened(config: AgentConfig, identifier: str) -> vault.Opened:
    # The id comes from a person or the server: only what looks like one becomes part of a path.
    if not identifier or not all(sign in "0123456789abcdef-" for sign in identifier):
        raise NotInQuarantine(readable(identifier[:64]))
    try:
        path = _vault_path(config, identifier)
        if not os.path.exists(path):
            raise NotInQuarantine(identifier)
        return vault.Opened(_key(config), path)
    except FileNotFoundError:
        raise NotInQuarantine(identifier) from None


def _key(config: AgentConfig) -> bytes:
    return vault.key(os.fspath(config.quarantine_dir / "key"), may_make=not _identifiers(config))


def _record(facts: dict[str, Any]) -> QuarantineRecord:
    try:
        values = {one.name: facts[one.name] for one in fields(QuarantineRecord)}
        values["location"] = _plain(values["location"])
        return QuarantineRecord(**values)
    except (KeyError, TypeError, ValueError) as error:
        raise vault.VaultDamaged("a vault file holds facts that cannot be read") from error


def _beside(identifier: str) -> bytes:
    return b".doorward-held-" + identifier.encode()


def _aside(identifier: str) -> bytes:
    return b".doorward-restore-" + identifier.encode()


def _coded(name: bytes) -> str:
    return base64.b64encode(name).decode("ascii")


def _plain(coded: str) -> bytes:
    try:
        return base64.b64decode(coded, validate=True)
    except binascii.Error as error:
        raise vault.VaultDamaged("a name that cannot be read") from error


def _journal(config: AgentConfig, entry: dict[str, Any]) -> None:
    """Write down what is about to happen; it is on disk when this returns."""
    path = os.fspath(config.quarantine_dir / "journal" / f"{entry['id']}.json")
    aside = path + ".new"
    handle = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(handle, "w", encoding="ascii") as target:
        json.dump(entry, target)
        target.flush()
        os.fsync(handle)
    os.replace(aside, path)
    allowed.flush_folder(_room(config, "journal"))


def _forget(config: AgentConfig, identifier: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(config.quarantine_dir / "journal" / f"{identifier}.json")


@contextmanager
def _locked(config: AgentConfig) -> Iterator[None]:
    """Let one operation at a time in, across processes."""
    prepare(config)
    for name in ("vault", "held", "journal", "disarmed"):
        (config.quarantine_dir / name).mkdir(mode=0o700, exist_ok=True)
    handle = os.open(config.quarantine_dir / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if os.name == "posix":
            import fcntl  # does not exist on Windows

            fcntl.flock(handle, fcntl.LOCK_EX)
        else:
            _lock_on_windows(handle)
        yield
    finally:
        os.close(handle)


def _lock_on_windows(handle: int) -> None:
    import importlib

    # Not yet tried on a real machine: LK_LOCK waits ten seconds, then raises OSError.
    msvcrt = importlib.import_module("msvcrt")
    msvcrt.locking(handle, msvcrt.LK_LOCK, 1)


@contextmanager
def _refusing(shown: str) -> Iterator[None]:
    """Turn what the system refuses into a reason."""
    try:
        yield
    except LinkInPath as error:
        raise Refused("link-in-path", f"a link stands in the way to {shown}") from error
    except vault.ContentDiffers as error:
        raise Refused("changed", f"{shown} changed after it was scanned") from error
    except FileExistsError as error:
        raise Refused("occupied", f"{shown} exists; nothing is replaced") from error
    except OSError as error:
        reason = _REASONS.get(error.errno or 0)
        if reason is None:
            raise
        told = (error.strerror or reason).lower()
        raise Refused(reason, f"{shown}: {told}") from error


_REASONS = {
    errno.ENOENT: "gone",
    errno.ELOOP: "link-in-path",
    errno.ENOTDIR: "link-in-path",
    errno.EACCES: "no-permission",
    errno.EPERM: "no-permission",
    errno.EROFS: "read-only",
    errno.ENOSPC: "no-space",
    getattr(errno, "EDQUOT", errno.ENOSPC): "no-space",
}
