"""YARA rules as they are published: kept word for word, with author, reference and license."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Span:
    """One rule in a source: its name, the line it begins on, and where it stands."""

    name: str
    line: int
    last_line: int
    start: int
    end: int
    private: bool


_WORDS = re.compile(
    r"""
      (?P<comment>//[^\n]*|/\*.*?\*/)
    | (?P<text>"(?:\\.|[^"\\\n])*")
    | (?P<word>[A-Za-z_][A-Za-z0-9_]*)
    | (?P<sign>[{}=/])
    """,
    re.VERBOSE | re.DOTALL,
)
_REGEX = re.compile(r"/(?:\\.|\[(?:\\.|[^\]\\\n])*\]|[^/\\\n])+/")


def rules_in(source: str) -> list[Span]:
    """Each rule of a source, in order; a source that is no YARA gives what could be told apart."""
    found: list[Span] = []
    # Counted once: counting anew for each rule takes minutes where there are many.
    ends = [each.start() for each in re.finditer("\n", source)]
    depth = 0
    name, start, private = "", 0, False
    words: list[tuple[str, int]] = []
    for kind, text, at, end in _tokens(source):
        if kind == "word" and depth == 0:
            words.append((text, at))
            if len(words) > 1 and words[-2][0] == "rule":
                name = text
                modifiers = [words[-2]]
                for word in reversed(words[:-2]):
                    if word[0] not in {"private", "global"}:
                        break
                    modifiers.append(word)
                start = modifiers[-1][1]
                private = any(word == "private" for word, _ in modifiers)
        elif text == "{":
            depth += 1
        elif text == "}" and depth:
            depth -= 1
            if depth == 0 and name:
                found.append(_span(ends, name, start, end, private))
                name, words = "", []
    return found


def _span(ends: list[int], name: str, start: int, end: int, private: bool) -> Span:
    first = bisect_left(ends, start) + 1
    last = bisect_left(ends, end) + 1
    return Span(name, first, last, start, end, private)


def _tokens(source: str) -> Iterator[tuple[str, str, int, int]]:
    at = 0
    before = ""
    while found := _WORDS.search(source, at):
        kind = found.lastgroup or ""
        text = found[0]
        end = found.end()
        if text == "/" and before in {"=", "matches"}:
            # Only here a slash begins an expression; elsewhere it divides.
            regex = _REGEX.match(source, found.start())
            end = regex.end() if regex else end
            kind, text = "regex", "regex"
        if kind != "comment":
            before = text
            yield kind, text, found.start(), end
        at = end


def without(source: str, spans: list[Span]) -> str:
    """The source with these rules blanked out; every other rule stays on its line."""
    for span in spans:
        gone = "".join("\n" if each == "\n" else " " for each in source[span.start : span.end])
        source = source[: span.start] + gone + source[span.end :]
    return source
