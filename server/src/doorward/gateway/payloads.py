"""Keeps what devices sent last, and writes it behind: nobody waits for that."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from django.utils import timezone

from doorward.devices import payloads
from doorward.devices.check_in import DeviceState
from doorward.devices.payloads import Kind, Sent
from doorward.gateway.jobs import Jobs
from doorward.gateway.problems import Refused

MOST: Final = 20_000
"""Payloads that wait to be written. More than that and the newest are not kept: they are only for
looking at."""


class Payloads:
    """The last bytes of each kind from each device that were not written yet."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs
        self._heard: dict[tuple[UUID, Kind], Sent] = {}

    def called(self, state: DeviceState, body: bytes, *, is_news: bool) -> None:
        """Keep a check-in where it told something new, or while somebody looks."""
        if is_news or (state.watched_until is not None and state.watched_until > timezone.now()):
            self.heard(state.device_id, "check-in", body)

    def heard(
        self, device: UUID, kind: Kind, body: bytes, *, was_packed: bool = False, length: int = 0
    ) -> None:
        """Keep this as the last of its kind; of what is too long, its ``length``."""
        if len(self._heard) < MOST or (device, kind) in self._heard:
            now = timezone.now()
            self._heard[device, kind] = Sent(device, kind, body, now, was_packed, length)

    async def flush(self) -> None:
        """Write down what was heard since the last time; what can't be written is given up."""
        if not self._heard:
            return
        heard, self._heard = self._heard, {}
        try:
            await self._jobs.run(payloads.store, list(heard.values()))
        except Refused:
            # The database is away. The next call says the same again.
            return
