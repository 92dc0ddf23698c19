"""Abuse cases that several processes could make worse: two portal processes on each database.

One door, behind it two processes: who answers is chance. The other cases of SECURITY.md, part B,
where it matters which of the two answers first, stand in test_second_steps_at_both_portals.py,
test_links_and_addresses_at_both_portals.py and test_tokens_die_on_both_portals.py.
"""

from __future__ import annotations

import contextlib
import http.client
import re
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
from tests.conftest import Server, new_server

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from server.tests import postgres  # noqa: E402 - found by the line above

# Each case also has quicker tests in one process (server/tests); these take minutes together.
pytestmark = pytest.mark.slow

PASSWORD = "seven lamps above the harbor"
REFUSED = "Too many tries"


@dataclass
class Portals:
    """Two portal processes over one database."""

    server: Server
    database_url: str

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        """What the database holds, asked past the server."""
        if self.database_url:
            with psycopg.connect(self.database_url) as connection:
                return connection.execute(statement.encode()).fetchall()
        path = self.server.data / "doorward.sqlite3"
        with contextlib.closing(sqlite3.connect(path)) as database:
            return database.execute(statement).fetchall()

    def checked(self) -> int:
        """How many wrong passwords were really compared: each of those is written down."""
        return int(
            self.rows("SELECT count(*) FROM audit_event WHERE tag = 'account.login.failed'")[0][0]
        )

    def process(self) -> psutil.Process:
        """The supervisor; the portal's processes are below it."""
        assert self.server.process is not None
        return psutil.Process(self.server.process.pid)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def portals(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Portals]:
    running = postgres.running() if request.param == "postgresql" else contextlib.nullcontext("")
    with running as url:
        server = new_server(
            tmp_path_factory.mktemp("server"),
            DOORWARD_PORTAL_PROCESSES="2",
            DOORWARD_DATABASE_URL=url,
        )
        server.start()
        try:
            yield Portals(server, url)
        finally:
            server.stop()


@dataclass
class Browser:
    """A browser without scripts, at an address of its own on loopback."""

    server: Server
    source: str = "127.0.0.1"
    cookies: dict[str, str] = field(default_factory=dict)

    def ask(
        self, method: str, path: str, headers: dict[str, str] | None = None, **fields: str
    ) -> tuple[int, str, str]:
        """Return status, page and where it leads."""
        where = urllib.parse.urlsplit(self.server.url)
        connection = http.client.HTTPConnection(
            "127.0.0.1", where.port, timeout=60, source_address=(self.source, 0)
        )
        sent = {"Host": where.netloc, **(headers or {})}
        if self.cookies:
            sent["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        body = None
        if method == "POST":
            sent.setdefault("Content-Type", "application/x-www-form-urlencoded")
            sent.setdefault("Origin", self.server.url)
            body = urllib.parse.urlencode(fields)
        try:
            connection.request(method, path, body, sent)
            answer = connection.getresponse()
            page = answer.read().decode()
        finally:
            connection.close()
        jar = SimpleCookie()
        for value in answer.headers.get_all("Set-Cookie") or ():
            jar.load(value)
        for name, morsel in jar.items():
            self.cookies[name] = morsel.value
        return answer.status, page, answer.headers.get("Location", "")

    def post(self, path: str, headers: dict[str, str] | None = None, **fields: str) -> str:
        """Post a form with its cross-site token; return the page and where it leads."""
        if "dw_csrf" not in self.cookies:
            self.ask("GET", "/login/")
        fields["csrfmiddlewaretoken"] = self.cookies["dw_csrf"]
        status, page, location = self.ask("POST", path, headers, **fields)
        return f"{status} {location}\n{page}"


def signed_up(portals: Portals, address: str) -> Browser:
    browser = Browser(portals.server, f"127.9.{len(address)}.{sum(address.encode()) % 250 + 1}")
    browser.post("/signup/", email=address, password1=PASSWORD)
    browser.post("/confirm-email/", code=portals.server.mailed_code(address))
    assert browser.ask("GET", "/devices/")[0] == 200
    return browser


def at_once(acts: list[Callable[[], str]], threads: int = 16) -> list[str]:
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(lambda act: act(), acts))


def guess(browser: Browser, login: str, headers: dict[str, str] | None = None) -> Callable[[], str]:
    return lambda: browser.post("/login/", headers, login=login, password="wrong")


def test_a01_sixty_guesses_at_once_of_which_five_are_checked(portals: Portals) -> None:
    owner = signed_up(portals, "a01@example.org")
    owner.post("/logout/")
    before = portals.checked()
    at_once(
        [guess(Browser(portals.server, f"127.1.1.{n + 1}"), "a01@example.org") for n in range(60)]
    )
    assert 1 <= portals.checked() - before <= 5


def test_a02_made_up_forwarding_headers_buy_no_try(portals: Portals) -> None:
    signed_up(portals, "a02@example.org").post("/logout/")
    before = portals.checked()
    at_once(
        [
            guess(
                Browser(portals.server, "127.1.2.1"),
                f"somebody-{n}@example.org",
                {
                    "X-Forwarded-For": f"203.0.113.{n}",
                    "True-Client-IP": f"203.0.113.{n}",
                    "Forwarded": f"for=203.0.113.{n}",
                },
            )
            for n in range(40)
        ]
    )
    # One network: the tenth address is the last.
    assert portals.checked() - before <= 10


def test_a05_two_hundred_networks_do_not_lock_the_owner_out(portals: Portals) -> None:
    address = "a05@example.org"
    owner = signed_up(portals, address)
    owner.post("/logout/")
    attack = [
        guess(Browser(portals.server, f"127.5.{n // 100}.{n % 100 + 1}"), address)
        for n in range(200)
    ]
    got_in: list[str] = []

    def come_back() -> None:
        for _time in range(20):
            got_in.append(owner.post("/login/", login=address, password=PASSWORD))
            owner.post("/logout/")

    home = threading.Thread(target=come_back)
    home.start()
    at_once(attack, threads=8)
    home.join()
    assert [page[:3] for page in got_in] == ["302"] * 20
    # And a browser nobody knows: the right password must wait, the mailed link lets it in.
    stranger = Browser(portals.server, "127.5.9.9")
    while REFUSED not in guess(Browser(portals.server, "127.5.9.8"), address)():
        # However few of the two hundred came a second after another: the fifth locks.
        time.sleep(0.2)
    assert REFUSED in stranger.post("/login/", login=address, password=PASSWORD)
    stranger.post("/login/link/", email=address)
    link = mailed_link(portals.server, address)
    stranger.post(link)
    assert stranger.post("/login/", login=address, password=PASSWORD).startswith("302")


def mailed_link(server: Server, address: str) -> str:
    """The path of the newest link to sign in by that was mailed to this address."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        mails = sorted((server.data / "mail").glob("*.eml"), key=lambda mail: mail.stat().st_mtime)
        for mail in reversed(mails):
            text = mail.read_text(errors="replace").replace("=\n", "").replace("=3D", "=")
            found = re.search(r"/login/link/[A-Za-z0-9_-]+/", text)
            if address in text and found:
                return found[0]
        time.sleep(0.1)
    raise AssertionError(f"no link was mailed to {address}")


def test_a09_one_password_for_many_accounts_stops_after_ten(portals: Portals) -> None:
    before = portals.checked()
    at_once(
        [
            guess(Browser(portals.server, "127.1.9.1"), f"sprayed-{n}@example.org")
            for n in range(100)
        ]
    )
    assert portals.checked() - before <= 10
    told = portals.rows("SELECT count(*) FROM audit_event WHERE tag = 'operator.alert.spraying'")
    assert told[0][0] >= 1


LOOK = """
import sys, time, urllib.request
while True:
    began = time.monotonic()
    urllib.request.urlopen(sys.argv[1] + "/help/", timeout=30).read()
    print(time.monotonic() - began, flush=True)
    time.sleep(0.02)
"""


def test_a10_long_passwords_and_two_hundred_sign_ins_at_once_leave_the_rest_working(
    portals: Portals,
) -> None:
    family = [portals.process(), *portals.process().children(recursive=True)]

    def memory() -> int:
        return sum(each.memory_info().rss for each in family if each.is_running())

    def log_in(number: int) -> str:
        browser = Browser(portals.server, f"127.10.{number // 100}.{number % 100 + 1}")
        length = 4096 if number % 2 else 1_000_000
        try:
            return browser.post(
                "/login/", login=f"long-{number}@example.org", password="x" * length
            )
        except (BrokenPipeError, ConnectionResetError):
            return "refused before all of it was sent"

    # By a process of its own: the attackers' threads must not take its turns.
    looking = subprocess.Popen(
        [sys.executable, "-c", LOOK, portals.server.url], stdout=subprocess.PIPE, text=True
    )
    resting, highest, done = memory(), [0], threading.Event()

    def watch_memory() -> None:
        while not done.wait(0.05):
            highest[0] = max(highest[0], memory())

    watching = threading.Thread(target=watch_memory)
    watching.start()
    answers = at_once([lambda n=n: log_in(n) for n in range(200)], threads=50)  # type: ignore[misc]
    done.set()
    watching.join()
    looking.terminate()
    waits = sorted(map(float, looking.communicate()[0].split()))
    p95 = waits[int(len(waits) * 0.95)]
    grown = highest[0] - resting
    print(f"\nmemory +{grown / 2**20:.0f} MiB, other pages p95 {p95:.2f} s of {len(waits)}")  # noqa: T201
    assert not any(answer.startswith(("302", "5")) for answer in answers)
    assert grown < 400 * 2**20
    assert p95 < 1.0


def test_a21_no_more_than_three_reset_mails_an_hour(portals: Portals) -> None:
    address = "a21@example.org"
    signed_up(portals, address)
    answers = at_once(
        [
            lambda n=n: Browser(portals.server, f"127.21.0.{n + 1}").post(  # type: ignore[misc]
                "/password/reset/", email=address
            )
            for n in range(30)
        ]
    )
    assert len({answer.splitlines()[0] for answer in answers}) == 1
    mails = portals.rows("SELECT count(*) FROM notices_mail WHERE kind LIKE '%password_reset%'")
    assert mails[0][0] <= 3


def test_a28_nobody_is_signed_in_or_out_from_another_site(portals: Portals) -> None:
    address = "a28@example.org"
    owner = signed_up(portals, address)
    stranger = Browser(portals.server, "127.28.0.1")
    # Without the token, with somebody else's, and with the right one but from another site.
    assert stranger.ask("POST", "/login/", login=address, password=PASSWORD)[0] == 403
    stranger.ask("GET", "/login/")
    forged = {"login": address, "password": PASSWORD, "csrfmiddlewaretoken": "x" * 32}
    assert stranger.ask("POST", "/login/", None, **forged)[0] == 403
    elsewhere = {"Origin": "https://elsewhere.example"}
    assert stranger.post("/login/", elsewhere, login=address, password=PASSWORD)[:3] == "403"
    assert owner.post("/logout/", elsewhere)[:3] == "403"
    owner.ask("GET", "/logout/")
    assert owner.ask("GET", "/devices/")[0] == 200
