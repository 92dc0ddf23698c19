"""Codes by text message: off by default, restricted, counted like every second step."""

from __future__ import annotations

import hashlib
import hmac
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import httpx2
import pytest
import time_machine
from django.core.management import call_command
from django.db import connection, transaction
from django.test import Client
from django.utils import timezone
from server.tests.accounts.second_steps import (
    add_app,
    is_signed_in,
    mails_to,
    prove_again,
    second_step,
    signed_in_tab,
    tab,
    type_password,
)

from doorward.accounts.factors import sealed_text, text_messages
from doorward.accounts.models import Account, PhoneNumber, User

NUMBER = "+4915112345678"

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def home(alice: User, alices_account: Account, settings: Any) -> Client:
    """Alice's browser, with an app set up, where the operator has switched texts on."""
    settings.SMS_URL = "file:"
    browser = signed_in_tab(alice.email)
    add_app(browser)
    return browser


def texts(settings: Any) -> list[tuple[str, str]]:
    """Return the messages that were sent, oldest first: number and code."""
    files = sorted((settings.DATA / "sms").glob("*.txt"))
    lines = [file.read_text().splitlines() for file in files]
    return [(number, words.split()[0]) for number, words in lines]


def give_number(browser: Client, settings: Any) -> None:
    browser.post("/account/security/number/", {"number": "+49 (151) 1234-5678"})
    code = texts(settings)[-1][1]
    answer = browser.post("/account/security/number/confirm/", {"code": code})
    assert answer["Location"] == "/account/security/", answer.content.decode()


def test_it_is_off_unless_the_operator_switches_it_on(alice: User, alices_account: Account) -> None:
    browser = signed_in_tab(alice.email)
    add_app(browser)
    PhoneNumber.objects.create(
        user=alice,
        sealed=sealed_text.seal(NUMBER),
        confirmed_at=timezone.now(),
    )
    assert browser.get("/account/security/number/").status_code == 404
    assert "text message" not in browser.get("/account/security/").content.decode()
    other = tab()
    type_password(other, alice.email)
    assert "text message" not in other.get("/account/security/authenticate/").content.decode()
    assert other.post("/account/security/by-text/")["Location"] == "/login/"


def test_a_number_is_confirmed_and_takes_the_second_step(
    alice: User, home: Client, settings: Any
) -> None:
    page = home.get("/account/security/number/").content.decode()
    assert "Restricted" in page
    assert "Add a passkey instead" in page
    give_number(home, settings)
    assert texts(settings)[-1][0] == NUMBER
    assert "Codes can be texted to a number" in mails_to(alice.email)
    browser = tab()
    type_password(browser, alice.email)
    chooser = browser.get("/account/security/authenticate/").content.decode()
    assert "+49 ••• 78" in chooser
    assert NUMBER not in chooser
    browser.post("/account/security/by-text/")
    assert "Look at your phone" in browser.get("/login/code/confirm/").content.decode()
    browser.post("/login/code/confirm/", {"code": texts(settings)[-1][1]})
    browser.post("/account/security/trust/", {"action": "skip"})
    assert is_signed_in(browser)


def test_v6_5_4_a_texted_code_has_six_digits_and_lasts_ten_minutes(
    alice: User, home: Client, settings: Any
) -> None:
    with time_machine.travel(timezone.now(), tick=False) as clock:
        give_number(home, settings)
        browser = tab()
        type_password(browser, alice.email)
        browser.post("/account/security/by-text/")
        code = texts(settings)[-1][1]
        assert len(code) == 6
        assert code.isdigit()
        clock.shift(timedelta(seconds=601))
        browser.post("/login/code/confirm/", {"code": code})
        assert not is_signed_in(browser)
        home.get("/account/security/totp/activate/")
        prove = home.get("/account/security/number/")
        assert prove.status_code == 200
        home.post("/account/security/number/", {"number": NUMBER})
        late = texts(settings)[-1][1]
        clock.shift(timedelta(seconds=601))
        PhoneNumber.objects.all().delete()
        home.post("/account/security/number/confirm/", {"code": late})
        assert not PhoneNumber.objects.exists()


def test_v6_5_2_the_number_is_sealed_and_no_code_is_stored(
    alice: User, home: Client, settings: Any, tmp_path: Any
) -> None:
    give_number(home, settings)
    browser = tab()
    type_password(browser, alice.email)
    browser.post("/account/security/by-text/")
    file = tmp_path / "dump.json"
    call_command("dumpdata", output=str(file), verbosity=0)
    from django.contrib.sessions.models import Session

    held = file.read_text() + str([each.get_decoded() for each in Session.objects.all()])
    assert NUMBER not in held
    assert NUMBER[3:] not in held
    for _number, code in texts(settings):
        assert f'"{code}"' not in held
        assert f"'{code}'" not in held


def test_v6_6_3_texted_codes_count_with_the_other_second_steps(
    alice: User, home: Client, settings: Any
) -> None:
    give_number(home, settings)
    browser = tab()
    type_password(browser, alice.email)
    browser.post("/account/security/by-text/")
    code = texts(settings)[-1][1]
    for _ in range(3):
        browser.post("/login/code/confirm/", {"code": "000000"})
    browser.post("/login/code/confirm/", {"code": code})
    assert not is_signed_in(browser)
    # Two more, of the app: then five were wrong, and nothing is compared for a while.
    other = tab()
    type_password(other, alice.email)
    for _ in range(2):
        second_step(other, "000000")
    third = tab()
    type_password(third, alice.email)
    third.post("/account/security/by-text/")
    third.post("/login/code/confirm/", {"code": texts(settings)[-1][1]})
    third.post("/account/security/trust/", {"action": "skip"})
    assert not is_signed_in(third)


def test_a_wrong_code_confirms_no_number(home: Client, settings: Any) -> None:
    home.post("/account/security/number/", {"number": NUMBER})
    for _ in range(3):
        answer = home.post("/account/security/number/confirm/", {"code": "x"})
        assert answer.status_code == 422
    home.post("/account/security/number/confirm/", {"code": texts(settings)[-1][1]})
    assert not PhoneNumber.objects.exists()


def test_it_is_never_the_only_second_step(
    alice: User, alices_account: Account, settings: Any
) -> None:
    settings.SMS_URL = "file:"
    browser = signed_in_tab(alice.email)
    assert "only beside an app or a passkey" in browser.get("/account/security/").content.decode()
    prove_again(browser, "/account/security/totp/activate/")
    assert browser.get("/account/security/number/").status_code == 404


def test_a17_another_number_asks_again_who_it_is(home: Client, settings: Any) -> None:
    with time_machine.travel(timezone.now() + timedelta(minutes=16), tick=True):
        answer = home.post("/account/security/number/", {"number": NUMBER})
        assert "/reauthenticate/" in answer["Location"]
    assert texts(settings) == []


def test_a_forgotten_number_gets_no_more_codes(alice: User, home: Client, settings: Any) -> None:
    give_number(home, settings)
    cafe = signed_in_tab_with_text(alice, settings)
    home.post("/account/security/number/forget/")
    assert not PhoneNumber.objects.exists()
    assert not is_signed_in(cafe)
    assert "Codes are no longer texted" in mails_to(alice.email)


def signed_in_tab_with_text(alice: User, settings: Any) -> Client:
    browser = tab()
    type_password(browser, alice.email)
    browser.post("/account/security/by-text/")
    browser.post("/login/code/confirm/", {"code": texts(settings)[-1][1]})
    browser.post("/account/security/trust/", {"action": "skip"})
    assert is_signed_in(browser)
    return browser


@pytest.mark.parametrize(
    "written", ["0151 1234567", "+0151 1234567", "+49", "+49 12a4567", "\uff11\uff12"]
)
def test_a_number_that_is_none_is_told_how_to_be_written(home: Client, written: str) -> None:
    page = home.post("/account/security/number/", {"number": written})
    assert page.status_code == 422
    assert "Begin with + and the country" in page.content.decode()


def test_a_provider_that_fails_is_told_in_words(
    home: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_self: object, _number: str, _words: str) -> None:
        raise text_messages.NotSent("down")

    monkeypatch.setattr(text_messages.FileProvider, "send", fails)
    page = home.post("/account/security/number/", {"number": NUMBER}).content.decode()
    assert "could not be sent" in page


def test_the_webhook_gets_each_message_signed() -> None:
    taken: list[httpx2.Request] = []
    status = [204]

    def answer(request: httpx2.Request) -> httpx2.Response:
        taken.append(request)
        return httpx2.Response(status[0], headers={"Location": "https://elsewhere.example/"})

    provider = text_messages.WebhookProvider(
        "https://texts.example/send", "s" * 16, transport=httpx2.MockTransport(answer)
    )
    provider.send(NUMBER, "words")
    sent = taken[0]
    assert json.loads(sent.content) == {"to": NUMBER, "text": "words"}
    proof = hmac.new(b"s" * 16, sent.content, hashlib.sha256).hexdigest()
    assert sent.headers["X-Signature"] == f"sha256={proof}"
    for refused in (302, 400, 500):
        status[0] = refused
        with pytest.raises(text_messages.NotSent):
            provider.send(NUMBER, "words")
    assert {str(request.url) for request in taken} == {"https://texts.example/send"}


@contextmanager
def dripping() -> Iterator[str]:
    """A provider that takes every message, and answers a byte at a time without an end."""
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as door:

        def answer() -> None:
            taken, _from = door.accept()
            with taken, suppress(OSError):
                taken.sendall(b"HTTP/1.1 204 No Content\r\nX-Slow: ")
                while not over.wait(0.02):
                    taken.sendall(b"z")

        answering = threading.Thread(target=answer)
        answering.start()
        try:
            yield f"http://127.0.0.1:{door.getsockname()[1]}/"
        finally:
            over.set()
            answering.join()


def test_a_provider_that_answers_a_byte_at_a_time_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(text_messages, "WITHIN_S", 0.3)
    with dripping() as url:
        began = time.monotonic()
        with pytest.raises(text_messages.NotSent, match="TimeoutError"):
            text_messages.WebhookProvider(url, "s" * 16).send(NUMBER, "words")
        assert time.monotonic() - began < 5


def test_while_a_provider_is_slow_others_sign_in(
    alice: User, bob: User, home: Client, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The text leaves outside of every transaction: nobody waits for the database meanwhile."""
    give_number(home, settings)
    asked, answered = threading.Event(), threading.Event()

    def slow(_self: object, _number: str, _words: str) -> None:
        asked.set()
        assert answered.wait(30)
        raise text_messages.NotSent("too late")

    browser = tab()
    type_password(browser, alice.email)
    monkeypatch.setattr(text_messages.FileProvider, "send", slow)
    said: list[str] = []

    def by_text() -> None:
        try:
            browser.post("/account/security/by-text/")
            said.append(browser.get("/login/code/confirm/").content.decode())
        finally:
            connection.close()

    waiting = threading.Thread(target=by_text)
    waiting.start()
    try:
        assert asked.wait(30)
        other = tab()
        type_password(other, bob.email)
        assert is_signed_in(other)
        assert waiting.is_alive()
    finally:
        answered.set()
        waiting.join()
    assert "could not be sent" in said[0]
    assert "Choose another way" in said[0]


def test_a_code_is_never_texted_within_a_transaction(settings: Any) -> None:
    settings.SMS_URL = "file:"
    with transaction.atomic(), pytest.raises(RuntimeError):
        text_messages.send_code(sealed_text.seal(NUMBER), "123456")
    assert texts(settings) == []
