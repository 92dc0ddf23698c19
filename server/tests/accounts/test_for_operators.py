"""What operators may do for a person from the command line, and what they may not."""

from __future__ import annotations

from io import StringIO

import pytest
from django.contrib.sessions.models import Session
from django.core.management import CommandError, call_command
from django.test import Client
from server.tests.accounts.second_steps import (
    add_app,
    is_signed_in,
    mails_to,
    signed_in_tab,
    tab,
    type_password,
)
from server.tests.asvs.test_second_step import reset_link

from doorward.accounts.models import Account, User
from doorward.audit.models import Event

NEW = "nine ships in the quiet morning"

pytestmark = pytest.mark.django_db(transaction=True)


def said(*words: str) -> str:
    out = StringIO()
    call_command(*words, stdout=out)
    return out.getvalue()


def choose(link: str, password: str) -> Client:
    browser = tab()
    answer = browser.get(link)
    browser.post(answer.headers["Location"], {"password1": password, "password2": password})
    return browser


def test_v6_4_6_an_operator_has_a_reset_mailed_and_sees_neither_link_nor_password(
    alice: User, alices_account: Account
) -> None:
    before = alice.password
    told = said("mail_reset", "Alice@Example.org")
    assert mails_to(alice.email) == ["Choose a new password"]
    link = reset_link()
    assert link
    assert "/password/reset/key/" not in told
    assert User.objects.get().password == before
    choose(link, NEW)
    assert User.objects.get().check_password(NEW)
    event = Event.objects.get(tag="account.reset.mailed")
    assert (event.actor_id, event.target) == (alice.pk, "operator")


def test_v6_4_6_after_an_operators_reset_the_second_step_is_still_asked(
    alice: User, alices_account: Account
) -> None:
    add_app(signed_in_tab(alice.email))
    said("mail_reset", alice.email)
    assert not is_signed_in(choose(reset_link(), NEW))
    browser = tab()
    type_password(browser, alice.email, NEW)
    assert not is_signed_in(browser)


def test_v6_4_6_no_command_takes_or_prints_a_password() -> None:
    from django.core.management import get_commands, load_command_class

    for name, app in get_commands().items():
        if app.startswith("doorward."):
            parser = load_command_class(app, name).create_parser("doorward", name)
            assert "password" not in parser.format_usage().lower(), name


@pytest.mark.parametrize("command", ["mail_reset", "end_sessions"])
def test_a_mistyped_address_is_told_as_such(command: str, alice: User) -> None:
    with pytest.raises(CommandError, match=r"Nobody signs in as alicia@example\.org"):
        call_command(command, "Alicia@example.org")


def test_v7_4_5_an_operator_signs_one_person_out_everywhere(
    alice: User, alices_account: Account, charlie: User
) -> None:
    browsers = [signed_in_tab(alice.email), signed_in_tab(alice.email)]
    charlies = signed_in_tab(charlie.email)
    assert said("end_sessions", alice.email) == "Ended 2 sessions.\n"
    assert not any(is_signed_in(browser) for browser in browsers)
    assert is_signed_in(charlies)
    assert Event.objects.filter(tag="account.sessions.stopped", actor_id=alice.pk).count() == 1


def test_v7_4_5_an_operator_signs_everybody_out(
    alice: User, alices_account: Account, charlie: User
) -> None:
    browsers = [signed_in_tab(person.email) for person in (alice, charlie)]
    said("end_sessions", "--everybody")
    assert not any(is_signed_in(browser) for browser in browsers)
    assert not Session.objects.exists()
    # And in again as ever.
    assert is_signed_in(signed_in_tab(alice.email))
    assert Event.objects.get(tag="operator.sessions.ended").target == "everybody"
