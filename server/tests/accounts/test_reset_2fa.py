"""Two operators vouch for somebody: each proves who they are, and the person still waits."""

from __future__ import annotations

import io
import sys
from datetime import timedelta
from typing import Any

import pytest
import time_machine
from allauth.mfa.models import Authenticator
from django.core.management import CommandError, call_command
from django.db import IntegrityError, transaction
from django.test import Client
from django.utils import timezone
from server.tests.accounts.second_steps import (
    add_app,
    is_signed_in,
    mails_to,
    signed_in_tab,
    tab,
    type_password,
)
from server.tests.conftest import PASSWORD, account_for, person

from doorward.accounts import recovery
from doorward.accounts.models import Recovery, User
from doorward.audit.models import Event

REASON = "Met her at the desk with her passport."
WAIT = timedelta(hours=72)


class Operator:
    """An operator with an authenticator app, at the command line."""

    def __init__(self, address: str) -> None:
        self.user = person(address, "Olga")
        self.user.is_operator = True
        self.user.save()
        _seed, self.codes = add_app(signed_in_tab(address))

    def types(self, monkeypatch: pytest.MonkeyPatch, *words: str, **typed: str) -> str:
        """Run the command as this operator; returns what it printed."""
        answers = [
            typed.get("password", PASSWORD),
            typed["code"] if "code" in typed else self.codes.pop(),
        ]
        monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(answers) + "\n"))
        out = io.StringIO()
        call_command("reset_2fa", *words, "--by", self.user.email, stdout=out)
        return out.getvalue()


@pytest.fixture
def olga(db: None) -> Operator:
    return Operator("olga@example.org")


@pytest.fixture
def otto(db: None) -> Operator:
    return Operator("otto@example.org")


@pytest.fixture
def home(alice: User) -> Client:
    account_for(alice)
    browser = signed_in_tab(alice.email)
    add_app(browser)
    return browser


def test_n2_two_operators_vouch_and_the_person_waits_all_the_same(
    alice: User, home: Client, olga: Operator, otto: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    with time_machine.travel(timezone.now(), tick=False) as clock:
        printed = olga.types(monkeypatch, alice.email, "--reason", REASON)
        assert "Nothing has changed yet" in printed
        assert mails_to(alice.email)[-1] != "Someone asks to get in without your second step"
        assert "second step" not in home.get("/account/asks/").content.decode()
        printed = otto.types(monkeypatch, alice.email, "--confirm")
        assert f"{olga.user.email} asked for it: {REASON}" in printed
        link = printed.strip().splitlines()[-1].removeprefix("http://localhost:8000")
        assert mails_to(alice.email)[-1] == "Someone asks to get in without your second step"
        assert "Two operators vouch" in home.get("/").content.decode()

        def get_in() -> Client:
            browser = tab()
            browser.post(link)
            type_password(browser, alice.email)
            browser.post("/login/recovery/enter/")
            return browser

        clock.shift(WAIT - timedelta(seconds=1))
        assert not is_signed_in(get_in())
        clock.shift(timedelta(seconds=1))
        recovery.sweep(timezone.now())
        # The mailbox may be somebody else's by now: the way in is in no mail.
        assert mails_to(alice.email)[-1] == "You can set a new second step now"
        assert is_signed_in(get_in())
        assert not Authenticator.objects.filter(user=alice).exists()
    asked = Event.objects.get(tag="operator.reset.asked")
    assert asked.actor_id == olga.user.pk
    assert REASON in asked.detail
    assert Event.objects.get(tag="operator.reset.confirmed").actor_id == otto.user.pk


def test_the_way_in_is_in_no_mail(
    alice: User, home: Client, olga: Operator, otto: Operator, settings: Any
) -> None:
    from doorward.notices import outbox

    recovery.ask_as_operator(alice, olga.user, REASON)
    _began, link = recovery.confirm_as_operator(alice, otto.user)
    with time_machine.travel(timezone.now() + WAIT, tick=False):
        recovery.sweep(timezone.now())
        outbox.send_due(timezone.now())
    sent = "".join(file.read_text() for file in (settings.DATA / "mail").glob("*.eml"))
    assert "You can set a new second step now" in sent
    assert link.split("/")[-2] not in sent.replace("=\n", "")


@pytest.mark.parametrize("who", ["the same", "themselves"])
def test_it_takes_two_and_neither_for_themselves(
    alice: User,
    home: Client,
    olga: Operator,
    otto: Operator,
    monkeypatch: pytest.MonkeyPatch,
    who: str,
) -> None:
    if who == "the same":
        olga.types(monkeypatch, alice.email, "--reason", REASON)
        with pytest.raises(CommandError, match="Two different operators"):
            olga.types(monkeypatch, alice.email, "--confirm")
        recovered = Recovery.objects.get(user=alice)
        recovered.second_operator = olga.user
        with pytest.raises(IntegrityError), transaction.atomic():
            recovered.save()
    else:
        with pytest.raises(CommandError, match="neither for themselves"):
            olga.types(monkeypatch, olga.user.email, "--reason", REASON)
        otto.types(monkeypatch, olga.user.email, "--reason", REASON)
        with pytest.raises(CommandError, match="Two different operators"):
            olga.types(monkeypatch, olga.user.email, "--confirm")
    assert not Recovery.objects.filter(starts_at__isnull=False).exists()


def test_the_second_confirms_within_three_days(
    alice: User, home: Client, olga: Operator, otto: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    with time_machine.travel(timezone.now(), tick=False) as clock:
        olga.types(monkeypatch, alice.email, "--reason", REASON)
        with pytest.raises(CommandError, match="asked for already"):
            otto.types(monkeypatch, alice.email, "--reason", REASON)
        clock.shift(timedelta(hours=72))
        with pytest.raises(CommandError, match="Nothing waits"):
            otto.types(monkeypatch, alice.email, "--confirm")
        otto.types(monkeypatch, alice.email, "--reason", REASON)


def test_an_operator_ends_it(
    alice: User, home: Client, olga: Operator, otto: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    olga.types(monkeypatch, alice.email, "--reason", REASON)
    otto.types(monkeypatch, alice.email, "--confirm")
    olga.types(monkeypatch, alice.email, "--refuse")
    assert Recovery.objects.get().ending == Recovery.Ending.REFUSED
    assert "The recovery of your second step has ended" in mails_to(alice.email)


@pytest.mark.parametrize(
    "typed", [{"password": "wrong"}, {"code": "000000"}, {"code": ""}, {"password": ""}]
)
def test_v6_3_3_who_is_no_operator_vouches_for_nobody(
    alice: User,
    home: Client,
    olga: Operator,
    monkeypatch: pytest.MonkeyPatch,
    typed: dict[str, str],
) -> None:
    with pytest.raises(CommandError, match="no operator's address"):
        olga.types(monkeypatch, alice.email, "--reason", REASON, **typed)
    User.objects.filter(pk=olga.user.pk).update(is_operator=False)
    with pytest.raises(CommandError, match="no operator's address"):
        olga.types(monkeypatch, alice.email, "--reason", REASON)
    assert not Recovery.objects.exists()


def test_v6_3_1_tries_at_the_command_line_are_counted(
    alice: User, home: Client, olga: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _try in range(5):
        with pytest.raises(CommandError):
            olga.types(monkeypatch, alice.email, "--reason", REASON, password="wrong")
    with pytest.raises(CommandError):
        olga.types(monkeypatch, alice.email, "--reason", REASON)
    assert not Recovery.objects.exists()
    with time_machine.travel(timezone.now() + timedelta(minutes=6), tick=False):
        olga.types(monkeypatch, alice.email, "--reason", REASON)


def test_an_operator_without_a_second_step_is_told_so(
    alice: User, home: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = person("oskar@example.org", "Oskar")
    user.is_operator = True
    user.save()
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{PASSWORD}\n000000\n"))
    with pytest.raises(CommandError, match="no authenticator app"):
        call_command("reset_2fa", alice.email, "--by", user.email, "--reason", REASON)


def test_wrong_use_says_what_is_wrong(
    alice: User, home: Client, charlie: User, olga: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CommandError, match="at least 10 letters") as told:
        olga.types(monkeypatch, alice.email, "--reason", "lost it")
    assert told.value.returncode == 2
    with pytest.raises(CommandError, match="no account"):
        olga.types(monkeypatch, "nobody@example.org", "--reason", REASON)
    with pytest.raises(CommandError, match="Only their password is asked"):
        olga.types(monkeypatch, charlie.email, "--reason", REASON)
    with pytest.raises(CommandError, match="Nothing waits"):
        olga.types(monkeypatch, alice.email, "--confirm")
