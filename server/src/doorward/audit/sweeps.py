"""The audit room's deferred work."""

from __future__ import annotations

from datetime import datetime

from doorward.audit import head, trail


def seal(_now: datetime) -> int:
    """Seal what happened since the last turn."""
    return trail.seal()


def keep_head(_now: datetime) -> int:
    """Keep how far the chain goes beside the database too."""
    return head.keep_apart()


SWEEPS = [("seal", 1.0, seal), ("keep_head", 60.0, keep_head)]
