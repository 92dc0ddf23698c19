"""Keeps real-time protection running beside `run`, and knows how it is."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
import sys
import time

import msgspec

from doorward_agent import policy
from doorward_agent.config import AgentConfig
from doorward_agent.database import note, transaction
from doorward_agent.protection import OFF_BY_SETTINGS, REAL_TIME, RealTimeStatus

log = logging.getLogger("doorward_agent")

_status = msgspec.json.Decoder(RealTimeStatus)
_LASTED = 60.0
"""A process that has lived for so long did not fail at its start; seconds."""


class Child:
    """The process that watches: started, told of new settings, started again when it ends."""

    def __init__(
        self,
        config: AgentConfig,
        db: sqlite3.Connection,
        *,
        children: set[asyncio.subprocess.Process],
    ) -> None:
        """Prepare; nothing is started yet."""
        self.status = RealTimeStatus(reason="it has not been started yet")
        self._config, self._db, self._children = config, db, children
        self._process: asyncio.subprocess.Process | None = None
        self._poked = asyncio.Event()
        self._news = asyncio.Event()

    async def keep_for_ever(self) -> None:
        """Have it run whenever the settings want it, and again after it has ended."""
        pause = 0.0
        since: float | None = None
        while True:
            version, settings = policy.current(self._db)
            self._poked.clear()
            if settings.real_time.mode == "off":
                since = None
                self._take(RealTimeStatus(settings=version, reason=OFF_BY_SETTINGS))
                await self._poked.wait()
                continue
            began = time.monotonic()
            why = await self._run(since)
            if policy.current(self._db)[1].real_time.mode == "off":
                continue
            since = time.time() - 1.0
            lasted = time.monotonic() - began
            pause = 0.5 if lasted > _LASTED else min(max(pause * 2, 0.5), self._config.watch_pause)
            log.error("real-time protection has ended (%s); again in %.1f s", why, pause)
            self._take(RealTimeStatus(settings=version, reason=f"its process has ended ({why})"))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._poked.wait()

    async def settings_changed(self) -> None:
        """Have the settings in force taken; returns when they are, or after a moment."""
        version, settings = policy.current(self._db)
        self._poked.set()
        process = self._process
        if process is not None and process.stdin is not None:
            with contextlib.suppress(OSError):
                process.stdin.write(b"settings\n")
                if settings.real_time.mode == "off":
                    process.stdin.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._config.watch_settle):
                while self.status.settings != version:
                    self._news.clear()
                    await self._news.wait()

    async def _run(self, since: float | None) -> str:
        """Run the process until it ends; answer how it did."""
        words = ["-m", "doorward_agent", "watch", "--state", str(self._config.state_dir)]
        if since is not None:
            words += ["--since", f"{since:.3f}"]
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *words,
                # Its end tells the child that we are gone.
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
        except OSError as problem:
            return str(problem)
        self._process = process
        self._children.add(process)
        try:
            if process.stdout is None:
                raise AssertionError("a child without its standard output")
            async for line in process.stdout:
                with contextlib.suppress(msgspec.MsgspecError):
                    self._take(_status.decode(line))
            return f"status {await process.wait()}"
        finally:
            self._process = None
            if process.returncode is not None:
                self._children.discard(process)

    def _take(self, status: RealTimeStatus) -> None:
        before, self.status = self.status, status
        self._news.set()
        if status.words != before.words:
            log.info("real-time protection: %s", status.words)
            with contextlib.suppress(sqlite3.Error), transaction(self._db):
                note(self._db, REAL_TIME, msgspec.json.encode(status))
