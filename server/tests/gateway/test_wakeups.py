"""A loop that is woken less often must still be woken every time."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable

import pytest

from doorward.gateway import wakeups


@pytest.fixture
def loop() -> asyncio.AbstractEventLoop:
    return wakeups.Loop()


def run(loop: asyncio.AbstractEventLoop, act: Callable[[], object]) -> None:
    async def acting() -> None:
        act_result = act()
        if asyncio.iscoroutine(act_result):
            await act_result

    try:
        loop.run_until_complete(asyncio.wait_for(acting(), 60))
    finally:
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


@pytest.mark.parametrize("pause", [0.0, 0.0005])
def test_no_call_from_another_thread_is_lost(loop: asyncio.AbstractEventLoop, pause: float) -> None:
    threads, each = 8, 2000 if not pause else 200

    async def act() -> None:
        heard = 0
        done = asyncio.Event()

        def hear() -> None:
            nonlocal heard
            heard += 1
            if heard == threads * each:
                done.set()

        def call() -> None:
            for _ in range(each):
                loop.call_soon_threadsafe(hear)
                if pause:
                    time.sleep(pause)  # so that the loop falls asleep in between

        callers = [threading.Thread(target=call) for _ in range(threads)]
        for caller in callers:
            caller.start()
        await done.wait()
        for caller in callers:
            caller.join()

    run(loop, act)


def test_a_lone_call_wakes_a_sleeping_loop_at_once(loop: asyncio.AbstractEventLoop) -> None:
    async def act() -> None:
        for _ in range(50):
            woken = asyncio.Event()
            threading.Timer(0.002, loop.call_soon_threadsafe, [woken.set]).start()
            await asyncio.wait_for(woken.wait(), 2)

    run(loop, act)


def test_answers_of_threads_arrive(loop: asyncio.AbstractEventLoop) -> None:
    async def act() -> None:
        numbers = await asyncio.gather(
            *(loop.run_in_executor(None, int, number) for number in range(500))
        )
        assert numbers == list(range(500))

    run(loop, act)


def test_signals_are_heard(loop: asyncio.AbstractEventLoop) -> None:
    async def act() -> None:
        heard = asyncio.Event()
        loop.add_signal_handler(signal.SIGUSR1, heard.set)
        os.kill(os.getpid(), signal.SIGUSR1)
        await asyncio.wait_for(heard.wait(), 5)
        loop.remove_signal_handler(signal.SIGUSR1)

    run(loop, act)


def test_the_server_builds_its_loop_by_us(monkeypatch: pytest.MonkeyPatch) -> None:
    from granian import loops

    before = loops._data["asyncio"]
    try:
        wakeups.install()
        built = loops.get("asyncio")
        assert isinstance(built, wakeups.Loop)
        built.close()
        asyncio.set_event_loop(None)
    finally:
        loops._data["asyncio"] = before
