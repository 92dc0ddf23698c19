"""A lost second step: waited out, announced everywhere, stopped anywhere, opened once."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import time_machine
from allauth.mfa.models import Authenticator
from django.test import Client
from django.utils import timezone
from server.tests.accounts.second_steps import (
    App,
    add_app,
    at_once,
    choose_email,
    code_at,
    is_signed_in,
    mails_to,
    second_step,
    signed_in_tab,
    tab,
    type_password,
)
from server.tests.conftest import PASSWORD, account_for, person

from doorward.accounts import approvals, recovery
from doorward.accounts.models import Approval, PhoneNumber, Recovery, RememberedBrowser, User
from doorward.audit.models import Event

WAIT = timedelta(hours=72)
NEW = "nine ships in the quiet morning"
STARTED = "Someone asks to get in without your second step"
READY = "You can set a new second step now"


@pytest.fixture
def clock() -> Iterator[Any]:
    with time_machine.travel(timezone.now(), tick=False) as moved:
        yield moved


@pytest.fixture
def home(alice: User) -> Client:
    """Alice's browser at home, in which she signed in and set up an app."""
    account_for(alice)
    browser = signed_in_tab(alice.email)
    browser.seed, browser.codes = add_app(browser)  # type: ignore[attr-defined]  # for the tests
    return browser


def begin(address: str, agent: str = "Cafe/1.0") -> Client:
    """Return a browser that typed the right password and began the wait."""
    browser = tab(agent)
    type_password(browser, address)
    answer = browser.post("/login/recovery/begin/", follow=True)
    assert "You are waiting until" in answer.content.decode()
    return browser


def only(user: User) -> Recovery:
    return Recovery.objects.get(user=user)


def path(link: str) -> str:
    return "/" + link.split("/", 3)[3]


def open_link(browser: Client, user: User) -> Any:
    return browser.post(path(recovery.open_link(only(user))))


def get_in(user: User, password: str = PASSWORD) -> Client:
    """Open the mailed link in a new browser, sign in and accept; returns the browser."""
    browser = tab()
    open_link(browser, user)
    type_password(browser, user.email, password)
    browser.post("/login/recovery/enter/")
    return browser


def operator(address: str) -> User:
    user = person(address, address.partition("@")[0].title())
    user.is_operator = True
    user.save()
    return user


def tags(user: User) -> list[str]:
    found = Event.objects.filter(actor_id=user.pk).order_by("pk")
    return list(found.values_list("tag", flat=True))


def test_n2_after_the_wait_the_password_and_the_mailed_link_open_once(
    alice: User, home: Client, clock: Any
) -> None:
    RememberedBrowser.objects.create(
        user=alice,
        digest="x",
        agent="",
        ip="",
        created_at=timezone.now(),
        last_used_at=timezone.now(),
        expires_at=timezone.now() + timedelta(days=30),
    )
    PhoneNumber.objects.create(user=alice, sealed="x", confirmed_at=timezone.now())
    cafe = begin(alice.email)
    assert not is_signed_in(cafe)
    clock.shift(WAIT)
    recovery.sweep(timezone.now())
    browser = tab()
    page = browser.get(path(recovery.open_link(only(alice)))).content.decode()
    assert "Go on to my password" in page
    answer = open_link(browser, alice)
    assert answer["Location"] == "/login/"
    assert not is_signed_in(browser)
    answer = type_password(browser, alice.email)
    assert answer["Location"] == "/login/recovery/enter/"
    assert not is_signed_in(browser)
    assert "your authenticator app" in browser.get("/login/recovery/enter/").content.decode()
    answer = browser.post("/login/recovery/enter/")
    assert answer["Location"] == "/account/security/"
    assert is_signed_in(browser)
    assert not is_signed_in(home), "other sessions end"
    assert not Authenticator.objects.filter(user=alice).exists()
    assert not RememberedBrowser.objects.filter(user=alice).exists()
    assert not PhoneNumber.objects.filter(user=alice).exists()
    assert mails_to(alice.email).count("Your second step was removed") == 1
    assert {"account.recovery.started", "account.recovery.used"} <= set(tags(alice))
    late = tab()
    assert late.get(path(recovery.open_link(only(alice)))).status_code == 410


def test_n2_not_a_second_too_early(alice: User, home: Client, clock: Any) -> None:
    begin(alice.email)
    clock.shift(WAIT - timedelta(seconds=1))
    recovery.sweep(timezone.now())
    assert READY not in mails_to(alice.email)
    browser = tab()
    page = browser.get(path(recovery.open_link(only(alice)))).content.decode()
    assert "Not yet" in page
    assert not is_signed_in(get_in(alice))
    # A link opened too early does not begin to work by waiting in a half-done sign-in.
    waiting = tab()
    open_link(waiting, alice)
    type_password(waiting, alice.email)
    clock.shift(timedelta(seconds=1))
    waiting.post("/login/recovery/enter/")
    assert not is_signed_in(waiting)
    assert is_signed_in(get_in(alice))


def test_v6_4_4_neither_password_nor_link_alone_opens(
    alice: User, home: Client, clock: Any
) -> None:
    cafe = begin(alice.email)
    clock.shift(WAIT)
    # The password alone: the second step is asked as ever, with a hint to the mail.
    again = tab()
    assert type_password(again, alice.email)["Location"] == "/account/security/authenticate/"
    assert again.post("/login/recovery/enter/")["Location"] == "/login/"
    assert "The wait is over" in again.get("/login/recovery/").content.decode()
    assert not is_signed_in(again)
    assert not is_signed_in(cafe)
    # The link alone.
    mailbox = tab()
    open_link(mailbox, alice)
    mailbox.post("/login/recovery/enter/")
    assert not is_signed_in(mailbox)
    type_password(mailbox, alice.email, "wrong " + PASSWORD)
    mailbox.post("/login/recovery/enter/")
    assert not is_signed_in(mailbox)
    assert Authenticator.objects.filter(user=alice, type="totp").exists()


def test_charlies_password_and_alices_link_open_neither(
    alice: User, home: Client, charlie: User, clock: Any
) -> None:
    begin(alice.email)
    add_app(signed_in_tab(charlie.email))
    clock.shift(WAIT)
    browser = tab()
    open_link(browser, alice)
    answer = type_password(browser, charlie.email)
    assert answer["Location"] == "/account/security/authenticate/"
    browser.post("/login/recovery/enter/")
    assert not is_signed_in(browser)


def test_the_link_may_be_opened_in_the_browser_that_waits_at_the_second_step(
    alice: User, home: Client, clock: Any
) -> None:
    begin(alice.email)
    clock.shift(WAIT)
    browser = tab()
    type_password(browser, alice.email)
    assert open_link(browser, alice)["Location"] == "/login/recovery/enter/"
    browser.post("/login/recovery/enter/")
    assert is_signed_in(browser)


def test_a_person_with_codes_by_mail_whom_operators_vouch_for_gets_in_from_there_too(
    alice: User, clock: Any
) -> None:
    account_for(alice)
    choose_email(signed_in_tab(alice.email))
    first, second = operator("olga@example.org"), operator("otto@example.org")
    recovery.ask_as_operator(alice, first, "Met her at the desk with her passport.")
    recovery.confirm_as_operator(alice, second)
    clock.shift(WAIT)
    browser = tab()
    assert type_password(browser, alice.email)["Location"] == "/login/code/confirm/"
    assert open_link(browser, alice)["Location"] == "/login/recovery/enter/"
    browser.post("/login/recovery/enter/")
    assert is_signed_in(browser)


def test_who_has_the_second_step_again_keeps_it(alice: User, home: Client, clock: Any) -> None:
    begin(alice.email)
    clock.shift(WAIT)
    browser = tab()
    open_link(browser, alice)
    type_password(browser, alice.email)
    answer = browser.post("/login/recovery/enter/", {"instead": "1"})
    assert answer["Location"] == "/account/security/authenticate/"
    assert not is_signed_in(browser)
    second_step(browser, code_at(home.seed))  # type: ignore[attr-defined]  # see home
    assert is_signed_in(browser)
    assert only(alice).ending == Recovery.Ending.UNNEEDED


@pytest.mark.django_db(transaction=True)
def test_n2_of_eight_at_once_one_gets_in(alice: User) -> None:
    account_for(alice)
    add_app(signed_in_tab(alice.email))
    begin(alice.email)
    with time_machine.travel(timezone.now() + WAIT, tick=False):

        def act(_number: int) -> bool:
            try:
                recovery.enter(alice, only(alice).pk, ip="192.0.2.1", agent="")
            except recovery.NotOpen:
                return False
            return True

        assert at_once(8, act) == 1


def test_each_announcement_is_mailed_once(alice: User, home: Client, clock: Any) -> None:
    begin(alice.email)
    begin(alice.email, "Again/1.0")
    told = []
    start = timezone.now()
    for hour in range(0, 76, 1):
        clock.move_to(start + timedelta(hours=hour))
        before = len(mails_to(alice.email))
        recovery.sweep(timezone.now())
        recovery.sweep(timezone.now())
        told += [(hour, subject) for subject in mails_to(alice.email)[before:]]
    assert mails_to(alice.email).count(STARTED) == 1
    still = f"Still waiting: {STARTED[0].lower()}{STARTED[1:]}"
    assert told == [(24, still), (60, still), (72, READY)]


def test_a_worker_that_was_away_tells_once_how_things_are(
    alice: User, home: Client, clock: Any
) -> None:
    begin(alice.email)
    clock.shift(timedelta(hours=80))
    before = len(mails_to(alice.email))
    recovery.sweep(timezone.now())
    assert mails_to(alice.email)[before:] == [READY]


def test_a_wait_that_nobody_used_lapses_and_is_told(alice: User, home: Client, clock: Any) -> None:
    begin(alice.email)
    clock.shift(WAIT)
    recovery.sweep(timezone.now())
    clock.shift(recovery.OPEN_FOR)
    recovery.sweep(timezone.now())
    assert only(alice).ending == Recovery.Ending.LAPSED
    assert "The recovery of your second step has ended" in mails_to(alice.email)
    assert not is_signed_in(get_in(alice))


@pytest.mark.parametrize("by", ["mail", "session"])
@pytest.mark.parametrize("after", [timedelta(minutes=1), WAIT + timedelta(hours=1)])
def test_v6_4_4_anybody_told_of_it_stops_it_with_one_click(
    alice: User, home: Client, clock: Any, by: str, after: timedelta
) -> None:
    begin(alice.email)
    clock.shift(after)
    if by == "mail":
        stranger = tab("Mail/1.0")
        address = path(recovery.stop_link(only(alice)))
        assert "Stop it?" in stranger.get(address).content.decode()
        assert only(alice).ended_at is None, "looking stops nothing"
        assert "Nobody gets in" in stranger.post(address).content.decode()
        assert stranger.get(address).status_code == 410
    else:
        assert home.post("/account/recovery/stop/").status_code == 302
    assert only(alice).ending == Recovery.Ending.STOPPED
    assert mails_to(alice.email).count("Nobody gets in without your second step") == 1
    clock.shift(WAIT)
    assert not is_signed_in(get_in(alice))
    assert Authenticator.objects.filter(user=alice, type="totp").exists()
    stopped = Event.objects.get(tag="account.recovery.stopped")
    assert by in stopped.detail


def test_every_page_of_every_session_tells_of_it(alice: User, home: Client, clock: Any) -> None:
    clock.shift(timedelta(minutes=1))
    phone = tab("Phone/1.0")
    type_password(phone, alice.email)
    second_step(phone, code_at(home.seed))  # type: ignore[attr-defined]  # see home
    begin(alice.email)
    for browser in (home, phone):
        for page in ("/", "/devices/", "/account/security/", "/help/", "/account/asks/"):
            shown = browser.get(page).content.decode()
            assert "without your second step" in shown, page
            assert "/account/recovery/stop/" in shown, page
    clock.shift(WAIT)
    assert "They can get in now" in home.get("/account/asks/").content.decode()
    phone.post("/account/recovery/stop/")
    assert "without your second step" not in home.get("/").content.decode()


GONE = "Your second step is gone"


def test_after_a_recovery_every_page_asks_for_a_new_second_step_until_one_is_set(
    alice: User, home: Client, clock: Any
) -> None:
    begin(alice.email)
    clock.shift(WAIT)
    browser = get_in(alice)
    for page in ("/", "/devices/", "/help/", "/account/asks/"):
        assert GONE in browser.get(page).content.decode(), page
    assert GONE not in browser.get("/account/security/").content.decode(), "it says so itself"
    # Later: in this session alone.
    part = {"HX-Request": "true"}
    assert GONE not in browser.post("/account/asks/", headers=part).content.decode()
    assert GONE not in browser.get("/").content.decode()
    assert browser.post("/account/asks/")["Location"] == "/"
    assert GONE in signed_in_tab(alice.email).get("/").content.decode()
    browser.post("/logout/")
    type_password(browser, alice.email)
    assert GONE in browser.get("/").content.decode(), "it comes back at the next sign-in"
    add_app(browser)
    assert GONE not in browser.get("/").content.decode()


def test_who_never_lost_a_second_step_is_not_asked_for_one(alice: User, charlie: User) -> None:
    account_for(alice)
    assert GONE not in signed_in_tab(charlie.email).get("/").content.decode()
    begin_and_stop = signed_in_tab(alice.email)
    add_app(begin_and_stop)
    begin(alice.email)
    begin_and_stop.post("/account/recovery/stop/")
    assert GONE not in begin_and_stop.get("/").content.decode()


def test_charlie_neither_sees_nor_stops_it(alice: User, home: Client, charlie: User) -> None:
    begin(alice.email)
    stranger = signed_in_tab(charlie.email)
    assert "second step" not in stranger.get("/account/asks/").content.decode()
    stranger.post("/account/recovery/stop/")
    assert only(alice).ended_at is None
    right = path(recovery.stop_link(only(alice)))
    wrong = re.sub(r"/[0-9a-f]{48}/$", f"/{'0' * 48}/", right)
    assert wrong != right
    assert stranger.post(wrong).status_code == 410
    # The address that opens does not stop, and the one that stops does not open.
    opens = path(recovery.open_link(only(alice)))
    assert stranger.post(opens.replace("/open/", "/stop/")).status_code == 410
    assert stranger.get(right.replace("/stop/", "/open/")).status_code == 410
    assert only(alice).ended_at is None


@pytest.mark.parametrize("change", ["password", "reset", "epoch", "address", "disabled"])
def test_a_change_of_how_to_sign_in_ends_it(
    alice: User, home: Client, clock: Any, change: str
) -> None:
    begin(alice.email)
    password = PASSWORD
    if change == "password":
        password = NEW
        answers = {"oldpassword": PASSWORD, "password1": NEW, "password2": NEW}
        assert home.post("/password/change/", answers).status_code == 302
        assert only(alice).ending == Recovery.Ending.CHANGED
    elif change == "reset":
        password = NEW
        alice.set_password(NEW)
        alice.save()
    elif change == "epoch":
        User.objects.filter(pk=alice.pk).update(epoch=alice.epoch + 7)
    elif change == "address":
        User.objects.filter(pk=alice.pk).update(email="alice@sea.example")
        alice.email = "alice@sea.example"
    else:
        User.objects.filter(pk=alice.pk).update(is_active=False)
    clock.shift(WAIT)
    assert not is_signed_in(get_in(alice, password))
    recovery.sweep(timezone.now())
    assert only(alice).ending == Recovery.Ending.CHANGED
    assert READY not in mails_to("alice@example.org")


@pytest.mark.parametrize("way", ["app", "recovery code", "approval"])
def test_signing_in_with_a_second_step_ends_it(
    alice: User, home: Client, clock: Any, way: str
) -> None:
    phone = tab("Phone/1.0")
    type_password(phone, alice.email)
    second_step(phone, code_at(home.seed))  # type: ignore[attr-defined]  # see home
    begin(alice.email)
    clock.shift(timedelta(minutes=2))
    browser = tab()
    type_password(browser, alice.email)
    if way == "approval":
        browser.post("/login/approval/")
        asked = Approval.objects.get(user=alice)
        approvals.approve(
            alice, asked.pk, str(asked.number), is_proven=True, ip="192.0.2.1", agent=""
        )
        browser.post("/login/approval/finish/")
        browser.post("/account/security/trust/", {"action": "skip"})
    else:
        code = code_at(home.seed) if way == "app" else home.codes[0]  # type: ignore[attr-defined]
        second_step(browser, code)
    assert is_signed_in(browser)
    assert only(alice).ending == Recovery.Ending.UNNEEDED
    clock.shift(WAIT)
    assert not is_signed_in(get_in(alice))


def test_it_is_begun_three_times_a_day_at_most(alice: User, home: Client, clock: Any) -> None:
    for _time in range(3):
        begin(alice.email)
        home.post("/account/recovery/stop/")
    browser = tab()
    type_password(browser, alice.email)
    answer = browser.post("/login/recovery/begin/", follow=True)
    assert "Try again tomorrow" in answer.content.decode()
    assert Recovery.objects.filter(ended_at__isnull=True).count() == 0
    clock.shift(timedelta(hours=25))
    begin(alice.email)


def test_who_knows_no_password_begins_nothing(alice: User, home: Client) -> None:
    browser = tab()
    type_password(browser, alice.email, "wrong " + PASSWORD)
    for address in ("begin", "again"):
        answer = browser.post(f"/login/recovery/{address}/")
        assert answer["Location"] == "/login/"
    assert browser.get("/login/recovery/")["Location"] == "/login/"
    assert not Recovery.objects.exists()


def test_a_sign_in_from_before_a_change_begins_nothing(alice: User, home: Client) -> None:
    browser = tab()
    type_password(browser, alice.email)
    alice.set_password(NEW)
    alice.save()
    browser.post("/login/recovery/begin/")
    assert not Recovery.objects.exists()


def test_a16_a_new_password_by_link_neither_shortens_nor_skips_the_wait(
    alice: User, home: Client, clock: Any
) -> None:
    begin(alice.email)
    clock.shift(WAIT - timedelta(minutes=1))
    thief = tab()
    thief.post("/password/reset/", {"email": alice.email})
    from server.tests.asvs.test_second_step import reset_link

    asked = thief.get(reset_link(), follow=True)
    thief.post(asked.request["PATH_INFO"], {"password1": NEW, "password2": NEW})
    answer = type_password(thief, alice.email, NEW)
    assert answer["Location"] == "/account/security/authenticate/"
    assert not is_signed_in(thief)
    clock.shift(timedelta(minutes=2))
    assert not is_signed_in(get_in(alice, NEW))
    assert Authenticator.objects.filter(user=alice, type="totp").exists()


def test_the_link_is_mailed_again_three_times_a_day(alice: User, home: Client, clock: Any) -> None:
    begin(alice.email)
    early = tab()
    type_password(early, alice.email)
    early.post("/login/recovery/again/")
    assert READY not in mails_to(alice.email)
    clock.shift(WAIT)
    late = tab()
    type_password(late, alice.email)
    for _time in range(5):
        late.post("/login/recovery/again/")
    assert mails_to(alice.email).count(READY) == 3


def test_an_app_is_asked_for_its_second_step_whatever_waits(
    alice: User, home: Client, clock: Any
) -> None:
    begin(alice.email)
    clock.shift(WAIT)
    app = App()
    app.call("POST", "auth/login", email=alice.email, password=PASSWORD)
    assert not app.is_signed_in()


def test_who_only_gets_codes_by_mail_is_helped_by_operators_alone(alice: User, clock: Any) -> None:
    home = signed_in_tab(alice.email)
    choose_email(home)
    browser = tab()
    assert type_password(browser, alice.email)["Location"] == "/login/code/confirm/"
    page = browser.get("/login/code/confirm/").content.decode()
    assert 'href="/login/recovery/"' in page, "where no code comes, the other ways are a click away"
    page = browser.get("/login/recovery/").content.decode()
    assert "Two of the people who run this service" in page


def test_a_copy_of_the_database_opens_nothing(alice: User, home: Client, tmp_path: Any) -> None:
    from server.tests.asvs.test_second_step import everything_stored

    begin(alice.email)
    stored = everything_stored(tmp_path)
    for link in (recovery.open_link(only(alice)), recovery.stop_link(only(alice))):
        assert link.split("/")[-2] not in stored


def test_the_addresses_are_kept_from_other_sites(alice: User, home: Client) -> None:
    begin(alice.email)
    for link in (recovery.open_link(only(alice)), recovery.stop_link(only(alice))):
        answer = tab().get(path(link))
        assert answer["Referrer-Policy"] == "no-referrer"
        assert answer["Cache-Control"] == "no-store"


def test_the_wait_is_a_setting_of_a_day_at_least() -> None:
    import os
    import subprocess
    import sys

    for hours, starts in (("23", False), ("24", True), ("720", True), ("721", False)):
        told = subprocess.run(
            [sys.executable, "-c", "import doorward.settings"],
            env={**os.environ, "DOORWARD_RECOVERY_DELAY_HOURS": hours},
            capture_output=True,
            check=False,
        )
        assert (told.returncode == 0) is starts, hours
