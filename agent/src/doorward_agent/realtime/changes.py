"""Word of what was written where fanotify is not to be had: by the `watchfiles` library, which asks
the system's own notifications (inotify, FSEvents, ReadDirectoryChangesW).

It works for every user and on every system, some ten milliseconds later, and holds nothing back.
"""

import os
import queue
import threading
from collections.abc import Callable, Iterable, Iterator

from doorward_agent.realtime.fanotify import Change, Overflow

_STEP = 50
"""Milliseconds between two looks of the library: half of them is the usual delay."""
_DEBOUNCE = 400
"""Milliseconds after which a steady stream of changes is told in pieces."""


class FolderWatch:
    """Some folders and all that is in them, watched by a thread of its own."""

    def __init__(self, folders: Iterable[bytes], *, wake: Callable[[], None]) -> None:
        """Watch from now on; `wake` is called from another thread when there is something.

        Raises OSError where the system refuses, with its reason.
        """
        from watchfiles._rust_notify import RustNotify

        self._wake = wake
        self._told: queue.SimpleQueue[Change | Overflow] = queue.SimpleQueue()
        self._stop = threading.Event()
        self.problem = ""
        """Why the watch has ended by itself."""
        # Made here and not in the thread: what the system refuses is known at once.
        self._watcher = RustNotify(
            [os.fsdecode(folder) for folder in folders],
            debug=False,
            force_polling=False,
            poll_delay_ms=300,
            recursive=True,
            ignore_permission_denied=True,
        )
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
        while not self._stop.is_set():
            try:
                found = self._watcher.watch(_DEBOUNCE, _STEP, 5_000, self._stop)
            except (OSError, RuntimeError) as error:
                self.problem = str(error)
                self._told.put(Overflow())
                self._wake()
                return
            if isinstance(found, str):
                if found == "timeout":
                    continue
                return
            for kind, path in found:
                # 1 added, 2 modified, 3 deleted (watchfiles.Change)
                if kind in (1, 2):
                    self._told.put(_change(path, is_new=kind == 1))
            self._wake()


def _change(path: str, *, is_new: bool) -> Change:
    # A new folder may hold files that were written before it was watched.
    is_folder = is_new and os.path.isdir(path) and not os.path.islink(path)  # noqa: PTH112, PTH114 - text as it came
    return Change(path=os.fsencode(path), is_folder=is_folder, is_new=False)
