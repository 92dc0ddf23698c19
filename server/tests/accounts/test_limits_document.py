"""docs/security/limits.md says what the code does (ASVS 6.1.1)."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

from doorward.accounts import browsers, lockout
from doorward.devices import enrollment

TEXT = (Path(__file__).parents[3] / "docs" / "security" / "limits.md").read_text()


def words(length: timedelta) -> str:
    minutes = int(length.total_seconds() // 60)
    if not minutes:
        return "–"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h"


def test_v6_1_1_every_window_is_in_the_table_with_its_figures() -> None:
    rows = re.findall(r"^\| (\w+) \| (\d+) \| ([^|]+) \| ([^|]+) \| ", TEXT, re.MULTILINE)
    documented = {name: (int(most), within, lock) for name, most, within, lock in rows}
    windows = [value for value in vars(lockout).values() if isinstance(value, lockout.Window)]
    assert documented == {
        window.name: (window.most, words(window.within), words(window.lock)) for window in windows
    }


def test_v6_1_1_the_ladder_is_in_the_table_with_its_figures() -> None:
    rows = re.findall(r"^\| (\d+)[^|]* \| after (\d+) (s|min) \|$", TEXT, re.MULTILINE)
    free, *steps = [(int(first), int(wait), unit) for first, wait, unit in rows]
    assert free == (1, int(lockout.PAUSE.total_seconds()), "s")
    assert steps == [
        (lockout.FREE_FAILURES + 1 + step, minutes, "min")
        for step, minutes in enumerate(lockout.STEPS_MINUTES)
    ]


def test_v6_1_1_what_is_said_in_words_holds() -> None:
    for said in (
        f"After {words(lockout.FORGIVEN_AFTER)} without a failure",
        f"After {lockout.MOST_EVER} failures in all",
        f"once in {words(lockout.LOCK_MAIL.within)}, at most {lockout.LOCK_MAIL_DAY.most} times",
        f"for {browsers.COOKIE_LASTS.days} days",
        f"{browsers.SECRET_BYTES * 8} random bits",
        f"works once, for {words(browsers.LINK_LASTS)}",
        f"failed with {lockout.SPREAD_MOST} different addresses within "
        f"{words(lockout.SPREAD_WITHIN)} waits {words(lockout.SPREAD_LOCK)}",
        f"within {words(enrollment.CODE_LIFE)} and dies after {enrollment.CODE_TRIES} tries",
        f"{enrollment.ADDRESS_FAILURES} wrong codes in {words(enrollment.ADDRESS_WINDOW)}",
    ):
        assert said in re.sub(r"\s+", " ", TEXT), said
