"""Inside archives everything is found; hostile ones cost their budget and never pass for clean."""

import bz2
import dataclasses
import gzip
import io
import lzma
import os
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from doorward_agent import archives, scan
from doorward_agent.config import AgentConfig
from doorward_agent.definitions.build import eicar


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return out.getvalue()


def tarred(members: dict[str, bytes], mode: str = "w", form: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode, format=form) as archive:  # type: ignore[call-overload]
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return out.getvalue()


LETTER = b"Dear Bob,\n" * 500

PACKED: dict[str, Callable[[bytes], bytes]] = {
    "zip": lambda inner: zipped({"a.txt": LETTER, "b.com": inner}),
    "zip, stored": lambda inner: zipped({"b.com": inner}, zipfile.ZIP_STORED),
    "zip, bzip2": lambda inner: zipped({"b.com": inner}, zipfile.ZIP_BZIP2),
    "zip, lzma": lambda inner: zipped({"b.com": inner}, zipfile.ZIP_LZMA),
    "zip behind a program": lambda inner: b"MZ" + bytes(5000) + zipped({"b.com": inner}),
    "zip before trash": lambda inner: zipped({"b.com": inner}) + b"trash" * 100,
    "tar": lambda inner: tarred({"a.txt": LETTER, "b.com": inner}),
    "tar, old": lambda inner: tarred({"a": LETTER, "b.com": inner}, form=tarfile.USTAR_FORMAT),
    "tar.gz": lambda inner: tarred({"a.txt": LETTER, "b.com": inner}, "w:gz"),
    "tar.bz2": lambda inner: tarred({"b.com": inner}, "w:bz2"),
    "tar.xz": lambda inner: tarred({"b.com": inner}, "w:xz"),
    "gzip": gzip.compress,
    "gzip, second stream": lambda inner: gzip.compress(b"") + gzip.compress(inner),
    "bzip2": bz2.compress,
    "bzip2, second stream": lambda inner: bz2.compress(b"") + bz2.compress(inner),
    "xz": lzma.compress,
    "zstandard": zstandard.ZstdCompressor().compress,
    "zstandard, second frame": lambda inner: (
        zstandard.ZstdCompressor().compress(b"") + zstandard.ZstdCompressor().compress(inner)
    ),
    "zip in tar.gz in zip": lambda inner: zipped(
        {"x": tarred({"y": zipped({"z.com": inner})}, "w:gz")}
    ),
    "text after the wrong name": lambda inner: zipped({"photo.jpg": zipped({"n": inner})}),
}  # fmt: skip


def looked_into(content: bytes, config: AgentConfig) -> tuple[dict[str, bytes], list[str]]:
    budget = archives.Budget(config, packed=len(content))
    kind = archives.kind_of(content[:512]) or "zip"
    found = archives.members(io.BytesIO(content), kind, budget)
    return {member.name: member.content for member in found}, budget.reasons


@pytest.mark.parametrize("form", PACKED)
def test_the_test_file_is_found_in(form: str, home: Path, config: AgentConfig) -> None:
    (home / "archive").write_bytes(PACKED[form](eicar()))

    run = scan.run([home], config)
    found = list(run)

    assert [one.rule for one in found] == ["DW-TEST-0001"]
    assert found[0].member
    assert run.summary.complete


@pytest.mark.parametrize("form", PACKED)
def test_a_clean_archive_is_clean_and_remembered(
    form: str, home: Path, config: AgentConfig
) -> None:
    (home / "archive").write_bytes(PACKED[form](LETTER))

    first = scan.run([home], config)
    assert list(first) == []
    assert first.summary.complete
    again = scan.run([home], config)
    assert list(again) == []
    assert again.summary.cached == 1


def _not_clean(home: Path, config: AgentConfig, content: bytes) -> scan.ScanSummary:
    """Scan one archive twice; whatever else it says, it must not say clean, nor remember it."""
    (home / "archive").write_bytes(content)
    list(scan.run([home], config))
    run = scan.run([home], config)
    assert list(run) == []
    assert run.summary.cached == 0
    assert not run.summary.complete
    assert run.summary.limited
    return run.summary


def test_a_bomb_is_not_fully_scanned(home: Path, config: AgentConfig) -> None:
    told = _not_clean(home, config, zipped({"zeros": bytes(60 << 20)}))
    assert told.limited == {"archive-ratio": 1}


def test_a_bomb_of_layers_is_not_fully_scanned(home: Path, config: AgentConfig) -> None:
    content = bytes(32 << 20)
    for _ in range(3):
        content = gzip.compress(content)
    told = _not_clean(home, config, content)
    assert set(told.limited) == {"archive-ratio"}


def test_a_bomb_of_overlapping_members_is_not_fully_scanned(
    home: Path, config: AgentConfig
) -> None:
    # Every entry of the directory points at the same packed bytes.
    raw = bytes(1 << 20)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(raw) + packer.flush()
    sizes = struct.pack("<III", zlib.crc32(raw), len(packed), len(raw))
    local = (
        struct.pack("<4sHHHHH", b"PK\3\4", 20, 0, 8, 0, 0) + sizes + struct.pack("<HH", 1, 0) + b"a"
    )
    entry = struct.pack("<4sHHHHHH", b"PK\1\2", 20, 20, 0, 8, 0, 0) + sizes
    entry += struct.pack("<HHHHHII", 1, 0, 0, 0, 0, 0, 0) + b"a"
    count = 1000
    start = len(local) + len(packed)
    end = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, count, count, len(entry) * count, start, 0)

    told = _not_clean(home, config, local + packed + entry * count + end)

    assert set(told.limited) & {"archive-ratio", "archive-total-size", "archive-damaged"}


def test_the_total_of_many_members_is_bounded(home: Path, config: AgentConfig) -> None:
    tight = dataclasses.replace(config, archive_total_bytes=3 << 20, archive_ratio=10**6)
    told = _not_clean(home, tight, zipped({f"m{n}": os.urandom(1 << 20) for n in range(5)}))
    assert told.limited == {"archive-total-size": 1}


def test_too_many_members_are_not_all_looked_at(home: Path, config: AgentConfig) -> None:
    told = _not_clean(home, config, zipped({f"m{n}": b"x" for n in range(10_001)}))
    assert told.limited == {"archive-members": 1}
    told = _not_clean(home, config, tarred({f"m{n}": b"x" for n in range(10_001)}))
    assert told.limited == {"archive-members": 1}


def test_too_deep_is_not_fully_scanned(home: Path, config: AgentConfig) -> None:
    content = eicar()
    for _ in range(config.archive_depth):
        content = zipped({"x": content})
    (home / "archive").write_bytes(content)
    assert [found.rule for found in scan.run([home], config)] == ["DW-TEST-0001"]

    told = _not_clean(home, config, zipped({"x": content}))
    assert told.limited == {"archive-depth": 1}


def test_a_large_member_is_looked_at_as_far_as_it_may(home: Path, config: AgentConfig) -> None:
    tight = dataclasses.replace(config, archive_member_bytes=1 << 20)
    told = _not_clean(home, tight, zipped({"big": os.urandom(2 << 20)}))
    assert told.limited == {"archive-member-size": 1}
    told = _not_clean(home, tight, gzip.compress(os.urandom(2 << 20)))
    assert told.limited == {"archive-member-size": 1}


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
def test_a_packed_tar_larger_than_a_member_is_seen_whole(
    mode: str, home: Path, config: AgentConfig
) -> None:
    tight = dataclasses.replace(config, archive_member_bytes=1 << 20)
    noise = {f"m{number}": os.urandom(700_000) for number in range(4)}
    (home / "archive").write_bytes(tarred({**noise, "last.com": eicar()}, mode))

    run = scan.run([home], tight)

    assert [found.member.rpartition("!")[2] for found in run] == ["last.com"]
    assert run.summary.complete


def test_the_total_of_a_packed_tar_is_bounded_once(home: Path, config: AgentConfig) -> None:
    members = {f"m{number}": os.urandom(1 << 20) for number in range(4)}
    enough = dataclasses.replace(config, archive_total_bytes=9 << 19)
    _, reasons = looked_into(tarred(members, "w:gz"), enough)
    assert reasons == []
    _, reasons = looked_into(
        tarred(members, "w:gz"), dataclasses.replace(config, archive_total_bytes=3 << 20)
    )
    assert reasons == ["archive-total-size"]


def test_time_is_bounded(config: AgentConfig) -> None:
    clock = iter(range(0, 10_000, 7))
    budget = archives.Budget(config, packed=10**9, clock=lambda: float(next(clock)))
    content = zipped({f"m{n}": b"x" for n in range(100)})

    found = list(archives.members(io.BytesIO(content), "zip", budget))

    assert budget.reasons == ["archive-time"]
    assert len(found) < 10


def test_encrypted_members_are_told_and_the_others_still_looked_at(
    home: Path, config: AgentConfig
) -> None:
    content = bytearray(zipped({"secret": b"whatever", "open.com": eicar()}))
    # Flag bit 0 of the first member: in its local header and in the directory.
    content[6] |= 1
    content[content.index(b"PK\1\2") + 8] |= 1
    (home / "archive").write_bytes(content)

    run = scan.run([home], config)

    assert [found.member for found in run] == ["open.com"]
    assert run.summary.limited == {"archive-encrypted": 1}


@pytest.mark.parametrize(
    "name",
    [
        "../../../etc/cron.d/x",
        "/etc/passwd",
        "..\\..\\x",
        "a\0b",
        "\u202egpj.exe",
        "C:\\x",
        "n" * 60_000,
    ],
)
def test_a_hostile_name_leads_nowhere(name: str, home: Path, config: AgentConfig) -> None:
    before = sorted(path.name for path in home.parent.iterdir())
    for content in (zipped({"n": eicar()}), tarred({name.replace("\0", "_"): eicar()})):
        if content.startswith(b"PK"):
            out = io.BytesIO()
            with zipfile.ZipFile(out, "w") as archive:
                entry = zipfile.ZipInfo("n")
                entry.filename = name
                archive.writestr(entry, eicar())
            content = out.getvalue()
        (home / "archive").write_bytes(content)
        (found,) = scan.run([home], config)
        assert found.member.isprintable()
        assert len(found.member) <= 4096
    assert sorted(path.name for path in home.parent.iterdir()) == before
    assert [path.name for path in home.iterdir()] == ["archive"]


def test_a_tar_of_links_and_devices_opens_nothing(home: Path, config: AgentConfig) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
            entry = tarfile.TarInfo("x")
            entry.type = kind
            entry.linkname = "/etc/passwd"
            archive.addfile(entry)
    members, reasons = looked_into(out.getvalue(), config)
    assert members == {}
    assert reasons == []


def test_a_stated_directory_of_gigabytes_is_not_read(config: AgentConfig) -> None:
    content = bytearray(zipped({"a": b"x"}))
    end = content.rindex(b"PK\5\6")
    content[end + 8 : end + 12] = b"\xfe\xff\xfe\xff"
    members, reasons = looked_into(bytes(content), config)
    assert members == {}
    assert reasons == ["archive-members"]


@pytest.mark.parametrize("form", PACKED)
def test_a_cut_archive_is_told(form: str, config: AgentConfig) -> None:
    whole = PACKED[form](os.urandom(3000) + eicar())
    _, reasons = looked_into(whole[: len(whole) * 2 // 3], config)
    # A cut zstandard frame gives all that is there without a word, and all that is there is seen.
    if form != "zip before trash" and not form.startswith("zstandard"):
        assert reasons, form


@settings(max_examples=300, deadline=None)
@given(
    form=st.sampled_from(sorted(PACKED)),
    cuts=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=12),
)
def test_no_mutation_raises(form: str, cuts: list[tuple[float, int]]) -> None:
    content = bytearray(PACKED[form](b"inner" * 50))
    for place, value in cuts:
        content[int(place * (len(content) - 1))] = value
    looked_into(bytes(content), AgentConfig(state_dir=Path("/nonexistent")))


@settings(max_examples=200, deadline=None)
@given(
    kind=st.sampled_from(["zip", "tar", "gzip", "bzip2", "xz", "zstandard"]),
    junk=st.binary(max_size=2000),
)
def test_no_junk_raises(kind: str, junk: bytes) -> None:
    budget = archives.Budget(AgentConfig(state_dir=Path("/nonexistent")), packed=len(junk))
    list(archives.members(io.BytesIO(junk), kind, budget))
