"""The agent at work: check in, deliver, scan when due, sleep.

Four small tasks share one link and one pause. Whatever the server does, or fails to do, the
scheduled scans go on; whatever ends this process, the outbox keeps what is still to be told.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime as dt
import logging
import os
import random
import signal
import sqlite3
import sys
import time
from collections.abc import Callable
from typing import Any, Final
from uuid import UUID, uuid4

import msgspec

from doorward_agent import (
    database,
    delivery,
    findings,
    hosts,
    identity,
    journal,
    link,
    orders,
    outbox,
    policy,
    protection,
    remote,
    schedule,
    upkeep,
)
from doorward_agent.config import AgentConfig
from doorward_agent.database import note, noted, noted_int, transaction
from doorward_agent.realtime import child
from doorward_agent.terminal import counted
from doorward_protocol import messages
from doorward_protocol.settings import Settings

log = logging.getLogger("doorward_agent")

CAPABILITIES: Final = ("scan", "quarantine", "zstd", "settings", "definitions")
"""What this agent can do besides."""
# The commands this agent can carry out (commands/act.py, which an idle agent need not load); the
# server is told of any other that it is unsupported.
KNOWN_COMMANDS: Final = frozenset(
    {
        "scan.run",
        "definitions.update",
        "quarantine.restore",
        "quarantine.delete",
        "key.rotate",
        "diagnostics.collect",
    }
)
# Each look for what other processes wrote comes so much later than the one before, up to so many
# times the first pause, as long as there is nothing new.
RARER: Final = 1.2
RAREST: Final = 3.0


class Stopped(Exception):
    """Reporting has ended until somebody enrolls this device anew."""


@dataclasses.dataclass
class Pause:
    """How long to stay silent after a failure: full jitter, doubling, up to a cap; seconds."""

    first: float
    cap: float
    failures: int = 0

    def after_failure(self, asked: float | None = None) -> float:
        """Answer the next pause; where the server asked for one, never a shorter one."""
        ceiling = min(self.cap, self.first * 2 ** min(self.failures, 20))
        self.failures += 1
        if asked is None:
            return random.uniform(0, ceiling)  # noqa: S311 - spreads load, protects nothing
        # On top of what was asked: everybody else was asked to come back at that very moment too.
        spread = min(max(asked, self.first), self.cap)
        return min(asked + random.uniform(0, spread), max(self.cap, asked))  # noqa: S311

    def after_success(self) -> None:
        """Begin anew with short pauses."""
        self.failures = 0


class Loop:
    """One run of the agent, from start to stop."""

    def __init__(
        self,
        config: AgentConfig,
        db: sqlite3.Connection,
        *,
        version: str,
        scheduled_scans: bool = True,
        real_time: bool = False,
        make_link: Callable[..., link.Link] = link.Link,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Prepare the run; nothing happens yet."""
        self.config = config
        self.db = db
        self.version = version
        self.scheduled_scans = scheduled_scans
        self.boot_id = uuid4()
        self.pause = Pause(first=config.pause_first, cap=config.pause_cap)
        self._make_link = make_link
        self._clock = clock
        self._link: link.Link | None = None
        self._identity: identity.Identity | None = None
        self._identity_file = os.fspath(config.state_dir / identity.IDENTITY_FILE)
        self._identity_changed = asyncio.Event()
        self._outbox_changed = asyncio.Event()
        self._definitions_changed = asyncio.Event()
        # What the call under way told of definitions, or the one before.
        self._told: messages.DefinitionsState | None = None
        self._checked_in = False
        # The versions of settings and definitions that the last answer named.
        self._newest = (0, 0)
        # The clock (monotonic) when the silence after a failure is over, or was never needed.
        self._quiet_until = 0.0
        self._started: dict[schedule.Kind, int] = {}
        self._children: set[asyncio.subprocess.Process] = set()
        self._orders = orders.Orders(config, db, now=self._server_now, children=self._children)
        self._watch = child.Child(config, db, children=self._children) if real_time else None
        # Found out once: a group of the kernel's is opened for it.
        self._abilities = (
            *(watch_abilities() if real_time else ()),
            *(("notify",) if hosts.can_show_messages() else ()),
        )

    # ------------------------------------------------------------------------- start and stop

    async def run(self) -> None:
        """Work until SIGTERM or Ctrl-C, then end in good order: children first, then the link."""
        stop = asyncio.Event()
        _on_signals(stop.set)
        with transaction(self.db):
            if noted(self.db, "since") is None:
                note(self.db, "since", int(self._clock() * 1000))
            # Of a run before this one.
            note(self.db, protection.REAL_TIME, None)
        self._recover()
        tasks = [
            asyncio.create_task(self._watch_for_ever(), name="watch"),
            asyncio.create_task(self._report_for_ever(), name="report"),
            asyncio.create_task(self._complete_for_ever(), name="complete"),
            asyncio.create_task(self._orders.carry_out_for_ever(), name="carry out"),
            asyncio.create_task(self._update_for_ever(), name="update"),
        ]
        if self._watch is not None:
            tasks.append(asyncio.create_task(self._watch.keep_for_ever(), name="real time"))
        if self.scheduled_scans:
            tasks.append(asyncio.create_task(self._scan_for_ever(), name="scan"))
        stopping = asyncio.create_task(stop.wait(), name="stop")
        done, _ = await asyncio.wait([stopping, *tasks], return_when=asyncio.FIRST_COMPLETED)
        log.info("stopping")
        for task in (stopping, *tasks):
            task.cancel()
        await asyncio.gather(stopping, *tasks, return_exceptions=True)
        await self._end_children()
        for task in done - {stopping}:
            task.result()  # it ended by a fault: say so and exit, to be restarted

    # ------------------------------------------------------------------------------ reporting

    async def _watch_for_ever(self) -> None:
        """Notice what other processes of this agent have written: identity and outbox.

        One look for everything, since a waking costs more than the looking. While there is no
        news, the looks become rarer: they are most of what an idle agent costs.
        """
        seen, version = self._stamp(), -1
        least = pause = self.config.watch_interval
        while True:
            if (stamp := self._stamp()) != seen:
                seen, pause = stamp, least
                self._identity_changed.set()
            if (now := database.version(self.db)) != version:
                version, pause = now, least
                self._outbox_changed.set()
                if self._told is not None and upkeep.told(self.config, self.db) != self._told:
                    self._definitions_changed.set()
            await asyncio.sleep(pause)
            pause = min(pause * RARER, least * RAREST)

    async def _report_for_ever(self) -> None:
        """Talk to the server of the identity on disk, anew whenever that changes."""
        while True:
            self._identity_changed.clear()
            changed: asyncio.Task[Any] = asyncio.create_task(self._identity_changed.wait())
            found = self._load_identity()
            tasks = [changed]
            if found is not None and found.state == "enrolled":
                tasks.append(asyncio.create_task(self._talk(found)))
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                if tasks[1:] and tasks[1].done():
                    _raise_fault(tasks[1])
                # Not enrolled, or stopped: only another identity changes anything.
                await changed
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    def _stamp(self) -> tuple[int, int]:
        """Answer what changes whenever another process has written the identity."""
        try:
            found = os.stat(self._identity_file)  # noqa: PTH116 - twice a second, for ever
        except OSError:
            return (0, 0)
        return (found.st_mtime_ns, found.st_ino)

    def _load_identity(self) -> identity.Identity | None:
        try:
            return identity.load(self.config.state_dir)
        except identity.IdentityProblem as problem:
            self._trouble(str(problem))
            return None

    async def _talk(self, found: identity.Identity) -> None:
        try:
            self._link = self._make_link(
                found.server,
                identity.key(self.config.state_dir),
                version=self.version,
                clock_offset=found.clock_offset,
                insecure_http=found.insecure_http,
                ca_file=found.ca_file,
                sent=self._sent,
            )
        except (identity.IdentityProblem, link.ServerUntrusted) as problem:
            self._trouble(str(problem))
            raise Stopped from problem
        self._identity = found
        log.info("reporting to %s as device %s", found.server, found.device_id)
        tasks = [
            asyncio.create_task(self._check_in_for_ever(self._link)),
            asyncio.create_task(self._deliver_for_ever(self._link)),
            asyncio.create_task(self._answer_for_ever(self._link)),
        ]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._link.close()

    async def _check_in_for_ever(self, server: link.Link) -> None:
        while True:
            await self._silence()
            try:
                pause = await self._check_in_unless_changed(server)
            except (link.LinkProblem, sqlite3.Error) as problem:
                self._failed(problem)
            else:
                await asyncio.sleep(pause)

    async def _check_in_unless_changed(self, server: link.Link) -> float:
        """Check in; hang up on a call that is held open once there is something new to tell."""
        self._definitions_changed.clear()
        changed = asyncio.create_task(self._definitions_changed.wait())
        call = asyncio.create_task(self.check_in(server))
        try:
            await asyncio.wait([changed, call], return_when=asyncio.FIRST_COMPLETED)
            # A call that was cut is made again: what it would have answered is answered then.
            return await call if call.done() else self.config.check_in_least
        finally:
            for task in (changed, call):
                task.cancel()
            await asyncio.gather(changed, call, return_exceptions=True)

    async def check_in(self, server: link.Link) -> float:
        """Check in once and take in the answer; answer the seconds until the next time."""
        version, in_force = policy.current(self.db)
        facts = device_facts(
            self.version, in_force, remote_off=remote.is_off(self.config), more=self._abilities
        )
        facts_body = messages.encode(facts)
        told = noted(self.db, "facts_told")
        depth = outbox.depth(self.db)
        refused = policy.refused(self.db)
        self._told = upkeep.told(self.config, self.db)
        with transaction(self.db):
            # Stored before it is sent: a number is never used twice, whatever happens next.
            seq = noted_int(self.db, "seq") + 1
            note(self.db, "seq", seq)
        state = messages.CheckIn(
            boot_id=self.boot_id,
            seq=seq,
            settings=messages.SettingsState(
                version=version,
                status="applied" if refused is None else "failed",
                failed_version=0 if refused is None else refused.version,
                errors=()
                if refused is None
                else (messages.SettingsError(pointer=refused.pointer, code=refused.code),),
            ),
            definitions=self._told,
            protection=protection.state(self.config, self.db),
            queue=messages.QueueState(depth=depth.waiting, dropped=depth.dropped),
            device=facts if told != facts_body else None,
        )
        # The first call of a run is not held open: people are waiting to see that it works.
        wait = self._identity.wait if self._identity and self._checked_in else 0
        asked_at = time.monotonic()
        answer = await server.check_in(state, wait=wait)
        held = time.monotonic() - asked_at
        now = self._now()
        with transaction(self.db):
            note(self.db, "facts_told", facts_body)
            note(self.db, "checked_in", now)
            note(self.db, "entitlement", answer.entitlement.state)
            # What its commands are about to fetch is noted with them.
            upkeep.hear(self.db, answer.definitions_version, server.definitions_root)
            for command in answer.commands:
                journal.receive(
                    self.db,
                    uid=str(command.command_uid),
                    seq=command.seq,
                    kind=command.kind,
                    args=messages.encode(command.args),
                    not_after=command.not_after,
                    now=int(now + server.clock_offset * 1000),
                    known=KNOWN_COMMANDS,
                    refusal=self._refusal(command),
                )
        for uid in answer.cancel:
            self._orders.cancel(str(uid))
        if answer.commands:
            self._orders.look()
        first = not self._checked_in
        if first:
            self._checked_in = True
            hosts.give_back_memory()
        self._worked(server)
        if answer.settings_version > max(version, refused.version if refused else 0):
            await self._take_settings(server)
            # At once, so that people see what became of their change.
            return self.config.check_in_least
        return self._pause_after(answer, first=first, asked=wait, held=held)

    def _pause_after(
        self, answer: messages.CheckInAnswer, *, first: bool, asked: int, held: float
    ) -> float:
        """Answer the seconds until the next check-in.

        A server that holds calls open paces them itself: the next one follows at once, so that
        nearly always one is waiting there for news. One that does not hold them is called when it
        says.
        """
        least, most = self.config.check_in_least, self.config.check_in_most
        can_wait = self._identity is not None and self._identity.wait > 0
        newest = (answer.settings_version, answer.definitions_version)
        is_news = bool(answer.commands or answer.cancel) or newest != self._newest
        self._newest = newest
        if (first and can_wait) or (asked and (held >= asked / 2 or is_news)):
            return max(random.uniform(0, self.config.check_in_again), least - held)  # noqa: S311 - spreads load, protects nothing
        if answer.more:
            return least
        return min(max(float(answer.next_check_in), least), most)

    async def _take_settings(self, server: link.Link) -> None:
        """Get the settings and put them in force; the next check-in tells whether that worked."""
        try:
            found = await server.settings()
        except link.MessageRefused as problem:
            log.warning("settings: %s", problem)
            return
        policy.receive(self.db, found.version, bytes(found.effective))
        refused = policy.refused(self.db)
        if refused is None:
            log.info("settings %d are in force", found.version)
            if self._watch is not None:
                await self._watch.settings_changed()
        else:
            log.warning(
                "settings %d can't be put in force (%s at %s): the last good ones stay",
                refused.version,
                refused.code,
                messages.fitted(repr(refused.pointer), 200),
            )

    def _refusal(self, command: messages.Command) -> str:
        """Answer why this command is not carried out here, "" where it is."""
        if command.kind not in KNOWN_COMMANDS:
            return ""  # The journal says so itself.
        if remote.is_off(self.config):
            return "switched-off-here"
        if not policy.may(policy.current(self.db)[1], command.kind):
            return "not-allowed"
        return "" if remote.is_sound(command) else "invalid"

    async def _answer_for_ever(self, server: link.Link) -> None:
        """Tell how far commands are, each step within a moment."""
        changed = self._orders.changed
        changed.set()
        while True:
            await changed.wait()
            await self._silence()
            changed.clear()
            try:
                await self.answer_commands(server)
            except (link.LinkProblem, sqlite3.Error) as problem:
                changed.set()
                self._failed(problem)

    async def answer_commands(self, server: link.Link) -> None:
        """Tell each state of a command that the server does not know yet, and how far scans are."""
        while owed := journal.unanswered(self.db):
            for command in owed:
                await self._tell(server, command.uid, as_told(command))
                journal.answered(self.db, command.uid, command.state)
        for uid, progress in self._orders.progress().items():
            state = messages.CommandState(status="running", progress=progress)
            await self._tell(server, uid, state)

    async def _tell(self, server: link.Link, uid: str, state: messages.CommandState) -> None:
        try:
            await server.answer_command(UUID(uid), state)
        except link.MessageRefused as problem:
            # The server no longer wants to know: asking it again and again helps nobody.
            log.warning("command %s: %s", uid, problem)

    async def _deliver_for_ever(self, server: link.Link) -> None:
        """Deliver what any process of this agent puts into the outbox, within a moment."""
        self._outbox_changed.set()
        while True:
            await self._outbox_changed.wait()
            await self._silence()
            self._outbox_changed.clear()
            try:
                await self.deliver(server)
            except (link.LinkProblem, sqlite3.Error) as problem:
                self._outbox_changed.set()
                self._failed(problem)

    async def deliver(self, server: link.Link) -> int:
        """Deliver everything that waits; answer how many events the server has stored."""
        total = await delivery.all_waiting(
            self.db, server, max_parked=self.config.outbox_parked, clock=self._clock
        )
        if total:
            log.info("delivered %s", counted(total, "event"))
            self._worked(server)
        return total

    # ------------------------------------------------------------------------------- scanning

    async def _scan_for_ever(self) -> None:
        # Let the computer finish starting before a catch-up competes with it.
        await asyncio.sleep(self.config.scan_settle)
        while True:
            for plan in self.due():
                await self._scan(plan.kind)
            await asyncio.sleep(self.config.schedule_interval)

    def due(self) -> list[schedule.Plan]:
        """Answer the scans to run now, as the policy, the clock and the power allow."""
        found = identity_or_none(self.config)
        _, in_force = policy.current(self.db)
        moments: dict[schedule.Kind, dt.datetime] = {}
        for kind in schedule.KINDS:
            stamp = max(noted_int(self.db, f"started.{kind}"), self._started.get(kind, 0))
            if stamp:
                moments[kind] = _moment(stamp)
        return schedule.due(
            policy.plans(in_force),
            moments,
            dt.datetime.fromtimestamp(self._clock(), dt.UTC),
            device=found.device_id if found else "",
            since=_moment(noted_int(self.db, "since")),
            on_battery=not hosts.power().on_mains,
        )

    async def _update_for_ever(self) -> None:
        """Ask for new definitions when the settings say so, or soon after the server names some."""
        while True:
            await asyncio.sleep(self.config.schedule_interval)
            found = identity_or_none(self.config)
            if found is None or found.state != "enrolled":
                continue
            hours = policy.current(self.db)[1].updates.interval
            if upkeep.is_due(self.config, self.db, found.device_id, hours=hours, now=self._now()):
                await self._update()

    async def _update(self) -> None:
        """Update in a process of its own: what it loads and unpacks ends with it."""
        status = await self._child("update", quiet=True)
        code = "" if not status else upkeep.ended(self.db, status, now=self._now())
        if code:
            log.warning("definitions were not updated: %s", code)

    async def _scan(self, kind: schedule.Kind) -> None:
        """Scan in a process of its own: its memory ends with it, and a crash is only its own."""
        # Before it starts: a scan that crashes must not begin again at once, and again. In memory
        # too, since a full disk is no reason to scan without end.
        self._started[kind] = self._now()
        with contextlib.suppress(sqlite3.Error), transaction(self.db):
            note(self.db, f"started.{kind}", self._now())
        log.info("%s scan begins", kind)
        status = await self._child("scan", "--scheduled", kind)
        with contextlib.suppress(sqlite3.Error), transaction(self.db):
            note(self.db, f"status.{kind}", status)
            if status in {0, 1}:
                note(self.db, "scanned", self._now())
        log.log(
            logging.INFO if status in {0, 1} else logging.ERROR,
            "%s scan ended: %s",
            kind,
            {0: "clean", 1: "something was found"}.get(status, f"it failed ({status})"),
        )

    async def _child(self, *words: str, quiet: bool = False) -> int:
        """Run one of the agent's commands in a process of its own; answer how it ended.

        What it complains about goes where this process complains, unless it is to be quiet.
        """
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "doorward_agent",
            *words,
            "--state",
            str(self.config.state_dir),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL if quiet else None,
        )
        self._children.add(process)
        try:
            return await process.wait()
        finally:
            # Canceled while it runs: whoever stops the agent ends it.
            if process.returncode is not None:
                self._children.discard(process)

    async def _end_children(self) -> None:
        for process in list(self._children):
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            try:
                async with asyncio.timeout(self.config.stop_seconds):
                    await process.wait()
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()

    async def _complete_for_ever(self) -> None:
        while True:
            self._complete()
            await asyncio.sleep(self.config.schedule_interval)

    def _recover(self) -> None:
        """Settle the commands that a crash left running, after what they had begun."""
        self._complete()
        journal.recover(
            self.db,
            now=self._now(),
            repeatable=journal.REPEATABLE,
            alive=findings.commanded(self.db),
        )

    def _complete(self) -> None:
        """Finish what was interrupted; a fault in quarantine must not end all protection."""
        try:
            if not outbox.intents(self.db):
                return
            from doorward_agent import treatment  # megabytes that an idle agent has no use for

            count = treatment.complete(self.config, self.db)
        except Exception:
            log.exception("what was interrupted cannot be completed")
        else:
            if count:
                log.info("completed %s", counted(count, "interrupted act"))
                self._outbox_changed.set()

    # ------------------------------------------------------------------------------- bookkeeping

    def _now(self) -> int:
        return int(self._clock() * 1000)

    def _server_now(self) -> int:
        """Answer the server's time in milliseconds, by which commands have their last moment."""
        offset = self._link.clock_offset if self._link is not None else 0.0
        return self._now() + int(offset * 1000)

    async def _silence(self) -> None:
        """Wait until the pause after a failure is over."""
        while True:
            left = self._quiet_until - time.monotonic()
            if left <= 0:
                return
            await asyncio.sleep(left)

    def _failed(self, problem: Exception) -> None:
        """Note a failure and begin a pause, or stop reporting where only a person can help."""
        self._trouble(str(problem))
        if isinstance(problem, link.DeviceRemoved):
            if self._identity is not None:
                delivery.mark_removed(self.config, self._identity)
            raise Stopped from problem
        if isinstance(problem, link.DeviceCloned | link.ServerUntrusted | link.UpgradeNeeded):
            # Nothing changes within seconds here; still, it may have been repaired by then.
            pause = self.pause.after_failure(self.config.pause_cap / 2)
        else:
            asked = problem.retry_after if isinstance(problem, link.LinkProblem) else None
            pause = self.pause.after_failure(asked)
        self._quiet_until = time.monotonic() + pause
        log.info("next attempt in %.0f s", pause)

    def _worked(self, server: link.Link) -> None:
        self.pause.after_success()
        self._quiet_until = 0.0
        if noted(self.db, "trouble"):
            note(self.db, "trouble", None)
            log.info("the server answers again")
        if self._identity and abs(server.clock_offset - self._identity.clock_offset) >= 1:
            self._identity = dataclasses.replace(
                self._identity, clock_offset=round(server.clock_offset, 3)
            )
            identity.save(self.config.state_dir, self._identity)

    def _trouble(self, words: str) -> None:
        """Remember what is wrong, once, for `status`."""
        if noted(self.db, "trouble") != words:
            log.warning("%s", words)
            with contextlib.suppress(sqlite3.Error), transaction(self.db):
                note(self.db, "trouble", words)
                note(self.db, "trouble_since", self._now())

    def _sent(self, path: str, body: bytes, compressed: bool) -> None:
        if path.startswith("/commands/"):
            path = "/commands"  # One place for all of them: each has an address of its own.
        delivery.remember_sent(self.db, path, body, compressed=compressed, now=self._now())


def watch_abilities() -> tuple[str, ...]:
    """Answer which abilities real-time protection has here, with the rights of this process."""
    from doorward_agent.realtime import fanotify

    try:
        os.close(fanotify.begin(fanotify.CLASS_CONTENT))
    except fanotify.Unavailable:
        return ("watch",)
    return ("watch", "block")


def capabilities(
    settings: Settings, *, remote_off: bool = False, more: tuple[str, ...] = ()
) -> tuple[str, ...]:
    """Answer what this agent can do, and is let do by these settings and on this computer."""
    always = (*CAPABILITIES, *more)
    if remote_off:
        return (*always, messages.REMOTE_OFF)
    kinds = sorted(kind for kind in KNOWN_COMMANDS if policy.may(settings, kind))
    # That it takes commands at all is told also where the settings switch all of them off.
    return (*always, *(("commands",) if KNOWN_COMMANDS else ()), *kinds)


def device_facts(
    version: str,
    settings: Settings | None = None,
    *,
    remote_off: bool = False,
    more: tuple[str, ...] = (),
) -> messages.DeviceFacts:
    """Answer all that the server learns about this computer, as far as the settings share it."""
    found = hosts.facts()
    return messages.DeviceFacts(
        hostname=messages.fitted(found.hostname, messages.MAX_NAME),
        os=messages.OperatingSystem(
            name=messages.fitted(found.os_name, messages.MAX_WORD),
            version=messages.fitted(found.os_version, messages.MAX_NAME)
            if settings is None or settings.sharing.system_version
            else "",
        ),
        type=found.type,
        agent_version=messages.fitted(version, messages.MAX_WORD),
        capabilities=None
        if settings is None
        else capabilities(settings, remote_off=remote_off, more=more),
    )


def as_told(command: journal.Command) -> messages.CommandState:
    """Answer the command's state as the server is told it."""
    counts = messages.CommandProgress(
        files=command.files, bytes=command.bytes, threats=command.threats
    )
    return msgspec.convert(
        {
            "status": "accepted" if command.state == journal.RECEIVED else command.state,
            "code": command.code,
            "detail": command.detail,
            "started_at": command.started_at,
            "ended_at": command.ended_at,
            "progress": counts if counts != messages.CommandProgress() else None,
            "report": command.report,
        },
        messages.CommandState,
        from_attributes=True,
    )


def identity_or_none(config: AgentConfig) -> identity.Identity | None:
    """Answer the identity on disk, None too where it cannot be read: protection needs none."""
    try:
        return identity.load(config.state_dir)
    except identity.IdentityProblem:
        return None


def _moment(milliseconds: int) -> dt.datetime:
    return dt.datetime.fromtimestamp(milliseconds / 1000, dt.UTC)


def _raise_fault(task: asyncio.Task[Any]) -> None:
    """Raise what ended the task, unless it ended on purpose."""
    problem = task.exception()
    if problem is not None and not isinstance(problem, Stopped):
        raise problem


def _on_signals(stop: Callable[[], None]) -> None:
    """Call `stop` on SIGTERM and Ctrl-C, on every system."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        try:
            loop.add_signal_handler(number, stop)
        except NotImplementedError:  # Windows
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(stop))
