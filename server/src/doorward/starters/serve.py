"""`doorward serve`: everything on one machine, started and stopped together."""

from __future__ import annotations

import signal
import socket
import threading

from doorward.starters.supervisor import Supervisor, say, wait_until_ready


class DoorTaken(Exception):
    """Another program listens where a door should be; the text says which."""


def require_free_doors(host: str, ports: dict[str, int]) -> None:
    """Raise DoorTaken when something listens there already."""
    for option, port in ports.items():
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                raise DoorTaken(
                    f"can't listen on {host} port {port} ({error.strerror}). "
                    f"Choose another with {option}."
                ) from None


def serve() -> int:
    """Run the portal, the gateway and the worker until SIGTERM or Ctrl-C; the exit status.

    Raises AlreadyServed and DoorTaken before anything is changed.
    """
    from django.conf import settings

    from doorward.starters import alone

    with alone.on(settings.DATA):
        return _serve_alone()


def _serve_alone() -> int:
    from django.conf import settings

    from doorward.starters import logs, ready

    logs.configure(settings.LOG_FORMAT)
    require_free_doors(
        settings.HOST, {"--port": settings.PORT, "--device-port": settings.DEVICE_PORT}
    )
    import django

    django.setup()
    ready.everything()
    supervisor = Supervisor(say)
    stopping = threading.Event()

    def stop(*_: object) -> None:
        stopping.set()
        supervisor.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    supervisor.start()
    threading.Thread(target=_announce, args=(stopping,), daemon=True).start()
    supervisor.run()
    say("stopped")
    return 0


def _announce(stopping: threading.Event) -> None:
    from django.conf import settings

    here = f"[{settings.HOST}]" if ":" in settings.HOST else settings.HOST
    doors = [f"http://{here}:{port}/health/ready" for port in (settings.PORT, settings.DEVICE_PORT)]
    if wait_until_ready(doors, seconds=60, alive=lambda: not stopping.is_set()):
        say(f"people: {settings.SITE_URL}   devices: {settings.DEVICE_URL}   data: {settings.DATA}")
        if settings.EMAIL_URL == "file:":
            say(f"mail is not sent: each is a file in {settings.DATA / 'mail'} (docs/settings.md)")
    elif not stopping.is_set():
        say("the doors don't answer after 60 s; `doorward doctor` says more")
