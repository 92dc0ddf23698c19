"""An operator is made by a link, once, and chooses the password themselves."""

from __future__ import annotations

from datetime import timedelta
from io import StringIO

import pytest
import time_machine
from django.core.management import CommandError, call_command
from django.test import Client
from django.utils import timezone

from doorward.accounts import link_tokens, setup
from doorward.accounts.models import SetupLink, User

LONG = "nine ships in the morning"


def printed(email: str) -> str:
    out = StringIO()
    call_command("create_operator", email, stdout=out)
    return out.getvalue()


def path_in(text: str) -> str:
    return text.strip().splitlines()[-1].removeprefix("http://localhost:8000")


def choose(link: str, password: str) -> Client:
    client = Client(HTTP_HOST="localhost")
    answer = client.get(link)
    if answer.status_code == 302:
        client.post(answer.headers["Location"], {"password1": password, "password2": password})
    return client


@pytest.mark.django_db
def test_v6_3_2_a_fresh_installation_has_nobody() -> None:
    assert not User.objects.exists()


@pytest.mark.django_db
def test_v6_4_1_an_operator_chooses_a_password_by_the_link_once() -> None:
    link = path_in(printed("Olga@Example.org"))
    choose(link, LONG)
    olga = User.objects.get(email="olga@example.org")
    assert olga.is_operator
    assert olga.check_password(LONG)
    choose(link, "eleven ships at night")
    olga.refresh_from_db()
    assert olga.check_password(LONG)


@pytest.mark.django_db
def test_a70_the_link_is_not_in_the_database_and_is_long() -> None:
    link = path_in(printed("olga@example.org"))
    secret = link.rstrip("/").rpartition("setup-")[2]
    assert len(secret) == 32
    assert secret not in SetupLink.objects.get().digest


@pytest.mark.django_db
def test_v6_4_1_the_link_ends_after_72_hours() -> None:
    link = path_in(printed("olga@example.org"))
    with time_machine.travel(timezone.now() + timedelta(hours=73), tick=False):
        choose(link, LONG)
    assert not User.objects.get().has_usable_password()


@pytest.mark.django_db
def test_a_newer_link_ends_the_one_before() -> None:
    older, newer = path_in(printed("olga@example.org")), path_in(printed("olga@example.org"))
    choose(older, LONG)
    assert not User.objects.get().has_usable_password()
    choose(newer, LONG)
    assert User.objects.get().check_password(LONG)


@pytest.mark.django_db
def test_a_weak_password_is_refused_here_too() -> None:
    choose(path_in(printed("olga@example.org")), "olga olga olga olga")
    assert not User.objects.get().has_usable_password()


@pytest.mark.django_db
def test_somebody_with_a_password_keeps_it(alice: User) -> None:
    assert "password they have" in printed(alice.email)
    alice.refresh_from_db()
    assert alice.is_operator


@pytest.mark.django_db
def test_one_persons_link_is_no_good_for_another(alice: User) -> None:
    made = setup.make_operator("olga@example.org")
    secret = made.link.rstrip("/").partition("setup-")[2]
    assert not link_tokens.LinkTokens().check_token(alice, f"setup-{secret}")


@pytest.mark.django_db
def test_what_is_no_address_is_refused() -> None:
    with pytest.raises(CommandError) as refusal:
        printed("olga")
    assert refusal.value.returncode == 2
