"""When new definitions are asked for, and what is told of them; the work itself is elsewhere
(updates/updating.py), which an idle agent need not load.
"""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
from typing import Final

import msgspec

from doorward_agent import protection
from doorward_agent.config import AgentConfig
from doorward_agent.database import note, noted, noted_int, transaction
from doorward_agent.definitions import FOLDER
from doorward_protocol import messages
from doorward_protocol.messages import DefinitionsRoot, DefinitionsState

HOUR: Final = 3600_000
"""In milliseconds, as are all times here."""
SPREAD: Final = HOUR // 4
"""Devices that hear of a new set at the same time fetch it within this."""
AGAIN: Final = HOUR // 2
"""After a try that failed on the way."""
REFUSED_AGAIN: Final = 24 * HOUR
"""After a set that was not good: only its successor will be, or another day."""


def told(config: AgentConfig, db: sqlite3.Connection) -> DefinitionsState:
    """Answer which definitions are in force, and why no newer ones are."""
    return DefinitionsState(
        version=protection.definitions_version(config),
        refused_version=noted_int(db, "definitions_refused"),
        code=messages.fitted(str(noted(db, "definitions_code") or ""), messages.MAX_WORD),
    )


def hear(db: sqlite3.Connection, wanted: int, root: DefinitionsRoot | None) -> None:
    """Note which set the server means for this device; and the first time, whom to believe."""
    if wanted != noted_int(db, "definitions_wanted"):
        note(db, "definitions_wanted", wanted)
        note(db, "definitions_heard", None)
    if root is not None and noted(db, "definitions_root") is None:
        note(db, "definitions_root", msgspec.json.encode(root))


def begin_anew(config: AgentConfig, db: sqlite3.Connection, root: DefinitionsRoot | None) -> None:
    """Believe the server that this computer enrolls with, and no other; the set in force stays."""
    for name in ("wanted", "code", "refused", "detail", "checked", "heard"):
        note(db, f"definitions_{name}", None)
    note(db, "definitions_root", None if root is None else msgspec.json.encode(root))
    shutil.rmtree(config.state_dir / FOLDER / "metadata", ignore_errors=True)


def is_due(
    config: AgentConfig, db: sqlite3.Connection, device: str, *, hours: int, now: int
) -> bool:
    """Tell whether to ask for new definitions now: every so many hours, or soon after the server
    named a set that this device does not have.
    """
    if noted(db, "definitions_root") is None:
        return False
    wanted = noted_int(db, "definitions_wanted")
    checked = noted_int(db, "definitions_checked")
    code = str(noted(db, "definitions_code") or "")
    # A moment of the future was noted under a wrong clock.
    passed = now - checked if 0 < checked <= now else 10**15
    delay = _own(device, wanted) * SPREAD // 2**32
    refused = noted_int(db, "definitions_refused")
    if refused and refused == wanted:
        return passed >= REFUSED_AGAIN
    if code:
        return passed >= min(AGAIN, hours * HOUR) + delay
    if passed >= hours * HOUR:
        return True
    have = protection.definitions_version(config)
    if wanted <= have:
        return False
    heard = noted_int(db, "definitions_heard")
    if not heard or heard > now:
        note(db, "definitions_heard", now)
        return False
    return now - heard >= delay


def ended(db: sqlite3.Connection, status: int, *, now: int) -> str:
    """Answer why an update that failed did so; note that it crashed where it could not say."""
    code = str(noted(db, "definitions_code") or "")
    if status == 2 and code:
        return code
    with transaction(db):
        note(db, "definitions_code", "crash")
        note(db, "definitions_refused", noted_int(db, "definitions_wanted"))
        note(db, "definitions_checked", now)
    return "crash"


def _own(device: str, wanted: int) -> int:
    seed = f"{device}|{wanted}".encode()
    return int.from_bytes(hashlib.blake2b(seed, digest_size=4).digest())
