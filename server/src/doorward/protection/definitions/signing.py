"""Signs what is due, for the worker: a device must be able to tell old signatures from new ones."""

from __future__ import annotations

from datetime import datetime

from doorward.protection.definitions import keys, repository


def renew(now: datetime) -> int:
    """Sign timestamp and snapshot anew where half their life is over; 0 where nothing is signed."""
    if not repository.exists():
        return 0
    with repository.locked():
        return repository.sign_what_is_due(keys.read_online(), now)
