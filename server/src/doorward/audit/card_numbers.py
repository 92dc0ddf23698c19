"""Card numbers that people write where none belongs: put out of sight before anything is stored."""

from __future__ import annotations

import re
from typing import Final

# Groups of digits as people write them, whatever stands between: spaces, dashes, line ends.
_GROUPS: Final = re.compile(r"\d+(?:[\W_]{1,3}\d+)*")
_GROUP: Final = re.compile(r"\d+")
# ISO/IEC 7812.
_LEAST, _MOST = 13, 19
# No card number begins so, but many a date: it is not to be taken for one.
_YEAR: Final = re.compile(r"(?:19|20)\d\d")
HIDDEN: Final = "••••"


def hide(text: str) -> str:
    """Return the text with every card number in it reduced to its last four digits.

    Also where other numbers stand beside it: until when it is valid, the code on its back.
    """
    return _GROUPS.sub(_hidden, text)


def _hidden(found: re.Match[str]) -> str:
    whole = found[0]
    groups = [group.span() for group in _GROUP.finditer(whole)]
    parts, kept, first = [], 0, 0
    while first < len(groups):
        last = _card_from(whole, groups, first)
        if last is None:
            first += 1
            continue
        start, end = groups[first][0], groups[last][1]
        parts += [whole[kept:start], HIDDEN, "".join(map(str, _digits(whole[start:end])[-4:]))]
        kept, first = end, last + 1
    return "".join([*parts, whole[kept:]])


def _card_from(whole: str, groups: list[tuple[int, int]], first: int) -> int | None:
    """Return with which group a card number ends that begins with this one; the longest counts."""
    start, end = groups[first]
    if _YEAR.fullmatch(whole, start, end):
        return None
    found, length = None, 0
    for last in range(first, len(groups)):
        length += groups[last][1] - groups[last][0]
        if length > _MOST:
            break
        if length >= _LEAST and is_card_number(_digits(whole[start : groups[last][1]])):
            found = last
    return found


def _digits(text: str) -> list[int]:
    return [int(sign) for sign in text if sign.isdecimal()]


def is_card_number(digits: list[int]) -> bool:
    """Tell whether the last digit is the check digit of the others (Luhn)."""
    doubled = [2 * digit - 9 * (digit > 4) for digit in digits[-2::-2]]
    return (sum(doubled) + sum(digits[-1::-2])) % 10 == 0
