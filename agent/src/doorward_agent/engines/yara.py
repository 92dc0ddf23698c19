# Why not pathlib: plain descriptors.
# ruff: noqa: PTH119, PTH122, PTH123
"""YARA-X: rule sources compiled once in a process, asked with a time limit.

Only a worker process may import this: the engine holds the interpreter's lock for a whole scan, its
scanner belongs to the thread that made it, and a bug in it ends in a Rust panic, which is no
`Exception`.
"""

import dataclasses
import json
import os
from collections.abc import Iterable

import yara_x

from doorward_agent.definitions import SUSPICIOUS
from doorward_agent.engines import EngineFailed, EngineTimeout, Hit

WORDS = ("id", "title", "reason", "severity", "kind")
"""What each of our rules says about itself. A rule from elsewhere may lack them."""

_LONGEST = 200
_SEVERITIES = frozenset(("informational", "low", "medium", "high", "critical"))


class RulesRefused(Exception):
    """The rule sources do not compile; the message is the compiler's."""


def compiled(sources: Iterable[tuple[str, str]], *, refuse_slow: bool = False) -> yara_x.Rules:
    """Compile (namespace, source) pairs; includes are off, so that a rule reads no other file.

    Raises RulesRefused.
    """
    compiler = yara_x.Compiler(error_on_slow_pattern=refuse_slow, includes_enabled=False)
    for namespace, source in sources:
        compiler.new_namespace(namespace)
        try:
            compiler.add_source(source, origin=namespace)
        except yara_x.CompileError as error:
            raise RulesRefused(str(error)) from error
    return compiler.build()


def read_sources(paths: Iterable[str]) -> list[tuple[str, str]]:
    """Return each rule file as (namespace, source); the namespace is the file's name.

    A file of many (`.rules`) is a JSON object of names and sources, and its own name goes before
    each of theirs.
    """
    sources: list[tuple[str, str]] = []
    for path in paths:
        with open(path, encoding="utf-8") as source:
            name, ending = os.path.splitext(os.path.basename(path))
            if ending == ".rules":
                many: dict[str, str] = json.load(source)
                sources.extend((f"{name}/{each}", text) for each, text in many.items())
            else:
                sources.append((name, source.read()))
    return sources


class YaraEngine:
    """One scanner over one set of rules; belongs to the thread that made it."""

    name = "yara"
    unpacks = False

    def __init__(
        self,
        rules: yara_x.Rules,
        *,
        version: str,
        timeout: int,
        window_bytes: int,
        window_overlap_bytes: int,
    ) -> None:
        self.version = version
        self._scanner = yara_x.Scanner(rules)
        self._scanner.set_timeout(timeout)
        self._scanner.fast_scan(True)
        self._window = window_bytes
        self._overlap = window_overlap_bytes

    def scan(self, content: bytes) -> list[Hit]:
        """Look at content in memory. Raises EngineTimeout, EngineFailed."""
        try:
            matching = self._scanner.scan(content).matching_rules
        except yara_x.TimeoutError as error:
            raise EngineTimeout("the rules needed too long") from error
        except yara_x.ScanError as error:
            raise EngineFailed(str(error)) from error
        return [hit for rule in matching for hit in _hits(rule)]

    def scan_file(self, descriptor: int, size: int) -> list[Hit]:
        """Look at an open file; one larger than a window is seen in overlapping windows.

        A rule about two places further apart than a window does not see them together.
        Raises EngineTimeout, EngineFailed, OSError.
        """
        if size <= self._window:
            return self.scan(_read_at(descriptor, size, 0))
        found: dict[str, Hit] = {}
        at = 0
        while True:
            window = _read_at(descriptor, self._window, at)
            for hit in self.scan(window):
                found.setdefault(hit.rule, hit)
            at += len(window) - self._overlap
            if len(window) < self._window or at + self._overlap >= size:
                return list(found.values())


def _read_at(descriptor: int, length: int, at: int) -> bytes:
    # Not os.pread: Windows has none.
    os.lseek(descriptor, at, os.SEEK_SET)
    content = os.read(descriptor, length)
    if len(content) == length:
        return content
    pieces = [content]
    missing = length - len(content)
    while missing and pieces[-1]:
        pieces.append(os.read(descriptor, missing))
        missing -= len(pieces[-1])
    return b"".join(pieces)


EACH = "each"
"""A rule of which every pattern is a signature by itself says `each = "pattern"`, and may give each
its title under the pattern's name. Evaluating ten thousand rules takes 190 us a file, however
small; a hundred rules of a hundred patterns take 15, and 0.4 where a private pattern that is any of
them goes before (bench/README.md)."""


def _hits(rule: yara_x.Rule) -> list[Hit]:
    told = {name: str(value) for name, value in rule.metadata}
    hit = _hit(rule, told)
    if told.get(EACH) != "pattern":
        return [hit]
    family = told.get("id", rule.namespace)
    names = [found.identifier.removeprefix("$") for found in rule.patterns if found.matches]
    return [
        dataclasses.replace(
            hit, rule=f"{family}:{name}"[:_LONGEST], title=told.get(name, name)[:_LONGEST]
        )
        for name in names
    ] or [hit]


def _hit(rule: yara_x.Rule, told: dict[str, str]) -> Hit:
    severity = told.get("severity", "medium")
    suspicious = rule.namespace.startswith(SUSPICIOUS)
    if suspicious:
        severity = "low"
    return Hit(
        rule=told.get("id", f"{rule.namespace}:{rule.identifier}"),
        title=told.get("title", rule.identifier),
        engine=YaraEngine.name,
        severity=severity if severity in _SEVERITIES else "medium",
        kind=SUSPICIOUS if suspicious else told.get("kind", "malware"),
        reason=told.get("reason", told.get("description", "")),
    )
