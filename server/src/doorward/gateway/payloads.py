"""Keeps what devices sent last, and writes it behind: nobody waits for that."""

from __future__ import annotations

import time
from typing import Final
from uuid import UUID

from django.utils import timezone

from doorward.devices import payloads
from doorward.devices.check_in import DeviceState
from doorward.devices.payloads import Kind, Sent
from doorward.gateway.jobs import Jobs
from doorward.gateway.problems import Refused

MOST_BYTES: Final = 16 * 1024 * 1024
"""What waits to be written. More than that and the newest are not kept: they are only for looking
at."""
EACH_SECONDS: Final = 5.0
"""So long what was heard waits, and what the same device says meanwhile takes its place: written at
once, the last bytes of each report cost a fifth of taking it in. While somebody looks, it does not
wait."""


class Payloads:
    """The last bytes of each kind from each device that were not written yet."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs
        self._heard: dict[tuple[UUID, Kind], Sent] = {}
        self._bytes = 0
        self._due = 0.0

    def called(self, state: DeviceState, body: bytes, *, is_news: bool) -> None:
        """Keep a check-in where it told something new, or while somebody looks."""
        if is_news or _is_watched(state):
            self.heard(state, "check-in", body)

    def heard(
        self,
        state: DeviceState,
        kind: Kind,
        body: bytes,
        *,
        was_packed: bool = False,
        length: int = 0,
    ) -> None:
        """Keep this as the last of its kind, as it came; of what is too long, its ``length``."""
        key = (state.device_id, kind)
        before = self._heard.get(key)
        more = len(body) - (0 if before is None else len(before.body))
        if self._bytes + more > MOST_BYTES:
            return
        if _is_watched(state):
            self._due = 0.0
        self._bytes += more
        self._heard[key] = Sent(*key, body, timezone.now(), was_packed, length)

    async def flush_when_due(self) -> None:
        """Write down what was heard, where it has waited for long enough."""
        if self._heard and time.monotonic() >= self._due:
            await self.flush()

    async def flush(self) -> None:
        """Write down what was heard since the last time; what can't be written is given up."""
        self._due = time.monotonic() + EACH_SECONDS
        if not self._heard:
            return
        heard, self._heard, self._bytes = self._heard, {}, 0
        try:
            await self._jobs.run(payloads.store, list(heard.values()))
        except Refused:
            # The database is away. The next call says the same again.
            return


def _is_watched(state: DeviceState) -> bool:
    return state.watched_until is not None and state.watched_until > timezone.now()
