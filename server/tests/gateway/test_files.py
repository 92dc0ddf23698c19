"""Signed definitions and ClamAV databases as files: parts, times, and nothing that is not meant."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from server.tests.gateway.computers import Reply, ask

from doorward.gateway import files
from doorward.gateway.door import Door
from doorward.gateway.files import FromDisk

BASE = "/device/v1/definitions/"


@pytest.fixture
def served(tmp_path: Path, settings: Any, db: None) -> Path:
    settings.DATA = tmp_path / "data"
    settings.CLAMAV_MIRROR = str(tmp_path / "mirror")
    folder = tmp_path / "data" / "definitions" / "repository"
    (folder / "parts").mkdir(parents=True)
    (folder / "timestamp.json").write_bytes(b"0123456789")
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror" / "daily.cvd").write_bytes(b"ClamAV-VDB:" + bytes(1000))
    (tmp_path / "mirror" / "freshclam.conf").write_text("secret")
    (tmp_path / "data" / "keys").mkdir()
    (tmp_path / "data" / "keys" / "secret").write_text("secret")
    return folder


def get(path: str, method: str = "GET", **headers: str) -> Reply:
    async def asked() -> Reply:
        door = Door()
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            return await ask(door, method, path, headers=named)
        finally:
            await door.stop()

    return asyncio.run(asked())


def test_a_signed_file_is_served_without_a_token(served: Path) -> None:
    reply = get(BASE + "timestamp.json")
    assert (reply.status, reply.body) == (200, b"0123456789")
    # A cache on the way asks each time: it freezes nothing that keeps its name.
    assert reply.headers["cache-control"] == "no-cache"
    assert get("/device/v1/clamav/daily.cvd").headers["cache-control"] == "no-cache"
    head = get(BASE + "timestamp.json", "HEAD")
    assert (head.status, head.body, head.headers["content-length"]) == (200, b"", "10")


@pytest.mark.parametrize(
    ("wanted", "status", "body", "told"),
    [
        ("bytes=2-4", 206, b"234", "bytes 2-4/10"),
        ("bytes=7-", 206, b"789", "bytes 7-9/10"),
        ("bytes=-2", 206, b"89", "bytes 8-9/10"),
        ("bytes=5-99", 206, b"56789", "bytes 5-9/10"),
        ("bytes=0-9", 200, b"0123456789", None),
        ("bytes=10-", 416, b"", "bytes */10"),
        ("bytes=-0", 416, b"", "bytes */10"),
        ("bytes=4-2", 200, b"0123456789", None),
        ("bytes=0-1,3-4", 200, b"0123456789", None),
        ("lines=1-2", 200, b"0123456789", None),
        ("bytes=-", 200, b"0123456789", None),
    ],
)
def test_ranges_are_answered_as_rfc_9110_says(
    served: Path, wanted: str, status: int, body: bytes, told: str | None
) -> None:
    reply = get(BASE + "timestamp.json", range=wanted)
    assert (reply.status, reply.body) == (status, body)
    assert reply.headers.get("content-range") == told


def test_what_did_not_change_is_not_sent_again(served: Path) -> None:
    first = get("/device/v1/clamav/daily.cvd")
    assert first.status == 200
    again = get("/device/v1/clamav/daily.cvd", if_modified_since=first.headers["last-modified"])
    assert (again.status, again.body) == (304, b"")
    old = get("/device/v1/clamav/daily.cvd", if_modified_since="Mon, 01 Jan 2001 00:00:00 GMT")
    assert old.status == 200
    assert get("/device/v1/clamav/daily.cvd", if_modified_since="yesterday").status == 200
    changed = get("/device/v1/clamav/daily.cvd", range="bytes=1-2", if_range="never")
    assert changed.status == 200, "a part of another file would spoil it"


@pytest.mark.parametrize(
    "path",
    [
        BASE,
        BASE + "nothing.json",
        BASE + "2.root.json",
        BASE + "../../keys/secret",
        BASE + "parts/../timestamp.json",
        BASE + "parts/" + "a" * 64 + ".zst",
        BASE + ".timestamp.json.77",
        BASE + "timestamp.json\0",
        "/device/v1/clamav/freshclam.conf",
        "/device/v1/clamav/../data/keys/secret",
        "/device/v1/clamav/",
    ],
)
def test_nothing_else_is_served(served: Path, path: str) -> None:
    assert (get(path).status, get(path).body) == (404, b"")


def test_a_link_out_of_the_folder_is_not_followed(served: Path, tmp_path: Path) -> None:
    (tmp_path / "mirror" / "main.cvd").symlink_to(tmp_path / "data" / "keys" / "secret")
    assert get("/device/v1/clamav/main.cvd").status == 404


def test_without_a_mirror_no_database_is_served(served: Path, settings: Any) -> None:
    settings.CLAMAV_MIRROR = ""
    assert get("/device/v1/clamav/daily.cvd").status == 404


def test_only_get_and_head(served: Path) -> None:
    assert get(BASE + "timestamp.json", "POST").code == "method-not-allowed"


def test_a_long_file_is_sent_piece_by_piece(
    served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = bytes(range(256)) * 4096
    (tmp_path / "long").write_bytes(content)
    sent: list[dict[str, Any]] = []

    async def take(message: dict[str, Any]) -> None:
        sent.append(message)

    asyncio.run(files.send(FromDisk(tmp_path / "long", 10, len(content) - 20), take))
    assert b"".join(each["body"] for each in sent) == content[10:-10]
    assert [each["more_body"] for each in sent] == [True] * (len(sent) - 1) + [False]
    assert max(len(each["body"]) for each in sent) <= files.PIECE


def test_a65_a_reader_that_is_too_slow_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "long").write_bytes(bytes(300_000))
    real: Callable[[float], Any] = asyncio.timeout
    monkeypatch.setattr(asyncio, "timeout", lambda seconds: real(0.01))

    async def stuck(message: dict[str, Any]) -> None:
        await asyncio.Event().wait()

    with pytest.raises(ConnectionError):
        asyncio.run(files.send(FromDisk(tmp_path / "long", 0, 300_000), stuck))
