"""Tries what was read before any device gets it: does it compile, is it quick, does it stay silent
on clean files?

The engine may break or hang on rules from elsewhere, so they are tried in a process with bounded
memory and time. What it dies of is refused, and the rest is tried again.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from doorward.protection.definitions.importers.reading import Feed, Refusal
from doorward.protection.definitions.importers.yara_source import rules_in, without

MEMORY_BYTES: Final = 2 * 1024**3
SECONDS: Final = 1800
"""One trial in all."""
SILENT_SECONDS: Final = 90
"""Longer without a word means that it hangs."""
TRIES: Final = 25
"""How many sources may break the engine before all of them are refused."""
MOST_CLEAN_BYTES: Final = 2 * 1024**3
DEFAULT_CLEAN_BYTES: Final = 256 * 1024**2
"""How much is read where the operator names no clean files: a minute's work."""
MOST_HITS: Final = 0.01
"""Rules that hit more than this share of the clean files can only make suspicious."""
HOPELESS: Final = 0.2
"""A single rule that hits more than this share of them is refused even then."""
_PASSED_ON: Final = ("PATH", "PYTHONPATH", "PYTHONHOME", "LANG", "LC_ALL", "SYSTEMROOT")


class VettingFailed(Exception):
    """Nothing of it can be taken; the text says why."""


@dataclass
class Vetted:
    """What is good, and the report on all of it."""

    rules: dict[str, str] = field(default_factory=dict)
    hashes: dict[bytes, str] = field(default_factory=dict)
    refused: list[Refusal] = field(default_factory=list)
    rule_count: int = 0
    clean_files: int = 0
    clean_hit: int = 0
    without_author: int = 0
    seconds: float = 0.0
    engine: str = ""


def clean_folders() -> list[Path]:
    """Files that are surely clean on any server: Python's own, and the system's programs."""
    found = [Path(sysconfig.get_paths()["stdlib"]), Path("/usr/bin")]
    return [folder for folder in found if folder.is_dir()]


def vet(
    feed: Feed,
    *,
    clean: Sequence[Path] = (),
    suspicious: bool = False,
    seconds: int = SECONDS,
    silent_seconds: float = SILENT_SECONDS,
) -> Vetted:
    """Try the feed; answer what of it is good. Raises VettingFailed where nothing should be taken.

    `clean` are folders of files in which nothing may be found. With `suspicious`, rules that find
    something in a few of them stay, since what they find is only told.
    """
    begun = time.monotonic()
    found = Vetted(refused=list(feed.refused))
    verdict = _tried(feed.rules, clean, found, seconds=seconds, silent_seconds=silent_seconds)
    found.engine = verdict["engine"]
    found.clean_files = verdict["clean"]
    found.rules = dict(verdict["sources"])
    for file, line, name, why in verdict["refused"]:
        found.refused.append(Refusal(file, line, name, why))
    found.clean_hit = len({path for paths in verdict["hits"].values() for path in paths})
    if found.clean_hit:
        _judge_hits(verdict, found, suspicious=suspicious)
    clean_keys = {bytes.fromhex(key) for key in verdict["keys"]}
    for key, label in feed.hashes.items():
        if key in clean_keys:
            why = "the hash of a clean file"
            found.refused.append(Refusal("", 0, f"{key.hex()} {label}", why))
        else:
            found.hashes[key] = label
    for source in found.rules.values():
        spans = rules_in(source)
        found.rule_count += len(spans)
        found.without_author += sum(
            "author" not in source[span.start : span.end] for span in spans if not span.private
        )
    found.seconds = time.monotonic() - begun
    return found


def _judge_hits(verdict: dict[str, Any], found: Vetted, *, suspicious: bool) -> None:
    """Refuse the rules that hit clean files, or everything where they are too many."""
    share = found.clean_hit / found.clean_files
    if "" in verdict["hits"]:
        raise VettingFailed(f"the engine gave up on a clean file: {verdict['hits'][''][0]}")
    if share > MOST_HITS and not suspicious:
        raise VettingFailed(
            f"its rules hit {found.clean_hit} of {found.clean_files} clean files "
            f"({share:.1%}). Such rules may only make a file suspicious: import them with "
            "--suspicious, and what they find is told and never put away."
        )
    gone: dict[str, dict[str, str]] = {}
    for rule, paths in verdict["hits"].items():
        file, _, name = rule.partition("\0")
        if suspicious and len(paths) / found.clean_files <= HOPELESS:
            continue
        why = f"hits {len(paths)} of {found.clean_files} clean files, first {paths[0]}"
        gone.setdefault(file, {})[name] = why
    for file, reasons in gone.items():
        _refuse_rules(found, file, reasons)


def _refuse_rules(found: Vetted, file: str, reasons: dict[str, str]) -> None:
    """Blank out these rules of one file, by name; all of them at once, since a file may be long."""
    source = found.rules.get(file, "")
    spans = {span.name: span for span in rules_in(source)}
    for name, why in reasons.items():
        line = spans[name].line if name in spans else 0
        found.refused.append(Refusal(file, line, name, why))
    left = without(source, [span for name, span in spans.items() if name in reasons])
    if not rules_in(left):
        found.rules.pop(file, None)
    elif file in found.rules:
        found.rules[file] = left


# --------------------------------------------------------------------------------- the process


def _tried(
    sources: dict[str, str],
    clean: Sequence[Path],
    found: Vetted,
    *,
    seconds: int,
    silent_seconds: float,
) -> dict[str, Any]:
    """Have them tried until a trial comes to its end; what breaks one is refused."""
    left = dict(sources)
    careful = False
    until = time.monotonic() + seconds
    for _ in range(TRIES):
        request = {
            "sources": left,
            "careful": careful,
            "clean": [str(folder) for folder in (clean or clean_folders())],
            "most_clean_bytes": MOST_CLEAN_BYTES if clean else DEFAULT_CLEAN_BYTES,
            "memory_bytes": MEMORY_BYTES,
            "seconds": seconds,
        }
        verdict, at, file = _once(request, until=until, silent_seconds=silent_seconds)
        if verdict is not None:
            return verdict
        if time.monotonic() > until:
            raise VettingFailed(f"trying it took longer than {seconds // 60} minutes")
        if not careful:
            # Once more, one source at a time, so that it shows which one it is.
            careful = True
        elif file in left:
            del left[file]
            found.refused.append(Refusal(file, 0, "", "the engine breaks or hangs on it"))
        else:
            raise VettingFailed(f"the engine broke or hung at: {at}")
    raise VettingFailed("the engine breaks on too many of its files")


def _once(
    request: dict[str, Any], *, until: float, silent_seconds: float
) -> tuple[dict[str, Any] | None, str, str]:
    """One trial: its verdict, or None with what it was at and with which source."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "doorward.protection.definitions.trial"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={name: os.environ[name] for name in _PASSED_ON if name in os.environ},
        text=True,
    )
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    threads = [
        threading.Thread(target=_write, args=(process, json.dumps(request)), daemon=True),
        threading.Thread(target=_listen, args=(process, lines), daemon=True),
    ]
    for thread in threads:
        thread.start()
    at = file = ""
    verdict = None
    try:
        while verdict is None:
            line = lines.get(timeout=min(silent_seconds, max(0.1, until - time.monotonic())))
            said = json.loads(line)
            verdict = said.get("verdict")
            at, file = said.get("at", at), said.get("file", file)
    except (queue.Empty, ValueError):
        pass  # It hung, or ended before it was done.
    finally:
        process.kill()
        process.wait()
        for thread in threads:
            thread.join()
        if process.stdout is not None:
            process.stdout.close()
    return verdict, at, file


def _write(process: subprocess.Popen[str], request: str) -> None:
    if process.stdin is not None:
        try:
            process.stdin.write(request)
            process.stdin.close()
        except OSError:
            return  # It is gone; that shows at its other end.


def _listen(process: subprocess.Popen[str], lines: queue.SimpleQueue[str]) -> None:
    if process.stdout is not None:
        for line in process.stdout:
            lines.put(line)
    lines.put("")
