"""Leads each request to who answers it, and turns whatever goes wrong into a problem's answer."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import structlog
from django.conf import settings
from django.db import connection

from doorward.gateway import enroll, files, problems
from doorward.gateway.bodies import Gone, Receive, SlowBodies
from doorward.gateway.check_in import CheckIns, Tokens
from doorward.gateway.commands import Commands
from doorward.gateway.files import FileAnswer, FromDisk
from doorward.gateway.jobs import Jobs
from doorward.gateway.known import Known
from doorward.gateway.payloads import Payloads
from doorward.gateway.problems import Answer, Refused
from doorward.gateway.reports import Reports
from doorward.gateway.settings import SettingsOfDevices
from doorward.protection.definitions import repository
from doorward.reports.intake import Intake

log = structlog.get_logger(__name__)

Route = Callable[[dict[str, Any], Receive], Awaitable[FileAnswer]]

PREFIX: Final = "/device/v1"
CHECK_IN: Final = f"{PREFIX}/check-in"
COMMANDS: Final = f"{PREFIX}/commands/"
ONE_COMMAND: Final = f"{COMMANDS}{{command_uid}}"
SIGNED_FILE: Final = f"{files.DEFINITIONS}{{file}}"
CLAMAV_FILE: Final = f"{files.CLAMAV}{{file}}"
READY_SECONDS: Final = 5.0


class Door:
    """Everything that answers devices in one process. It lives in one event loop."""

    def __init__(self) -> None:
        self.jobs = Jobs()
        self.slow = SlowBodies()
        self.known = Known(self.jobs, self.slow)
        self.intake = Intake()
        tokens = Tokens(self.known)
        self._payloads = payloads = Payloads(self.jobs)
        self._check_ins = check_ins = CheckIns(self.jobs, self.known, tokens, self.slow, payloads)
        reports = Reports(self.intake, tokens, self.slow, payloads)
        commands = Commands(self.jobs, tokens, self.slow, payloads)
        self.known.also_writes += [commands.flush, payloads.flush_when_due]
        signed = files.Files(repository.published, files.SIGNED, files.DEFINITIONS)
        databases = files.Files(_clamav_folder, files.DATABASES, files.CLAMAV)
        self.routes: dict[str, dict[str, Route]] = {
            CHECK_IN: {"POST": check_ins.answer},
            f"{PREFIX}/reports": {"POST": reports.answer},
            ONE_COMMAND: {"POST": commands.answer},
            f"{PREFIX}/settings": {"GET": SettingsOfDevices(self.jobs, tokens).answer},
            f"{PREFIX}/enroll": {"POST": self._enroll},
            f"{PREFIX}/token": {"POST": self._token},
            f"{PREFIX}/keys": {"POST": self._change_key},
            f"{PREFIX}/self": {"DELETE": self._leave},
            SIGNED_FILE: {"GET": signed.answer, "HEAD": signed.answer},
            CLAMAV_FILE: {"GET": databases.answer, "HEAD": databases.answer},
            "/health/live": {"GET": self._live},
            "/health/ready": {"GET": self._ready},
        }

    def start(self) -> None:
        """Begin the work between requests."""
        self.known.start()

    def let_go(self) -> None:
        """Finish soon: answer everybody who waits for news, and wait no longer for the slow."""
        self.known.let_go()
        self.slow.hasten()

    async def stop(self) -> None:
        """Write everything down and let go of the database."""
        try:
            await self.known.stop()
            await self._payloads.flush()
        finally:
            await self.intake.close()
            self.jobs.close()

    async def answer(self, scope: dict[str, Any], receive: Receive) -> FileAnswer:
        """The answer to any request whatever. Raises Gone when nobody is there to hear it."""
        try:
            path = scope["path"]
            methods = self.routes.get(_template_of(path))
            if methods is None:
                raise Refused("not-found")
            route = methods.get(scope["method"])
            if route is None:
                raise Refused("method-not-allowed", allow=", ".join(methods))
            return await route(scope, receive)
        except Refused as refused:
            return problems.answer(refused)
        except (Gone, asyncio.CancelledError):
            raise
        except Exception as error:  # noqa: BLE001 - whatever it was, the device gets an answer
            return _failed(scope["path"], error)

    def answer_at_once(self, scope: dict[str, Any], body: bytes) -> Answer | None:
        """The answer to a whole request that needs no waiting, or None where `answer` has to."""
        if scope["path"] != CHECK_IN or scope["method"] != "POST":
            return None
        try:
            return self._check_ins.answer_at_once(scope, body)
        except Refused as refused:
            return problems.answer(refused)
        except Exception as error:  # noqa: BLE001 - whatever it was, the device gets an answer
            return _failed(CHECK_IN, error)

    async def send_file(self, body: FromDisk, send: files.Send) -> None:
        """Send what an answer left on disk; a reader that goes away or is too slow gets no more.

        Where less was sent than announced, the HTTP server ends the connection.
        """
        try:
            await files.send(body, send)
        except OSError as problem:
            log.info("gateway.download.ended", why=str(problem))

    async def _enroll(self, scope: dict[str, Any], receive: Receive) -> Answer:
        request = await enroll.receive_signed(scope, receive, self.slow)
        return await enroll.enroll(request, self.jobs, self.known)

    async def _token(self, scope: dict[str, Any], receive: Receive) -> Answer:
        request = await enroll.receive_signed(scope, receive, self.slow)
        return await enroll.token(request, self.jobs)

    async def _change_key(self, scope: dict[str, Any], receive: Receive) -> Answer:
        request = await enroll.receive_signed(scope, receive, self.slow)
        return await enroll.change_key(request, self.jobs)

    async def _leave(self, scope: dict[str, Any], receive: Receive) -> Answer:
        request = await enroll.receive_signed(scope, receive, self.slow)
        return await enroll.leave(request, self.jobs, self.known)

    async def _live(self, scope: dict[str, Any], receive: Receive) -> Answer:
        return problems.json_answer(200, b'{"status":"live"}')

    async def _ready(self, scope: dict[str, Any], receive: Receive) -> Answer:
        try:
            await asyncio.wait_for(self.jobs.run(_ask_database), READY_SECONDS)
        except TimeoutError:
            raise problems.busy("The database does not answer") from None
        return problems.json_answer(200, b'{"status":"ready"}')


def _template_of(path: str) -> str:
    """The address of a route, with the name of what changes in it."""
    for start, template in _TEMPLATES:
        if path.startswith(start):
            return template
    return path


_TEMPLATES: Final = (
    (COMMANDS, ONE_COMMAND),
    (files.DEFINITIONS, SIGNED_FILE),
    (files.CLAMAV, CLAMAV_FILE),
)


def _clamav_folder() -> Path | None:
    return Path(settings.CLAMAV_MIRROR) if settings.CLAMAV_MIRROR else None


def _failed(path: str, error: Exception) -> Answer:
    # The device is told a number that an operator finds in the log, and nothing else.
    fault = secrets.token_hex(8)
    log.error("gateway.failed", fault=fault, path=path, exc_info=error)
    return problems.answer(Refused("internal-error", f"Fault {fault}"))


def _ask_database() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        cursor.fetchone()
