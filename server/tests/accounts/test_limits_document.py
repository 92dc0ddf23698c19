"""docs/security/limits.md says what the code does (ASVS 6.1.1)."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import pkgutil
import re
from datetime import timedelta
from pathlib import Path

from allauth.core.internal import ratelimit
from django.conf import settings

import doorward
from doorward.accounts import approvals, browsers, lockout
from doorward.devices import enrollment
from doorward.portal import security

TEXT = (Path(__file__).parents[3] / "docs" / "security" / "limits.md").read_text()


def words(length: timedelta) -> str:
    minutes = int(length.total_seconds() // 60)
    if not minutes:
        return "–"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h"


def test_v6_1_1_every_window_is_in_the_table_with_its_figures() -> None:
    rows = re.findall(r"^\| (\w+) \| (\d+) \| ([^|]+) \| (\d+ \w+|–) \| ", TEXT, re.MULTILINE)
    documented = {name: (int(most), within, lock) for name, most, within, lock in rows}
    assert len(documented) == len(rows)
    assert documented == {
        window.name: (window.most, words(window.within), words(window.lock))
        for window in every_window()
    }


def every_window() -> set[lockout.Window]:
    """Return the windows that modules of the server name, wherever they are."""
    found: set[lockout.Window] = set()
    made = 0
    for info in pkgutil.walk_packages(doorward.__path__, "doorward."):
        if info.name.endswith("__main__"):
            continue
        module = importlib.import_module(info.name)
        found |= {each for each in vars(module).values() if isinstance(each, lockout.Window)}
        made += windows_made_in(Path(module.__file__ or "").read_text())
    # None is made within a function, nor hidden in a list.
    assert made == len(found)
    return found


def windows_made_in(source: str) -> int:
    """Return how often a window is made; Django's of the same name takes no such words."""
    return sum(
        isinstance(node, ast.Call)
        and getattr(node.func, "id", getattr(node.func, "attr", "")) == "Window"
        and bool(node.args)
        and isinstance(node.args[0], ast.Constant)
        for node in ast.walk(ast.parse(source))
    )


def test_v6_1_1_allauths_own_limits_are_in_the_table_with_their_figures() -> None:
    rows = re.findall(r"^\| (\w+) \| (\d+) \| ([^|]+) \| (user|ip|key) \| ", TEXT, re.MULTILINE)
    live: list[tuple[str, str, str, str]] = []
    for app in settings.INSTALLED_APPS:
        if (
            not app.startswith("allauth.")
            or importlib.util.find_spec(f"{app}.app_settings") is None
        ):
            continue
        theirs = importlib.import_module(f"{app}.app_settings")
        for action, rates in getattr(theirs, "RATE_LIMITS", {}).items():
            live += [
                (action, str(rate.amount), words(timedelta(seconds=rate.duration)), rate.per)
                for rate in ratelimit.parse_rates(rates)
            ]
    assert live
    assert sorted(rows) == sorted(live)


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
        f"at most {approvals.MOST_PROMPTS} prompts in {words(approvals.PROMPTS_WITHIN)}",
        f"{lockout.CODE_DAY.most + lockout.KNOWN_CODES.most} codes a day are compared",
        f"and {security.MOST_TRIES} in one sign-in on a page",
        f"{enrollment.ADDRESS_FAILURES} wrong codes in {words(enrollment.ADDRESS_WINDOW)}",
    ):
        assert said in re.sub(r"\s+", " ", TEXT), said
