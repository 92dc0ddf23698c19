"""Whether this computer is protected now, and what is missing when it is not."""

from __future__ import annotations

import re
import sqlite3
from typing import Final, Literal

import msgspec

from doorward_agent import definitions, schedule
from doorward_agent.config import AgentConfig
from doorward_agent.database import noted, noted_int
from doorward_protocol import messages

# `scan` ends with 0 (clean) or 1 (something was found) when it did its work.
_SCAN_FAILED: Final = 2
REAL_TIME: Final = "real_time"
"""The note in which `run` keeps how real-time protection is."""
OFF_BY_SETTINGS: Final = "the settings say so"


class RealTimeStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How real-time protection is just now."""

    state: Literal["on", "partly", "off"] = "off"
    by: Literal["fanotify", "changes", "both", ""] = ""
    reason: str = ""
    folders: int = 0
    gated: int = 0
    # The version of the settings that this is by.
    settings: int = 0
    found: int = 0
    overflows: int = 0

    @property
    def words(self) -> str:
        """Say it to people."""
        if self.state == "off":
            return f"off: {self.reason}"
        how = {
            "fanotify": "fanotify",
            "changes": "watching for changes",
            "both": "fanotify, and watching for changes where that can't",
        }[self.by or "changes"]
        number = f"{self.folders} folder{'s' * (self.folders != 1)}"
        held = f", opening held back in {self.gated}" if self.gated else ""
        reason = f" ({self.reason})" if self.reason else ""
        return f"{self.state} by {how}, in {number}{held}{reason}"


def real_time(db: sqlite3.Connection) -> RealTimeStatus | None:
    """Answer how real-time protection was told to be last, None where it is not run here."""
    told = noted(db, REAL_TIME)
    if not isinstance(told, bytes):
        return None
    try:
        return msgspec.json.decode(told, type=RealTimeStatus)
    except msgspec.MsgspecError:
        return None


def state(config: AgentConfig, db: sqlite3.Connection) -> messages.ProtectionState:
    """Answer the state and, as short words, every reason why it is not `protected`."""
    if not definitions_version(config):
        return messages.ProtectionState(state="off", reasons=("no-definitions",))
    reasons = tuple(
        f"{kind}-scan-failed"
        for kind in schedule.KINDS
        # Killed by a signal counts too: such a status is negative.
        if noted_int(db, f"status.{kind}") not in range(_SCAN_FAILED)
    )
    watch = real_time(db)
    if watch is not None and watch.state != "on" and watch.reason != OFF_BY_SETTINGS:
        reasons += (f"real-time-{watch.state}",)
    return messages.ProtectionState(state="attention" if reasons else "protected", reasons=reasons)


def definitions_version(config: AgentConfig) -> int:
    """Answer the version of the definitions in use as one number, 0 where none can be read.

    `<date>.<n>` becomes date * 100 + n, so that a newer set has a higher number.
    """
    try:
        found = definitions.in_force(config.state_dir)
    except definitions.DefinitionsUnusable:
        return 0
    return version_number(found.version)


def version_number(text: str) -> int:
    """Answer `2026.11.22.3 <digest>` as 2026112203, and 0 for what is no version."""
    found = re.match(r"(\d{4})[.-]?(\d{2})[.-]?(\d{2})(?:\.(\d{1,2}))?(?!\d)", text)
    if not found:
        return 0
    number = int(found[1] + found[2] + found[3] + (found[4] or "0").zfill(2))
    return number if number < 2**31 else 0
