"""What is due in this room, for the worker."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Final

from doorward.devices import commands, enrollment, privacy

SWEEPS: Final[tuple[tuple[str, float, Callable[[datetime], int]], ...]] = (
    ("forget-codes", 600.0, enrollment.forget_old),
    ("forget-gone", 3600.0, privacy.forget_gone),
    ("settle-commands", 1.0, commands.settle_due),
    ("settle-impossible", 30.0, commands.settle_impossible),
    ("forget-commands", 3600.0, commands.forget_old),
)
