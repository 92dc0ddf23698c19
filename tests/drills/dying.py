"""The gateway with one fault: it dies after its first commit of a report, before any answer."""

from __future__ import annotations

import os
import signal
from typing import Any

from doorward.gateway import asgi

_live = asgi.App._live


async def _live_until_the_first_commit(self: asgi.App, *words: Any) -> None:
    import django

    django.setup()
    from doorward.reports import intake

    store_all = intake._store_all

    def store_and_die(*words: Any) -> Any:
        store_all(*words)
        os.killpg(os.getpgid(0), signal.SIGKILL)

    intake._store_all = store_and_die  # type: ignore[assignment]  # the fault
    await _live(self, *words)


asgi.App._live = _live_until_the_first_commit  # type: ignore[method-assign, assignment]  # the fault
app = asgi.app
