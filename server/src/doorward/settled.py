"""What a process has loaded stays: out of the garbage collector's way, and in few large pages."""

from __future__ import annotations

import ctypes
import gc
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

LARGE: Final = 2 * 1024 * 1024
"""Bytes of a large page; an ordinary one has 4 KiB (x86-64; elsewhere the kernel declines)."""

# <asm-generic/mman-common.h>. The second is Linux 6.1's: at once, and not when the kernel likes.
_MADV_HUGEPAGE: Final = 14
_MADV_COLLAPSE: Final = 25
_REGIONS: Final = Path("/proc/self/smaps")
# Private memory that is nobody's file: no name, or the heap's.
_REGION: Final = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (\S+) \S+ \S+ (\d+) *(\S*)")


def settle(*, look_after: tuple[int, int, int]) -> None:
    """Let the process, with everything it needs loaded, work on it as fast as it can.

    ``look_after`` are the collector's thresholds from now on, as in gc.set_threshold.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*look_after)
    in_large_pages()


def in_large_pages() -> int:
    """Put the process's objects into large pages; return how many bytes lie in such by this call.

    After a password's hash has gone through 46 MiB, the processor has to find each page of the
    objects anew: there are 512 times fewer of them. Where the kernel has no such call or gives no
    such page, all stays as it is, and 0 is returned.
    """
    if sys.platform != "linux":
        return 0
    advise = ctypes.CDLL(None).madvise
    advise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    moved = 0
    for begin, end in list(_mostly_filled()):
        # What is only as large as they are has to begin where they may.
        first, last = -(-begin // LARGE) * LARGE, end // LARGE * LARGE
        if first >= last:
            continue
        advise(first, last - first, _MADV_HUGEPAGE)
        moved += sum(
            LARGE for page in range(first, last, LARGE) if advise(page, LARGE, _MADV_COLLAPSE) == 0
        )
    return moved


def _mostly_filled() -> Iterator[tuple[int, int]]:
    # Not a thread's stack, say: there, a large page would be memory taken for nothing.
    try:
        told = _REGIONS.read_text()
    except OSError:
        return
    region: tuple[int, int] | None = None
    for line in told.splitlines():
        if found := _REGION.match(line):
            begin, end, may, file, name = found.groups()
            ours = may == "rw-p" and file == "0" and name in {"", "[heap]"}
            region = (int(begin, 16), int(end, 16)) if ours else None
        elif region is not None and line.startswith("Rss:"):
            if int(line.split()[1]) * 1024 * 2 >= region[1] - region[0]:
                yield region
            region = None
