"""How the agent is, as text for whoever helps: numbers and versions, no file's name or content."""

from __future__ import annotations

import platform
import shutil
import sqlite3
import time
from importlib.metadata import version as version_of

import psutil

from doorward_agent import database, hosts, identity, outbox, policy, protection, quarantine, remote
from doorward_agent.config import MEBIBYTE, AgentConfig
from doorward_agent.database import noted, noted_int
from doorward_agent.engines import versions


def text(config: AgentConfig, db: sqlite3.Connection) -> str:
    """Answer the report, a line for each fact."""
    return "".join(f"{name}: {value}\n" for name, value in _facts(config, db))


def _facts(config: AgentConfig, db: sqlite3.Connection) -> list[tuple[str, object]]:
    who = identity.load(config.state_dir)
    depth = outbox.depth(db)
    settings_version, _ = policy.current(db)
    refused = policy.refused(db)
    power = hosts.power()
    memory = psutil.virtual_memory()
    return [
        ("agent", version_of("doorward-agent")),
        ("python", platform.python_version()),
        ("system", f"{platform.system()} {platform.release()} {platform.machine()}"),
        ("processors", psutil.cpu_count()),
        ("processor use", f"{psutil.cpu_percent(interval=0.2):.0f} %"),
        ("memory", f"{memory.total // MEBIBYTE} MiB, {memory.available // MEBIBYTE} MiB available"),
        ("computer started", _when(psutil.boot_time())),
        ("power", "mains" if power.on_mains else f"battery, {power.percent} %"),
        ("free space for the agent", f"{_free(config)} MiB"),
        ("time here", _when(time.time())),
        ("clock differs from the server's by", f"{who.clock_offset if who else 0:.1f} s"),
        ("definitions", protection.definitions_version(config)),
        ("engine", f"yara-x {versions.yara()}"),
        ("protection", protection.state(config, db).state),
        ("protection lacks", ", ".join(protection.state(config, db).reasons) or "nothing"),
        ("remote actions", "off here" if remote.is_off(config) else "on"),
        ("settings", settings_version),
        ("settings refused", f"{refused.version} at {refused.pointer}" if refused else "none"),
        ("subscription", noted(db, "entitlement") or "unknown"),
        ("last check-in", _when(noted_int(db, "checked_in") / 1000)),
        ("last delivery", _when(noted_int(db, "delivered") / 1000)),
        ("last scan", _when(noted_int(db, "scanned") / 1000)),
        ("last quick scan began", _when(noted_int(db, "started.quick") / 1000)),
        ("last full scan began", _when(noted_int(db, "started.full") / 1000)),
        ("trouble", noted(db, "trouble") or "none"),
        ("waiting to be sent", f"{depth.waiting} events, {depth.waiting_bytes} bytes"),
        ("refused by the server", depth.parked),
        ("given up for want of room", depth.dropped),
        ("begun and not finished", len(outbox.intents(db))),
        ("in quarantine", _in_quarantine(config)),
        ("database", f"{_size(config)} bytes, SQLite {sqlite3.sqlite_version}"),
    ]


def _when(moment: float) -> str:
    if not moment:
        return "never"
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(moment))


def _free(config: AgentConfig) -> int:
    return shutil.disk_usage(config.state_dir).free // MEBIBYTE


def _size(config: AgentConfig) -> int:
    return (config.state_dir / database.FILE).stat().st_size


def _in_quarantine(config: AgentConfig) -> str:
    damaged = quarantine.unreadable(config)
    return f"{len(quarantine.list_records(config))} files, {len(damaged)} damaged"
