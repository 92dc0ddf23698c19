"""What hides in documents and mail comes out; what is built to hurt its reader does not."""

import base64
import email.message
import struct
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doorward_agent import archives, documents, scan
from doorward_agent.config import AgentConfig
from doorward_agent.definitions.build import eicar

# Taken apart, so that this file holds no such macro itself.
MACRO = "\r\n".join(
    (
        'Attri' 'bute VB_Name = "ThisDocument"',
        "Sub Auto" "Open()",
        '  Set x = CreateObject("MSX' 'ML2.XMLHTTP")',
        '  Sh' 'ell "cmd.exe /c a.exe"',
        "End Sub",
    )
).encode()  # fmt: skip

END, FREE, FAT = 0xFFFFFFFE, 0xFFFFFFFF, 0xFFFFFFFD


def compressed(text: bytes) -> bytes:
    """Compress as [MS-OVBA] says: letters as they are, and repetitions as tokens."""
    out = bytearray(b"\x01")
    for start in range(0, len(text), 4096):
        chunk = text[start : start + 4096]
        body = bytearray()
        at = 0
        while at < len(chunk):
            flags, group = 0, bytearray()
            for bit in range(8):
                if at >= len(chunk):
                    break
                bits = max((at - 1).bit_length(), 4)
                best = 0, 0
                for back in range(1, min(at, 1 << bits) + 1):
                    length = 0
                    most = min((0xFFFF >> bits) + 3, len(chunk) - at)
                    while length < most and chunk[at + length] == chunk[at - back + length]:
                        length += 1
                    if length > best[0]:
                        best = length, back
                length, back = best
                if length >= 3:
                    flags |= 1 << bit
                    group += struct.pack("<H", back - 1 << (16 - bits) | length - 3)
                    at += length
                else:
                    group.append(chunk[at])
                    at += 1
            body.append(flags)
            body += group
        out += struct.pack("<H", 0xB000 | len(body) - 1) + body
    return bytes(out)


def compound(streams: dict[str, bytes]) -> bytes:
    """Write a compound file: streams of 4096 bytes and more in sectors, smaller in mini ones."""
    sectors: list[bytes] = []
    table: list[int] = []

    def put(content: bytes) -> int:
        if not content:
            return END
        first = len(sectors)
        pieces = [content[at : at + 512].ljust(512, b"\0") for at in range(0, len(content), 512)]
        sectors.extend(pieces)
        table.extend([*range(first + 1, first + len(pieces)), END])
        return first

    mini, mini_table, entries = b"", [], []
    for name, content in streams.items():
        if len(content) >= 4096:
            start = put(content)
        else:
            start = len(mini) // 64
            count = -(-len(content) // 64)
            mini_table.extend([*range(start + 1, start + count), END])
            mini += content.ljust(count * 64, b"\0")
        entries.append((name, 2, start, len(content)))
    root = put(mini)
    entries.insert(0, ("Root Entry", 5, root, len(mini)))
    mini_start = put(b"".join(struct.pack("<I", number) for number in mini_table))
    directory = b""
    for name, kind, start, size in entries:
        raw = name.encode("utf-16-le")
        directory += raw.ljust(64, b"\0") + struct.pack("<HBB", len(raw) + 2, kind, 1)
        directory += (
            struct.pack("<III", FREE, FREE, FREE) + bytes(36) + struct.pack("<IQ", start, size)
        )
    directory_start = put(directory)
    fat_start = len(sectors)
    count = 1
    while count * 128 < len(sectors) + count:
        count += 1
    table.extend([FAT] * count)
    raw_table = b"".join(struct.pack("<I", number) for number in table).ljust(count * 512, b"\xff")
    sectors.extend(raw_table[at * 512 : at * 512 + 512] for at in range(count))
    header = documents.COMPOUND + bytes(16) + struct.pack("<HHHHH", 62, 3, 0xFFFE, 9, 6) + bytes(6)
    header += struct.pack("<IIIIIIIII", 0, count, directory_start, 0, 4096, mini_start, 1, END, 0)
    places = [fat_start + at for at in range(count)]
    header += b"".join(struct.pack("<I", place) for place in places).ljust(436, b"\xff")
    return header + b"".join(sectors)


def packaged(name: bytes, content: bytes) -> bytes:
    """Build an Ole10Native stream."""
    inner = (
        b"\2\0" + name + b"\0C:\\" + name + b"\0" + b"\0\0\3\0" + struct.pack("<I", 4) + b"tmp\0"
    )
    inner += struct.pack("<I", len(content)) + content
    return struct.pack("<I", len(inner)) + inner


def pdf(streams: dict[str, bytes], *, facts: str = "/Filter /FlateDecode") -> bytes:
    out = b"%PDF-1.7\n"
    for number, (extra, content) in enumerate(streams.items(), 1):
        packed = zlib.compress(content)
        out += f"{number} 0 obj\n<< {facts} {extra} /Length {len(packed)} >>\n".encode()
        out += b"stream\r\n" + packed + b"\nendstream\nendobj\n"
    return out + b"trailer\n"


def nothing(_: int) -> None:
    return


@pytest.mark.parametrize("size", [0, 1, 2, 3, 15, 17, 33, 100, 4095, 4096, 4097, 20_000])
def test_compressed_macros_come_out_as_they_were(size: int) -> None:
    text = (MACRO * 50)[:size]
    assert documents.decompressed(compressed(text)) == text
    noise = bytes((n * n * 7 + n // 3) % 251 for n in range(size))
    assert documents.decompressed(compressed(noise)) == noise


def test_an_uncompressed_chunk_is_taken_as_it_is() -> None:
    raw = bytes(range(256)) * 16
    assert documents.decompressed(b"\x01" + struct.pack("<H", 0x3FFF) + raw) == raw


@pytest.mark.parametrize("padding", [0, 5000, 200_000])
def test_a_document_with_a_downloading_macro_is_found(
    padding: int, home: Path, config: AgentConfig
) -> None:
    module = b"\x00junk" + compressed(MACRO) + bytes(padding)
    document = compound({"WordDocument": b"text" * 2000, "ThisDocument": module, "x": b"y"})
    assert dict(documents.streams(document))["ThisDocument"] == module
    (home / "invoice.doc").write_bytes(document)

    (found,) = scan.run([home], config)

    assert (found.rule, found.member) == ("DW-DROP-0007", "(macros)")


def test_a_macro_in_a_newer_document_is_found(home: Path, config: AgentConfig) -> None:
    import zipfile

    project = compound({"ThisDocument": bytes(10) + compressed(MACRO), "dir": b"x" * 100})
    with zipfile.ZipFile(home / "invoice.docm", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("word/document.xml", "<xml/>")
        archive.writestr("word/vbaProject.bin", project)
    (found,) = scan.run([home], config)
    assert (found.rule, found.member) == ("DW-DROP-0007", "word/vbaProject.bin!(macros)")


def test_a_program_embedded_in_a_document_is_found(home: Path, config: AgentConfig) -> None:
    (home / "offer.doc").write_bytes(
        compound({"WordDocument": b"text" * 2000, "\x01Ole10Native": packaged(b"a.com", eicar())})
    )
    (found,) = scan.run([home], config)
    assert (found.rule, found.member) == ("DW-TEST-0001", "Ole10Native")


def test_a_clean_document_is_clean(home: Path, config: AgentConfig) -> None:
    module = compressed(b'Attribute VB_Name = "Module1"\r\nSub Total()\r\nEnd Sub\r\n')
    (home / "budget.xls").write_bytes(compound({"Workbook": b"1" * 9000, "Module1": module}))
    run = scan.run([home], config)
    assert list(run) == []
    assert run.summary.complete


def test_a_chain_in_circles_ends(config: AgentConfig) -> None:
    document = bytearray(compound({"WordDocument": b"text" * 4000}))
    # Make every entry of the table of sectors point at sector 0.
    place = 512 * (1 + struct.unpack_from("<I", document, 76)[0])
    document[place : place + 512] = bytes(512)
    budget = archives.Budget(config, packed=len(document))
    content = __import__("io").BytesIO(bytes(document))
    assert list(archives.members(content, "compound", budget)) == []
    assert budget.reasons == ["archive-damaged"]


def test_what_is_packed_in_a_pdf_is_seen_together(home: Path, config: AgentConfig) -> None:
    (home / "bill.pdf").write_bytes(
        pdf({"": b"<< /OpenAction 2 0 R >>", "/X 1": b"<</S/Launch/Win<</F (cmd.exe)>>>>"})
    )
    (found,) = scan.run([home], config)
    assert (found.rule, found.member) == ("DW-DROP-0010", "(streams)")


def test_a_file_embedded_in_a_pdf_is_found(home: Path, config: AgentConfig) -> None:
    (home / "bill.pdf").write_bytes(pdf({"/Type /EmbeddedFile": eicar(), "": b"text"}))
    (found,) = scan.run([home], config)
    assert found.rule == "DW-TEST-0001"
    assert found.member.startswith("(embedded at")


def test_a_bomb_in_a_pdf_is_not_fully_scanned(home: Path, config: AgentConfig) -> None:
    (home / "bill.pdf").write_bytes(pdf({"": bytes(40 << 20)}))
    run = scan.run([home], config)
    assert list(run) == []
    assert run.summary.limited == {"archive-ratio": 1}


def mail(attachment: bytes, name: str = "invoice.com") -> bytes:
    message = email.message.EmailMessage()
    message["Received"] = "from charlie.example"
    message["From"] = "charlie@example.org"
    message["Subject"] = "Invoice"
    message.set_content("Dear Alice, see the invoice.")
    message.add_attachment(
        attachment, maintype="application", subtype="octet-stream", filename=name
    )
    return message.as_bytes()


def test_an_attachment_is_found(home: Path, config: AgentConfig) -> None:
    (home / "mail.eml").write_bytes(mail(eicar()))
    (found,) = scan.run([home], config)
    assert (found.rule, found.member) == ("DW-TEST-0001", "invoice.com")


def test_an_attachment_in_a_box_of_mails_is_found(home: Path, config: AgentConfig) -> None:
    import zipfile

    packed = home / "packed.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("x.com", eicar())
    clean, bad = mail(b"hello"), mail(packed.read_bytes(), "offer.zip")
    packed.unlink()
    start = b"From charlie@example.org Sun Nov 22 10:00:00 2026\n"
    (home / "inbox").write_bytes(start + clean + b"\n\n" + start + bad + b"\n\n" + start + clean)
    (found,) = scan.run([home], config)
    assert (found.rule, found.member) == ("DW-TEST-0001", "offer.zip!x.com")


def test_a_mail_without_a_way_behind_it_is_one_too(home: Path, config: AgentConfig) -> None:
    _, _, rest = mail(eicar()).partition(b"\n")
    assert rest.startswith(b"From: ")
    (home / "draft").write_bytes(rest)
    (found,) = scan.run([home], config)
    assert found.member == "invoice.com"


@pytest.mark.parametrize(
    "text",
    [b"Package: x\nVersion: 1\n", b"# Content-Type: x\n", b"key: value\n", b"", b"From here"],
)
def test_text_with_colons_is_no_mail(text: bytes) -> None:
    assert not documents.looks_like_mail(text)


def test_an_object_in_a_rich_text_is_found(home: Path, config: AgentConfig) -> None:
    inner = compound({"\x01Ole10Native": packaged(b"a.com", eicar())}).hex()
    broken = "\r\n".join(inner[at : at + 128] for at in range(0, len(inner), 128))
    (home / "offer.rtf").write_text("{\\rtf1 {\\object{\\*\\objdata 0105 " + broken + "}}}")
    (found,) = scan.run([home], config)
    assert found.rule == "DW-TEST-0001"
    assert found.member.endswith("!Ole10Native")


def test_a_file_smuggled_in_a_page_is_found(home: Path, config: AgentConfig) -> None:
    coded = base64.b64encode(eicar()).decode()
    page = f"<!DOCTYPE html><a download href='data:application/octet-stream;base64,{coded}'>x</a>"
    (home / "page.html").write_text(page)
    (found,) = scan.run([home], config)
    assert found.rule == "DW-TEST-0001"
    assert found.member.startswith("(data at")


def test_an_object_in_slides_is_found(home: Path, config: AgentConfig) -> None:
    inner = zlib.compress(compound({"\x01Ole10Native": packaged(b"a.com", eicar())}))
    record = struct.pack("<HHII", 0x10, 0x1011, len(inner) + 4, 99) + inner
    slides = bytes(5000) + record + bytes(100)
    (home / "talk.ppt").write_bytes(compound({"PowerPoint Document": slides}))
    (found,) = scan.run([home], config)
    assert found.rule == "DW-TEST-0001"
    assert found.member.endswith("!Ole10Native")


def test_a_debian_package_is_opened(home: Path, config: AgentConfig) -> None:
    import io
    import tarfile

    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:xz") as archive:
        entry = tarfile.TarInfo("./usr/bin/x")
        entry.size = len(eicar())
        archive.addfile(entry, io.BytesIO(eicar()))
    out = b"!<arch>\n"
    for name, content in (("debian-binary", b"2.0\n"), ("data.tar.xz", data.getvalue())):
        out += f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode()
        out += content + b"\n" * (len(content) % 2)
    (home / "x.deb").write_bytes(out)
    (found,) = scan.run([home], config)
    assert found.rule == "DW-TEST-0001"
    assert found.member.startswith("data.tar.xz!")


def test_programs_that_deal_with_zips_are_no_zips(home: Path, config: AgentConfig) -> None:
    (home / "zip").write_bytes(b"\x7fELF" + bytes(500) + b"PK\1\2PK\3\4PK\5\6" + b"\0text" * 100)
    run = scan.run([home], config)
    assert list(run) == []
    assert run.summary.complete


SAMPLES = {
    "compound": compound(
        {
            "WordDocument": b"t" * 5000,
            "Mod": compressed(MACRO),
            "\x01Ole10Native": packaged(b"a", b"b"),
        }
    ),
    "pdf": pdf({"": b"x" * 3000, "/Type /EmbeddedFile": b"y" * 300}),
    "mail": mail(b"hello" * 100),
    "rtf": b"{\\rtf1 {\\*\\objdata " + compound({"x": b"y" * 90}).hex().encode() + b"}}",
    "html": b"<html><a href='data:application/zip;base64," + base64.b64encode(bytes(99)) + b"'>",
    "ar": b"!<arch>\n" + f"{'a':<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{3:<10}`\n".encode() + b"abc\n",
}


@settings(max_examples=400, deadline=None)
@given(
    kind=st.sampled_from(sorted(SAMPLES)),
    damage=st.lists(
        st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=4)), min_size=1, max_size=10
    ),
    cut=st.floats(0.01, 1),
)
def test_no_damage_raises(kind: str, damage: list[tuple[float, bytes]], cut: float) -> None:
    content = bytearray(SAMPLES[kind])
    for place, junk in damage:
        at = int(place * (len(content) - len(junk)))
        content[at : at + len(junk)] = junk
    whole = bytes(content[: int(len(content) * cut)])
    budget = archives.Budget(AgentConfig(state_dir=Path("/nonexistent")), packed=len(whole))
    list(archives.members(__import__("io").BytesIO(whole), kind, budget))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=3000))
def test_no_container_of_macros_raises(junk: bytes) -> None:
    documents.decompressed(b"\x01" + junk)
