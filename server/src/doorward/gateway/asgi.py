"""The devices' door: a plain ASGI app, with none of Django's request cycle on its way."""

from __future__ import annotations

import gc
import os
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

import django

if TYPE_CHECKING:
    from doorward.gateway.bodies import Receive
    from doorward.gateway.door import Door

Send = Callable[[dict[str, Any]], Awaitable[None]]

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "doorward.settings")


class App:
    """The app that the server runs: a door from its start to its stop."""

    def __init__(self) -> None:
        self.door: Door | None = None

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Serve one request, or the server's start and stop (ASGI 3)."""
        door = self.door
        if scope["type"] == "http" and door is not None:
            try:
                status, headers, body = await door.answer(scope, receive)
            except ConnectionError:
                return  # Nobody is there any more to hear it.
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": body})
        elif scope["type"] == "lifespan":
            await self._live(receive, send)
        else:
            raise RuntimeError(
                f"The gateway answers HTTP between start and stop, no {scope['type']}"
            )

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        django.setup()
        # Only now: the models need Django to be set up.
        from doorward.gateway.door import Door

        self.door = Door()
        self.door.start()
        # What is here now stays: the collector need not look at it again and again.
        gc.collect()
        gc.freeze()
        # A report is some 500 objects that live for a moment, none of them in a ring: looking for
        # rings after every 700 of them took an eighth of the time of storing reports.
        gc.set_threshold(50_000, 20, 20)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.door.stop()
        await send({"type": "lifespan.shutdown.complete"})


app: Final = App()
