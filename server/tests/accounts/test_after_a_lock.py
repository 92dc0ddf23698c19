"""A sign-in after a lock episode is told by mail, once, however the person got in."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone
from server.tests.accounts.second_steps import add_app, code_at, second_step, tab, type_password
from server.tests.accounts.test_lockout import (
    LOCKED,
    Clock,
    alices_known,
    clock,
    fail_until_locked,
    is_in,
    link_in,
    sign_in,
)
from server.tests.accounts.test_signing_in import App, mails, text_of
from server.tests.conftest import PASSWORD

from doorward.accounts import lockout, straight_in
from doorward.accounts.models import Account, Throttle, User
from doorward.audit.models import Event
from doorward.notices.models import Mail

__all__ = ["alices_known", "clock"]  # fixtures
TOLD = "You signed in after wrong passwords were tried"
NEW_BROWSER = "You signed in from a new browser"


def told(subject: str = TOLD) -> int:
    """How many mails with this subject were written."""
    return Mail.objects.filter(subject=subject).count()


def ladder() -> tuple[int, int]:
    return Throttle.objects.values_list("count", "total").get(pk__startswith="a:")


@pytest.fixture
def by_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every sign-in walks through the stages."""
    monkeypatch.setattr(straight_in, "leads", lambda *_: False)


@pytest.mark.django_db
@pytest.mark.parametrize("way", ["straight", "stages"])
def test_v6_3_5_alices_known_browser_signs_in_while_strangers_are_locked_out(
    way: str, request: pytest.FixtureRequest, alice: User, alices_known: Client, clock: Clock
) -> None:
    if way == "stages":
        request.getfixturevalue("by_stages")
    fail_until_locked(alice.email, clock)
    before = ladder()
    for _again in range(3):
        assert is_in(sign_in(alice.email, PASSWORD, tab=alices_known))
        alices_known.post("/logout/")
    assert told() == 1
    event = Event.objects.get(tag="account.login.after_lock")
    assert (event.actor_id, event.detail) == (alice.pk, '{"known_browser":true}')
    # Nor does it help whoever guesses.
    assert ladder() == before
    assert LOCKED in sign_in(alice.email, PASSWORD).content.decode()


@pytest.mark.django_db
def test_v6_3_5_the_mail_says_from_where_and_what_to_do(
    alice: User, alices_known: Client, clock: Clock, settings: Any
) -> None:
    fail_until_locked(alice.email, clock)
    sign_in(alice.email, PASSWORD, tab=alices_known, ip="192.0.2.44")
    (mail,) = [mail for mail in mails(settings) if mail["Subject"] == TOLD]
    text = " ".join(text_of(mail).split())
    assert mail["To"] == alice.email
    assert "Somebody signed in to your account, from a browser it knew." in text
    assert "so many wrong passwords were tried that new browsers had to wait" in text
    assert "192.0.2.44" in text
    assert "If it wasn't you, choose a new password at once" in text


@pytest.mark.django_db
@pytest.mark.parametrize("way", ["straight", "stages", "json"])
def test_v6_3_5_a_new_browser_after_the_wait_is_told_in_one_mail_that_says_both(
    way: str,
    request: pytest.FixtureRequest,
    alice: User,
    alices_account: Account,
    clock: Clock,
    settings: Any,
) -> None:
    if way == "stages":
        request.getfixturevalue("by_stages")
    fail_until_locked(alice.email, clock)
    clock.shift(timedelta(minutes=2))
    if way == "json":
        answer = App().call("POST", "auth/login", email=alice.email, password=PASSWORD)
        assert answer.status_code == 200
    else:
        assert is_in(sign_in(alice.email, PASSWORD))
    assert (told(), told(NEW_BROWSER)) == (1, 0)
    assert "from a browser it did not know" in text_of(mails(settings)[-1])
    assert Event.objects.get(tag="account.login.after_lock").detail == '{"known_browser":false}'
    assert Event.objects.filter(tag="account.browser.known").count() == 1
    # The ladder began anew: the next sign-in follows no lock.
    assert is_in(sign_in(alice.email, PASSWORD))
    assert (told(), told(NEW_BROWSER)) == (1, 1)


@pytest.mark.django_db
def test_v6_3_5_signing_in_by_the_mailed_link_is_told_too(
    alice: User, alices_account: Account, clock: Clock, settings: Any
) -> None:
    fail_until_locked(alice.email, clock)
    browser = Client(HTTP_HOST="localhost")
    browser.post(link_in(text_of(mails(settings)[-1])))
    assert told() == 0
    assert is_in(sign_in(alice.email, PASSWORD, tab=browser))
    assert told() == 1


@pytest.mark.django_db
def test_v6_3_5_it_is_told_when_the_second_step_is_done_and_not_before(
    alice: User, alices_known: Client, clock: Clock
) -> None:
    type_password(alices_known, alice.email)
    seed, _codes = add_app(alices_known)
    alices_known.post("/logout/")
    fail_until_locked(alice.email, clock)
    sign_in(alice.email, tab=alices_known)
    type_password(alices_known, alice.email)
    second_step(alices_known, "000000")
    assert told() == 0
    # Approved a while later: another request than the one that brought the password.
    clock.shift(timedelta(minutes=2))
    second_step(alices_known, code_at(seed))
    assert alices_known.get("/account/security/").status_code == 200
    assert told() == 1
    assert Event.objects.filter(tag="account.login.after_lock").count() == 1


@pytest.mark.django_db
def test_v6_3_5_each_lock_episode_is_told_of_once(
    alice: User, alices_known: Client, clock: Clock
) -> None:
    for episode in (1, 2):
        fail_until_locked(alice.email, clock)
        for _again in range(2):
            assert is_in(sign_in(alice.email, PASSWORD, tab=alices_known))
            alices_known.post("/logout/")
            clock.shift(timedelta(minutes=10))
            # The guessing goes on: it is still the same episode.
            sign_in(alice.email, ip="203.0.113.9")
        assert told() == episode
        clock.shift(timedelta(hours=12, seconds=1))


@pytest.mark.django_db
def test_v6_3_5_four_wrong_passwords_or_a_lock_twelve_hours_ago_are_no_episode(
    alice: User, alices_known: Client, clock: Clock
) -> None:
    for _try in range(4):
        sign_in(alice.email)
        clock.shift(timedelta(seconds=2))
    assert is_in(sign_in(alice.email, PASSWORD, tab=alices_known))
    # By a stranger's browser the fifth try would lock; it was right.
    assert is_in(sign_in(alice.email, PASSWORD))
    fail_until_locked(alice.email, clock)
    clock.shift(timedelta(hours=12))
    alices_known.post("/logout/")
    assert is_in(sign_in(alice.email, PASSWORD, tab=alices_known))
    assert told() == 0
    assert not Event.objects.filter(tag="account.login.after_lock").exists()


@pytest.mark.django_db
def test_v6_3_5_after_a_hundred_in_all_the_lock_stands_and_is_told_of_whenever(
    alice: User, alices_known: Client, clock: Clock
) -> None:
    for number in range(lockout.MOST_EVER):
        lockout.begin(alice.email, ip=f"198.51.{number}.7", browser=None)
        # So seldom that each is the first one after a quiet time.
        clock.shift(timedelta(hours=13))
    for _again in range(2):
        assert is_in(sign_in(alice.email, PASSWORD, tab=alices_known))
        alices_known.post("/logout/")
    assert told() == 1


@pytest.mark.django_db
def test_v6_3_5_charlies_sign_in_says_nothing_of_alices_lock(
    alice: User, charlie: User, alices_known: Client, clock: Clock
) -> None:
    fail_until_locked(alice.email, clock)
    assert is_in(sign_in(charlie.email, PASSWORD, tab=alices_known))
    assert told() == 0
    assert is_in(sign_in(alice.email, PASSWORD, tab=tab())) is False


@pytest.mark.django_db
def test_what_was_tried_before_somebody_signed_up_is_not_told(clock: Clock, settings: Any) -> None:
    fail_until_locked("dora@example.org", clock)
    app = App()
    app.call("POST", "auth/signup", email="dora@example.org", password="seven lamps over water")
    code = text_of(mails(settings)[-1]).split("    ")[1].split()[0]
    assert app.call("POST", "auth/email/verify", key=code).status_code == 200
    assert User.objects.get(email="dora@example.org").last_login == timezone.now()
    assert told() == 0
