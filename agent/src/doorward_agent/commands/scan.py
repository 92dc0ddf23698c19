"""`scan`: look at files now, put away what is found, and tell the server if there is one."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import signal
import sys
from types import FrameType
from typing import TYPE_CHECKING, Any

from doorward_agent import scan
from doorward_agent.commands import CommandRefused, config_of
from doorward_agent.config import AgentConfig
from doorward_agent.terminal import complain, counted, say, size

if TYPE_CHECKING:
    import sqlite3

    from doorward_agent.findings import Outcome, Teller
    from doorward_agent.identity import Identity
    from doorward_agent.progress import Display
    from doorward_protocol.settings import Settings

CLEAN, FOUND, ERROR = 0, 1, 2
_NAMES = {"quick": "Quick scan", "full": "Full scan", "custom": "Scan of chosen folders"}


def run(arguments: argparse.Namespace) -> int:
    """Scan, and answer 0 (clean), 1 (something was found) or 2 (an error, or not to the end)."""
    config = config_of(arguments)
    if not arguments.full_speed:
        _go_last()
    settings = _settings(config)
    paths = _paths(arguments, settings)
    if not paths:
        say("None of the folders to scan is on this computer.")
        return CLEAN
    if settings is not None:
        config = _by_policy(config, settings, arguments)
    if arguments.full_speed:
        config = dataclasses.replace(config, workers=os.cpu_count() or 1, low_priority=False)
    who = None if arguments.no_report else _account(config)
    with contextlib.ExitStack() as stack:
        stop = _Stop()
        stack.enter_context(stop)
        display = _display(arguments)
        if display is not None:
            stack.callback(display.close)
        work = scan.run(
            paths, config, progress=display.update if display else None, cancel=stop.asked
        )
        stack.enter_context(work)
        teller = None
        if who is not None:
            db = _database(config)
            stack.callback(db.close)
            teller = _teller(config, db, arguments, work)
            if teller is None:
                who = None
        found, problem = _carry_out(work, config, arguments, teller, display)
        if found and arguments.scheduled and settings and settings.on_device.notifications:
            # A scan that `run` has started: whoever types `scan` reads what it prints.
            _announce(found)
        if display is not None:
            display.close()
        summary = work.summary
        unresolved = [entry for entry in found if entry[1].is_still_there]
        if teller is not None:
            _end(teller, summary, resolved=len(found) - len(unresolved), problem=problem)
        # A scan that `run` has started is delivered by it; nobody reads what it prints.
        told = (
            _deliver(config, who, teller.db) if who and teller and not arguments.scheduled else ""
        )
    if arguments.json:
        _print_json(summary, found, problem, told)
    else:
        _print(summary, found, told)
    if untold := [outcome.untold for _, outcome in found if outcome.untold]:
        complain(
            f"{counted(len(untold), 'finding')} could not be noted for the server: {untold[0]}."
        )
    if problem:
        complain(problem)
    if problem or summary.cancelled:
        return ERROR
    return FOUND if found else CLEAN


def _carry_out(
    work: scan.Run,
    config: AgentConfig,
    arguments: argparse.Namespace,
    teller: Teller | None,
    display: Display | None,
) -> tuple[list[tuple[scan.Detection, Outcome]], str]:
    """Scan to the end; answer each detection with what became of it, and what went wrong."""
    found: list[tuple[scan.Detection, Outcome]] = []
    try:
        for detection in work:
            # Loaded by the first detection: most scans find nothing.
            from doorward_agent import treatment

            outcome = treatment.treat(
                detection,
                config,
                put_away=not arguments.no_quarantine,
                teller=teller,
                definitions_version=work.summary.definitions_version,
            )
            found.append((detection, outcome))
            if not arguments.json:
                line = _line(detection, outcome)
                display.say(line) if display else say(line)
    except Exception as problem:
        # By name: only a scan that reads a file has loaded the pool.
        if type(problem).__name__ != "EngineUnavailable":
            raise
        return found, f"The scan could not go on: {problem}"
    return found, ""


def _announce(found: list[tuple[scan.Detection, Outcome]]) -> None:
    from doorward_agent import announce

    announcer = announce.Announcer(wanted=lambda: True)
    for detection, outcome in found:
        announcer.found(detection, outcome)
    announcer.close()


class _Stop:
    """Ctrl-C or SIGTERM ends the scan in good order; a second one ends it at once."""

    def __init__(self) -> None:
        self._asked = False
        self._before: list[tuple[int, Any]] = []

    def asked(self) -> bool:
        """Whether the scan should end."""
        return self._asked

    def __enter__(self) -> _Stop:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before.append((number, signal.signal(number, self._note)))
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before:
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._asked:
            raise KeyboardInterrupt
        self._asked = True


def _paths(arguments: argparse.Namespace, settings: Settings | None) -> list[Any]:
    if arguments.scheduled == "custom":
        from doorward_agent import policy

        folders = policy.folders(settings) if settings is not None else ()
        return [folder for folder in folders if os.path.exists(folder)]  # noqa: PTH110 - text as it came
    if arguments.scheduled:
        from doorward_agent import hosts

        return list(hosts.quick_paths() if arguments.scheduled == "quick" else hosts.full_paths())
    if not arguments.paths:
        raise CommandRefused("Name the files or folders to scan, for example: scan ~/Downloads")
    return list(arguments.paths)


def _settings(config: AgentConfig) -> Settings | None:
    """Answer the settings received, None where nobody has sent any: a scan needs none."""
    if not (config.state_dir / "agent.db").exists():
        return None
    from doorward_agent import policy

    db = _database(config)
    try:
        version, in_force = policy.current(db)
    finally:
        db.close()
    return in_force if version else None


def _by_policy(
    config: AgentConfig, settings: Settings, arguments: argparse.Namespace
) -> AgentConfig:
    """Answer how the settings in force want scans to be."""
    from doorward_agent import policy

    if settings.finding.action == "report":
        arguments.no_quarantine = True
    arguments.without_folders = not settings.sharing.scanned_folders
    return policy.limits(config, settings)


def _go_last() -> None:
    """Let everything else go first. Without loading more than this: see hosts for the rest."""
    if hasattr(os, "setpriority"):
        # The walk itself reads little; the workers, which read much, also give up their disk time.
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, 0, 19)
        return
    from doorward_agent import hosts

    hosts.lower_priority()


def _account(config: AgentConfig) -> Identity | None:
    """Answer who we report as, None where nobody is to be told."""
    if not (config.state_dir / "identity.json").exists():
        return None
    from doorward_agent import identity

    found = identity.load(config.state_dir)
    return found if found is not None and found.state == "enrolled" else None


def _database(config: AgentConfig) -> sqlite3.Connection:
    from doorward_agent import database

    return database.open_in(config.state_dir)


def _teller(
    config: AgentConfig, db: sqlite3.Connection, arguments: argparse.Namespace, work: scan.Run
) -> Teller | None:
    """Answer who tells the server, None where nothing can be noted: the scan goes on without."""
    import sqlite3

    try:
        return _new_teller(config, db, arguments, work)
    except sqlite3.Error as problem:
        complain(f"The outbox cannot be written ({problem}): the server will not learn of this.")
        return None


def _end(teller: Teller, summary: scan.ScanSummary, *, resolved: int, problem: str) -> None:
    import sqlite3

    try:
        teller.end(summary, resolved=resolved, problem=problem)
    except sqlite3.Error as fault:
        complain(f"The outbox cannot be written ({fault}).")


def _new_teller(
    config: AgentConfig, db: sqlite3.Connection, arguments: argparse.Namespace, work: scan.Run
) -> Teller:
    from doorward_agent import events, findings, outbox

    if outbox.intents(db):
        from doorward_agent import treatment

        treatment.complete(config, db)
    summary = work.summary
    teller = findings.Teller(
        config=config,
        db=db,
        scan_uid=events.new_uid(),
        name=_NAMES.get(arguments.scheduled or "", "Scan"),
        scheduled=bool(arguments.scheduled),
        paths=() if getattr(arguments, "without_folders", False) else summary.paths,
        start_time=int(summary.started_at * 1000),
    )
    teller.begin(summary.definitions_version)
    return teller


def _deliver(config: AgentConfig, who: Identity, db: sqlite3.Connection) -> str:
    """Deliver now, unless `run` is at work and does it anyway; answer a sentence for people."""
    from doorward_agent import delivery, lock

    try:
        with lock.held(config.state_dir / lock.RUN_FILE):
            return delivery.once(config, who, db)
    except lock.LockHeld:
        return delivery.by_another(config, db)


def _display(arguments: argparse.Namespace) -> Display | None:
    if arguments.json or not sys.stderr.isatty():
        return None
    from doorward_agent.progress import Display

    return Display()


def _line(detection: scan.Detection, outcome: Outcome) -> str:
    inside = f" (inside: {detection.member})" if detection.member else ""
    done = {
        "quarantined": "put into quarantine",
        "deleted": "gone before it could be put away",
        "allowed": "allowed here",
        "detected": "left where it is",
        "uncorrected": f"STILL THERE: {outcome.detail}",
    }[outcome.action]
    return f"FOUND {detection.path}{inside}: {detection.title} [{detection.rule}], {done}"


def _print(
    summary: scan.ScanSummary, found: list[tuple[scan.Detection, Outcome]], told: str
) -> None:
    seconds = max(summary.ended_at - summary.started_at, 0.001)
    say(
        f"{counted(summary.files, 'file')} in {seconds:.1f} s: {summary.scanned:,} read "
        f"({size(summary.bytes)}, {size(summary.bytes / seconds)}/s), "
        f"{summary.cached:,} known clean and unchanged, {len(found)} found."
    )
    for words, among in (
        ("Left out", summary.skipped),
        ("Not fully scanned", summary.limited),
        ("Could not be scanned", summary.errors),
    ):
        if among:
            counts = ", ".join(f"{count:,} {reason}" for reason, count in sorted(among.items()))
            say(f"{words}: {counts}.")
    if summary.allowed:
        say(f"Allowed by you: {summary.allowed}.")
    if summary.cancelled:
        say("Stopped before the end.")
    if told:
        say(told)


def _print_json(
    summary: scan.ScanSummary,
    found: list[tuple[scan.Detection, Outcome]],
    problem: str,
    told: str,
) -> None:
    """Print the result in the shape that docs/operators/agent.md describes."""
    import json

    result = {
        "paths": summary.paths,
        "started_at": summary.started_at,
        "ended_at": summary.ended_at,
        "files": summary.files,
        "read": summary.scanned,
        "bytes": summary.bytes,
        "known_clean": summary.cached,
        "allowed": summary.allowed,
        "skipped": summary.skipped,
        "not_fully_scanned": summary.limited,
        "errors": summary.errors,
        "complete": summary.complete and not problem,
        "cancelled": summary.cancelled,
        "problem": problem,
        "definitions": summary.definitions_version,
        "reported": told,
        "threats": [
            {
                "path": detection.path,
                "member": detection.member,
                "size": detection.size,
                "sha256": detection.sha256,
                "rule": detection.rule,
                "title": detection.title,
                "reason": detection.reason,
                "severity": detection.severity,
                "engine": detection.engine,
                "also": detection.also,
                "found_at": detection.found_at,
                "action": outcome.action,
                "detail": outcome.detail,
                "quarantine_id": outcome.quarantine_id,
            }
            for detection, outcome in found
        ],
        "notes": [{"path": note.path, "reason": note.reason} for note in summary.notes],
    }
    # Escaped throughout, so that a file name cannot steer the terminal that shows it.
    sys.stdout.write(json.dumps(result, indent=2, ensure_ascii=True) + "\n")
