"""Text that came from outside, made fit to be shown: no character acts, and none hides."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

# Besides control characters (Cc): what turns the reading direction, joins or hides (Cf), lone
# surrogates (Cs) and separators of lines. A file called "invoice<U+202E>fdp.exe" must not read as
# a PDF.
_ACTING: Final = {"Cc", "Cf", "Cs", "Zl", "Zp", "Co", "Cn"}
# Letters of several scripts need these two to be written correctly.
_HARMLESS: Final = {"\u200c", "\u200d"}
_PLAIN: Final = re.compile(r"[ -~]*")


def visible(text: str) -> str:
    """Return the text with every character that would act or hide written out: ``⟨U+202E⟩``."""
    if _PLAIN.fullmatch(text):
        return text
    return "".join(
        f"⟨U+{ord(character):04X}⟩"
        if unicodedata.category(character) in _ACTING and character not in _HARMLESS
        else character
        for character in text
    )


def shortened(text: str, most: int) -> str:
    """Return at most ``most`` characters: beginning and end, where a file's name and kind stand."""
    if len(text) <= most:
        return text
    tail = most // 3
    return f"{text[: most - tail - 1]}…{text[-tail:]}"
