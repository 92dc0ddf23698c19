# Why not pathlib: plain descriptors for mmap; loading pathlib costs 7 ms.
# ruff: noqa: PTH105, PTH108, PTH118
"""What was already found clean, kept on disk so that an unchanged file is not read again.

A file is remembered by a 128-bit keyed hash (BLAKE2b) of its device, inode, size, modification and
change time. The key is secret (0600) and bound to the version of definitions, engine and settings:
under another version nothing is remembered. Only the hash is stored, in an open-addressing table
that is mapped into memory:

- opening costs the same for a thousand files as for a million, and a look-up touches one or two
  places;
- damage can only forget: a torn, stale or random place equals no keyed hash, so no damage makes a
  file look clean;
- two processes may use one table at once; the worst a race does is to forget.

What is never remembered: a detection, a file not wholly read, a file that changed while it was read
or less than two seconds ago, and anything on a network, FUSE or FAT file system. Known limit: a
process that keeps a file mapped for writing may change it without a new change time until the
kernel writes the page back (seconds); `verdict_lifetime` bounds how long anything at all is
believed.
"""

import mmap
import os
import time
from hashlib import blake2b
from struct import Struct

from doorward_agent.config import AgentConfig

_FACTS = Struct("<QQqqq")
_HEADER = Struct("<8sIId32s")  # magic, slots, filled, made at, fingerprint
_MAGIC = b"DWVERD1\n"
_HEADER_BYTES = 64
_SLOT = 16
_EMPTY = bytes(_SLOT)
_PROBES = 32
"""How far a look-up goes before it gives up (forgetting is harmless)."""
_MOST_SLOTS = 1 << 26


class Verdicts:
    """One open table. Not for several threads at once."""

    def __init__(
        self, path: str, table: mmap.mmap, key: bytes, fingerprint: bytes, made_at: float
    ) -> None:
        self._path = path
        self._table = table
        self._key = key
        self._fingerprint = fingerprint
        self.made_at = made_at
        _magic, slots, filled, _made, _print = _HEADER.unpack_from(table)
        self._filled: int = filled
        self._mask: int = slots - 1

    def mark(self, device: int, inode: int, size: int, mtime_ns: int, ctime_ns: int) -> bytes:
        """Return the keyed hash these facts are remembered under."""
        facts = _FACTS.pack(
            device & 0xFFFFFFFFFFFFFFFF, inode & 0xFFFFFFFFFFFFFFFF, size, mtime_ns, ctime_ns
        )
        return blake2b(facts, digest_size=_SLOT, key=self._key).digest()

    def known_clean(self, found: os.stat_result) -> bool:
        """Tell whether a file with exactly these facts was found clean under this version."""
        mark = blake2b(
            _FACTS.pack(
                found.st_dev,
                found.st_ino & 0xFFFFFFFFFFFFFFFF,
                found.st_size,
                found.st_mtime_ns,
                found.st_ctime_ns,
            ),
            digest_size=_SLOT,
            key=self._key,
        ).digest()
        table = self._table
        mask = self._mask
        place = int.from_bytes(mark[:4], "little") & mask
        for _ in range(_PROBES):
            start = _HEADER_BYTES + place * _SLOT
            held = table[start : start + _SLOT]
            if held == mark:
                return True
            if held == _EMPTY:
                return False
            place = (place + 1) & mask
        return False

    def remember_clean(self, found: os.stat_result) -> None:
        """Remember a file as clean; the caller has checked that it may be (`settled`)."""
        self._put(
            self.mark(
                found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
            )
        )

    def _put(self, mark: bytes) -> None:
        place = int.from_bytes(mark[:4], "little") & self._mask
        for _ in range(_PROBES):
            start = _HEADER_BYTES + place * _SLOT
            held = self._table[start : start + _SLOT]
            if held == mark:
                return
            if held == _EMPTY:
                self._table[start : start + _SLOT] = mark
                self._filled += 1
                self._table[12:16] = self._filled.to_bytes(4, "little")
                if self._filled * 2 > self._mask:
                    self._grow()
                return
            place = (place + 1) & self._mask
        # A crowded corner of the table, long before half of it is full.
        if self._grow():
            self._put(mark)

    def _grow(self) -> bool:
        """Move everything into a table twice as large, made aside and put in place at once.

        Tells whether it did: a table of the greatest size stays as it is, and forgets what does not
        fit.
        """
        slots = (self._mask + 1) * 2
        if slots > _MOST_SLOTS or not self._path:
            return False
        old = self._table
        try:
            self._table = _made(
                self._path, slots=slots, fingerprint=self._fingerprint, made_at=self.made_at
            )
        except OSError:
            return False
        self._mask = slots - 1
        self._filled = 0
        for start in range(_HEADER_BYTES, len(old), _SLOT):
            mark = old[start : start + _SLOT]
            if mark != _EMPTY:
                self._put(mark)
        old.close()
        return True

    def __len__(self) -> int:
        return self._filled

    def close(self) -> None:
        """Let go of the table; what was remembered stays on disk."""
        self._table.close()


def settled(before: os.stat_result, after: os.stat_result, *, now_ns: int, settle_ns: int) -> bool:
    """Tell whether a file stayed as it was while it was read, and had been left alone for
    `settle_ns` before."""
    same = (
        before.st_dev,
        before.st_ino,
        before.st_size,
        before.st_mtime_ns,
        before.st_ctime_ns,
    ) == (
        after.st_dev,
        after.st_ino,
        after.st_size,
        after.st_mtime_ns,
        after.st_ctime_ns,
    )
    return same and now_ns - max(after.st_mtime_ns, after.st_ctime_ns) >= settle_ns


def open(config: AgentConfig, version: str, *, now: float | None = None) -> Verdicts:
    """Open what was found clean under this version of definitions, engine and settings; start empty
    where nothing fits.

    A table that is damaged, of another version, from the future or older than ``verdict_lifetime``
    is dropped. The state folder must exist (`config.prepare`).
    """
    moment = time.time() if now is None else now
    folder = os.fspath(config.verdicts_dir)
    try:
        return _open(config, version, folder, moment)
    except OSError:
        # A full or read-only disk must not keep anybody from scanning: remember for this run only.
        fingerprint = os.urandom(32)
        slots = config.verdict_slots
        table = mmap.mmap(-1, _HEADER_BYTES + slots * _SLOT)
        table[: _HEADER.size] = _header(slots, fingerprint, moment)
        return Verdicts("", table, fingerprint, fingerprint, moment)


def _open(config: AgentConfig, version: str, folder: str, moment: float) -> Verdicts:
    secret = _secret(os.path.join(folder, "key"))
    fingerprint = blake2b(
        version.encode(), key=secret, digest_size=32, person=b"doorward-verdict"
    ).digest()
    path = os.path.join(folder, "clean.table")
    table = _opened(path, fingerprint)
    if table is not None:
        made_at = _HEADER.unpack_from(table)[3]
        # Not "<=": a clock set back must not keep old verdicts alive for years.
        if 0 <= moment - made_at < config.verdict_lifetime:
            return Verdicts(path, table, fingerprint, fingerprint, made_at)
        table.close()
    _sweep(folder, before=moment - 3600.0)
    table = _made(path, slots=config.verdict_slots, fingerprint=fingerprint, made_at=moment)
    return Verdicts(path, table, fingerprint, fingerprint, moment)


def forget_all(config: AgentConfig) -> None:
    """Forget every verdict: the next scan reads everything."""
    (config.verdicts_dir / "clean.table").unlink(missing_ok=True)


def _sweep(folder: str, *, before: float) -> None:
    """Remove half-made tables that a killed scan left behind."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(".new") and entry.stat(follow_symlinks=False).st_mtime < before:
                os.unlink(entry.path)


def _secret(path: str) -> bytes:
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
    except FileNotFoundError:
        pass
    else:
        try:
            held = os.read(handle, 64)
        finally:
            os.close(handle)
        if len(held) == 32:
            return held
        os.unlink(path)
    fresh = os.urandom(32)
    try:
        handle = os.open(
            path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600
        )
    except FileExistsError:
        # Another scan made it a moment ago.
        return _secret(path)
    try:
        os.write(handle, fresh)
        os.fsync(handle)
    finally:
        os.close(handle)
    return fresh


def _opened(path: str, fingerprint: bytes) -> mmap.mmap | None:
    try:
        handle = os.open(
            path, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
        )
    except OSError:
        return None
    try:
        size = os.fstat(handle).st_size
        if size < _HEADER_BYTES:
            return None
        table = mmap.mmap(handle, size)
    finally:
        os.close(handle)
    magic, slots, filled, _made_at, held_print = _HEADER.unpack_from(table)
    whole = (
        slots > 0
        and slots & (slots - 1) == 0
        and size == _HEADER_BYTES + slots * _SLOT
        and filled <= slots
    )
    if magic != _MAGIC or not whole or held_print != blake2b(fingerprint, digest_size=32).digest():
        table.close()
        return None
    return table


def _header(slots: int, fingerprint: bytes, made_at: float) -> bytes:
    # The version is named by a hash of the key: the key itself never reaches this file.
    shown = blake2b(fingerprint, digest_size=32).digest()
    return _HEADER.pack(_MAGIC, slots, 0, made_at, shown)


def _made(path: str, *, slots: int, fingerprint: bytes, made_at: float) -> mmap.mmap:
    aside = f"{path}.{os.getpid()}.new"
    handle = os.open(
        aside,
        os.O_RDWR
        | os.O_CREAT
        | os.O_TRUNC
        | getattr(os, "O_NOFOLLOW", 0)
        | getattr(os, "O_BINARY", 0),
        0o600,
    )
    try:
        os.write(handle, _header(slots, fingerprint, made_at))
        # Zeros are written, not left as a hole: a page without room on a full disk would end the
        # process (SIGBUS) when it is first touched.
        missing = _HEADER_BYTES - _HEADER.size + slots * _SLOT
        zeros = bytes(min(missing, 1 << 20))
        while missing:
            missing -= os.write(handle, zeros[:missing])
        table = mmap.mmap(handle, _HEADER_BYTES + slots * _SLOT)
        os.replace(aside, path)
    except OSError:
        os.unlink(aside)
        raise
    finally:
        os.close(handle)
    return table
