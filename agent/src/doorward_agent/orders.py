"""Carries out what members asked this computer to do, while check-ins go on.

Each command runs in a process of its own, which ends it in the journal in the same transaction in
which it stores what is to be told. When that process is gone without having done so, the command is
`interrupted`. One of a sort at a time: a scan of hours keeps no file waiting that is to come back.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import sqlite3
import sys
from collections.abc import Callable

import msgspec

from doorward_agent import journal
from doorward_agent.config import AgentConfig
from doorward_agent.database import transaction
from doorward_protocol.messages import CommandProgress

log = logging.getLogger("doorward_agent")

_progress = msgspec.json.Decoder(CommandProgress)


class Orders:
    """The commands of one run of the agent.

    `changed` is set whenever there is something new to tell the server.
    """

    def __init__(
        self,
        config: AgentConfig,
        db: sqlite3.Connection,
        *,
        now: Callable[[], int],
        children: set[asyncio.subprocess.Process],
    ) -> None:
        """Prepare; nothing is begun. `now` answers milliseconds UTC by the server's clock."""
        self.changed = asyncio.Event()
        self._config, self._db, self._now = config, db, now
        self._children = children
        self._look = asyncio.Event()
        self._lanes: dict[str, asyncio.Task[None]] = {}
        self._running: dict[str, asyncio.subprocess.Process] = {}
        self._to_stop: set[str] = set()
        self._progress: dict[str, CommandProgress] = {}

    def look(self) -> None:
        """Begin what has been received and can begin."""
        self._look.set()
        self.changed.set()

    def cancel(self, uid: str) -> None:
        """Have the command not begin, or stop; one that has ended stays as it is."""
        state = journal.cancel(self._db, uid, now=self._now())
        if state == journal.RUNNING and uid not in self._to_stop:
            self._to_stop.add(uid)
            self._stop(uid)
        self.changed.set()

    def progress(self) -> dict[str, CommandProgress]:
        """Answer how far each running command has come since this was asked last."""
        found, self._progress = self._progress, {}
        return found

    async def carry_out_for_ever(self) -> None:
        """Carry out each command that is received, in the server's order."""
        self._look.set()
        try:
            while True:
                await self._look.wait()
                self._look.clear()
                try:
                    self._begin()
                except sqlite3.Error as problem:
                    log.warning("commands wait: %s", problem)
                    await asyncio.sleep(self._config.check_in_least)
                    self._look.set()
        finally:
            tasks = list(self._lanes.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _begin(self) -> None:
        for command in journal.ready(self._db):
            lane = command.kind.partition(".")[0]
            if lane in self._lanes:
                continue
            task = asyncio.create_task(self._carry_out(command))
            self._lanes[lane] = task
            task.add_done_callback(functools.partial(self._free, lane))

    def _free(self, lane: str, task: asyncio.Task[None]) -> None:
        self._lanes.pop(lane, None)
        if not task.cancelled() and (problem := task.exception()) is not None:
            log.error("a command failed", exc_info=problem)
        self._look.set()

    async def _carry_out(self, command: journal.Command) -> None:
        if not journal.start(self._db, command.uid, now=self._now()):
            self.changed.set()
            return
        log.info("%s begins (%s)", command.kind, command.uid)
        self.changed.set()
        status: int | str
        try:
            status = await self._run(command.uid)
        except OSError as problem:
            status = str(problem)
        self._settle(command.uid, status)
        self.changed.set()

    async def _run(self, uid: str) -> int:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "doorward_agent",
            "act",
            uid,
            "--state",
            str(self._config.state_dir),
            # Its end tells the child that we are gone; a line in it, that it should stop.
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        self._children.add(process)
        self._running[uid] = process
        try:
            if uid in self._to_stop:
                self._stop(uid)
            await self._listen(uid, process)
            return await process.wait()
        finally:
            self._running.pop(uid, None)
            self._progress.pop(uid, None)
            self._to_stop.discard(uid)
            if process.returncode is not None:
                self._children.discard(process)

    async def _listen(self, uid: str, process: asyncio.subprocess.Process) -> None:
        if process.stdout is None:
            raise AssertionError("a child without its standard output")
        async for line in process.stdout:
            with contextlib.suppress(msgspec.MsgspecError):
                self._progress[uid] = _progress.decode(line)
                self.changed.set()

    def _stop(self, uid: str) -> None:
        process = self._running.get(uid)
        if process is None or process.stdin is None:
            return
        with contextlib.suppress(OSError):
            process.stdin.write(b"cancel\n")
        # A scan asks between two files whether it should end, and a file may take long.
        loop = asyncio.get_running_loop()
        for number in (1, 2):
            loop.call_later(self._config.stop_seconds * number, _terminate, process)

    def _settle(self, uid: str, status: int | str) -> None:
        found = journal.get(self._db, uid)
        if found is not None and found.state == journal.RUNNING:
            # It ended without a word: what it had begun is completed, and told.
            from doorward_agent import treatment

            try:
                treatment.complete(self._config, self._db)
            except Exception:
                log.exception("what was interrupted cannot be completed")
            with transaction(self._db):
                journal.settle(
                    self._db,
                    uid,
                    "interrupted",
                    now=self._now(),
                    code="crash",
                    detail=f"The process that did it ended without a word ({status}).",
                )
            found = journal.get(self._db, uid)
        if found is not None:
            log.info("%s ended: %s %s (%s)", found.kind, found.state, found.code, uid)


def _terminate(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
