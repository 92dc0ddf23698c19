"""The process in which rules from elsewhere are tried; it may hang or die, and is then blamed.

Started by ``vetting`` with the request as JSON on standard input. It answers with JSON lines on
standard output: ``{"at": …}`` says what it is about to do, so that who waits knows what it died of;
the last line is the verdict. It imports nothing of the server that talks to a database or network.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import yara_x

from doorward.protection.definitions.importers.yara_source import Span, rules_in, without
from doorward_protocol.hash_list import sized_key

SAMPLE_BYTES: Final = 1024 * 1024
RULE_SECONDS: Final = 0.1
"""What one rule may take for the samples (about 3 MiB), the best of three tries."""
ALL_SECONDS: Final = 1.0
"""What all rules of an import may take together for the samples. The agent gives the engine 20 s
for 32 MiB: eleven times the samples, which leaves half for a slower machine and other imports."""
SCAN_SECONDS: Final = 20
"""One file, all rules: what the agent allows too (AgentConfig.engine_timeout)."""
MOST_CLEAN_FILES: Final = 100_000
LARGEST_CLEAN: Final = 32 * 1024 * 1024
ROUNDS: Final = 50
"""How often a rule that falls may take others with it."""

Sources = dict[str, str]
Reasons = dict[tuple[str, int, str], str]


class Trial:
    """One trial of one import."""

    def __init__(self, request: dict[str, Any]) -> None:
        self.sources: Sources = dict(request["sources"])
        self.careful: bool = request["careful"]
        self.clean: list[str] = request["clean"]
        self.most_clean_bytes: int = request["most_clean_bytes"]
        self.refused: Reasons = {}

    def run(self) -> dict[str, Any]:
        """Compile, time and try everything; answer what is left and why the rest is not."""
        if self.careful:
            for name in list(self.sources):
                self._say(f"compile {name}", name)
                self._compile([name])
        self._compile(list(self.sources))
        self._time()
        hits, files, hashed = self._scan_clean()
        return {
            "sources": self.sources,
            "refused": [[*place, why] for place, why in self.refused.items()],
            "hits": hits,
            "clean": files,
            "keys": hashed,
            "rules": sum(len(rules_in(source)) for source in self.sources.values()),
            "engine": _engine_version(),
        }

    # --------------------------------------------------------------------------------- compiling

    def _compile(self, names: list[str]) -> yara_x.Rules:
        """Compile these sources, blanking out every rule that does not; what is left compiles."""
        for _ in range(ROUNDS):
            compiler, failed = self._compiled(names)
            if not failed:
                rules = compiler.build()
                other = self._told_apart_otherwise(names, rules)
                if not other:
                    return rules
                for name in other:
                    self._refuse_file(name, "its rules can't be told apart as the engine does")
            for name in {error[0] for error in failed}:
                self._drop(name, [each[1:] for each in failed if each[0] == name])
            names = [name for name in names if name in self.sources]
        for name in names:
            self._refuse_file(name, "its rules lean on rules that were refused")
        return yara_x.Compiler().build()

    def _compiled(self, names: list[str]) -> tuple[yara_x.Compiler, list[tuple[str, int, str]]]:
        compiler = yara_x.Compiler(error_on_slow_pattern=True, includes_enabled=False)
        failed: list[tuple[str, int, str]] = []
        for name in names:
            compiler.new_namespace(name)
            seen = len(compiler.errors())
            try:
                compiler.add_source(self.sources[name], origin=name)
            except yara_x.CompileError as error:
                found = compiler.errors()[seen:]
                failed.extend((name, int(each.get("line") or 0), _why(each)) for each in found)
                if not found:
                    failed.append((name, 0, str(error).splitlines()[0][:200]))
        return compiler, failed

    def _told_apart_otherwise(self, names: list[str], rules: yara_x.Rules) -> list[str]:
        """Return the sources in which the engine found other rules than we did.

        Blanking out one of ours might leave a rule of theirs that nobody has tried.
        """
        theirs: dict[str, list[str]] = {name: [] for name in names}
        for rule in rules:
            theirs[rule.namespace].append(rule.identifier)
        return [
            name
            for name in names
            if [span.name for span in rules_in(self.sources[name])] != theirs[name]
        ]

    def _drop(self, name: str, errors: list[tuple[int, str]]) -> None:
        """Blank out the rules in which these errors are; the whole file where one is in none."""
        spans = rules_in(self.sources[name])
        last_lines = [span.last_line for span in spans]
        gone: dict[int, Span] = {}
        for line, why in errors:
            at = bisect_left(last_lines, line)
            span = spans[at] if at < len(spans) and spans[at].line <= line else None
            if span is None:
                self._refuse_file(name, why, line)
                return
            # By place: two rules of one name are an error of the second alone.
            gone[at] = span
            self.refused.setdefault((name, line, span.name), why)
        self._blank(name, list(gone.values()))

    def _blank(self, name: str, spans: list[Span]) -> None:
        self.sources[name] = without(self.sources[name], spans)
        if not rules_in(self.sources[name]):
            del self.sources[name]

    def _refuse_file(self, name: str, why: str, line: int = 0) -> None:
        self.refused.setdefault((name, line, ""), why)
        self.sources.pop(name, None)

    # ------------------------------------------------------------------------------------ timing

    def _time(self) -> None:
        """Refuse each rule that takes longer than one may, found by halving."""
        samples = _samples()
        groups = [[name] for name in self.sources] if self.careful else [list(self.sources)]
        while groups:
            group = groups.pop()
            if not group or self._quick(group, samples):
                continue
            if len(group) > 1:
                middle = len(group) // 2
                groups += [group[:middle], group[middle:]]
                continue
            self._time_one(group[0], samples)
        self._time_all(samples)

    def _time_all(self, samples: list[bytes]) -> None:
        """Refuse files, the slowest first, until the rules that are left are quick together.

        Each rule may be quick enough and a thousand of them bring every scan to a halt.
        """
        if not self.sources or self._takes(list(self.sources), samples) <= ALL_SECONDS:
            return
        each = {name: self._takes([name], samples) for name in self.sources}
        for name in sorted(each, key=lambda one: each[one], reverse=True):
            self._refuse_file(
                name, f"its rules together take {each[name]:.1f} s for 3 MiB: import fewer"
            )
            if not self.sources or self._takes(list(self.sources), samples) <= ALL_SECONDS:
                return

    def _takes(self, names: list[str], samples: list[bytes]) -> float:
        self._say(f"time {names[0]}", names[0] if len(names) == 1 else "")
        # What leans on another file counts alone for nothing, and together with it.
        compiler, failed = self._compiled(names)
        return 0.0 if failed else _seconds(compiler.build(), samples)

    def _quick(self, names: list[str], samples: list[bytes]) -> bool:
        self._say(f"time {names[0]}", names[0] if len(names) == 1 else "")
        compiler, failed = self._compiled(names)
        return bool(failed) or _seconds(compiler.build(), samples) <= RULE_SECONDS

    def _time_one(self, name: str, samples: list[bytes]) -> None:
        """Find the slow rules of one file; private ones stay while the others are tried."""
        whole = self.sources[name]
        spans = rules_in(whole)
        if len(spans) == 1:
            self._slow(name, spans)
            return
        slow = []
        for span in spans:
            others = [each for each in spans if each is not span and not each.private]
            self.sources[name] = without(whole, others)
            compiler, failed = self._compiled([name])
            if not failed and _seconds(compiler.build(), samples) > RULE_SECONDS:
                slow.append(span)
        self.sources[name] = whole
        if not slow and len(spans) < 20:
            # No rule alone, but few together: somebody leans on a slow private rule.
            slow = spans
        if slow:
            self._slow(name, slow)

    def _slow(self, name: str, spans: list[Span]) -> None:
        for span in spans:
            why = f"takes longer than {RULE_SECONDS * 1000:.0f} ms for 3 MiB"
            self.refused.setdefault((name, span.line, span.name), why)
        self._blank(name, spans)
        if name in self.sources:
            self._compile([name])

    # ------------------------------------------------------------------------------- clean files

    def _scan_clean(self) -> tuple[dict[str, list[str]], int, list[str]]:
        """Scan clean files; answer which rules hit which, how many files, and their hashes."""
        scanner = yara_x.Scanner(self._compile(list(self.sources)))
        scanner.set_timeout(SCAN_SECONDS)
        scanner.fast_scan(True)
        hits: dict[str, list[str]] = {}
        keys: list[str] = []
        files = total = 0
        for path in _files(self.clean):
            try:
                content = Path(path).read_bytes()
            except OSError:
                continue
            files += 1
            total += len(content)
            if files > MOST_CLEAN_FILES or total > self.most_clean_bytes:
                break
            keys += _keys(content)
            if not self.sources:
                continue
            self._say(f"scan {path}")
            try:
                found = scanner.scan(content).matching_rules
            except (yara_x.TimeoutError, yara_x.ScanError) as error:
                hits.setdefault("", []).append(f"{path}: {error}")
                continue
            for rule in found:
                hits.setdefault(f"{rule.namespace}\0{rule.identifier}", []).append(path)
        return hits, files, keys

    def _say(self, doing: str, file: str = "") -> None:
        sys.stdout.write(json.dumps({"at": doing, "file": file}) + "\n")
        sys.stdout.flush()


def _why(error: dict[str, Any]) -> str:
    labels = error.get("labels") or [{}]
    said = f"{error.get('title', 'error')}: {labels[0].get('text', '')}".rstrip(": ")
    return " ".join(said.split())[:200]


def _seconds(rules: yara_x.Rules, samples: list[bytes]) -> float:
    scanner = yara_x.Scanner(rules)
    scanner.set_timeout(SCAN_SECONDS)
    best = float("inf")
    for _ in range(3):
        begun = time.perf_counter()
        try:
            for sample in samples:
                scanner.scan(sample)
        except yara_x.TimeoutError:
            return float("inf")
        best = min(best, time.perf_counter() - begun)
        if best <= RULE_SECONDS:
            break
    return best


def _samples() -> list[bytes]:
    """A program, text, and what rules stumble over: long runs of the same, and chance."""
    with open(os.path.realpath(sys.executable), "rb") as program:  # noqa: PTH123 - one read
        head = program.read(SAMPLE_BYTES)
    words = (b"The quick brown fox jumps over the lazy dog 0123456789abcdef\r\n" * 9000)[:524288]
    runs = b"\0" * 262_144 + b"A" * 262_144
    chance = b"".join(hashlib.sha256(b"%d" % number).digest() for number in range(32768))
    return [head, words + runs, chance]


def _files(folders: Iterable[str]) -> Iterator[str]:
    for folder in folders:
        if os.path.isfile(folder):  # noqa: PTH113 - the walk below gives strings too
            yield folder
        for place, below, names in os.walk(folder):
            below.sort()
            for name in sorted(names):
                path = os.path.join(place, name)  # noqa: PTH118 - a walk gives strings
                if os.path.islink(path) or not os.path.isfile(path):  # noqa: PTH113,PTH114 - same
                    continue
                if 0 < os.path.getsize(path) <= LARGEST_CLEAN:  # noqa: PTH202 - same
                    yield path


def _keys(content: bytes) -> list[str]:
    size = len(content)
    return [
        hashlib.sha256(content).hexdigest(),
        sized_key("md5", size, hashlib.md5(content, usedforsecurity=False).digest()).hex(),
        sized_key("sha1", size, hashlib.sha1(content, usedforsecurity=False).digest()).hex(),
    ]


def _engine_version() -> str:
    from importlib.metadata import version

    return version("yara-x")


def _give_up_rights(memory_bytes: int, seconds: int) -> None:
    if os.name != "posix":
        return
    import resource

    os.nice(10)
    for limit, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_DATA, memory_bytes),
        (resource.RLIMIT_CPU, seconds),
    ):
        hard = resource.getrlimit(limit)[1]
        if hard == resource.RLIM_INFINITY or hard > value:
            resource.setrlimit(limit, (value, value))


def main() -> int:
    """Try what standard input asks for, and answer on standard output."""
    request = json.load(sys.stdin)
    _give_up_rights(request["memory_bytes"], request["seconds"])
    verdict = Trial(request).run()
    sys.stdout.write(json.dumps({"verdict": verdict}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
