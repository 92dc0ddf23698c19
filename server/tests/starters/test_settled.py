"""What a process has loaded lies in few large pages, where the kernel gives them."""

from __future__ import annotations

import gc
import re
import subprocess
import sys
from pathlib import Path

import pytest

from doorward import settled

LARGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")

# In a process of its own: what it prints is how much was moved, and how much the kernel says lies
# in large pages, before and after.
MOVES = """
import re
from pathlib import Path
from doorward.settled import in_large_pages

def large():
    told = Path("/proc/self/smaps_rollup").read_text()
    return int(re.search(r"AnonHugePages: +(\\d+) kB", told)[1]) * 1024

objects = [str(number) for number in range(400_000)]
before = large()
moved = in_large_pages()
after = large()
assert objects[399_999] == "399999" and len(set(objects)) == 400_000
print(before, moved, after)
"""


@pytest.mark.skipif(
    not LARGE_PAGES.exists() or "[never]" in LARGE_PAGES.read_text(),
    reason="this kernel gives no large pages",
)
def test_objects_lie_in_large_pages_afterwards_and_are_the_same() -> None:
    ran = subprocess.run(  # noqa: S603 - our own words
        [sys.executable, "-c", MOVES], capture_output=True, text=True, check=True
    )
    before, moved, after = map(int, ran.stdout.split())
    # Linux before 6.1 has no such call: nothing is moved, and nothing breaks.
    told = Path("/proc/sys/kernel/osrelease").read_text()
    release = tuple(map(int, re.findall(r"\d+", told)[:2]))
    if release >= (6, 1):
        assert moved >= 5 * settled.LARGE
        assert after >= before + moved // 2
    else:
        assert moved == 0


def test_without_large_pages_all_stays_as_it_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(settled, "_REGIONS", tmp_path / "none")
    assert settled.in_large_pages() == 0
    monkeypatch.setattr(sys, "platform", "darwin")
    assert settled.in_large_pages() == 0


def test_what_was_loaded_is_kept_from_the_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settled, "in_large_pages", lambda: 0)
    before = gc.get_threshold()
    try:
        settled.settle(look_after=(12_345, 20, 20))
        assert gc.get_threshold() == (12_345, 20, 20)
        assert gc.get_freeze_count() > 10_000
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)


def test_a_region_that_is_mostly_empty_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    told = tmp_path / "smaps"
    told.write_text(
        "7f0000000000-7f0000800000 rw-p 00000000 00:00 0 \n"
        "Size:               8192 kB\nRss:                  64 kB\n"
        "7f0001000000-7f0001800000 rw-p 00000000 00:00 0 \n"
        "Size:               8192 kB\nRss:                6000 kB\n"
        "7f0002000000-7f0002800000 r-xp 00000000 08:01 77                 /usr/bin/python3\n"
        "Size:               8192 kB\nRss:                8192 kB\n"
        "7f0003000000-7f0003800000 rw-s 00000000 00:01 12                 /dev/zero\n"
        "Size:               8192 kB\nRss:                8192 kB\n"
        "5f0000000000-5f0000800000 rw-p 00000000 00:00 0                  [heap]\n"
        "Size:               8192 kB\nRss:                8000 kB\n"
    )
    monkeypatch.setattr(settled, "_REGIONS", told)
    assert list(settled._mostly_filled()) == [
        (0x7F0001000000, 0x7F0001800000),
        (0x5F0000000000, 0x5F0000800000),
    ]
