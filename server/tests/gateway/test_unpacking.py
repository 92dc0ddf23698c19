"""A compressed frame that lies about its length gains nothing."""

from __future__ import annotations

import pytest
import zstandard

from doorward.gateway import bodies
from doorward.gateway.problems import Refused

LIMIT = 8 * 1024 * 1024


def frame_announcing(length: int, content: bytes) -> bytes:
    """A zstd frame of this content whose header says another length."""
    frame = bytearray(zstandard.compress(content))
    # RFC 8878: magic number, descriptor (single segment, four bytes of length), length.
    assert frame[4] >> 5 == 0b101
    frame[5:9] = length.to_bytes(4, "little")
    return bytes(frame)


def test_a_frame_longer_than_it_says_is_refused() -> None:
    body = frame_announcing(70_000, bytes(1_000_000))
    assert bodies.length_unpacked(body, "zstd") == 70_000
    with pytest.raises(Refused) as caught:
        bodies.unpacked(body, "zstd", LIMIT)
    assert caught.value.code == "invalid-message"


def test_a_frame_shorter_than_it_says_is_refused() -> None:
    with pytest.raises(Refused):
        bodies.unpacked(frame_announcing(2_000_000, bytes(1_000_000)), "zstd", LIMIT)


def test_an_honest_frame_is_unpacked_whether_it_says_its_length_or_not() -> None:
    content = b"Alice" * 10_000
    assert bodies.unpacked(zstandard.compress(content), "zstd", LIMIT) == content
    silent = zstandard.ZstdCompressor(write_content_size=False).compress(content)
    assert bodies.length_unpacked(silent, "zstd") > LIMIT
    assert bodies.unpacked(silent, "zstd", LIMIT) == content


def test_what_is_no_frame_is_never_called_short() -> None:
    assert bodies.length_unpacked(b"not zstd", "zstd") > LIMIT
    assert bodies.length_unpacked(b"\x1f\x8b", "gzip") > LIMIT
    assert bodies.length_unpacked(b"1234", "") == 4
