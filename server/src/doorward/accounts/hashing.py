"""Argon2id by the quicker of two libraries, in threads that stand back behind the pages."""

from __future__ import annotations

import contextlib
import mmap
import os
import queue
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Final, TypeVar

import nacl.pwhash.argon2id
from argon2.low_level import ARGON2_VERSION, Type, core, error_to_str, ffi

from doorward.settled import LARGE

SALT_BYTES: Final = 16
HASH_BYTES: Final = 32

# How much less of a core a hash gets than a page that wants it too (setpriority(2), "nice").
NICER: Final = 5
IDLE_S: Final = 60.0
"""Seconds without a hash after which a thread gives its memory back."""

# Whether the kernel gives large pages to all that ask for much, or to who says that they help.
LARGE_PAGES: Final = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_NO_MEMORY: Final = -22  # ARGON2_MEMORY_ALLOCATION_ERROR in argon2.h

Result = TypeVar("Result")


def keeping_is_quicker() -> bool:
    """Tell whether a hash is quicker here in memory that is kept from one to the next.

    libsodium's code is the quicker of the two, but takes its memory anew for each hash: 11,776
    pages of 4 KiB, which cost the kernel more than the hash costs libsodium. It is ahead where all
    large memory comes in large pages unasked (bench/README.md, sign-in).
    """
    if sys.platform != "linux":
        return False
    try:
        return "[always]" not in LARGE_PAGES.read_text()
    except OSError:
        return False


class KeptMemory:
    """The memory one thread hashes in: taken at its first hash, used again, given back when idle.

    The library overwrites it with zeros after each hash.
    """

    def __init__(self) -> None:
        self._mapped: mmap.mmap | None = None
        self._at = self._size = 0
        # They go on being called for as long as the library has them: kept alive with us.
        self._lend = ffi.callback("int(uint8_t **, size_t)", self._lent, error=_NO_MEMORY)
        self._take_back = ffi.callback("void(uint8_t *, size_t)", lambda _at, _size: None)

    @property
    def size(self) -> int:
        """How many bytes are held now."""
        return self._size

    def argon2id(self, password: bytes, salt: bytes, *, memory_kib: int, time_cost: int) -> bytes:
        """Return the hash, HASH_BYTES long, of one lane. Raises MemoryError, or ValueError."""
        self._have(memory_kib * 1024)
        found = ffi.new("uint8_t[]", HASH_BYTES)
        password_there = ffi.from_buffer("uint8_t[]", password)
        salt_there = ffi.from_buffer("uint8_t[]", salt)
        context = ffi.new(
            "argon2_context *",
            {
                "version": ARGON2_VERSION,
                "out": found,
                "outlen": HASH_BYTES,
                "pwd": password_there,
                "pwdlen": len(password),
                "salt": salt_there,
                "saltlen": len(salt),
                "t_cost": time_cost,
                "m_cost": memory_kib,
                "lanes": 1,
                "threads": 1,
                "allocate_cbk": self._lend,
                "free_cbk": self._take_back,
            },
        )
        failed = core(context, Type.ID.value)
        if failed == _NO_MEMORY:
            raise MemoryError(f"no {memory_kib} KiB to hash a password in")
        if failed:
            raise ValueError(error_to_str(failed))
        return bytes(ffi.buffer(found, HASH_BYTES))

    def release(self) -> None:
        """Give the memory back; the next hash takes it anew."""
        if self._mapped is not None:
            self._mapped.close()
        self._mapped, self._at, self._size = None, 0, 0

    def _have(self, size: int) -> None:
        if size <= self._size:
            return
        self.release()
        try:
            # One large page more, so that it can begin where one begins.
            mapped = mmap.mmap(-1, size + LARGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except OSError as failure:
            raise MemoryError(f"no {size} bytes to hash a password in") from failure
        with contextlib.suppress(OSError):  # A kernel that has none.
            mapped.madvise(mmap.MADV_HUGEPAGE)
        with ffi.from_buffer(mapped) as view:
            begins = int(ffi.cast("uintptr_t", view))
        self._mapped, self._at, self._size = mapped, -(-begins // LARGE) * LARGE, size

    def _lent(self, at: Any, size: int) -> int:
        if size > self._size:
            return _NO_MEMORY
        at[0] = ffi.cast("uint8_t *", self._at)
        return 0


def argon2id(
    password: bytes, salt: bytes, memory: KeptMemory, *, memory_kib: int, time_cost: int
) -> bytes:
    """Return the Argon2id hash of one lane, by whichever library is quicker here.

    The salt has SALT_BYTES, the hash HASH_BYTES. Raises MemoryError when there is none to hash in.
    """
    if KEEPS_MEMORY:
        return memory.argon2id(password, salt, memory_kib=memory_kib, time_cost=time_cost)
    found: bytes = nacl.pwhash.argon2id.kdf(
        HASH_BYTES, password, salt, opslimit=time_cost, memlimit=memory_kib * 1024
    )
    return found


class Hashing:
    """The threads that hash, as many as cores we may use, behind the threads that make pages.

    Each hash takes 46 MiB and a whole core for tens of milliseconds; more at once would only wait,
    holding memory. A page wants a core for a few: where it waits in line with hashes, each of them
    takes its turn of the core in the midst of the page, and leaves nothing of it in the caches.
    """

    def __init__(self, most: int, *, idle_s: float = IDLE_S) -> None:
        self._most, self._idle_s = most, idle_s
        self._waiting: queue.SimpleQueue[Callable[[KeptMemory], None]] = queue.SimpleQueue()
        self._starting = threading.Lock()
        self._started = False

    def run(self, hash_it: Callable[[KeptMemory], Result]) -> Result:
        """Return what it returns, or raise what it raises, once one of the threads has done it.

        It is given the memory of its thread.
        """
        if not self._started:
            self._start()
        answer: Future[Result] = Future()

        def answered(memory: KeptMemory) -> None:
            try:
                answer.set_result(hash_it(memory))
            except BaseException as failure:  # noqa: BLE001 - raised again where it was asked for
                answer.set_exception(failure)

        self._waiting.put(answered)
        return answer.result()

    def _start(self) -> None:
        with self._starting:
            if self._started:
                return
            for number in range(self._most):
                threading.Thread(target=self._work, name=f"hash-{number}", daemon=True).start()
            self._started = True

    def _work(self) -> None:
        # Elsewhere it would hold for the whole process.
        if sys.platform == "linux":
            os.nice(NICER)
        memory = KeptMemory()
        while True:
            try:
                do = self._waiting.get(timeout=self._idle_s if memory.size else None)
            except queue.Empty:
                memory.release()
            else:
                do(memory)
                del do  # It holds a password.


def cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


KEEPS_MEMORY: Final = keeping_is_quicker()
