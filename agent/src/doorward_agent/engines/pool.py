"""The workers as the agent sees them: files go in, verdicts come out, and a worker that hangs or
dies is replaced.

Each worker answers in the order it is asked, so the oldest question without an answer is the one it
is at: that file is blamed for a time-out or a crash, the others go to the replacement.
"""

import os
import queue
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

from doorward_agent.config import AgentConfig
from doorward_agent.engines import Limit
from doorward_agent.engines.channel import (
    Answer,
    Channel,
    ChannelBroken,
    PipeChannel,
    SocketChannel,
)

_CRASHES_PER_FILE = 2
"""A worker may die from the outside (out of memory, an operator): the file gets one more try, no
third."""
_FAILED_STARTS = 3
_TOGETHER = 8
"""So many files go to a worker in one message, once it has others to work on."""
_MOST_DESCRIPTORS = 512
"""Open at one time in all: half of what a process may have (RLIMIT_NOFILE, commonly 1,024)."""
_LIKE_ONE_FILE = 128 * 1024
"""Bytes that take a worker about as long as a small file does."""
_GATHERING = 0.002
"""Seconds; a worker with enough to do gives fifteen answers in that time."""

PASSED_ON = ("PATH", "PYTHONPATH", "PYTHONHOME", "LANG", "LC_ALL", "SYSTEMROOT", "TEMP", "TMP")
"""What of the environment a worker gets: enough to start the same Python, no secrets."""

MEMORY_GIVEN_BACK = {"MALLOC_MMAP_THRESHOLD_": "1048576", "MALLOC_ARENA_MAX": "2"}
"""mallopt(3): large content is given back to the system as soon as it has been looked at."""

LIMITS = (
    "max_file_bytes",
    "window_bytes",
    "window_overlap_bytes",
    "engine_timeout",
    "worker_memory_bytes",
    "worker_descriptors",
    "low_priority",
    "archive_depth",
    "archive_members",
    "archive_member_bytes",
    "archive_total_bytes",
    "archive_ratio",
    "archive_ratio_floor_bytes",
    "archive_seconds",
    "open_archives",
    "clamd",
    "clamd_sockets",
    "clamd_version",
    "clamd_timeout",
    "clamd_stream_bytes",
)
"""The settings a worker needs; they are part of what a remembered verdict depends on."""


class EngineUnavailable(Exception):
    """No worker can be started; the message says why. Nothing was scanned, so nothing is clean."""


@dataclass(slots=True)
class Job:
    """One file to look at. Whoever collects the answer closes the descriptor."""

    path: bytes
    descriptor: int
    found: os.stat_result
    crashes: int = 0
    begun: float = 0.0


@dataclass(frozen=True, slots=True)
class Done:
    """One file that was looked at, or why it was not."""

    job: Job
    answer: Answer | None
    failed: Limit | None


class _Worker:
    """One process, its channel, and what it has been asked."""

    def __init__(
        self,
        config: AgentConfig,
        definitions: str,
        inbox: "queue.SimpleQueue[tuple[_Worker, list[Any]]]",
        wake: Callable[[], None] | None,
    ) -> None:
        self.asked: deque[tuple[int, Job]] = deque()
        self.load = 0
        """What it has been asked, in files; a large one counts as many."""
        self.next_number = 0
        self.ready = False
        self.born = time.monotonic()
        self._inbox = inbox
        self._wake = wake
        self._by_descriptor = config.transport == "descriptors"
        environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        environment.update(MEMORY_GIVEN_BACK)
        command = [sys.executable, "-P", "-m", "doorward_agent.engines.worker", config.transport]
        self.channel: Channel
        if self._by_descriptor:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
            with theirs:
                self.process = subprocess.Popen(  # noqa: S603 (our own interpreter and module)
                    [*command, str(theirs.fileno())],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    env=environment,
                    cwd="/",
                )
            self.channel = SocketChannel(ours)
        else:
            self.process = subprocess.Popen(  # noqa: S603 (our own interpreter and module)
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment,
            )
            self.channel = PipeChannel(
                cast(BinaryIO, self.process.stdout), cast(BinaryIO, self.process.stdin)
            )
        self._reader = threading.Thread(
            target=self._read, name="doorward-worker-answers", daemon=True
        )
        self._reader.start()
        limits = {name: getattr(config, name) for name in LIMITS}
        try:
            self.channel.send(
                {
                    "limits": limits,
                    "definitions": definitions,
                    "compiled": os.fspath(config.compiled_file),
                }
            )
        except ChannelBroken:
            # It died at once; the reader tells.
            return

    def _read(self) -> None:
        ended = False
        while not ended:
            heard: list[Any] = []
            try:
                received = self.channel.receive()
                while received is not None:
                    heard.append(received[0])
                    if not self.channel.more:
                        break
                    received = self.channel.receive()
            except ChannelBroken:
                received = None
            ended = received is None
            if ended:
                heard.append(None)
            self._inbox.put((self, heard))
            if self._wake is not None:
                self._wake()
            elif self._by_descriptor and not ended:
                # Answers gather meanwhile: one look at many costs little more than at one, and
                # the processor stays with the workers. (Of a pipe only one is read at a look.)
                time.sleep(_GATHERING)

    def ask(self, jobs: list[Job]) -> None:
        """Hand over files, which are answered one by one in this order."""
        if not self.asked:
            jobs[0].begun = time.monotonic()
        message: dict[str, Any] = {"jobs": self.next_number}
        descriptors = [job.descriptor for job in jobs]
        if not self._by_descriptor:
            message["paths"] = [os.fsdecode(job.path) for job in jobs]
        self.asked.extend(enumerate(jobs, self.next_number))
        self.next_number += len(jobs)
        self.load += sum(map(_load, jobs))
        try:
            self.channel.send(message, descriptors)
        except ChannelBroken:
            # The reader sees the end too, and the files are handed to the replacement from there.
            return

    def end(self) -> None:
        """Kill the process and wait for it."""
        self.process.kill()
        self.process.wait()
        self._reader.join(timeout=5.0)
        self.channel.close()


def _load(job: Job) -> int:
    return 1 + job.found.st_size // _LIKE_ONE_FILE


class Pool:
    """A few workers, started when first asked. Use as a context; not for several threads.

    `wake` is called from another thread whenever there is something to collect.
    """

    def __init__(
        self,
        config: AgentConfig,
        definitions: str,
        *,
        wake: Callable[[], None] | None = None,
    ) -> None:
        self._wake = wake
        # Whoever waits to be woken wants each answer, and each file looked at, at once.
        self._together = 1 if wake is not None else _TOGETHER
        self._most = max(2, min(config.jobs_in_flight, _MOST_DESCRIPTORS // config.workers))
        self._config = config
        self._definitions = definitions
        self._inbox: queue.SimpleQueue[tuple[_Worker, list[Any]]] = queue.SimpleQueue()
        self._workers: list[_Worker] = []
        self._waiting: deque[Job] = deque()
        self._failed_starts = 0
        self._why = ""
        self.restarts = 0

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pids(self) -> list[int]:
        """Return the processes, for whoever measures them."""
        return [worker.process.pid for worker in self._workers]

    @property
    def outstanding(self) -> int:
        """Return how many files are without an answer."""
        return len(self._waiting) + sum(len(worker.asked) for worker in self._workers)

    @property
    def full(self) -> bool:
        """Tell whether answers should be collected before more is submitted."""
        return (
            len(self._waiting) >= self._together
            or self.outstanding >= self._most * self._config.workers
        )

    @property
    def heard(self) -> bool:
        """Tell whether something can be collected without waiting."""
        return not self._inbox.empty()

    def submit(self, job: Job) -> None:
        """Take a file; `collect` gives it back, its descriptor still open."""
        self._waiting.append(job)
        idle = not self._workers or not all(worker.asked for worker in self._workers)
        if idle or len(self._waiting) >= self._together:
            self._hand_out()

    def collect(self, timeout: float) -> list[Done]:
        """Return what was answered; waits up to `timeout` seconds for the first. Raises
        EngineUnavailable."""
        done: list[Done] = []
        if timeout > 0:
            self._hand_out()
        try:
            worker, messages = self._inbox.get(timeout=timeout)
        except queue.Empty:
            self._replace_silent(done)
            return done
        while True:
            for message in messages:
                # Not any more once it is replaced: then the others are for the next to answer.
                if worker in self._workers:
                    self._heard(worker, message, done)
            try:
                worker, messages = self._inbox.get_nowait()
            except queue.Empty:
                break
        self._replace_silent(done)
        self._hand_out()
        return done

    def close(self) -> None:
        """End every worker and close every file."""
        for worker in self._workers:
            worker.end()
            for _, job in worker.asked:
                os.close(job.descriptor)
        self._workers.clear()
        for job in self._waiting:
            os.close(job.descriptor)
        self._waiting.clear()

    def _hand_out(self) -> None:
        while self._waiting:
            worker = min(self._workers, key=lambda one: one.load, default=None)
            # A second worker starts only when the first has its hands full.
            crowded = worker is None or worker.load >= _TOGETHER
            if crowded and len(self._workers) < self._config.workers:
                worker = _Worker(self._config, self._definitions, self._inbox, self._wake)
                self._workers.append(worker)
            if worker is None or worker.load >= self._most:
                return
            jobs: list[Job] = []
            load = worker.load
            while self._waiting and len(jobs) < _TOGETHER and load < self._most:
                load += _load(self._waiting[0])
                jobs.append(self._waiting.popleft())
            worker.ask(jobs)

    def _heard(self, worker: _Worker, message: dict[str, Any] | None, done: list[Done]) -> None:
        if message is None:
            self._died(worker, "crash", done)
        elif "ready" in message:
            worker.ready = True
            self._failed_starts = 0
            if worker.asked:
                worker.asked[0][1].begun = time.monotonic()
        elif "failed" in message:
            self._why = str(message["failed"])
        else:
            self._answered(worker, message, done)

    def _answered(self, worker: _Worker, message: dict[str, Any], done: list[Done]) -> None:
        if not worker.asked or worker.asked[0][0] != message.get("job"):
            # An answer nobody asked for: what it says about any file cannot be believed.
            self._died(worker, "crash", done)
            return
        _, job = worker.asked.popleft()
        worker.load -= _load(job)
        if worker.asked:
            worker.asked[0][1].begun = time.monotonic()
        answer: Answer | None = None
        failed: Limit | None = None
        if "error" in message:
            failed = Limit(str(message["error"]), str(message.get("detail", "")))
        else:
            try:
                answer = Answer.decoded(message)
            except ChannelBroken as broken:
                failed = Limit("engine-failed", str(broken))
        done.append(Done(job, answer, failed))

    def _died(self, worker: _Worker, how: str, done: list[Done]) -> None:
        """Replace a worker; blame the file it was at, give the others to the next."""
        self._workers.remove(worker)
        worker.end()
        self.restarts += 1
        left = [job for _, job in worker.asked]
        worker.asked.clear()
        if not worker.ready:
            self._failed_starts += 1
            if self._failed_starts >= _FAILED_STARTS:
                self._waiting.extendleft(reversed(left))
                raise EngineUnavailable(
                    self._why or "the scanning process ends as soon as it starts"
                )
        elif left:
            first = left[0]
            first.crashes += 1
            if how == "timeout" or first.crashes >= _CRASHES_PER_FILE:
                done.append(Done(first, None, Limit(f"engine-{how}")))
                left = left[1:]
        self._waiting.extendleft(reversed(left))
        self._hand_out()

    def _replace_silent(self, done: list[Done]) -> None:
        now = time.monotonic()
        for worker in list(self._workers):
            if not worker.ready:
                if now - worker.born > self._config.worker_start_timeout:
                    self._why = "the scanning process does not get ready"
                    self._died(worker, "timeout", done)
            elif worker.asked:
                job = worker.asked[0][1]
                allowed = (
                    self._config.file_timeout
                    + job.found.st_size / self._config.slowest_bytes_per_second
                )
                if now - job.begun > allowed:
                    self._died(worker, "timeout", done)
