"""Looking inside archives within a budget: members come out one by one, in memory, never onto the
disk.

Zip, tar, gzip, bzip2, xz, zstandard and ar, nested in each other, and what `documents` finds in
PDF, mail and compound files. What the budget or the format keeps us from seeing is told as a
reason, and the file is then "not fully scanned", never clean. Names inside an archive are only ever
shown: nothing is written under them, so a name like ``../../etc/passwd`` leads nowhere.

Runs in the worker process: these parsers meet hostile bytes.
"""

import bz2
import io
import lzma
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import IO, Protocol, cast

import zstandard

from doorward_agent import documents
from doorward_agent.config import AgentConfig

_PIECE = 256 * 1024
_LONGEST_NAME = 512

_FAILURES = (
    zipfile.BadZipFile,
    tarfile.TarError,
    lzma.LZMAError,
    zlib.error,
    zstandard.ZstdError,
    EOFError,
    OSError,
    ValueError,
    NotImplementedError,
    RuntimeError,
    IndexError,
    KeyError,
    OverflowError,
    AttributeError,
    TypeError,
)
"""What the standard unpackers raise on damaged or hostile input, beside their own errors."""


class BudgetSpent(Exception):
    """A limit for the whole file is reached; the reason is the message."""


Content = io.BytesIO | io.BufferedReader
"""A file to read from, anywhere in it."""


@dataclass(frozen=True, slots=True)
class Member:
    """One member that came out whole."""

    name: str
    content: bytes
    leaf: bool = False
    """Put together by us: nothing to open in it."""


@dataclass(slots=True)
class Budget:
    """What one file on disk may still cost, and why it was not seen whole."""

    config: AgentConfig
    packed: int
    clock: Callable[[], float] = time.monotonic
    members: int = 0
    unpacked: int = 0
    reasons: list[str] = field(default_factory=list)
    began: float = 0.0

    def __post_init__(self) -> None:
        self.began = self.clock()

    def note(self, reason: str) -> None:
        """Record why something was not seen; each reason once."""
        if reason not in self.reasons:
            self.reasons.append(reason)

    def spend(self, count: int) -> None:
        """Count unpacked bytes. Raises BudgetSpent."""
        self.unpacked += count
        if self.unpacked > self.config.archive_total_bytes:
            raise BudgetSpent("archive-total-size")
        floor = self.config.archive_ratio_floor_bytes
        if self.unpacked > floor and self.unpacked > self.packed * self.config.archive_ratio:
            raise BudgetSpent("archive-ratio")
        self.check_time()

    def check_time(self) -> None:
        """Raises BudgetSpent once the time is up."""
        if self.clock() - self.began > self.config.archive_seconds:
            raise BudgetSpent("archive-time")

    def enter_member(self) -> None:
        """Count a member. Raises BudgetSpent."""
        self.members += 1
        if self.members > self.config.archive_members:
            raise BudgetSpent("archive-members")
        self.check_time()


def kind_of(head: bytes) -> str | None:
    """Name the container that begins with these bytes (at least 512 of them), or None."""
    if head[:4] in {b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08"}:
        return "zip"
    if head[:3] == b"\x1f\x8b\x08":
        return "gzip"
    if head[:3] == b"BZh" and head[3:4].isdigit() and head[4:10] in {b"1AY&SY", b"\x17rE8P\x90"}:
        return "bzip2"
    if head[:6] == b"\xfd7zXZ\x00":
        return "xz"
    if head[:4] == b"\x28\xb5\x2f\xfd":
        return "zstandard"
    if head[:8] == documents.COMPOUND:
        return "compound"
    if b"%PDF-" in head[:512]:
        return "pdf"
    if head[:8] == b"!<arch>\n":
        return "ar"
    if head[:5] == b"{\\rtf":
        return "rtf"
    if documents.looks_like_html(head):
        return "html"
    if documents.looks_like_mail(head):
        return "mail"
    if head[257:262] == b"ustar" or _looks_like_old_tar(head):
        return "tar"
    return None


def _looks_like_old_tar(head: bytes) -> bool:
    # Before POSIX a tar had no magic: only a checksum over its first 512 bytes, with its own place
    # as spaces.
    if len(head) < 512 or head[0] == 0:
        return False
    stated = head[148:156].strip(b" \0")
    # isdigit first: this is asked of nearly every file, and an exception costs more.
    if not stated.isdigit() or stated.strip(b"01234567"):
        return False
    return int(stated, 8) == sum(head[:148]) + 256 + sum(head[156:512])


def has_hidden_zip(tail: bytes, size: int) -> bool:
    """Tell whether a file that begins as something else ends as a zip.

    Self-extracting ones do, and those made to be overlooked. The end record must make sense:
    programs that deal with zips carry its four letters too.
    """
    at = tail.rfind(b"PK\x05\x06")
    while at >= 0:
        record = tail[at : at + 22]
        zip64 = tail[at - 20 : at - 16] == b"PK\x06\x07"
        if zip64 or (len(record) == 22 and _plausible_end(record, size - len(tail) + at)):
            return True
        at = tail.rfind(b"PK\x05\x06", 0, at)
    return False


def _plausible_end(record: bytes, place: int) -> bool:
    # PKWARE APPNOTE 4.3.16.
    here, total = (int.from_bytes(record[at : at + 2], "little") for at in (8, 10))
    length = int.from_bytes(record[12:16], "little")
    # Behind a program, the start may count from the zip's own beginning: only the length is sure.
    return 0 < total == here and 46 * total <= length <= place


def members(
    content: Content, kind: str, budget: Budget, *, prefix: str = "", depth: int = 1
) -> Iterator[Member]:
    """Yield each member, then those inside it; what could not be seen is noted in the budget.

    Raises nothing about the content: damage, encryption and spent budgets end up in
    ``budget.reasons``.
    """
    try:
        for member in _UNPACKERS[kind](content, budget):
            name = f"{prefix}{member.name}"[:_LONGEST_NAME]
            yield Member(name, member.content)
            inner = kind_of(member.content[:512])
            if inner is None or member.leaf:
                continue
            if depth >= budget.config.archive_depth:
                budget.note("archive-depth")
                continue
            yield from members(
                io.BytesIO(member.content), inner, budget, prefix=f"{name}!", depth=depth + 1
            )
            if budget.reasons and budget.reasons[-1] in _FINAL:
                return
    except BudgetSpent as spent:
        budget.note(str(spent))
    except MemoryError:
        budget.note("archive-memory")
    except _FAILURES:
        budget.note("archive-damaged")


_FINAL = frozenset(
    ("archive-total-size", "archive-ratio", "archive-time", "archive-members", "archive-memory")
)
"""Reasons that end the look inside the whole file, not only inside one member."""


def _bounded(source: Callable[[int], bytes], budget: Budget, *, spend: bool = True) -> bytes:
    """Read a member to its end, or to the size a member may have (noted)."""
    limit = budget.config.archive_member_bytes
    # Not a list of pieces: joining them would hold everything twice for a moment.
    held = io.BytesIO()
    while True:
        piece = source(_PIECE)
        if not piece:
            return held.getvalue()
        if spend:
            budget.spend(len(piece))
        if held.tell() + len(piece) > limit:
            held.write(piece[: limit - held.tell()])
            budget.note("archive-member-size")
            return held.getvalue()
        held.write(piece)


def _zip(content: Content, budget: Budget) -> Iterator[Member]:
    content.seek(0, io.SEEK_END)
    size = content.tell()
    _refuse_absurd_directory(content, size, budget)
    content.seek(0)
    with zipfile.ZipFile(content) as archive:
        for entry in archive.infolist():
            budget.enter_member()
            if entry.is_dir():
                continue
            if entry.flag_bits & 0x1:
                budget.note("archive-encrypted")
                continue
            try:
                with archive.open(entry) as opened:
                    held = _bounded(opened.read, budget)
            except _FAILURES:
                # One damaged member, or a method we cannot unpack, must not hide the others.
                budget.note("archive-damaged")
                continue
            yield Member(entry.filename, held)


def _refuse_absurd_directory(content: Content, size: int, budget: Budget) -> None:
    """Check the stated number of members before the library reads them all into memory. Raises
    BudgetSpent."""
    # PKWARE APPNOTE 4.3.16: the end record is the last 22 bytes and a comment of at most 65,535.
    content.seek(max(0, size - 22 - 65535))
    tail = content.read(22 + 65535)
    at = tail.rfind(b"PK\x05\x06")
    if at < 0:
        return
    stated = int.from_bytes(tail[at + 10 : at + 12], "little")
    directory = int.from_bytes(tail[at + 12 : at + 16], "little")
    # A zip64 archive states 0xFFFF here; its directory still takes at least 46 bytes a member.
    if stated != 0xFFFF and stated > budget.config.archive_members:
        raise BudgetSpent("archive-members")
    if directory != 0xFFFFFFFF and directory > budget.config.archive_members * (46 + 1024):
        raise BudgetSpent("archive-members")


def _tar(content: Content, budget: Budget) -> Iterator[Member]:
    content.seek(0)
    with tarfile.open(fileobj=content, mode="r:") as archive:
        yield from _entries(archive, budget, spend=True)


def _entries(archive: tarfile.TarFile, budget: Budget, *, spend: bool) -> Iterator[Member]:
    """Yield every ordinary file of a tar; links and devices are names, and open nothing."""
    while True:
        budget.enter_member()
        entry = archive.next()
        if entry is None:
            budget.members -= 1
            return
        # The library keeps every header it has read; we need none of them again.
        archive.members = []  # type: ignore[attr-defined]  # missing in the stubs
        if not entry.isreg():
            continue
        opened = archive.extractfile(entry)
        if opened is None:
            continue
        held = _bounded(opened.read, budget, spend=spend)
        if len(held) < min(entry.size, budget.config.archive_member_bytes):
            budget.note("archive-damaged")
        yield Member(entry.name, held)


def _unpacked(pieces: Iterator[bytes], budget: Budget, *, name: str) -> Iterator[Member]:
    """Yield what a compressed stream holds: one member, or the members of the tar it is.

    A tar is read as it comes out, so that each of its members, not all of it, must fit a member's
    size.
    """
    budget.enter_member()
    start = b""
    for piece in pieces:
        start += piece
        if len(start) >= 512:
            break
    source = _Pieces(start, pieces)
    if kind_of(start[:512]) != "tar":
        yield Member(name, _bounded(source.read, budget, spend=False))
        return
    with tarfile.open(fileobj=cast(IO[bytes], source), mode="r|") as archive:
        for member in _entries(archive, budget, spend=False):
            yield Member(f"{name}!{member.name}", member.content)


class _Pieces:
    """Reads forward through pieces; whoever makes them has counted them."""

    def __init__(self, start: bytes, pieces: Iterator[bytes]) -> None:
        self._held = start
        self._pieces = pieces

    def read(self, size: int = -1, /) -> bytes:
        """Return up to `size` bytes, fewer only at the end."""
        while len(self._held) < size:
            piece = next(self._pieces, None)
            if piece is None:
                break
            self._held += piece
        wanted, self._held = self._held[:size], self._held[size:]
        return wanted


def _pieces(
    content: Content, budget: Budget, fresh: Callable[[], "_Decompressor"]
) -> Iterator[bytes]:
    """Yield a compressed stream piece by piece, several streams one after another included."""
    content.seek(0)
    decompressor = fresh()
    rest = b""
    while True:
        if decompressor.ended:
            rest = decompressor.unused or content.read(_PIECE)
            # Another stream may follow; trash after the last is ignored, as by the formats' tools.
            if not decompressor.starts(rest):
                return
            decompressor = fresh()
        # Only when it asks: else what is packed piles up inside while little by little comes out.
        fed = rest or (content.read(_PIECE) if decompressor.wants_input else b"")
        starved = decompressor.wants_input and not fed
        rest = b""
        piece = decompressor.unpack(fed)
        budget.spend(len(piece))
        yield piece
        if starved and not piece and not decompressor.ended:
            budget.note("archive-damaged")
            return


class _Decompressor(Protocol):
    """One stream of one format, with bounded output at each step."""

    @property
    def ended(self) -> bool:
        """Tell whether the stream is complete."""

    @property
    def wants_input(self) -> bool:
        """Tell whether it has used up what it was given."""

    @property
    def unused(self) -> bytes:
        """Return what came after the end of the stream."""

    def unpack(self, fed: bytes) -> bytes:
        """Return the next piece."""

    def starts(self, rest: bytes) -> bool:
        """Tell whether another stream of this format begins here."""


class _Gzip:
    def __init__(self) -> None:
        self._inner = zlib.decompressobj(wbits=31)
        self._waiting = b""

    @property
    def ended(self) -> bool:
        return self._inner.eof

    @property
    def wants_input(self) -> bool:
        return not self._waiting

    @property
    def unused(self) -> bytes:
        return self._inner.unused_data

    def unpack(self, fed: bytes) -> bytes:
        out = self._inner.decompress(self._waiting + fed, _PIECE)
        self._waiting = self._inner.unconsumed_tail
        return out

    def starts(self, rest: bytes) -> bool:
        return rest[:2] == b"\x1f\x8b"


class _Standard:
    """The interface that bz2 and lzma share."""

    def __init__(self, inner: bz2.BZ2Decompressor | lzma.LZMADecompressor, magic: bytes) -> None:
        self._inner = inner
        self._magic = magic

    @property
    def ended(self) -> bool:
        return self._inner.eof

    @property
    def wants_input(self) -> bool:
        return self._inner.needs_input

    @property
    def unused(self) -> bytes:
        return self._inner.unused_data

    def unpack(self, fed: bytes) -> bytes:
        return self._inner.decompress(fed, _PIECE)

    def starts(self, rest: bytes) -> bool:
        return rest.startswith(self._magic)


def _fresh_bzip2() -> _Decompressor:
    return _Standard(bz2.BZ2Decompressor(), b"BZh")


def _fresh_xz() -> _Decompressor:
    # The dictionary a stream asks for is memory: `xz -9` needs 65 MiB to unpack (xz(1)).
    return _Standard(
        lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=128 * 1024 * 1024), b"\xfd7zXZ\x00"
    )


def _gzip(content: Content, budget: Budget) -> Iterator[Member]:
    return _unpacked(_pieces(content, budget, _Gzip), budget, name="(gzip)")


def _bzip2(content: Content, budget: Budget) -> Iterator[Member]:
    return _unpacked(_pieces(content, budget, _fresh_bzip2), budget, name="(bzip2)")


def _xz(content: Content, budget: Budget) -> Iterator[Member]:
    return _unpacked(_pieces(content, budget, _fresh_xz), budget, name="(xz)")


def _zstandard(content: Content, budget: Budget) -> Iterator[Member]:
    return _unpacked(_zstandard_pieces(content, budget), budget, name="(zstandard)")


def _zstandard_pieces(content: Content, budget: Budget) -> Iterator[bytes]:
    content.seek(0)
    # RFC 8878, 3.1.1.1.2: a decoder may refuse windows above what it cares to hold; 128 MiB is
    # `zstd --ultra`.
    opener = zstandard.ZstdDecompressor(max_window_size=128 * 1024 * 1024)
    with opener.stream_reader(content, read_across_frames=True, closefd=False) as opened:
        while piece := opened.read(_PIECE):
            budget.spend(len(piece))
            yield piece


def _whole(content: Content, budget: Budget) -> bytes:
    """Read a container that is looked at in memory; one larger than a member is cut (noted)."""
    content.seek(0)
    limit = budget.config.archive_member_bytes
    data = content.read(limit + 1)
    if len(data) > limit:
        budget.note("archive-member-size")
    return data[:limit]


def _members_of(found: Iterator[tuple[str, bytes]], budget: Budget) -> Iterator[Member]:
    try:
        for name, held in found:
            budget.enter_member()
            yield Member(name, held, leaf=name in documents.PUT_TOGETHER)
    except documents.Damaged:
        budget.note("archive-damaged")


def _compound(content: Content, budget: Budget) -> Iterator[Member]:
    return _members_of(documents.compound(_whole(content, budget), budget.spend), budget)


def _pdf(content: Content, budget: Budget) -> Iterator[Member]:
    data = _whole(content, budget)
    limit = budget.config.archive_member_bytes
    return _members_of(documents.pdf(data, budget.spend, limit), budget)


def _mail(content: Content, budget: Budget) -> Iterator[Member]:
    return _members_of(documents.mail(_whole(content, budget), budget.spend), budget)


def _rtf(content: Content, budget: Budget) -> Iterator[Member]:
    return _members_of(documents.rtf(_whole(content, budget), budget.spend), budget)


def _html(content: Content, budget: Budget) -> Iterator[Member]:
    return _members_of(documents.html(_whole(content, budget), budget.spend), budget)


def _ar(content: Content, budget: Budget) -> Iterator[Member]:
    return _members_of(documents.ar(_whole(content, budget)), budget)


_UNPACKERS: dict[str, Callable[[Content, Budget], Iterator[Member]]] = {
    "zip": _zip,
    "tar": _tar,
    "gzip": _gzip,
    "bzip2": _bzip2,
    "xz": _xz,
    "zstandard": _zstandard,
    "compound": _compound,
    "pdf": _pdf,
    "mail": _mail,
    "rtf": _rtf,
    "html": _html,
    "ar": _ar,
}
