"""Help when signing in fails: the cases, the self-test, a question to a person (A3)."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
import time_machine
from django.test import Client
from django.utils import timezone
from server.tests.accounts.second_steps import is_signed_in, mails_to, signed_in_tab, tab

from doorward.accounts.models import Account, User
from doorward.audit import card_numbers
from doorward.notices.models import Mail
from doorward.portal import self_test
from doorward.support.models import Ticket

pytestmark = pytest.mark.django_db


def ask(browser: Client, **changed: str) -> Any:
    told = {"reply_to": "dora@example.org", "about": "code", "words": "It never came.", **changed}
    return browser.post("/help/ask/", told)


def test_every_button_of_the_help_leads_somewhere() -> None:
    browser = tab()
    page = browser.get("/help/signing-in/").content.decode()
    leads = set(re.findall(r'<a class="button[^"]*" href="([^"]+)"', page))
    assert len(leads) >= 5
    for path in leads:
        assert browser.get(path).status_code in {200, 302}, path
    assert browser.post("/login/link/", {"email": "x@example.org"}).status_code == 200


def test_the_help_leads_to_the_self_test_and_to_a_person_signed_in_or_not(
    alices_browser: Client,
) -> None:
    for browser in (Client(), alices_browser):
        page = browser.get("/help/").content.decode()
        for address in ("/help/self-test/", "/help/ask/"):
            assert f'href="{address}"' in page
            assert browser.get(address).status_code == 200
    assert '<option value="signing-in" selected>' in Client().get("/help/ask/").content.decode()
    # Whoever is signed in does not ask how to.
    assert '<option value="device" selected>' in alices_browser.get("/help/ask/").content.decode()


def test_a_file_is_put_back_from_the_pages_too_says_the_help() -> None:
    assert 'href="/reports/quarantine/"' in Client().get("/help/restoring-a-file/").content.decode()


def test_a_question_is_stored_and_mailed_to_who_answers(settings: Any) -> None:
    settings.SUPPORT_EMAIL = "help@example.org"
    page = ask(tab(), words="Line one\nLine two").content.decode()
    ticket = Ticket.objects.get()
    assert ticket.number in page
    assert (ticket.reply_to, ticket.user_id) == ("dora@example.org", None)
    assert mails_to("help@example.org") == [f"Question {ticket.number}: code"]
    # Nobody's mailbox is filled by naming it here.
    assert mails_to("dora@example.org") == []


def test_without_an_address_for_support_operators_are_told(settings: Any) -> None:
    settings.SUPPORT_EMAIL = ""
    User.objects.create_user("op@example.org", is_operator=True)
    ask(tab())
    assert len(mails_to("op@example.org")) == 1


def test_a_question_of_somebody_signed_in_knows_who_asks(
    alice: User, alices_account: Account
) -> None:
    browser = signed_in_tab(alice.email)
    assert alice.email in browser.get("/help/ask/").content.decode()
    ask(browser, reply_to=alice.email)
    assert Ticket.objects.get().user_id == alice.pk


def test_v2_4_1_three_questions_a_day_from_one_address_and_five_an_hour_from_one_network() -> None:
    with time_machine.travel(timezone.now(), tick=False) as clock:
        assert [ask(tab()).status_code for _ in range(4)] == [200, 200, 200, 429]
        others = [ask(tab(), reply_to=f"d{n}@example.org").status_code for n in range(3)]
        assert others == [200, 200, 429]
        assert Ticket.objects.count() == 5
        clock.shift(timedelta(hours=24, seconds=1))
        assert ask(tab()).status_code == 200


@pytest.mark.parametrize(
    "changed", [{"reply_to": "nobody"}, {"words": ""}, {"about": "x"}, {"words": "x" * 4001}]
)
def test_a_question_that_can_not_be_answered_is_refused_and_kept_in_the_form(
    changed: dict[str, str],
) -> None:
    answer = ask(tab(), **changed)
    assert answer.status_code == 422
    assert not Ticket.objects.exists()


@pytest.mark.parametrize(
    "written",
    ["4242424242424242", "4242 4242 4242 4242", "4242-4242-4242-4242", "378282246310005"],
)
def test_row_a3_no_card_number_is_stored_or_mailed(written: str, settings: Any) -> None:
    settings.SUPPORT_EMAIL = "help@example.org"
    ask(tab(), words=f"My card is {written}, charged twice.")
    ticket = Ticket.objects.get()
    digits = re.sub(r"\D", "", written)
    assert digits not in re.sub(r"\D", "", ticket.words)
    assert ticket.words == f"My card is ••••{digits[-4:]}, charged twice."
    assert Mail.objects.filter(to="help@example.org").count() == 1


@pytest.mark.parametrize(
    "harmless", ["4242424242424241", "2026-11-22 19:30:12", "123456", "+49 151 12345679"]
)
def test_other_numbers_stay_as_they_are(harmless: str) -> None:
    assert card_numbers.hide(harmless) == harmless


def test_the_self_test_tells_cookies_and_the_time(settings: Any) -> None:
    browser = tab()
    assert browser.get("/help/self-test/answer/").json()["cookie"] is False
    page = browser.get("/help/self-test/")
    assert self_test.DEVICE_DOOR in page["Content-Security-Policy"]
    assert "unsafe" not in page["Content-Security-Policy"]
    told = browser.get("/help/self-test/answer/").json()
    assert told["cookie"] is True
    assert abs(told["now"] - timezone.now().timestamp() * 1000) < 60_000


def test_clearing_signs_out_and_keeps_that_the_browser_is_known(
    alice: User, alices_account: Account
) -> None:
    browser = signed_in_tab(alice.email)
    assert browser.get("/help/self-test/clear/").status_code == 405
    answer = browser.post("/help/self-test/clear/")
    assert answer["Clear-Site-Data"] == '"cache", "storage"'
    assert not is_signed_in(browser)
    assert browser.cookies["dw_dev"].value
