"""Tells the people at the computer what was found, on their screens, where the settings want it.

Several findings within a moment are one message. A message that cannot be shown changes nothing:
the findings are on the server and in `quarantine list` all the same.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from doorward_agent import hosts
from doorward_agent.terminal import counted

if TYPE_CHECKING:
    from doorward_agent.findings import Outcome
    from doorward_agent.inspection import Detection

TITLE: Final = "Doorward"
_NAMED: Final = 3
_LONGEST: Final = 120
_DONE: Final = {
    "quarantined": "It was put into quarantine.",
    "deleted": "It was gone before it could be put away.",
    "allowed": "It is allowed here.",
    "detected": "It was left where it is.",
    "uncorrected": "It could not be put away and is still there.",
}


class Announcer:
    """What is to be shown, and the thread that shows it: a screen may take its time."""

    def __init__(
        self,
        *,
        wanted: Callable[[], bool],
        show: Callable[[str, str], int] = hosts.show_message,
        settle: float = 1.0,
    ) -> None:
        """Prepare; `wanted` is asked at each finding. `settle`: seconds that gather findings."""
        self._wanted = wanted
        self._show = show
        self._settle = settle
        self._found: list[tuple[Detection, Outcome]] = []
        self._lock = threading.Condition()
        self._closing = False
        self._thread: threading.Thread | None = None

    def found(self, detection: Detection, outcome: Outcome) -> None:
        """Have this finding shown within a moment; returns at once."""
        if not self._wanted():
            return
        with self._lock:
            self._found.append((detection, outcome))
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._serve, name="doorward-messages", daemon=True
                )
                self._thread.start()
            self._lock.notify()

    def close(self) -> None:
        """Show what is left, and wait a little until it is shown."""
        with self._lock:
            self._closing = True
            self._lock.notify()
        if self._thread is not None:
            self._thread.join(timeout=hosts.MESSAGE_SECONDS * 2)

    def _serve(self) -> None:
        while True:
            with self._lock:
                self._lock.wait_for(lambda: bool(self._found) or self._closing)
                if not self._found:
                    return
                # What is written together is told together.
                self._lock.wait_for(lambda: self._closing, timeout=self._settle)
                found, self._found = self._found, []
            with contextlib.suppress(OSError):
                self._show(TITLE, words(found))


def words(found: list[tuple[Detection, Outcome]]) -> str:
    """Say what was found and what was done about it."""
    if len(found) == 1:
        detection, outcome = found[0]
        return f"{_short(detection.title)} in {_short(detection.path)}. {_DONE[outcome.action]}"
    still = sum(outcome.is_still_there for _, outcome in found)
    names = ", ".join(dict.fromkeys(_short(detection.title) for detection, _ in found[:_NAMED]))
    more = " and others" if len(found) > _NAMED else ""
    put_away = sum(outcome.action == "quarantined" for _, outcome in found)
    done = f"{put_away} of them were put into quarantine."
    if still:
        done = f"{still} of them are still there."
    elif put_away == len(found):
        done = "All were put into quarantine."
    return f"{counted(len(found), 'threat')} found: {names}{more}. {done}"


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else "…" + text[1 - _LONGEST :]
