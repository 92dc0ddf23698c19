"""The three processes: the people's door, the devices' door and the worker."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading

from doorward.starters import leash
from doorward.starters.supervisor import Child, Supervisor, say

# A client that has not sent its headers by then is cut (drill D13, slow senders); for bodies see
# portal/arrival.py.
HEADER_TIMEOUT_MS = 15_000
DRAIN_SECONDS = 10
# Longer than a device waits for news, so that its next call finds the connection open.
KEEP_ALIVE_SECONDS = 75
SHARED_DOOR = "DOORWARD_SHARED_DOOR"


def portal() -> None:
    """Serve people until told to stop; requests under way are finished first."""
    from django.conf import settings
    from granian import Granian
    from granian.constants import HTTPModes, Interfaces
    from granian.http import HTTP1Settings
    from granian.log import LogLevels

    from doorward.starters import logs

    logs.configure(settings.LOG_FORMAT)
    leash.follow_supervisor()
    Granian(
        "doorward.portal.wsgi:arrivals",
        address=settings.HOST,
        port=settings.PORT,
        interface=Interfaces.RSGI,
        workers=settings.PORTAL_PROCESSES,
        http=HTTPModes.http1,
        http1_settings=HTTP1Settings(header_read_timeout=HEADER_TIMEOUT_MS),
        websockets=False,
        log_level=LogLevels.warning,
        respawn_failed_workers=True,
        respawn_interval=0.5,
        workers_kill_timeout=DRAIN_SECONDS,
    ).serve()


def gateway() -> None:
    """Serve devices until told to stop; what was taken in is stored first."""
    from django.conf import settings

    from doorward.starters import logs

    logs.configure(settings.LOG_FORMAT)
    leash.follow_supervisor()
    if settings.GATEWAY_PROCESSES > 1:
        _several_gateways(settings.GATEWAY_PROCESSES)
        return
    # uvicorn hands a signal on to whoever listened before it, once all is served.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    import uvicorn

    from doorward.gateway.connections import Connection, headers_of_all

    config = uvicorn.Config(
        "doorward.gateway.asgi:app",
        http=Connection,
        headers=headers_of_all(),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )
    with _listening(settings.HOST, settings.DEVICE_PORT) as door:
        uvicorn.Server(config).run(sockets=[door])


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    door = socket.socket(family, socket.SOCK_STREAM)
    door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if os.environ.get(SHARED_DOOR) is not None:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    door.bind((host, port))
    return door


def _several_gateways(processes: int) -> None:
    """Watch over so many gateways at one door, until told to stop."""
    alone = {"DOORWARD_GATEWAY_PROCESSES": "1", SHARED_DOOR: "1"}
    supervisor = Supervisor(
        say, [Child("gateway", number, alone) for number in range(1, processes + 1)]
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: supervisor.stop())
    supervisor.start()
    supervisor.run()


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
