"""Asks the database from threads, so that the loop which answers devices never waits for it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, ParamSpec, TypeVar

from django.db import InterfaceError, OperationalError, close_old_connections, connections

from doorward.gateway import problems

P = ParamSpec("P")
T = TypeVar("T")

THREADS: Final = 4
MOST_WAITING: Final = 1000
"""With more than these waiting for the database, a further request is asked to come back later."""


class Jobs:
    """A few threads, each with its own lasting connection to the database."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="database")
        self._waiting = 0

    async def run(self, act: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What `act` answers. Raises Refused("unavailable") when the database cannot be asked."""
        if self._waiting >= MOST_WAITING:
            raise problems.busy("Too many requests are waiting")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._pool, lambda: _asked(act, *args, **kwargs)
            )
        except (OperationalError, InterfaceError):
            raise problems.busy("The database does not answer") from None
        finally:
            self._waiting -= 1

    def close(self) -> None:
        """End the threads and their connections, once they have done what they were given."""
        # One job for each thread: none ends before all have begun.
        together = threading.Barrier(THREADS)

        def end() -> None:
            together.wait(timeout=60)
            connections.close_all()

        for _ in range(THREADS):
            self._pool.submit(end)
        self._pool.shutdown(wait=True)


def _asked(act: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    # What Django does around each request: a connection that died is replaced.
    close_old_connections()
    try:
        return act(*args, **kwargs)
    finally:
        close_old_connections()
