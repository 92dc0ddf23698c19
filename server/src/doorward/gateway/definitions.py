"""Keeps in mind which set of definitions is meant for which device, without asking each time."""

from __future__ import annotations

import time
from typing import Final
from uuid import UUID

from doorward.gateway.jobs import Jobs
from doorward.protection.definitions import rollout

REFRESH_SECONDS: Final = 3.0


class Sets:
    """The sets on their way, read again every few seconds."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs
        self._steps: rollout.Steps | None = None
        self._read_at = 0.0

    async def read(self) -> bool:
        """Read them if that is due; answer whether something is different from before."""
        now = time.monotonic()
        if self._steps is not None and now - self._read_at < REFRESH_SECONDS:
            return False
        found = await self._jobs.run(rollout.steps)
        self._read_at = now
        if found == self._steps:
            return False
        self._steps = found
        return True

    def wanted(self, device_id: UUID) -> int:
        """The set that is meant for this device; 0 while there is none."""
        return rollout.wanted(device_id, self._steps or ())
