"""Argon2id by the quicker of two libraries, in threads that stand back behind the pages."""

from __future__ import annotations

import contextlib
import math
import mmap
import os
import queue
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
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
WAIT_S: Final = 20.0
"""Seconds that somebody waits for their hash; what nobody waits for any more is not hashed."""
MOST_KEPT_KIB: Final = 47104
"""What a thread keeps at most; a hash that takes more is libsodium's, and its memory with it."""

TRIED: Final = 8
"""Hashes by each library after which it is clear which of them is quicker here."""
MOST_TRIED: Final = 4 * TRIED
"""Hashes in memory to be kept, also those for which it was yet to be taken: on a server where each
comes so long after the other that it is always given back between them, keeping it never pays."""

# Whether the kernel gives large pages to all that ask for much, or to who says that they help.
LARGE_PAGES: Final = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_NO_MEMORY: Final = -22  # ARGON2_MEMORY_ALLOCATION_ERROR in argon2.h

Result = TypeVar("Result")


class Busy(RuntimeError):
    """No thread came to the hash in time, or there was no memory for it: to be tried again."""


class Quicker:
    """Finds out by the first hashes that are wanted anyway whether keeping their memory pays here.

    libsodium's code is the quicker of the two (AVX2, AVX-512), but takes its memory anew for each
    hash: 11,776 pages of 4 KiB, which may cost the kernel more than the hash costs libsodium.
    Which weighs more depends on the processor, on what a page costs a virtual machine, and on the
    kernel's large pages (bench/README.md, sign-in). So a few hashes are made one way and as many
    the other, and from then on all are made as the one was that took the least processor time.
    """

    def __init__(self, *, may_keep: bool) -> None:
        self._deciding = threading.Lock()
        self._took: dict[bool, list[float]] = {True: [], False: []}
        self._tried_to_keep = 0
        self.keeps: bool | None = None if may_keep else False
        """Whether memory is kept; None while it is not clear yet."""

    def keep_this_time(self) -> bool:
        """Tell whether the next hash shall be made in memory that is kept."""
        if self.keeps is not None:
            return self.keeps
        with self._deciding:
            # Not in turns: each would find the other's 46 MiB where its own were in the cache.
            keep = len(self._took[True]) < TRIED and self._tried_to_keep < MOST_TRIED
            self._tried_to_keep += keep
            return keep

    def took(self, seconds: float, *, kept: bool) -> None:
        """Note the processor time of a hash of the usual cost."""
        with self._deciding:
            self._took[kept].append(seconds)
            # By libsodium only what comes once memory was kept often enough.
            if self.keeps is None and len(self._took[False]) >= TRIED:
                # The least: a busy neighbour makes hashes slower, and none quicker.
                best = min(self._took[True], default=math.inf)
                self.keeps = best < min(self._took[False])


_lent_by = threading.local()


def _lend(at: Any, size: int) -> int:
    memory: KeptMemory = _lent_by.memory
    if size > memory.size:
        return _NO_MEMORY
    at[0] = ffi.cast("uint8_t *", memory.address)
    return 0


# Made once, and here: where memory is never both written and run (systemd's
# MemoryDenyWriteExecute, SELinux), C can't call Python, and libsodium hashes.
_calls: tuple[Any, Any] | None
try:
    _calls = (
        ffi.callback("int(uint8_t **, size_t)", _lend, error=_NO_MEMORY),
        ffi.callback("void(uint8_t *, size_t)", lambda _at, _size: None),
    )
except (MemoryError, OSError, SystemError):
    _calls = None


class KeptMemory:
    """The memory one thread hashes in: taken at its first hash, used again, given back when idle.

    The library overwrites it with zeros after each hash. Of the thread that uses it alone.
    """

    def __init__(self) -> None:
        self._mapped: mmap.mmap | None = None
        self.address = 0
        self._size = 0

    @property
    def size(self) -> int:
        """How many bytes are held now."""
        return self._size

    def argon2id(self, password: bytes, salt: bytes, *, memory_kib: int, time_cost: int) -> bytes:
        """Return the hash, HASH_BYTES long, of one lane. Raises MemoryError, or ValueError."""
        if _calls is None:
            raise MemoryError("no memory that C may call Python by")
        self._have(memory_kib * 1024)
        _lent_by.memory = self
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
                "allocate_cbk": _calls[0],
                "free_cbk": _calls[1],
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
        self._mapped, self.address, self._size = None, 0, 0

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
        self._mapped, self._size = mapped, size
        self.address = -(-begins // LARGE) * LARGE


def argon2id(
    password: bytes, salt: bytes, memory: KeptMemory, *, memory_kib: int, time_cost: int
) -> bytes:
    """Return the Argon2id hash of one lane, by whichever library is quicker here.

    The salt has SALT_BYTES, the hash HASH_BYTES. Raises MemoryError when there is none to hash in.
    """
    if memory_kib > MOST_KEPT_KIB:
        return _by_libsodium(password, salt, memory_kib, time_cost)
    keep = QUICKER.keep_this_time()
    if not keep and QUICKER.keeps is False and memory.size:
        memory.release()  # Of the tries: not needed any more.
    # In memory that is yet to be taken a hash is slower, which says nothing of the next one.
    tells = memory_kib == MOST_KEPT_KIB and (not keep or memory.size >= memory_kib * 1024)
    began = time.thread_time()
    if keep:
        found = memory.argon2id(password, salt, memory_kib=memory_kib, time_cost=time_cost)
    else:
        found = _by_libsodium(password, salt, memory_kib, time_cost)
    if tells and QUICKER.keeps is None:
        QUICKER.took((time.thread_time() - began) / time_cost, kept=keep)
    return found


def _by_libsodium(password: bytes, salt: bytes, memory_kib: int, time_cost: int) -> bytes:
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

    def __init__(self, most: int, *, idle_s: float = IDLE_S, wait_s: float = WAIT_S) -> None:
        self._most, self._idle_s, self._wait_s = most, idle_s, wait_s
        self._waiting: queue.SimpleQueue[Callable[[KeptMemory], None]] = queue.SimpleQueue()
        self._starting = threading.Lock()
        self._started = 0

    def run(self, hash_it: Callable[[KeptMemory], Result]) -> Result:
        """Return what it returns, or raise what it raises, once one of the threads has done it.

        It is given the memory of its thread. Raises Busy when none has come to it in time, or had
        the memory; it is not done then.
        """
        if self._started < self._most:
            self._start()
        answer: Future[Result] = Future()

        def answered(memory: KeptMemory) -> None:
            if not answer.set_running_or_notify_cancel():
                return
            try:
                answer.set_result(hash_it(memory))
            except BaseException as failure:  # noqa: BLE001 - raised again where it was asked for
                answer.set_exception(failure)

        self._waiting.put(answered)
        try:
            return answer.result(self._wait_s)
        except MemoryError as failure:
            raise Busy("no memory to hash a password in") from failure
        except (TimeoutError, CancelledError) as failure:
            answer.cancel()
            raise Busy("no thread came to hash a password") from failure

    def _start(self) -> None:
        with self._starting:
            while self._started < self._most:
                thread = threading.Thread(
                    target=self._work, name=f"hash-{self._started}", daemon=True
                )
                try:
                    thread.start()
                except RuntimeError:
                    # The system gives no more threads: those there are do it, and the next hash
                    # tries for another.
                    if not self._started:
                        raise
                    return
                self._started += 1

    def _work(self) -> None:
        # Elsewhere it would hold for the whole process. Refused, it only makes pages wait longer.
        if sys.platform == "linux":
            with contextlib.suppress(OSError):
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


# Elsewhere than on Linux no large pages are asked for, and keeping small ones was never measured.
QUICKER: Final = Quicker(may_keep=_calls is not None and sys.platform == "linux")
