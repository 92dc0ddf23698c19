"""Word of what was written where fanotify is not to be had: by the `watchfiles` library, which asks
the system's own notifications (inotify, FSEvents, ReadDirectoryChangesW).

It works for every user and on every system, some ten milliseconds later, and holds nothing back.
"""

import os
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from doorward_agent.realtime.fanotify import Change, Overflow

if TYPE_CHECKING:
    from watchfiles._rust_notify import RustNotify

_STEP = 50
"""Milliseconds between two looks of the library: half of them is the usual delay."""
_DEBOUNCE = 400
"""Milliseconds after which a steady stream of changes is told in pieces."""
_AGAIN_FIRST, _AGAIN_MOST = 0.1, 30.0
"""Seconds until a watch that has broken is begun anew; longer each time it breaks at once."""


class FolderWatch:
    """Some folders and all that is in them, watched by a thread of its own."""

    def __init__(
        self, folders: Iterable[bytes], *, wake: Callable[[], None], most: int = 50_000
    ) -> None:
        """Watch from now on; `wake` is called from another thread when there is something.

        Past `most` changes that nobody has taken, it tells only that there were more.

        Raises OSError where the system refuses, with its reason.
        """
        self._folders = [os.fsdecode(folder) for folder in folders]
        self._wake = wake
        self._most = most
        self._told: queue.SimpleQueue[Change | Overflow] = queue.SimpleQueue()
        self._is_full = False
        self._stop = threading.Event()
        self.problem = ""
        """Why nothing is heard at the moment; empty while all is well."""
        # Made here and not in the thread: what the system refuses is known at once.
        self._watcher = _watcher(self._folders)
        self._thread = threading.Thread(target=self._listen, name="doorward-changes", daemon=True)
        self._thread.start()

    def changes(self) -> Iterator[Change | Overflow]:
        """Yield what is new since the last call, each path once."""
        seen = set()
        while True:
            try:
                told = self._told.get_nowait()
            except queue.Empty:
                return
            if told not in seen:
                seen.add(told)
                yield told

    def close(self) -> None:
        """Watch no longer."""
        self._stop.set()
        self._watcher.close()
        self._thread.join(timeout=5.0)

    def _listen(self) -> None:
        heard = time.time()
        pause = _AGAIN_FIRST
        while not self._stop.is_set():
            began = time.time()
            try:
                found = self._watcher.watch(_DEBOUNCE, _STEP, 5_000, self._stop)
            except (OSError, RuntimeError) as error:
                # One file whose name is no UTF-8 is enough; the library then hears nothing more.
                self._begin_again(str(error), heard, pause)
                pause = min(pause * 2, _AGAIN_MOST)
                continue
            before, heard = heard, began
            if isinstance(found, str):
                if found == "timeout":
                    pause = _AGAIN_FIRST
                    continue
                return
            if self._told.qsize() >= self._most:
                # A few words for thousands: from the first of them on, all is looked for anyway.
                if not self._is_full:
                    self._is_full = True
                    self._told.put(Overflow(since=before))
                    self._wake()
                continue
            self._is_full = False
            for kind, path in found:
                # 1 added, 2 modified, 3 deleted (watchfiles.Change)
                if kind in (1, 2):
                    self._told.put(_change(path, is_new=kind == 1))
            self._wake()

    def _begin_again(self, why: str, heard: float, pause: float) -> None:
        """Watch anew, and have what has changed since it was `heard` last looked for."""
        # At once, and once more when it is watched again: nothing waits for the pause.
        self._told.put(Overflow(since=heard))
        self._wake()
        self._watcher.close()
        while not self._stop.wait(pause):
            try:
                self._watcher = _watcher(self._folders)
            except (OSError, RuntimeError) as error:
                self.problem = str(error) or why
                pause = min(pause * 2, _AGAIN_MOST)
                self._wake()
                continue
            self.problem = ""
            self._told.put(Overflow(since=heard))
            self._wake()
            return


def _watcher(folders: list[str]) -> "RustNotify":
    """Begin to watch. Raises OSError, RuntimeError."""
    from watchfiles._rust_notify import RustNotify  # only where it is needed

    return RustNotify(
        folders,
        debug=False,
        force_polling=False,
        poll_delay_ms=300,
        recursive=True,
        ignore_permission_denied=True,
    )


def _change(path: str, *, is_new: bool) -> Change:
    # A new folder may hold files that were written before it was watched.
    is_folder = is_new and os.path.isdir(path) and not os.path.islink(path)  # noqa: PTH112, PTH114 - text as it came
    return Change(path=os.fsencode(path), is_folder=is_folder, is_new=False)
