"""A01, L4, L5: sixty guesses at once against two portal processes, and a restart in between."""

from __future__ import annotations

import http.cookiejar
import sqlite3
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.conftest import Server, new_installed

PASSWORD = "seven lamps above the harbor"
ADDRESS = "dora@example.org"


class Browser:
    """A browser without scripts: cookies, forms and redirects."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.cookies = http.cookiejar.CookieJar()
        self.opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(self.cookies))

    def get(self, path: str) -> str:
        with self.opener.open(self.server.url + path, timeout=30) as answer:
            return str(answer.read().decode())

    def post(self, path: str, **fields: str) -> str:
        """Post a form and return the page it leads to."""
        self.get(path)
        token = next(cookie.value for cookie in self.cookies if cookie.name == "dw_csrf")
        data = urllib.parse.urlencode({**fields, "csrfmiddlewaretoken": token or ""}).encode()
        request = urllib.request.Request(  # noqa: S310 - our own http address
            self.server.url + path, data, {"Origin": self.server.url}
        )
        with self.opener.open(request, timeout=30) as answer:
            return f"{answer.geturl()}\n{answer.read().decode()}"


@pytest.fixture
def two_portals(tmp_path: Path, installed: Path) -> Iterator[Server]:
    running = new_installed(installed, tmp_path / "server", DOORWARD_PORTAL_PROCESSES="2")
    running.start()
    yield running
    running.stop()


def signed_up(server: Server) -> Browser:
    browser = Browser(server)
    browser.post("/signup/", email=ADDRESS, password1=PASSWORD)
    browser.post("/confirm-email/", code=server.mailed_code(ADDRESS))
    assert "Devices" in browser.get("/devices/")
    return browser


def checked(server: Server) -> int:
    """How many wrong passwords were really compared: each is written down, a refused one is not."""
    with sqlite3.connect(server.data / "doorward.sqlite3") as database:
        found = database.execute(
            "SELECT count(*) FROM audit_event WHERE tag = 'account.login.failed'"
        )
        return int(found.fetchone()[0])


def at_once(acts: list[Callable[[], str]]) -> list[str]:
    with ThreadPoolExecutor(16) as pool:
        return list(pool.map(lambda act: act(), acts))


def test_a01_l4_l5_sixty_guesses_at_once_over_two_processes_and_a_restart(
    two_portals: Server,
) -> None:
    owner = signed_up(two_portals)
    owner.post("/logout/")
    strangers = [Browser(two_portals) for _number in range(60)]
    for stranger in strangers:
        stranger.get("/login/")
    pages = at_once(
        [
            lambda stranger=stranger: stranger.post("/login/", login=ADDRESS, password="wrong")  # type: ignore[misc]
            for stranger in strangers
        ]
    )
    assert 1 <= checked(two_portals) <= 5
    assert not any("/devices/" in page.splitlines()[0] for page in pages)

    # However long that took: make sure of the lock, then it must outlive a restart.
    while "Too many tries" not in (
        page := Browser(two_portals).post("/login/", login=ADDRESS, password="wrong")
    ):
        assert "Invalid email or password." in page
    before = checked(two_portals)
    two_portals.stop()
    two_portals.start()
    page = Browser(two_portals).post("/login/", login=ADDRESS, password=PASSWORD)
    assert "Too many tries" in page
    assert checked(two_portals) == before

    # And the owner's own browser was never locked out.
    landed = owner.post("/login/", login=ADDRESS, password=PASSWORD).splitlines()[0]
    assert "/login/" not in landed
    assert "Devices" in owner.get("/devices/")


def test_d14_signing_in_is_not_slower_while_the_mail_server_is_down(
    tmp_path: Path, installed: Path
) -> None:
    server = new_installed(installed, tmp_path / "server", DOORWARD_EMAIL_URL="smtp://127.0.0.1:9")
    server.start()
    try:
        page = Browser(server).post("/signup/", email=ADDRESS, password1=PASSWORD)
        assert "/confirm-email/" in page.splitlines()[0]
        deadline = time.monotonic() + 15
        while "mail.postponed" not in server.log() and time.monotonic() < deadline:
            time.sleep(0.05)
    finally:
        server.stop()
    assert "mail.postponed" in server.log()
    assert ADDRESS not in server.log()
