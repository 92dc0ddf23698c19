"""Card numbers that people write where none belongs: put out of sight before anything is stored."""

from __future__ import annotations

import re
from typing import Final

# 13 to 19 digits (ISO/IEC 7812), in groups as people write them.
_DIGITS: Final = re.compile(r"(?<!\d)\d(?:[ .\u00a0-]?\d){12,18}(?!\d)")
HIDDEN: Final = "••••"


def hide(text: str) -> str:
    """Return the text with every card number in it reduced to its last four digits."""
    return _DIGITS.sub(_hidden, text)


def _hidden(found: re.Match[str]) -> str:
    digits = [int(sign) for sign in found[0] if sign.isdecimal()]
    if not is_card_number(digits):
        return found[0]
    return HIDDEN + "".join(map(str, digits[-4:]))


def is_card_number(digits: list[int]) -> bool:
    """Tell whether the last digit is the check digit of the others (Luhn)."""
    doubled = [2 * digit - 9 * (digit > 4) for digit in digits[-2::-2]]
    return (sum(doubled) + sum(digits[-1::-2])) % 10 == 0
