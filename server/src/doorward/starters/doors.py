"""The three processes: the people's door, the devices' door and the worker."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING

from doorward.starters import leash

if TYPE_CHECKING:
    from granian.constants import Interfaces

# A client that has not sent its headers by then is cut (drill D13, slow senders).
HEADER_TIMEOUT_MS = 15_000
DRAIN_SECONDS = 10


def portal() -> None:
    """Serve people until told to stop; requests under way are finished first."""
    from django.conf import settings
    from granian.constants import Interfaces

    _serve(
        "doorward.portal.wsgi:application",
        Interfaces.WSGI,
        port=settings.PORT,
        processes=settings.PORTAL_PROCESSES,
        threads=settings.PORTAL_THREADS,
    )


def gateway() -> None:
    """Serve devices until told to stop; what was taken in is stored first."""
    from django.conf import settings
    from granian.constants import Interfaces

    from doorward.gateway import wakeups

    wakeups.install()
    _serve(
        "doorward.gateway.asgi:app",
        Interfaces.ASGI,
        port=settings.DEVICE_PORT,
        processes=settings.GATEWAY_PROCESSES,
        threads=None,
    )


def _serve(
    target: str, interface: Interfaces, *, port: int, processes: int, threads: int | None
) -> None:
    from django.conf import settings
    from granian import Granian
    from granian.constants import HTTPModes, Loops
    from granian.http import HTTP1Settings
    from granian.log import LogLevels

    from doorward.starters import logs

    logs.configure(settings.LOG_FORMAT)
    leash.follow_supervisor()
    Granian(
        target,
        address=settings.HOST,
        port=port,
        interface=interface,
        workers=processes,
        blocking_threads=threads,
        loop=Loops.asyncio,
        http=HTTPModes.http1,
        http1_settings=HTTP1Settings(header_read_timeout=HEADER_TIMEOUT_MS),
        websockets=False,
        log_level=LogLevels.warning,
        respawn_failed_workers=True,
        respawn_interval=0.5,
        workers_kill_timeout=DRAIN_SECONDS,
    ).serve()


def worker() -> None:
    """Do what is due until told to stop; the sweep under way is finished first."""
    import django
    from django.conf import settings

    from doorward.starters import logs

    logs.configure(settings.LOG_FORMAT)
    django.setup()
    from doorward import worker as sweeper

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    leash.follow_supervisor()
    sweeper.run_until(stop)
