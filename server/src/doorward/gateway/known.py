"""The devices that this gateway knows: read when they first call, kept true, written behind.

A check-in asks no database. What it changes is written each second, all devices in one transaction;
what changed elsewhere (a removal, say) is read every half second.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import structlog
from django.utils import timezone
from msgspec.structs import replace

from doorward.devices import bell, check_in, presence
from doorward.devices.check_in import DeviceState
from doorward.gateway import connections, problems
from doorward.gateway.bodies import SlowBodies
from doorward.gateway.definitions import Sets
from doorward.gateway.jobs import Jobs
from doorward.gateway.problems import JSON, NO_SNIFF, NO_STORE, Refused
from doorward.protection import policy
from doorward_protocol.messages import CheckIn, SettingsState, encode

log = structlog.get_logger(__name__)

REFRESH_SECONDS: Final = 0.5
"""A device that is removed in the portal is refused within this and one query."""
LISTEN_SECONDS: Final = 0.05
"""How often we look whether the bell was rung, which costs next to nothing: a command that is asked
on this machine is on its way within this."""
FLUSH_SECONDS: Final = 1.0
ENTITLEMENT_SECONDS: Final = 60.0
"""What an account has paid for is read again when it is older than this."""
GATHER_SECONDS: Final = 0.005
"""Devices that call for the first time are read together: after a restart they all do."""
READ_TOGETHER: Final = 500
FORGET_SECONDS: Final = 2 * 3600.0
"""A device not heard of for so long leaves the memory; it is read again when it calls."""

_TIME_PLACE: Final = len(b'{"server_time":0')


class Known:
    """Every device that called lately, as it is now."""

    def __init__(self, jobs: Jobs, slow: SlowBodies) -> None:
        self._jobs = jobs
        self._slow = slow
        self._sets = Sets(jobs)
        self._states: dict[bytes, DeviceState] = {}
        self._reads: dict[bytes, asyncio.Future[DeviceState | None]] = {}
        self._to_read: list[bytes] = []
        self._reading: set[asyncio.Task[None]] = set()
        self._unsaved: list[DeviceState] = []
        self._started: dict[UUID, DeviceState] = {}
        self._facts: dict[UUID, CheckIn] = {}
        self._stale_accounts: set[UUID] = set()
        self._ahead: dict[UUID, int] = {}
        self._waiting: dict[bytes, set[asyncio.Future[None]]] = {}
        self._keeper: asyncio.Task[None] | None = None
        self.also_writes: list[Callable[[], Awaitable[None]]] = []
        """What else is written behind, in each round."""
        self._stopping = False

    # ------------------------------------------------------------------------------- reading

    async def get(self, device_id: bytes) -> DeviceState | None:
        """The device's state, from the database if need be; None when there is no such device."""
        state = self._states.get(device_id)
        if state is not None:
            return state
        read = self._reads.get(device_id)
        if read is None:
            loop = asyncio.get_running_loop()
            read = self._reads[device_id] = loop.create_future()
            if not self._to_read:
                loop.call_later(GATHER_SECONDS, self._start_reading)
            self._to_read.append(device_id)
        return await asyncio.shield(read)

    def _start_reading(self) -> None:
        batch, self._to_read = self._to_read[:READ_TOGETHER], self._to_read[READ_TOGETHER:]
        if self._to_read:
            asyncio.get_running_loop().call_soon(self._start_reading)
        task = asyncio.ensure_future(self._read(batch))
        self._reading.add(task)
        task.add_done_callback(self._reading.discard)

    async def _read(self, batch: list[bytes]) -> None:
        try:
            await self._sets.read()
            found = await self._jobs.run(presence.load, [UUID(bytes=key) for key in batch])
        except Exception as error:  # noqa: BLE001 - every waiting request gets it as its own
            for key in batch:
                if not (read := self._reads.pop(key)).done():
                    read.set_exception(error)
                    read.exception()  # Nobody may be waiting any more.
            return
        now = time.monotonic()
        for key in batch:
            state = found.get(UUID(bytes=key))
            if state is not None:
                state.entitlement_read_at = state.seen_at = now
                state.definitions_version = self._sets.wanted(state.device_id)
                prepare_answer(state)
                self._states[key] = state
                if state.said is not None:
                    self._compare(state, state.said[0])
            if not (read := self._reads.pop(key)).done():
                read.set_result(state)

    def forget(self, device_id: UUID) -> None:
        """Have the device read anew when it calls next, and wake whoever waits for it."""
        state = self._states.pop(device_id.bytes, None)
        if state is not None:
            state.outdated = True
        self._wake(device_id.bytes)

    # ------------------------------------------------------------------------------- hearing

    def called(self, state: DeviceState, call: CheckIn, *, started: bool = False) -> bool:
        """Have it written within a second that the device called, and what it told anew.

        Tells whether it told anything anew.
        """
        now = state.seen_at = time.monotonic()
        if not state.waits_for_saving:
            state.waits_for_saving = True
            self._unsaved.append(state)
        if started:
            self._started[state.device_id] = state
        is_news = not check_in.tells_nothing_new(state, call)
        if is_news:
            check_in.remember(state, call)
            self._facts[state.device_id] = _after(self._facts.get(state.device_id), call)
            self._compare(state, call.settings)
        if now - state.entitlement_read_at > ENTITLEMENT_SECONDS:
            self._stale_accounts.add(state.account_id)
        return is_news

    def _compare(self, state: DeviceState, told: SettingsState) -> None:
        # It knows newer settings than we have: a backup was restored since it heard of them.
        heard = max(told.version, told.failed_version)
        if heard > state.settings_version:
            self._ahead[state.device_id] = heard

    async def news(self, state: DeviceState, gone: asyncio.Future[Any], seconds: float) -> None:
        """Wait until there is something to tell the device, it hangs up, or the time is over."""
        if self._stopping:
            return
        wake: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        key = state.device_id.bytes
        self._waiting.setdefault(key, set()).add(wake)
        try:
            either: set[asyncio.Future[Any]] = {wake, gone}
            await asyncio.wait(either, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting = self._waiting.get(key)
            if waiting is not None:
                waiting.discard(wake)
                if not waiting:
                    del self._waiting[key]

    def _wake(self, key: bytes) -> None:
        for wake in self._waiting.get(key, ()):
            if not wake.done():
                wake.set_result(None)

    # ------------------------------------------------------------------------------- keeping

    def start(self) -> None:
        """Begin to keep the memory true and to write it behind."""
        self._keeper = asyncio.ensure_future(self._keep())

    def let_go(self) -> None:
        """Answer everybody who waits for news, now and from now on: the gateway is stopping."""
        self._stopping = True
        for key in list(self._waiting):
            self._wake(key)

    async def stop(self) -> None:
        """Write what is unwritten, then keep nothing any more."""
        self.let_go()
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
        await self.flush()
        for write in self.also_writes:
            await write()

    async def _keep(self) -> None:
        refreshed = timezone.now()
        flush_at = forget_at = time.monotonic()
        rung = bell.rung()
        while True:
            rung = await self._until_rung(rung)
            self._slow.cut_slow()
            connections.cut_slow()
            try:
                started = timezone.now()
                await self.refresh(refreshed)
                refreshed = started
                for write in self.also_writes:
                    await write()
                if time.monotonic() >= flush_at:
                    flush_at = time.monotonic() + FLUSH_SECONDS
                    await self.flush()
                if time.monotonic() >= forget_at + FORGET_SECONDS / 12:
                    forget_at = time.monotonic()
                    self._forget_silent()
            except Refused:
                log.warning("gateway.database.away")
            except Exception:
                # Whatever it was, the devices of the next second must not pay for it.
                log.exception("gateway.keep.failed")

    async def _until_rung(self, before: int) -> int:
        """Wait for the bell, or for the next round; returns what tells its next ring from this."""
        until = time.monotonic() + REFRESH_SECONDS
        while (rung := bell.rung()) == before and time.monotonic() < until:  # noqa: ASYNC110 - rung by other processes
            await asyncio.sleep(LISTEN_SECONDS)
        return rung

    async def refresh(self, since: datetime) -> None:
        """Learn what changed elsewhere since then."""
        if not self._states and not self._waiting:
            return
        if self._ahead:
            ahead, self._ahead = self._ahead, {}
            await self._jobs.run(policy.overtake, ahead)
        for change in await self._jobs.run(presence.changed_since, since):
            self._learn(change)
        if await self._sets.read():
            self._mean_sets()
        if self._stale_accounts:
            accounts, self._stale_accounts = self._stale_accounts, set()
            await self._renew_entitlements(accounts)

    def _learn(self, change: presence.Change) -> None:
        key = change.device_id.bytes
        state = self._states.get(key)
        if state is None:
            return
        if change.revoked and not state.revoked:
            state.revoked = state.outdated = True
            state.removed_why = change.removed_why
            self._wake(key)
        elif change.epoch != state.epoch:
            self.forget(change.device_id)
        elif change.settings_version != state.settings_version:
            state.settings_version = change.settings_version
            prepare_answer(state)
            self._wake(key)
        state.cloned = change.cloned
        if change.watched_until != state.watched_until:
            state.watched_until, state.call_again = change.watched_until, True
            self._wake(key)
        if change.commanded_at != state.commanded_at:
            state.commanded_at, state.has_commands = change.commanded_at, True
            self._wake(key)

    def _mean_sets(self) -> None:
        # Nobody is woken: devices hear of a new set one after the other, as their calls end.
        for state in self._states.values():
            wanted = self._sets.wanted(state.device_id)
            if wanted != state.definitions_version:
                state.definitions_version = wanted
                prepare_answer(state)

    async def _renew_entitlements(self, accounts: Iterable[UUID]) -> None:
        entitled = await self._jobs.run(presence.entitled, list(accounts))
        now = time.monotonic()
        for key, state in self._states.items():
            found = entitled.get(state.account_id)
            if found is None:
                continue
            state.entitlement_read_at = now
            if found != state.entitlement:
                state.entitlement = found
                prepare_answer(state)
                self._wake(key)

    async def flush(self) -> None:
        """Write down every call since the last time. On failure nothing is forgotten."""
        unsaved, self._unsaved = self._unsaved, []
        if not unsaved:
            return
        started, self._started = self._started, {}
        facts, self._facts = self._facts, {}
        seen = []
        for state in unsaved:
            state.waits_for_saving = False
            seen.append((state.presence_id, state.seq))
        calls = presence.Calls(
            seen,
            [(one.presence_id, one.boot_id, one.former_boot_id) for one in started.values()],
            facts,
        )
        try:
            await self._jobs.run(presence.store, calls, timezone.now())
        except BaseException:
            for state in unsaved:
                if not state.waits_for_saving:
                    state.waits_for_saving = True
                    self._unsaved.append(state)
            self._started = {**started, **self._started}
            for device_id, call in self._facts.items():
                facts[device_id] = _after(facts.get(device_id), call)
            self._facts = facts
            raise

    def _forget_silent(self) -> None:
        oldest = time.monotonic() - FORGET_SECONDS
        silent = [
            key
            for key, state in self._states.items()
            if state.seen_at < oldest and not state.waits_for_saving and key not in self._waiting
        ]
        for key in silent:
            self._states.pop(key).outdated = True


def _after(earlier: CheckIn | None, call: CheckIn) -> CheckIn:
    # What it told of itself and is not yet written must not be lost under a call that does not.
    if call.device is None and earlier is not None and earlier.device is not None:
        return replace(call, device=earlier.device)
    return call


_answers: dict[bytes, tuple[bytes, problems.Headers]] = {}
_MOST_ANSWERS: Final = 10_000


def prepare_answer(state: DeviceState) -> None:
    """Write the part of the device's answer that will not change until the device's state does."""
    whole = encode(check_in.answer(state, 0))
    # Nearly all devices are answered alike: they share one copy.
    if len(_answers) >= _MOST_ANSWERS:
        _answers.clear()
    prepared = _answers.get(whole)
    if prepared is None:
        # Milliseconds since 1970 have 13 digits until the year 2286.
        length = (b"content-length", str(len(whole) + 12).encode())
        prepared = _answers[whole] = whole[_TIME_PLACE:], (JSON, length, NO_STORE, NO_SNIFF)
    state.answer_tail, state.answer_headers = prepared
