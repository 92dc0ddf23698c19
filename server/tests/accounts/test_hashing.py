"""Where passwords are hashed: on which threads, in which memory, by which library."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import nacl.pwhash.argon2id
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doorward.accounts import hashing

SALT = b"sixteen bytes it"
SMALL_KIB = 1024

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="memory is kept on Linux alone")


def test_no_more_hashes_at_once_than_threads() -> None:
    running, most, lock = 0, 0, threading.Lock()

    def counted(memory: hashing.KeptMemory) -> bytes:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        try:
            return hashing.argon2id(b"x", SALT, memory, memory_kib=SMALL_KIB, time_cost=1)
        finally:
            with lock:
                running -= 1

    threads = hashing.Hashing(2)
    with ThreadPoolExecutor(16) as pool:
        assert len(set(pool.map(lambda _n: threads.run(counted), range(32)))) == 1
    assert most == 2


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a priority is a whole process's")
def test_a_hash_stands_back_behind_the_pages() -> None:
    def niceness(_memory: object = None) -> int:
        return os.getpriority(os.PRIO_PROCESS, 0)

    pages = niceness()
    assert hashing.Hashing(1).run(niceness) == min(pages + hashing.NICER, 19)
    assert niceness() == pages


def test_a_hash_that_fails_fails_where_it_was_asked_for() -> None:
    threads = hashing.Hashing(1)

    def fail(_memory: object) -> bytes:
        raise ValueError("no such cost")

    def starve(_memory: object) -> bytes:
        raise MemoryError("no 46 MiB left")

    with pytest.raises(ValueError, match="no such cost"):
        threads.run(fail)
    with pytest.raises(hashing.Busy, match="no memory"):
        threads.run(starve)
    assert threads.run(lambda _memory: b"the next") == b"the next"


def test_nobody_waits_for_ever_and_what_nobody_waits_for_is_not_hashed() -> None:
    threads = hashing.Hashing(1, wait_s=0.05)
    let_go = threading.Event()
    hashed: list[str] = []

    def hold(_memory: object) -> None:
        let_go.wait(20)

    def late(_memory: object) -> None:
        hashed.append("late")

    with pytest.raises(hashing.Busy, match="no thread"):
        threads.run(hold)
    with pytest.raises(hashing.Busy, match="no thread"):
        threads.run(late)
    let_go.set()
    patient = hashing.Hashing(1)
    patient._waiting, patient._started = threads._waiting, 1
    assert patient.run(lambda _memory: "the next") == "the next"
    assert not hashed


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a priority is a whole process's")
def test_where_a_thread_may_not_stand_back_it_hashes_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refused(_by: int) -> int:
        raise PermissionError

    monkeypatch.setattr("os.nice", refused)
    assert hashing.Hashing(1).run(lambda _memory: b"hashed") == b"hashed"


def test_where_the_system_gives_no_more_threads_those_there_are_hash(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start, left = threading.Thread.start, [1]

    def limited(thread: threading.Thread) -> None:
        if thread.name.startswith("hash-"):
            if not left[0]:
                raise RuntimeError("can't start new thread")
            left[0] -= 1
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", limited)
    threads = hashing.Hashing(2)
    names = {threads.run(lambda _memory: threading.current_thread().name) for _ in range(5)}
    assert names == {"hash-0"}
    left[0] = 9
    threads.run(lambda _memory: None)
    assert left[0] == 8, "the second one, and no more"


NO_CALLBACKS = """
import ctypes, sys
# What systemd's MemoryDenyWriteExecute asks of the kernel (PR_SET_MDWE, Linux 6.3).
if ctypes.CDLL(None).prctl(65, 1, 0, 0, 0):
    print("not here")
    sys.exit()
from doorward.accounts import hashing
threads = hashing.Hashing(2)
hashed = threads.run(
    lambda memory: hashing.argon2id(b"x", b"sixteen bytes it", memory, memory_kib=64, time_cost=1)
)
print(hashing.QUICKER.keeps, len(hashed))
"""


@linux_only
def test_where_no_memory_may_be_written_and_run_libsodium_hashes() -> None:
    told = subprocess.run(  # noqa: S603 - our own words
        [sys.executable, "-c", NO_CALLBACKS], check=True, capture_output=True, text=True, timeout=60
    ).stdout.strip()
    if told == "not here":
        pytest.skip("this kernel has no such rule")
    assert told in {"False 32", "None 32"}


@linux_only
@settings(deadline=None, max_examples=40)
@given(
    password=st.binary(max_size=4096),
    salt=st.binary(min_size=hashing.SALT_BYTES, max_size=hashing.SALT_BYTES),
    memory_kib=st.integers(8, 4096),
    time_cost=st.integers(1, 3),
)
def test_both_libraries_make_the_same_hash(
    password: bytes, salt: bytes, memory_kib: int, time_cost: int
) -> None:
    by_libsodium = nacl.pwhash.argon2id.kdf(
        hashing.HASH_BYTES, password, salt, opslimit=time_cost, memlimit=memory_kib * 1024
    )
    ours = KEPT.argon2id(password, salt, memory_kib=memory_kib, time_cost=time_cost)
    assert ours == by_libsodium


# One for all examples: what a hash leaves in it must change nothing of the next.
KEPT = hashing.KeptMemory()


@linux_only
def test_the_memory_is_taken_once_wiped_after_each_hash_and_given_back() -> None:
    memory = hashing.KeptMemory()
    assert memory.size == 0
    hashed = memory.argon2id(b"x", SALT, memory_kib=SMALL_KIB, time_cost=1)
    mapped = memory._mapped
    assert mapped is not None
    assert memory.size == SMALL_KIB * 1024
    assert not any(mapped[:]), "nothing of a password's hash is left in it"
    assert memory.argon2id(b"x", SALT, memory_kib=SMALL_KIB, time_cost=1) == hashed
    assert memory._mapped is mapped, "the same memory again"
    memory.release()
    assert memory.size == 0
    assert mapped.closed
    assert memory.argon2id(b"x", SALT, memory_kib=SMALL_KIB, time_cost=1) == hashed


@linux_only
def test_an_idle_thread_gives_its_memory_back() -> None:
    given_back = threading.Event()

    class Watched(hashing.KeptMemory):
        def release(self) -> None:
            super().release()
            if self.size == 0 and kept:
                given_back.set()

    kept: list[hashing.KeptMemory] = []

    def hash_it(memory: hashing.KeptMemory) -> bytes:
        hashed = memory.argon2id(b"x", SALT, memory_kib=SMALL_KIB, time_cost=1)
        kept.append(memory)
        return hashed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hashing, "KeptMemory", Watched)
        threads = hashing.Hashing(1, idle_s=0.01)
        first = threads.run(hash_it)
        assert given_back.wait(20)
        assert kept[0].size == 0
        assert threads.run(hash_it) == first, "and takes it anew for the next"


@linux_only
def test_where_there_is_no_memory_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(*_words: object, **_more: object) -> None:
        raise OSError(12, "Cannot allocate memory")

    memory = hashing.KeptMemory()
    monkeypatch.setattr("mmap.mmap", none_left)
    with pytest.raises(MemoryError, match="to hash a password in"):
        memory.argon2id(b"x", SALT, memory_kib=SMALL_KIB, time_cost=1)
    monkeypatch.undo()
    assert memory.argon2id(b"x", SALT, memory_kib=SMALL_KIB, time_cost=1)


@linux_only
def test_a_hash_that_takes_more_than_ours_leaves_no_memory_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hashing, "QUICKER", decided(keeps=True))
    memory = hashing.KeptMemory()
    dear = hashing.MOST_KEPT_KIB + 8
    assert hashing.argon2id(b"x", SALT, memory, memory_kib=dear, time_cost=1)
    assert memory.size == 0


@linux_only
def test_a_cost_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match=r"[Tt]ime"):
        hashing.KeptMemory().argon2id(b"x", SALT, memory_kib=SMALL_KIB, time_cost=0)


def decided(*, keeps: bool) -> hashing.Quicker:
    quicker = hashing.Quicker(may_keep=True)
    quicker.keeps = keeps
    return quicker


@given(
    kept=st.lists(st.floats(0.01, 0.1), min_size=hashing.TRIED, max_size=12),
    others=st.lists(st.floats(0.01, 0.1), min_size=hashing.TRIED, max_size=12),
)
def test_after_some_hashes_by_each_library_all_are_made_by_the_quicker(
    kept: list[float], others: list[float]
) -> None:
    quicker = hashing.Quicker(may_keep=True)
    left = {True: list(kept), False: list(others)}
    while quicker.keeps is None:
        keep = quicker.keep_this_time()
        quicker.took(left[keep].pop(0) if left[keep] else 1.0, kept=keep)
    told = {how: len(all_) - len(left[how]) for how, all_ in ((True, kept), (False, others))}
    assert told == {True: hashing.TRIED, False: hashing.TRIED}
    assert quicker.keeps is (min(kept[: hashing.TRIED]) < min(others[: hashing.TRIED]))
    assert {quicker.keep_this_time() for _ in range(9)} == {quicker.keeps}


def test_what_is_told_late_changes_nothing_any_more() -> None:
    quicker = hashing.Quicker(may_keep=True)
    for _ in range(hashing.TRIED):
        quicker.took(0.02, kept=True)
    for _ in range(hashing.TRIED):
        quicker.took(0.03, kept=False)
    quicker.took(0.001, kept=False)
    assert quicker.keeps is True


def test_where_hashes_are_so_rare_that_memory_is_always_taken_anew_none_is_kept() -> None:
    quicker = hashing.Quicker(may_keep=True)
    kept = 0
    while quicker.keeps is None:
        if quicker.keep_this_time():
            kept += 1  # And nothing told: the memory was yet to be taken.
        else:
            quicker.took(0.03, kept=False)
    assert kept == hashing.MOST_TRIED
    assert quicker.keeps is False


def test_where_memory_cant_be_kept_nothing_is_tried() -> None:
    quicker = hashing.Quicker(may_keep=False)
    assert not any(quicker.keep_this_time() for _ in range(9))


@linux_only
@pytest.mark.parametrize("keeps", [True, False])
def test_the_hashes_of_the_usual_cost_decide_and_what_is_not_needed_is_given_back(
    keeps: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hashing, "MOST_KEPT_KIB", SMALL_KIB)
    quicker = hashing.Quicker(may_keep=True)
    monkeypatch.setattr(hashing, "QUICKER", quicker)
    clock, made = [0.0], []
    monkeypatch.setattr("time.thread_time", lambda: clock[0])
    by_libsodium = hashing._by_libsodium

    class Timed(hashing.KeptMemory):
        def argon2id(self, password: bytes, salt: bytes, **cost: int) -> bytes:
            # The first one takes the memory, and would be misleading.
            clock[0] += (1 if keeps else 3) if self.size else 50
            made.append("kept")
            return super().argon2id(password, salt, **cost)

    def timed(*words: Any) -> bytes:
        clock[0] += 2
        made.append("libsodium")
        return by_libsodium(*words)

    monkeypatch.setattr(hashing, "_by_libsodium", timed)
    memory = Timed()

    def hash_it(memory_kib: int = SMALL_KIB) -> bytes:
        return hashing.argon2id(b"x", SALT, memory, memory_kib=memory_kib, time_cost=1)

    cheap = {hash_it(8) for _ in range(20)}
    assert not any(quicker._took.values()), "a cheaper hash tells nothing"
    hashed = {hash_it() for _ in range(2 * hashing.TRIED + 1)}
    assert quicker.keeps is keeps
    made.clear()
    assert hashed == {hash_it() for _ in range(4)}
    assert cheap == {hash_it(8)}
    assert set(made) == {"kept" if keeps else "libsodium"}
    assert (memory.size > 0) is keeps


@pytest.mark.parametrize("keeps", [False, pytest.param(True, marks=linux_only)])
def test_a_password_kept_by_one_library_is_checked_by_the_other(
    keeps: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from doorward.accounts.passwords import Argon2idHasher

    hasher = Argon2idHasher()
    monkeypatch.setattr(hashing, "QUICKER", decided(keeps=keeps))
    encoded = hasher.encode("a door that opens", "")
    other_keeps = sys.platform == "linux" and not keeps
    monkeypatch.setattr(hashing, "QUICKER", decided(keeps=other_keeps))
    assert hasher.verify("a door that opens", encoded)
    assert not hasher.verify("a door that opened", encoded)
