"""Two portals with doors of their own over one database, and people who use either.

Each door is another process: what one of them would only remember, the other does not know.
"""

from __future__ import annotations

import base64
import contextlib
import hmac
import http.client
import itertools
import json
import os
import re
import sqlite3
import struct
import subprocess
import sys
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.conftest import Server, free_port, is_open, new_server

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from server.tests import postgres  # noqa: E402 - found by the line above

PASSWORD = "seven lamps above the harbor"
NEW = "nine ships in the quiet morning"
DOORS = (0, 1)


@dataclass
class Both:
    """Two portals over one database: their doors, the first of which is the site's own."""

    server: Server
    second: int
    database_url: str = ""
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    @property
    def doors(self) -> tuple[int, int]:
        """The ports of both."""
        return self.server.port, self.second

    def run_statement(self, statement: str) -> list[tuple[Any, ...]]:
        """Run one statement past both portals; what it answers, if it does."""
        if self.database_url:
            with psycopg.connect(self.database_url) as connection:
                cursor = connection.execute(statement.encode())
                return cursor.fetchall() if cursor.description else []
        path = self.server.data / "doorward.sqlite3"
        with contextlib.closing(sqlite3.connect(path, timeout=20)) as database, database:
            return database.execute(statement).fetchall()

    def events_about(self, address: str, tag: str) -> int:
        """How many events of this kind were caused by the person with this address."""
        found = self.run_statement(
            "SELECT count(*) FROM audit_event e JOIN accounts_user u ON u.id = e.actor_id"  # noqa: S608 - our own words
            f" WHERE e.tag = '{tag}' AND u.email = '{address}'"
        )
        return int(found[0][0])


@contextlib.contextmanager
def two_doors(folder: Path, database: str) -> Iterator[Both]:
    """Run both portals over a database of this kind, "sqlite" or "postgresql"."""
    running = postgres.running() if database == "postgresql" else contextlib.nullcontext("")
    with running as url:
        server = new_server(folder, DOORWARD_DATABASE_URL=url, DOORWARD_SMS_URL="file:")
        server.start()
        second = free_port()
        portal = [sys.executable, "-m", "doorward", "portal"]
        with (server.data / "second.log").open("wb") as log:
            other = subprocess.Popen(
                [*portal, "--data", str(server.data), "--port", str(second)],
                env={**os.environ, **server.environment, "DOORWARD_SITE_URL": server.url},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            deadline = time.monotonic() + 60
            while not is_open(f"http://localhost:{second}/health/live"):
                assert time.monotonic() < deadline, (server.data / "second.log").read_text()
                time.sleep(0.1)
            yield Both(server, second, url)
        finally:
            other.terminate()
            other.wait(timeout=30)
            server.stop()


@pytest.fixture(
    scope="module",
    params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)],
)
def both(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Both]:
    """One pair for the drills of a file; each makes its own people."""
    with two_doors(tmp_path_factory.mktemp("server"), request.param) as pair:
        yield pair


@dataclass
class Person:
    """Somebody's browser or app, at an address of its own on loopback."""

    both: Both
    source: str
    cookies: dict[str, str] = field(default_factory=dict)
    token: str = ""
    headers: list[tuple[str, str]] = field(default_factory=list)
    """Those of the newest answer."""

    def ask(
        self, method: str, path: str, *, door: int = 0, headers: dict[str, str], body: str = ""
    ) -> tuple[int, str, str]:
        """Return status, answer and where it leads; by the first door unless another is named."""
        connection = http.client.HTTPConnection(
            "127.0.0.1", self.both.doors[door], timeout=60, source_address=(self.source, 0)
        )
        # The name of the site, at whichever door: as behind a proxy.
        sent = {"Host": f"localhost:{self.both.server.port}", **headers}
        try:
            connection.request(method, path, body or None, sent)
            answer = connection.getresponse()
            text = answer.read().decode()
        finally:
            connection.close()
        self.headers = answer.getheaders()
        jar = SimpleCookie()
        for value in answer.headers.get_all("Set-Cookie") or ():
            jar.load(value)
        for name, morsel in jar.items():
            self.cookies[name] = morsel.value
        return answer.status, text, answer.headers.get("Location", "")

    def page(self, path: str, *, door: int = 0, **fields: str) -> tuple[int, str, str]:
        """Get a page, or post a form to it when there are fields."""
        headers = {}
        body = ""
        if fields and "dw_csrf" not in self.cookies:
            self.page("/login/", door=door)
        if self.cookies:
            headers["Cookie"] = "; ".join(f"{name}={text}" for name, text in self.cookies.items())
        if fields:
            headers["Origin"] = self.both.server.url
            headers["Content-Type"] = "application/x-www-form-urlencoded"
            body = urllib.parse.urlencode(
                {**fields, "csrfmiddlewaretoken": self.cookies["dw_csrf"]}
            )
        return self.ask("POST" if fields else "GET", path, door=door, headers=headers, body=body)

    def call(self, method: str, path: str, *, door: int = 0, **body: Any) -> tuple[int, Any]:
        """Call the JSON sign-in as an app."""
        headers = {"Content-Type": "application/json"}
        if self.token:
            headers["X-Session-Token"] = self.token
        status, text, _to = self.ask(
            method,
            f"/_allauth/app/v1/{path}",
            door=door,
            headers=headers,
            body=json.dumps(body) if body else "",
        )
        answer = json.loads(text) if text.startswith("{") else {}
        self.token = (answer.get("meta") or {}).get("session_token") or self.token
        return status, answer

    def is_in(self, door: int = 0) -> bool:
        """Whether this browser is signed in."""
        return self.page("/devices/", door=door)[0] == 200

    def has_session(self, door: int = 0) -> bool:
        """Whether this app is signed in."""
        return self.call("GET", "auth/session", door=door)[0] == 200

    def copied(self) -> Person:
        """Return what somebody has who copied the cookies and tokens of this one."""
        return Person(self.both, stranger(self.both).source, dict(self.cookies), self.token)


def stranger(both: Both) -> Person:
    """Return somebody's browser or app, in a network that was never seen before."""
    number = next(both.numbers)
    return Person(both, f"127.{60 + number // 40000}.{number // 200 % 200}.{number % 200 + 1}")


def newcomer(both: Both, name: str) -> tuple[str, Person]:
    """Return the address of somebody who has just signed up, and their app."""
    address = f"{name}@example.org"
    app = stranger(both)
    app.call("POST", "auth/signup", email=address, password=PASSWORD)
    code = both.server.mailed_code(address)
    status, answer = app.call("POST", "auth/email/verify", door=1, key=code)
    assert status == 200, answer
    return address, app


def add_app(app: Person) -> tuple[str, list[str]]:
    """Set up an authenticator app; return its seed and the recovery codes.

    It is proved by the code of the step before this one: the one of now is unused.
    """
    app.call("POST", "auth/reauthenticate", password=PASSWORD)
    _status, offered = app.call("GET", "account/authenticators/totp")
    seed = offered["meta"]["secret"]
    status, answer = app.call("POST", "account/authenticators/totp", code=code_of(seed, -1))
    assert status == 200, answer
    _status, shown = app.call("GET", "account/authenticators/recovery-codes")
    return seed, list(shown["data"]["unused_codes"])


def type_password(
    browser: Person, address: str, password: str = PASSWORD, *, door: int = 0
) -> tuple[int, str, str]:
    """Send the form for signing in."""
    return browser.page("/login/", door=door, login=address, password=password)


def signed_in(both: Both, address: str, *, code: str = "", door: int = 0) -> Person:
    """Return a browser in which this person signed in, by this recovery code if there are any."""
    browser = stranger(both)
    type_password(browser, address, door=door)
    if code:
        browser.page("/account/security/authenticate/", door=door, code=code)
        browser.page("/account/security/trust/", door=door, action="skip")
    assert browser.is_in(door)
    return browser


def code_of(seed: str, ahead: int = 0) -> str:
    """Return the app's code of the 30-second step so many before or after this one (RFC 6238)."""
    counter = struct.pack(">Q", int(time.time()) // 30 + ahead)
    mac = hmac.new(base64.b32decode(seed), counter, "sha1").digest()
    at = mac[-1] & 15
    return f"{(struct.unpack('>I', mac[at : at + 4])[0] & 0x7FFFFFFF) % 1_000_000:06}"


def mailed(both: Both, address: str, pattern: str, *, without: Sequence[str] = ()) -> str:
    """Return what the newest mail to this address that holds it says, waiting for it.

    ``without``: what was mailed before, and is not waited for.
    """
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        for text in reversed(both.server.mails(address)):
            found = re.search(pattern, text, re.MULTILINE)
            if found and found[1] not in without:
                return found[1]
        time.sleep(0.05)
    raise AssertionError(f"no mail with {pattern} came to {address}")


def time_passes(both: Both, *, minutes: float) -> None:
    """Let so much time have passed for whatever is counted: no drill waits for a lock to end."""
    ago = round(minutes * 60_000)
    both.run_statement(
        f"UPDATE accounts_throttle SET since = since - {ago},"  # noqa: S608 - our own numbers
        f" locked_until = locked_until - {ago}, updated = updated - {ago}"
    )


RESET_LINK = r"http://localhost:\d+(/password/reset/key/\S+)"
WAY_IN = r"http://localhost:\d+(/login/link/[\w-]+/)"
MAILED_CODE = r"^ {4}(\S+)\r?$"


def at_once(acts: Sequence[Callable[[], Any]]) -> list[Any]:
    """Do all of these at the same moment; return what each answers."""
    start = threading.Barrier(len(acts))

    def one(act: Callable[[], Any]) -> Any:
        start.wait(30)
        return act()

    with ThreadPoolExecutor(len(acts)) as pool:
        return list(pool.map(one, acts))
