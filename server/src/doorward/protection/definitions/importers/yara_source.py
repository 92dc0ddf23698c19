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


_BEGINNING = re.compile(r'[A-Za-z_"{}/]')
_WORD = re.compile(r"[A-Za-z0-9_]*")
# Without the closing sign, so that nothing makes them step back: they look as far as they match.
_TEXT = re.compile(r'[^"\\\n]*(?:\\[^\n][^"\\\n]*)*')
_LONG_TEXT = re.compile(r'[^"\\]*(?:\\.[^"\\]*)*', re.DOTALL)
_REGEX = re.compile(r"[^/\\\n]*(?:\\[^\n][^/\\\n]*)*")
_THREE = '"""'
_MODIFIERS = frozenset({"private", "global"})


def rules_in(source: str) -> list[Span]:
    """Each rule of a source, in order; a source that is no YARA gives what could be told apart.

    The work is as the source is long, whatever is in it: it comes from anywhere.
    """
    found: list[Span] = []
    # Counted once: counting anew for each rule takes minutes where there are many.
    ends = [each.start() for each in re.finditer("\n", source)]
    depth = 0
    name, start, private = "", 0, False
    # The modifiers and the word "rule" that may begin a rule, and the word before this one.
    begins, is_private, before = -1, False, ""
    for kind, text, at, end in Tokens(source):
        if kind == "word" and depth == 0:
            if before == "rule":
                name, start, private = text, begins, is_private
            if text not in _MODIFIERS and text != "rule":
                begins = -1
            elif begins < 0 or before == "rule":
                begins, is_private = at, text == "private"
            else:
                is_private = is_private or text == "private"
            before = text
        elif text == "{":
            depth += 1
        elif text == "}" and depth:
            depth -= 1
            if depth == 0 and name:
                found.append(_span(ends, name, start, end, private))
                name, begins, before = "", -1, ""
    return found


def _span(ends: list[int], name: str, start: int, end: int, private: bool) -> Span:
    first = bisect_left(ends, start) + 1
    last = bisect_left(ends, end) + 1
    return Span(name, first, last, start, end, private)


class Tokens:
    """What a source consists of, told apart as the engine tells it: kind, text, start and end.

    Whoever reads it otherwise than the engine blanks out other text than a rule's, and what is left
    may be a rule that nobody has tried. So a slash begins an expression wherever no comment does,
    and texts within three quotes go over lines.
    """

    def __init__(self, source: str) -> None:
        self._source = source
        self.looked_at = 0
        """How many signs were read, each time they were."""

    def __iter__(self) -> Iterator[tuple[str, str, int, int]]:
        source, at = self._source, 0
        # What is not closed on its line is not looked for again on that line.
        open_until = {'"': -1, "/": -1}
        while (begun := _BEGINNING.search(source, at)) is not None:
            self.looked_at += begun.end() - at
            at, sign = begun.start(), begun[0]
            if sign in "{}":
                at += 1
                yield "sign", sign, at - 1, at
            elif source.startswith("//", at):
                at = self._upto("\n", at)
            elif source.startswith("/*", at):
                at = self._upto("*/", at + 2)
            elif source.startswith(_THREE, at):
                end = self._matched(_LONG_TEXT, at + 3)
                # With a single quote in it, it is an empty text and the beginning of another.
                end = end + 3 if source.startswith(_THREE, end) else at + 2
                yield "text", sign, at, end
                at = end
            elif sign in open_until:
                body = _TEXT if sign == '"' else _REGEX
                end = at + 1 if at < open_until[sign] else self._matched(body, at + 1)
                if at >= open_until[sign] and source.startswith(sign, end):
                    yield "text", sign, at, end + 1
                    at = end + 1
                else:
                    open_until[sign] = max(open_until[sign], end)
                    at += 1
            else:
                end = self._matched(_WORD, at)
                yield "word", source[at:end], at, end
                at = end

    def _upto(self, sign: str, at: int) -> int:
        """Where this sign ends; the source's end where it is not there any more."""
        found = self._source.find(sign, at)
        end = len(self._source) if found < 0 else found + len(sign)
        self.looked_at += end - at
        return end

    def _matched(self, body: re.Pattern[str], at: int) -> int:
        found = body.match(self._source, at)
        end = found.end() if found is not None else at
        self.looked_at += end - at
        return end


def without(source: str, spans: list[Span]) -> str:
    """The source with these rules blanked out; every other rule stays on its line."""
    left, at = [], 0
    for span in sorted(spans, key=lambda each: each.start):
        left.append(source[at : span.start])
        left.append(_BLANKED.sub(" ", source[span.start : span.end]))
        at = span.end
    left.append(source[at:])
    return "".join(left)


_BLANKED = re.compile(r"[^\n]")
