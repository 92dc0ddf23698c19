"""A12: guessing a code that was mailed, in parallel and by having new ones sent."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
import time_machine
from allauth.headless.account import inputs
from django.conf import settings as django_settings
from django.contrib.sessions.models import Session
from django.test import Client
from django.utils import timezone
from server.tests.accounts.second_steps import (
    App,
    at_once,
    choose_email,
    is_signed_in,
    mails_to,
    newest_code,
    signed_in_tab,
    tab,
    type_password,
)
from server.tests.conftest import PASSWORD

from doorward.accounts import sent_codes
from doorward.accounts.models import Account, Throttle, User

LONG = "orchid lantern meadow fathom"
COOKIE = django_settings.SESSION_COOKIE_NAME

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def alice_with_codes(alice: User, alices_account: Account) -> User:
    choose_email(signed_in_tab(alice.email))
    return alice


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Collects every code that is really compared, from here on."""
    seen: list[str] = []
    real = sent_codes._digest

    def digest(flow: str, code: str) -> str:
        if len(code) == 4:  # ours are longer
            seen.append(code)
        return real(flow, code)

    monkeypatch.setattr(sent_codes, "_digest", digest)
    return seen


def asked(alice: User) -> Client:
    """Return a browser that was asked for the mailed code."""
    browser = tab()
    answer = type_password(browser, alice.email)
    assert answer["Location"] == "/login/code/confirm/"
    return browser


def test_a12_of_many_codes_sent_at_once_three_are_compared(
    alice_with_codes: User, compared: list[str]
) -> None:
    cookie = asked(alice_with_codes).cookies[COOKIE].value

    def guess(number: int) -> bool:
        mine = tab()
        mine.cookies[COOKIE] = cookie
        mine.raise_request_exception = False
        mine.post("/login/code/confirm/", {"code": f"X{number:03}"})
        return is_signed_in(mine)

    assert at_once(12, guess) == 0
    assert 1 <= len(compared) <= 3


def test_a12_of_many_sign_ins_at_once_five_codes_are_compared(
    alice_with_codes: User, compared: list[str]
) -> None:
    browsers = [asked(alice_with_codes) for _ in range(8)]

    def guess(number: int) -> bool:
        browsers[number].post("/login/code/confirm/", {"code": f"X{number:03}"})
        return is_signed_in(browsers[number])

    assert at_once(8, guess) == 0
    assert 1 <= len(compared) <= 5


def test_a12_a_new_code_brings_no_new_tries(
    alice_with_codes: User, compared: list[str], settings: Any
) -> None:
    browser = asked(alice_with_codes)
    for number in range(2):
        browser.post("/login/code/confirm/", {"code": f"X{number:03}"})
        browser.post("/login/code/confirm/", {"action": "resend"})
    # The third is compared, the fourth is not even with the right code.
    browser.post("/login/code/confirm/", {"code": "X999"})
    browser.post("/login/code/confirm/", {"code": newest_code(alice_with_codes.email, settings)})
    assert not is_signed_in(browser)
    assert len(compared) == 3


def test_a12_no_pattern_of_flows_compares_more_than_fifty_codes_a_day(
    alice_with_codes: User, compared: list[str]
) -> None:
    start = timezone.now()
    within_the_first_minutes = within_the_first_hour = 0
    with time_machine.travel(start, tick=False) as clock:
        for _turn in range(48):
            browser = asked(alice_with_codes)
            for number in range(3):
                browser.post("/login/code/confirm/", {"code": f"X{number:03}"})
            if _turn == 1:
                within_the_first_minutes = len(compared)
            if _turn == 11:
                within_the_first_hour = len(compared)
            clock.shift(timedelta(minutes=5, seconds=1))
            Throttle.objects.filter(pk__startswith="w:mail").delete()
    assert within_the_first_minutes <= 6
    assert within_the_first_hour <= 20
    assert 20 < len(compared) <= 50


@pytest.mark.parametrize("taken", [True, False])
def test_a12_three_wrong_codes_at_sign_up_say_what_to_do(
    taken: bool, alice: User, settings: Any
) -> None:
    browser = tab()
    address = alice.email if taken else "dora@example.org"
    browser.post("/signup/", {"email": address, "password1": LONG})
    answers = [browser.post("/confirm-email/", {"code": "WRONG"}) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 302]
    page = browser.get(answers[2]["Location"]).content.decode()
    assert "Three wrong codes" in page
    assert "login attempts" not in page
    # And doing so works at once: the address was not taken by the try before.
    browser.post("/signup/", {"email": address, "password1": LONG})
    if not taken:
        browser.post("/confirm-email/", {"code": newest_code(address, settings)})
        assert is_signed_in(browser)


def test_a_confirmed_person_is_not_forgotten_by_wrong_codes(
    alice: User, alices_account: Account
) -> None:
    from doorward.accounts import signup

    assert not signup.give_up(alice)
    assert User.objects.filter(pk=alice.pk).exists()


def test_v6_5_2_no_session_holds_a_code_that_was_mailed(
    alice_with_codes: User, settings: Any
) -> None:
    asked(alice_with_codes)
    tab().post("/signup/", {"email": "dora@example.org", "password1": LONG})
    codes = [
        newest_code(alice_with_codes.email, settings),
        newest_code("dora@example.org", settings),
    ]
    held = str([session.get_decoded() for session in Session.objects.all()])
    for code in codes:
        assert code not in held
        assert code.replace("-", "").lower() not in held.lower()


def test_v6_6_3_codes_are_mailed_twenty_times_an_hour_and_more_are_refused_in_words(
    alice_with_codes: User,
) -> None:
    # Three an hour, as for strangers' mails, would shut out who signs in on a fourth computer.
    before = len(mails_to(alice_with_codes.email))
    for _ in range(20):
        asked(alice_with_codes)
    assert len(mails_to(alice_with_codes.email)) - before == 20
    late = asked(alice_with_codes)
    assert len(mails_to(alice_with_codes.email)) - before == 20
    assert "many codes already" in late.get("/login/code/confirm/").content.decode()


def test_v6_6_2_a_code_of_one_app_is_no_code_of_another(
    alice_with_codes: User, settings: Any
) -> None:
    first, second = App(), App()
    first.call("POST", "auth/login", email=alice_with_codes.email, password=PASSWORD)
    code = newest_code(alice_with_codes.email, settings)
    second.call("POST", "auth/login", email=alice_with_codes.email, password=PASSWORD)
    second.call("POST", "auth/code/confirm", code=code)
    assert not second.is_signed_in()
    first.call("POST", "auth/code/confirm", code=code)
    assert first.is_signed_in()
    assert inputs.compare_user_code is sent_codes.is_right
