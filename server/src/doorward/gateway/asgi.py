"""The devices' door: a plain ASGI app, with none of Django's request cycle on its way."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Awaitable, Callable
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

import django

from doorward.settled import settle

if TYPE_CHECKING:
    from doorward.gateway.bodies import Receive
    from doorward.gateway.door import Door
    from doorward.gateway.problems import Answer

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
            if isinstance(body, bytes):
                await send({"type": "http.response.body", "body": body})
            else:
                await door.send_file(body, send)
        elif scope["type"] == "lifespan":
            await self._live(receive, send)
        else:
            raise RuntimeError(
                f"The gateway answers HTTP between start and stop, no {scope['type']}"
            )

    def answer_at_once(self, scope: dict[str, Any], body: bytes) -> Answer | None:
        """The answer to a whole request that needs no waiting, or None where ASGI has to do it."""
        return None if self.door is None else self.door.answer_at_once(scope, body)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        django.setup()
        # Only now: the models need Django to be set up.
        from doorward.gateway.door import Door

        self.door = Door()
        self.door.start()
        _let_go_when_told_to_stop(self.door)
        # A report is some 500 objects that live for a moment, none of them in a ring: looking for
        # rings after every 700 of them took an eighth of the time of storing reports.
        settle(look_after=(50_000, 20, 20))
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.door.stop()
        await send({"type": "lifespan.shutdown.complete"})


def _let_go_when_told_to_stop(door: Door) -> None:
    """Answer everybody who waits as soon as the signal comes.

    The server waits for requests under way before it tells the app to stop, and devices wait for
    news for most of a minute. Its own handler hangs on the event loop's wake-up, not on Python's
    handler, so this one stands beside it.
    """
    loop = asyncio.get_running_loop()
    if threading.current_thread() is not threading.main_thread():
        return  # Only the main thread hears signals; whoever runs us elsewhere stops us otherwise.
    for number in (signal.SIGTERM, signal.SIGINT):
        before = signal.getsignal(number)

        def let_go(
            told: int, frame: FrameType | None, before: Any = before, door: Door = door
        ) -> None:
            loop.call_soon_threadsafe(door.let_go)
            if callable(before):
                before(told, frame)

        signal.signal(number, let_go)
        signal.siginterrupt(number, False)


app: Final = App()
