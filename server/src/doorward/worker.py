"""Does what is due: sweeps claim rows, so that a killed worker loses and doubles nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from importlib import import_module
from importlib.util import find_spec
from typing import Final

import structlog
from django.db import close_old_connections
from django.utils import timezone

log = structlog.get_logger(__name__)

ROOMS: Final = (
    "notices",
    "accounts",
    "billing",
    "devices",
    "protection",
    "reports",
    "support",
    "audit",
)


@dataclass(frozen=True)
class Sweep:
    """One kind of deferred work: ``run(now)`` does what is due and returns how many rows it did."""

    name: str
    every_seconds: float
    run: Callable[[datetime], int]


def all_sweeps() -> list[Sweep]:
    """Return every room's sweeps: a room that has deferred work lists it in ``sweeps.SWEEPS``.

    Each entry is ``(name, every_seconds, run)``.
    """
    found: list[Sweep] = []
    for room in ROOMS:
        module = f"doorward.{room}.sweeps"
        if find_spec(module):
            found.extend(
                Sweep(f"{room}.{name}", every, run)
                for name, every, run in import_module(module).SWEEPS
            )
    return found


def run_due(sweeps: list[Sweep], last_run: dict[str, datetime], now: datetime) -> int:
    """Run each sweep whose time has come; one that fails is logged and has its next turn."""
    done = 0
    for sweep in sweeps:
        before = last_run.get(sweep.name)
        if before is not None and (now - before).total_seconds() < sweep.every_seconds:
            continue
        last_run[sweep.name] = now
        try:
            done += sweep.run(now)
        except Exception:
            log.exception("worker.sweep.failed", sweep=sweep.name)
            close_old_connections()
    return done


def run_until(stop: threading.Event) -> None:
    """Sweep until asked to stop, half a second between rounds in which nothing was due."""
    sweeps = all_sweeps()
    last_run: dict[str, datetime] = {}
    log.info("worker.started", sweeps=[sweep.name for sweep in sweeps])
    while not stop.is_set():
        close_old_connections()
        if not run_due(sweeps, last_run, timezone.now()):
            stop.wait(0.5)
    log.info("worker.stopped")
