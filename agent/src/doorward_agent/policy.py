"""What this device must do: the last settings received, and safe ones without.

Settings that cannot be applied change nothing: the last good ones stay in force and the server is
told which value was wrong, once per version, so that a mistake makes no loop.
"""

from __future__ import annotations

import sqlite3
from typing import Annotated, Final, Literal

import msgspec

from doorward_agent import schedule
from doorward_agent.database import note, noted, noted_int, transaction

_Hour = Annotated[int, msgspec.Meta(ge=0, le=23)]
_Minute = Annotated[int, msgspec.Meta(ge=0, le=59)]


class Daily(msgspec.Struct, frozen=True, kw_only=True):
    """When the quick scan runs each day, in the computer's own time."""

    enabled: bool = True
    hour: _Hour = 12
    minute: _Minute = 0


class Weekly(msgspec.Struct, frozen=True, kw_only=True):
    """When the full scan runs each week, in the computer's own time; weekday 0 is Monday."""

    enabled: bool = True
    weekday: Annotated[int, msgspec.Meta(ge=0, le=6)] = 2
    hour: _Hour = 12
    minute: _Minute = 30


class Scanning(msgspec.Struct, frozen=True, kw_only=True):
    """How this device scans by itself."""

    quick: Daily = Daily()
    full: Weekly = Weekly()
    on_detection: Literal["quarantine", "report"] = "quarantine"
    excluded: Annotated[tuple[str, ...], msgspec.Meta(max_length=200)] = ()


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a device can be told to do; each default protects."""

    scanning: Scanning = Scanning()


DEFAULT: Final = Policy()
_decoder = msgspec.json.Decoder(Policy)


class Refused(msgspec.Struct, frozen=True):
    """Settings that could not be applied: their version, and where in them the mistake is."""

    version: int
    pointer: str


def current(db: sqlite3.Connection) -> tuple[int, Policy]:
    """Answer the settings in force and their version, 0 for the built-in ones."""
    body = noted(db, "policy")
    if isinstance(body, bytes):
        try:
            return noted_int(db, "policy_version"), _decoder.decode(body)
        except msgspec.MsgspecError:
            pass  # written by a newer agent: the built-in ones protect
    return 0, DEFAULT


def receive(db: sqlite3.Connection, version: int, body: bytes) -> Policy:
    """Put settings in force if they are sound; answer what is in force afterwards."""
    try:
        found = _decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as problem:
        with transaction(db):
            note(db, "policy_refused", version)
            note(db, "policy_pointer", pointer_in(str(problem)))
        return current(db)[1]
    with transaction(db):
        note(db, "policy", body)
        note(db, "policy_version", version)
        note(db, "policy_refused", None)
        note(db, "policy_pointer", None)
    return found


def refused(db: sqlite3.Connection) -> Refused | None:
    """Answer which settings could not be applied last, if those in force are older."""
    version = noted_int(db, "policy_refused", -1)
    if version < 0:
        return None
    return Refused(version, str(noted(db, "policy_pointer") or ""))


def plans(policy: Policy) -> tuple[schedule.Plan, ...]:
    """Answer the scans this policy asks for."""
    found = []
    quick, full = policy.scanning.quick, policy.scanning.full
    if quick.enabled:
        found.append(schedule.Plan(kind="quick", hour=quick.hour, minute=quick.minute))
    if full.enabled:
        found.append(
            schedule.Plan(kind="full", hour=full.hour, minute=full.minute, weekday=full.weekday)
        )
    return tuple(found)


def pointer_in(problem: str) -> str:
    """Answer the JSON Pointer (RFC 6901) out of msgspec's `- at `$.a.b[2]`` words."""
    _, found, path = problem.rpartition("`$")
    if not found:
        return ""
    return path.rstrip("`").replace("[", ".").replace("]", "").replace(".", "/")[:200]
