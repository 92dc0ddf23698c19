"""What is due in this room, for the worker."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Final

from doorward.protection import policy
from doorward.protection.definitions import rollout, signing

SWEEPS: Final[tuple[tuple[str, float, Callable[[datetime], int]], ...]] = (
    ("renew-settings", 60.0, policy.renew),
    ("sign-definitions", 300.0, signing.renew),
    ("advance-definitions", 20.0, rollout.advance),
)
