"""What hides inside documents and mail: macros, embedded programs, packed streams, attachments.

Each function takes the whole file and yields (name, content). They read formats that strangers have
written: every number in them is checked against the size of what is there, every chain against
going in circles, and what is damaged ends the reading early.

Sources: [MS-CFB] for compound files, [MS-OVBA] 2.4.1 for compressed macros, ISO 32000-1 7.3.8 for
streams in PDF, [MS-PPT] 2.10.34 for objects in slides, ar(5), RFC 5322 and 2045 for mail, RFC 2397
for data in pages.
"""

import base64
import email.parser
import email.policy
import re
import zlib
from collections.abc import Callable, Iterator
from struct import Struct, error, unpack_from

COMPOUND = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"

_HEADER = Struct("<24xHHHHH6xIIIIIIIII")
_ENTRY_BYTES = 128
_LAST_SECTOR = 0xFFFFFFFA
"""[MS-CFB] 2.1: numbers from here on are no sectors."""
_STREAM, _ROOT = 2, 5
_MOST_ENTRIES = 20_000
_LARGEST_OBJECT = 64 * 1024 * 1024


MACROS, STREAMS = "(macros)", "(streams)"
PUT_TOGETHER = frozenset((MACROS, STREAMS))
"""Names of content that is no file of its own: several pieces, joined so that rules see them
together."""


class Damaged(Exception):
    """The file does not keep to its format; what was yielded before is genuine."""


Spend = Callable[[int], None]
"""Told how many bytes come out before they are made; raises to stop."""


# -- compound files: Word, Excel, PowerPoint until 2003, macro projects of later ones, Outlook
# ------


def compound(data: bytes, spend: Spend) -> Iterator[tuple[str, bytes]]:
    """Yield the macros of a document as one text, then each program or file embedded in it."""
    macros: list[bytes] = []
    embedded: list[tuple[str, bytes]] = []
    for name, content in streams(data):
        spend(len(content))
        macros.extend(_macros_in(content, spend))
        if name == "PowerPoint Document":
            embedded.extend(_in_slides(content, spend))
        if name.endswith("Ole10Native"):
            embedded.append((name.strip("\x01"), _packaged(content)))
        elif name.startswith("__substg1.0_3701") or name in {"Package", "CONTENTS"}:
            # An attachment of an Outlook message; a file embedded by a newer Office.
            embedded.append((name, content))
    if macros:
        yield MACROS, b"\n".join(macros)
    yield from embedded


def streams(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield the name and content of every stream of a compound file. Raises Damaged."""
    try:
        (
            _version,
            _major,
            _order,
            sector_shift,
            mini_shift,
            _directory_sectors,
            _fat_sectors,
            directory_start,
            _signature,
            mini_cutoff,
            mini_start,
            _mini_sectors,
            difat_start,
            difat_sectors,
        ) = _HEADER.unpack_from(data)
    except error:
        raise Damaged("a compound file cut in its header") from None
    if sector_shift not in {9, 12} or mini_shift != 6:
        raise Damaged("a compound file with impossible sectors")
    size = 1 << sector_shift
    count = max(0, len(data) // size)

    def sector(number: int) -> bytes:
        return data[(number + 1) * size : (number + 2) * size]

    fat = _numbers(
        b"".join(map(sector, _fat_places(data, sector, difat_start, difat_sectors, count)))
    )

    def chain(start: int, table: tuple[int, ...]) -> Iterator[int]:
        seen = 0
        while start < _LAST_SECTOR:
            if start >= len(table) or seen > len(table):
                raise Damaged("a chain that leads nowhere, or in circles")
            yield start
            seen += 1
            start = table[start]

    directory = b"".join(map(sector, chain(directory_start, fat)))
    mini_table = _numbers(b"".join(map(sector, chain(mini_start, fat))))
    mini = b""
    entries = min(len(directory) // _ENTRY_BYTES, _MOST_ENTRIES)
    for position in range(entries):
        entry = directory[position * _ENTRY_BYTES : (position + 1) * _ENTRY_BYTES]
        name_bytes, kind = unpack_from("<HB", entry, 64)
        start, low, high = unpack_from("<III", entry, 116)
        length = low if sector_shift == 9 else low | high << 32
        name = entry[: max(0, min(name_bytes, 64) - 2)].decode("utf-16-le", "replace")
        if length > len(data):
            continue
        if kind == _ROOT:
            mini = b"".join(map(sector, chain(start, fat)))[:length]
        elif kind == _STREAM and length >= mini_cutoff:
            yield name, b"".join(map(sector, chain(start, fat)))[:length]
        elif kind == _STREAM and length:
            pieces = (mini[at << 6 : (at + 1) << 6] for at in chain(start, mini_table))
            yield name, b"".join(pieces)[:length]


def _fat_places(
    data: bytes, sector: Callable[[int], bytes], start: int, sectors: int, count: int
) -> list[int]:
    """Return where the table of sectors lies: 109 places in the header, more in a list of their
    own."""
    places = list(_numbers(data[76:512]))
    for _ in range(min(sectors, count)):
        if start >= _LAST_SECTOR:
            break
        numbers = _numbers(sector(start))
        if not numbers:
            break
        places.extend(numbers[:-1])
        start = numbers[-1]
    return [place for place in places if place < count][:count]


def _numbers(raw: bytes) -> tuple[int, ...]:
    whole = len(raw) // 4
    return tuple(unpack_from(f"<{whole}I", raw))


def _macros_in(content: bytes, spend: Spend) -> Iterator[bytes]:
    # A module's text begins with "Attribute VB_Name". Compressed, its first eight letters stand
    # literally behind a zero of flags; three bytes before that is the container's beginning.
    at = content.find(b"\0Attribut")
    while at >= 3:
        text = decompressed(content[at - 3 :])
        spend(len(text))
        if text.startswith(b"Attribut"):
            yield text
        at = content.find(b"\0Attribut", at + 9)


def decompressed(container: bytes, limit: int = 16 * 1024 * 1024) -> bytes:
    """Return what a compressed container of macros holds, as far as it is whole."""
    out = bytearray()
    if container[:1] != b"\x01":
        return b""
    at = 1
    while at + 2 <= len(container) and len(out) < limit:
        (header,) = unpack_from("<H", container, at)
        if header >> 12 & 0b111 != 0b011:
            break
        end = min(at + (header & 0xFFF) + 3, len(container))
        at += 2
        if not header & 0x8000:
            out += container[at : at + 4096]
            at += 4096
            continue
        at = _chunk(container, at, end, out)
    return bytes(out)


def _chunk(container: bytes, at: int, end: int, out: bytearray) -> int:
    """Unpack one chunk onto `out`; return where the next begins."""
    beginning = len(out)
    while at < end:
        flags = container[at]
        at += 1
        for bit in range(8):
            if at >= end:
                break
            if not flags >> bit & 1:
                out.append(container[at])
                at += 1
                continue
            if at + 2 > end:
                return end
            (token,) = unpack_from("<H", container, at)
            at += 2
            # [MS-OVBA] 2.4.1.3.19.1: how a token divides depends on how much there is to copy from.
            bits = max((len(out) - beginning - 1).bit_length(), 4)
            offset = (token >> (16 - bits)) + 1
            length = (token & (0xFFFF >> bits)) + 3
            if offset > len(out) - beginning:
                return end
            for _ in range(length):
                out.append(out[-offset])
    return end


def _packaged(content: bytes) -> bytes:
    """Return the file inside an Ole10Native stream; the stream itself where it is no such."""
    try:
        at = 6
        for _ in range(2):
            at = content.index(b"\0", at) + 1
        at += 4
        (length,) = unpack_from("<I", content, at)
        at += 4 + length
        (length,) = unpack_from("<I", content, at)
    except (ValueError, error):
        return content
    return content[at + 4 : at + 4 + length] or content


def _in_slides(content: bytes, spend: Spend) -> Iterator[tuple[str, bytes]]:
    # [MS-PPT] 2.10.34: an embedded object (record 0x1011), packed where its instance is 1.
    at = content.find(b"\x10\0\x11\x10")
    while at >= 0:
        yield f"(object at {at})", _inflated(content, at + 12, _LARGEST_OBJECT, spend)
        at = content.find(b"\x10\0\x11\x10", at + 12)


# -- RTF and HTML ------------------------------------------------------------------------------

_RTF_OBJECT = re.compile(rb"\\objdata\b([0-9a-fA-F\s]{32,})")
_DATA_ADDRESS = re.compile(
    rb"data:application/[\w.+-]{1,100};base64,([A-Za-z0-9+/=\s%]{40,})", re.IGNORECASE
)


def looks_like_html(head: bytes) -> bool:
    """Tell whether a file begins as a page, or a piece of one, does."""
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:64].lower()
    return start.startswith((b"<!doctype html", b"<html", b"<script", b"<a ", b"<body", b"<head"))


def rtf(data: bytes, spend: Spend) -> Iterator[tuple[str, bytes]]:
    """Yield every object embedded in a rich text document; of a compound file, that file itself."""
    for match in _RTF_OBJECT.finditer(data):
        digits = re.sub(rb"\s+", b"", match.group(1))
        content = bytes.fromhex(digits[: len(digits) & ~1].decode("ascii"))
        spend(len(content))
        at = content.find(COMPOUND)
        yield f"(object at {match.start()})", content if at < 0 else content[at:]


def html(data: bytes, spend: Spend) -> Iterator[tuple[str, bytes]]:
    """Yield every file that a page carries in itself to be saved by the reader."""
    # Nearly no page has one, and letters of any case take the expression four times as long.
    if b"data:application/" not in data.lower():
        return
    for match in _DATA_ADDRESS.finditer(data):
        coded = re.sub(rb"[^A-Za-z0-9+/]", b"", match.group(1))
        content = base64.b64decode(coded + b"=" * (-len(coded) % 4))
        spend(len(content))
        yield f"(data at {match.start()})", content


# -- PDF
# ---------------------------------------------------------------------------------------------

_PDF_STREAM = re.compile(rb"stream\r?\n")
_PDF_FACTS_BYTES = 1024


def pdf(data: bytes, spend: Spend, limit: int) -> Iterator[tuple[str, bytes]]:
    """Yield the packed text of a PDF as one piece, and each embedded file by itself.

    Pictures are left out. The piece begins as a PDF does, so that rules about PDFs see it as one.
    """
    joined = [b"%PDF-1.0 (unpacked)\n"]
    size = 0
    for match in _PDF_STREAM.finditer(data):
        facts = data[max(0, match.start() - _PDF_FACTS_BYTES) : match.start()]
        # Only this object's own facts: what stands behind the last "obj".
        facts = facts[facts.rfind(b"obj") + 3 :]
        if b"/FlateDecode" not in facts and b"/Fl " not in facts:
            continue
        if b"/Image" in facts and b"/EmbeddedFile" not in facts:
            continue
        content = _inflated(data, match.end(), limit, spend)
        if b"/EmbeddedFile" in facts:
            yield f"(embedded at {match.start()})", content
        elif size < limit:
            joined.append(content)
            size += len(content)
    if size:
        yield STREAMS, b"\n".join(joined)[:limit]


def _inflated(data: bytes, at: int, limit: int, spend: Spend) -> bytes:
    inner = zlib.decompressobj()
    pieces: list[bytes] = []
    size = 0
    fed = data[at : at + 65536]
    while fed and size <= limit and not inner.eof:
        try:
            piece = inner.decompress(fed, 1 << 18)
        except zlib.error:
            break
        spend(len(piece))
        pieces.append(piece)
        size += len(piece)
        fed = inner.unconsumed_tail
        if not fed and not inner.eof:
            at += 65536
            fed = data[at : at + 65536]
    return b"".join(pieces)[:limit]


# -- mail
# --------------------------------------------------------------------------------------------

_HEADERS = re.compile(rb"(from [^\n]{3,200}\d{4}\r?\n)?[a-z][a-z0-9-]{1,40}:[ \t]", re.IGNORECASE)
_TELLING = re.compile(
    rb"^(mime-version|content-type|return-path|received|delivered-to|message-id):",
    re.IGNORECASE | re.MULTILINE,
)
_BETWEEN_MAILS = re.compile(rb"\n(?=From [^\n]{3,200}\d{4})")


def looks_like_mail(head: bytes) -> bool:
    """Tell whether a file begins as a mail, or a box of mails, does."""
    start = head.lstrip()
    return _HEADERS.match(start) is not None and _TELLING.search(start) is not None


def mail(data: bytes, spend: Spend) -> Iterator[tuple[str, bytes]]:
    """Yield every attachment and every part in another form than plain text, decoded."""
    parser = email.parser.BytesParser(policy=email.policy.compat32)
    for number, one in enumerate(_BETWEEN_MAILS.split(data)):
        for place, part in enumerate(parser.parsebytes(one).walk()):
            if part.is_multipart() or place > 1000:
                continue
            encoding = str(part.get("Content-Transfer-Encoding", "")).strip().lower()
            name = part.get_filename()
            if name is None and encoding not in {"base64", "quoted-printable", "x-uuencode"}:
                continue
            content = part.get_payload(decode=True)
            if isinstance(content, bytes) and content:
                spend(len(content))
                yield str(name or f"(part {number}.{place})"), content


# -- ar: Debian packages, static libraries
# -------------------------------------------------------------


def ar(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield each member of an ar archive. Raises Damaged."""
    at = 8
    while at + 60 <= len(data):
        header = data[at : at + 60]
        if header[58:60] != b"`\n":
            raise Damaged("an archive with a header that is none")
        try:
            size = int(header[48:58])
        except ValueError:
            raise Damaged("an archive with a size that is none") from None
        if size < 0 or at + 60 + size > len(data):
            raise Damaged("an archive cut short")
        yield header[:16].decode("latin-1").rstrip(" /"), data[at + 60 : at + 60 + size]
        at += 60 + size + size % 2
