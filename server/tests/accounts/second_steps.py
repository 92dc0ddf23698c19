"""People at a browser or an app who set up and take a second step."""

from __future__ import annotations

import email
import email.policy
import html
import json
import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import time_machine
from allauth.mfa.adapter import get_adapter as mfa_adapter
from allauth.mfa.models import Authenticator
from allauth.mfa.totp.internal import auth
from allauth.mfa.webauthn.internal import auth as webauthn
from django.db import connection
from django.test import Client
from django.utils import timezone
from server.tests.conftest import PASSWORD

from doorward.accounts.models import User
from doorward.notices import outbox
from doorward.notices.models import Mail

CHROME = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML) Chrome/140.0 Safari/537.36"


def tab(agent: str = CHROME) -> Client:
    """Return a browser that nobody is signed in with."""
    return Client(HTTP_HOST="localhost", HTTP_USER_AGENT=agent)


def type_password(browser: Client, address: str, password: str = PASSWORD) -> Any:
    return browser.post("/login/", {"login": address, "password": password})


def signed_in_tab(address: str, agent: str = CHROME) -> Client:
    """Return a browser in which this person signed in by the page, with no second step."""
    browser = tab(agent)
    answer = type_password(browser, address)
    assert answer.status_code == 302, answer.content.decode()
    assert is_signed_in(browser), answer.headers["Location"]
    return browser


def is_signed_in(browser: Client) -> bool:
    return bool(browser.get("/account/security/").status_code == 200)


def prove_again(browser: Client, path: str) -> Any:
    """Open a page that asks again who it is, and tell by the password."""
    asked = browser.get(path)
    assert asked.status_code == 302, path
    assert "/reauthenticate/" in asked["Location"]
    return browser.post(asked["Location"], {"password": PASSWORD}, follow=True)


def code_at(seed: str, ahead: int = 0) -> str:
    """Return what an authenticator app with this seed shows, now or some steps of 30 s later."""
    now = int(timezone.now().timestamp()) // 30
    return str(auth.format_hotp_value(auth.hotp_value(seed, now + ahead)))


def add_app(browser: Client) -> tuple[str, list[str]]:
    """Set up an authenticator app; returns its seed and the recovery codes that are shown.

    The app is proved by the code of the step before this one, so that the current one is unused.
    """
    page = prove_again(browser, "/account/security/totp/activate/").content.decode()
    found = re.search(r'id="seed">([A-Z2-7]+)<', page)
    assert found is not None, page
    seed = found[1]
    # The clock stands still meanwhile, so that no step ends between the code and its use.
    with time_machine.travel(timezone.now(), tick=False):
        answer = browser.post(
            "/account/security/totp/activate/", {"code": code_at(seed, -1)}, follow=True
        )
    shown = re.search(r'id="recovery"[^>]*>([^<]+)</pre>', answer.content.decode())
    assert shown is not None, answer.content.decode()
    return seed, html.unescape(shown[1]).split()


def mails_to(address: str) -> list[str]:
    """Return the subjects of what was written to this address, oldest first."""
    mails = Mail.objects.filter(to=address).order_by("created_at", "pk")
    return [mail.subject for mail in mails]


def newest_code(address: str, settings: Any) -> str:
    """Return the code in the newest mail to this address."""
    outbox.send_due(timezone.now())
    files = sorted((settings.DATA / "mail").glob("*.eml"), key=lambda file: file.stat().st_mtime_ns)
    for file in reversed(files):
        message = email.message_from_bytes(file.read_bytes(), policy=email.policy.default)
        body = message.get_body(("plain",))
        found = body and re.search(r"^ {4}(\S+)\r?$", body.get_content(), re.MULTILINE)
        if found and message["To"] == address:
            return str(found[1])
    raise AssertionError(f"no code was mailed to {address}")


def choose_email(browser: Client) -> None:
    """Turn the code by email on, telling again who it is."""
    asked = browser.post("/account/security/email/", {"wanted": "on"})
    browser.post(asked["Location"], {"password": PASSWORD})
    answer = browser.post("/account/security/email/", {"wanted": "on"}, follow=True)
    assert "Code by email" in answer.content.decode()


def second_step(browser: Client, code: str, *, remember: bool = False) -> Any:
    """Give this code where the second step is asked; and answer whether to remember."""
    answer = browser.post("/account/security/authenticate/", {"code": code})
    if answer.status_code == 302 and answer["Location"] == "/account/security/trust/":
        wanted = "trust" if remember else "skip"
        return browser.post("/account/security/trust/", {"action": wanted})
    return answer


def at_once(times: int, act: Callable[[int], bool]) -> int:
    """Do this so many times in parallel; returns how often it answered yes."""
    start = threading.Barrier(times)

    def one(number: int) -> bool:
        try:
            start.wait(30)
            return act(number)
        finally:
            connection.close()

    with ThreadPoolExecutor(times) as pool:
        return sum(pool.map(one, range(times)))


class App:
    """An app that signs in by the JSON path and keeps its session token."""

    def __init__(self) -> None:
        self.client = Client(HTTP_HOST="localhost")
        self.token = ""

    def call(self, method: str, path: str, **body: Any) -> Any:
        response = self.client.generic(
            method,
            f"/_allauth/app/v1/{path}",
            data=json.dumps(body) if body else "",
            content_type="application/json",
            headers={"X-Session-Token": self.token} if self.token else {},
        )
        answer = response.json() if response.content else {}
        self.token = answer.get("meta", {}).get("session_token") or self.token
        return response

    def is_signed_in(self) -> bool:
        return bool(self.call("GET", "auth/session").status_code == 200)


# -- passkeys --------------------------------------------------------------------------------------

CREDENTIAL = {"id": "x", "clientExtensionResults": {"credProps": {"rk": True}}}
RIGHT_KEY = json.dumps({"id": "right"})
WRONG_KEY = json.dumps({"id": "wrong"})


def add_passkey(user: User) -> Authenticator:
    """Store a passkey of this person."""
    data = {"name": "phone", "credential": CREDENTIAL}
    return Authenticator.objects.create(user=user, type="webauthn", data=data)


def finger(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stand in for the computer's own key, the outside world; returns which were looked at."""
    looked_at: list[str] = []

    def complete(user: User, credential: dict[str, str]) -> Authenticator:
        looked_at.append(credential["id"])
        if credential["id"] != "right":
            raise mfa_adapter().validation_error("incorrect_code")
        return Authenticator.objects.get(user=user, type="webauthn")

    monkeypatch.setattr(webauthn, "parse_authentication_response", lambda credential: credential)
    monkeypatch.setattr(webauthn, "begin_authentication", lambda user=None: {})
    monkeypatch.setattr(webauthn, "complete_authentication", complete)
    return looked_at
