"""The audit room's deferred work."""

from __future__ import annotations

from datetime import datetime

from doorward.audit import trail


def seal(_now: datetime) -> int:
    """Seal what happened since the last turn."""
    return trail.seal()


SWEEPS = [("seal", 1.0, seal)]
