"""Second steps as OWASP ASVS 5.0 asks for them (shared list A1, rows 15 to 29)."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import time_machine
from allauth.account.adapter import get_adapter
from allauth.mfa.models import Authenticator
from allauth.usersessions.models import UserSession
from django.conf import settings as django_settings
from django.core.cache import cache
from django.core.management import call_command
from django.db import connection
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
    newest_code,
    prove_again,
    second_step,
    signed_in_tab,
    tab,
    type_password,
)
from server.tests.conftest import PASSWORD

from doorward.accounts.models import RecoveryCode, User
from doorward.audit.models import Event

NEW = "nine ships in the quiet morning"


@pytest.fixture
def home(alice: User) -> Client:
    """Alice's browser at home, in which she signed in."""
    return signed_in_tab(alice.email)


def test_v6_3_4_every_way_to_a_session_passes_the_same_stages() -> None:
    stages = [
        stage if isinstance(stage, str) else f"{stage.__module__}.{stage.__qualname__}"
        for stage in get_adapter().get_login_stages()
    ]
    ours = "doorward.accounts.second_step_stages."
    assert stages[0] == f"{ours}StampStage"
    assert stages[-1] == f"{ours}UnchangedStage"
    assert f"{ours}SecondStepStage" in stages
    assert "allauth.mfa.stages.AuthenticateStage" not in stages
    # That nothing else leads to a session is watched in every test (only_by_the_stages.py), also
    # for who goes straight in (test_straight_in.py). Code that no test walks is looked for here.
    house = Path(__file__).parents[2] / "src/doorward"
    for file in house.rglob("*.py"):
        text = file.read_text()
        assert not re.search(r"contrib\.auth import [^\n]*\blogin\b(?!_)", text), file
        assert ("adapter.login(" in text) == (file.name == "straight_in.py"), file
        assert "force_login" not in text, file


def test_v6_3_5_a_failed_second_step_is_mailed_once_an_hour(alice: User, home: Client) -> None:
    add_app(home)
    thief = tab("Thief/1.0")
    type_password(thief, alice.email)
    for _ in range(3):
        second_step(thief, "000000")
    told = [subject for subject in mails_to(alice.email) if "knows your password" in subject]
    assert len(told) == 1
    failed = Event.objects.filter(tag="account.second_step.failed", actor_id=alice.pk)
    assert failed.count() == 3
    assert failed[0].agent == "Thief/1.0"


@pytest.mark.django_db(transaction=True)
def test_v6_3_7_each_change_of_a_second_step_is_mailed_and_written_down(
    alice: User, home: Client
) -> None:
    add_app(home)
    home.post("/account/security/recovery-codes/generate/")
    home.post("/account/security/email/", {"wanted": "on"})
    home.post("/account/security/email/", {"wanted": "off"})
    home.post("/account/security/totp/deactivate/")
    told = mails_to(alice.email)
    for subject in (
        "Your authenticator app was added",
        "You have new recovery codes",
        "Codes by email are on",
        "Codes by email are off",
        "Your authenticator app was removed",
    ):
        assert told.count(subject) == 1, told
    events = list(
        Event.objects.filter(actor_id=alice.pk, tag__startswith="account.").values_list(
            "tag", flat=True
        )
    )
    assert events.count("account.second_step.added") == 3, events
    assert events.count("account.second_step.removed") == 3, events
    assert "account.recovery_codes.made" in events


def test_v6_4_3_a_new_password_by_link_signs_nobody_in_and_keeps_the_second_step(
    alice: User, home: Client
) -> None:
    seed, _codes = add_app(home)
    thief = tab()
    thief.post("/password/reset/", {"email": alice.email})
    link = reset_link()
    asked = thief.get(link, follow=True)
    answer = thief.post(asked.request["PATH_INFO"], {"password1": NEW, "password2": NEW})
    assert answer.status_code == 302
    assert not is_signed_in(thief)
    answer = type_password(thief, alice.email, NEW)
    assert answer["Location"] == "/account/security/authenticate/"
    assert not is_signed_in(thief)
    second_step(thief, code_at(seed))
    assert is_signed_in(thief)


def test_v6_4_4_a_lost_app_is_removed_only_by_who_has_a_recovery_code(
    alice: User, home: Client
) -> None:
    _seed, codes = add_app(home)
    browser = tab()
    type_password(browser, alice.email)
    browser.post("/account/security/totp/deactivate/")
    assert Authenticator.objects.filter(user=alice, type="totp").exists()
    second_step(browser, codes[0])
    assert is_signed_in(browser)
    prove_again(browser, "/account/security/totp/deactivate/")
    browser.post("/account/security/totp/deactivate/")
    assert not Authenticator.objects.filter(user=alice).exists()


@pytest.mark.parametrize("seconds", [0, 31])
def test_v6_5_1_a_code_of_the_app_works_once(alice: User, home: Client, seconds: int) -> None:
    with time_machine.travel(timezone.now(), tick=False) as clock:
        seed, _codes = add_app(home)
        code = code_at(seed)
        first, second = tab(), tab()
        for browser in (first, second):
            type_password(browser, alice.email)
        second_step(first, code)
        assert is_signed_in(first)
        clock.shift(timedelta(seconds=seconds))
        # Another process remembers nothing of what this one did.
        cache.clear()
        second_step(second, code)
        assert not is_signed_in(second)
        clock.shift(timedelta(seconds=60))
        second_step(second, code_at(seed))
        assert is_signed_in(second)


def test_v6_5_1_the_code_that_proved_the_app_does_not_sign_in(alice: User, home: Client) -> None:
    with time_machine.travel(timezone.now(), tick=False):
        seed, _codes = add_app(home)
        thief = tab()
        type_password(thief, alice.email)
        second_step(thief, code_at(seed, -1))
        assert not is_signed_in(thief)


@pytest.mark.django_db(transaction=True)
def test_v6_5_1_of_sixteen_at_once_one_opens(alice: User) -> None:
    home = signed_in_tab(alice.email)
    seed, codes = add_app(home)
    app = Authenticator.objects.get(user=alice, type="totp")
    recovery = Authenticator.objects.get(user=alice, type="recovery_codes")
    code = code_at(seed)
    assert at_once(16, lambda _number: app.wrap().validate_code(code)) == 1
    assert at_once(16, lambda _number: recovery.wrap().validate_code(codes[3])) == 1
    assert RecoveryCode.objects.filter(used_at__isnull=False).count() == 1


@pytest.mark.django_db(transaction=True)
def test_v6_5_1_a_mailed_code_sent_many_times_at_once_opens_one_session(
    alice: User, settings: Any
) -> None:
    choose_email(signed_in_tab(alice.email))
    browser = tab()
    assert type_password(browser, alice.email)["Location"] == "/login/code/confirm/"
    code = newest_code(alice.email, settings)
    cookie = browser.cookies[django_settings.SESSION_COOKIE_NAME].value

    def act(_number: int) -> bool:
        mine = tab()
        mine.cookies[django_settings.SESSION_COOKIE_NAME] = cookie
        mine.raise_request_exception = False
        mine.post("/login/code/confirm/", {"code": code})
        mine.post("/account/security/trust/", {"action": "skip"})
        return is_signed_in(mine)

    assert at_once(16, act) == 1
    assert UserSession.objects.filter(user=alice).count() == 2
    # Nor ever again: with the same sign-in, or with the next one.
    assert not act(0)
    later = tab()
    assert type_password(later, alice.email)["Location"] == "/login/code/confirm/"
    later.post("/login/code/confirm/", {"code": code})
    later.post("/account/security/trust/", {"action": "skip"})
    assert not is_signed_in(later)


def test_v6_5_2_a_copy_of_the_database_opens_nothing(
    alice: User, home: Client, tmp_path: Path
) -> None:
    page = prove_again(home, "/account/security/totp/activate/").content.decode()
    pending = re.search(r'id="seed">([A-Z2-7]+)<', page)
    assert pending is not None
    assert pending[1] not in everything_stored(tmp_path)
    seed, codes = add_app_again(home)
    browser = tab()
    type_password(browser, alice.email)
    second_step(browser, codes[0], remember=True)
    assert is_signed_in(browser)
    remembered = browser.cookies["dw_remembered"].value
    stored = everything_stored(tmp_path)
    assert alice.email in stored
    for secret in (seed, *codes, *(code.replace("-", "") for code in codes), remembered):
        assert secret not in stored
    assert len(codes[0].replace("-", "")) * 5 >= 80


def test_v6_5_4_a_mailed_code_has_six_signs_and_lasts_ten_minutes(
    alice: User, home: Client, settings: Any
) -> None:
    choose_email(home)
    with time_machine.travel(timezone.now(), tick=False) as clock:
        browser = tab()
        type_password(browser, alice.email)
        code = newest_code(alice.email, settings)
        assert len(code.replace("-", "")) >= 6
        clock.shift(timedelta(seconds=601))
        browser.post("/login/code/confirm/", {"code": code})
        browser.post("/account/security/trust/", {"action": "skip"})
        assert not is_signed_in(browser)
        type_password(browser, alice.email)
        clock.shift(timedelta(seconds=590))
        browser.post("/login/code/confirm/", {"code": newest_code(alice.email, settings)})
        browser.post("/account/security/trust/", {"action": "skip"})
        assert is_signed_in(browser)


def test_v6_5_5_an_apps_code_is_of_half_a_minute_and_its_neighbors(
    alice: User, home: Client
) -> None:
    with time_machine.travel(timezone.now(), tick=False):
        seed, _codes = add_app(home)
        for ahead, opens in ((-2, False), (2, False), (1, True)):
            browser = tab()
            type_password(browser, alice.email)
            second_step(browser, code_at(seed, ahead))
            assert is_signed_in(browser) is opens, ahead


def test_v6_6_2_a_mailed_code_opens_only_where_it_was_asked_for(
    alice: User, home: Client, settings: Any
) -> None:
    choose_email(home)
    asked, other = tab(), tab()
    type_password(asked, alice.email)
    code = newest_code(alice.email, settings)
    type_password(other, alice.email)
    other.post("/login/code/confirm/", {"code": code})
    assert not is_signed_in(other)
    asked.post("/login/code/confirm/", {"code": code})
    asked.post("/account/security/trust/", {"action": "skip"})
    assert is_signed_in(asked)


def test_v6_6_3_three_wrong_mailed_codes_end_the_sign_in(
    alice: User, home: Client, settings: Any
) -> None:
    choose_email(home)
    browser = tab()
    type_password(browser, alice.email)
    code = newest_code(alice.email, settings)
    for _ in range(3):
        browser.post("/login/code/confirm/", {"code": "WRONG1"})
    browser.post("/login/code/confirm/", {"code": code})
    assert not is_signed_in(browser)


def test_v6_3_1_five_wrong_second_steps_lead_back_to_the_password(
    alice: User, home: Client
) -> None:
    seed, _codes = add_app(home)
    browser = tab()
    type_password(browser, alice.email)
    answers = [second_step(browser, "000000") for _ in range(5)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 200, 302]
    assert answers[-1]["Location"] == "/login/"
    # And the right one is not even compared for a while, in no browser and no app.
    type_password(browser, alice.email)
    second_step(browser, code_at(seed))
    assert not is_signed_in(browser)
    app = App()
    app.call("POST", "auth/login", email=alice.email, password=PASSWORD)
    refused = app.call("POST", "auth/2fa/authenticate", code=code_at(seed))
    assert (refused.status_code, refused.json()["errors"][0]["code"]) == (429, "too_many_tries")
    assert 0 < int(refused["Retry-After"]) <= 300
    assert not app.is_signed_in()


def test_the_way_used_last_is_offered_first_and_the_others_beside_it(
    alice: User, home: Client, settings: Any
) -> None:
    add_app(home)
    home.post("/account/security/email/", {"wanted": "on"})
    browser = tab()
    type_password(browser, alice.email)
    page = browser.get("/account/security/authenticate/").content.decode()
    assert page.index("Authenticator app") < page.index("Code by email")
    browser.post("/account/security/by-mail/")
    assert "Choose another way" in browser.get("/login/code/confirm/").content.decode()
    browser.post("/account/security/another-way/")
    assert browser.get("/account/security/authenticate/").status_code == 200
    browser.post("/account/security/by-mail/")
    browser.post("/login/code/confirm/", {"code": newest_code(alice.email, settings)})
    browser.post("/account/security/trust/", {"action": "skip"})
    assert is_signed_in(browser)
    again = tab()
    type_password(again, alice.email)
    page = again.get("/account/security/authenticate/").content.decode()
    assert page.index("Code by email") < page.index("Authenticator app")


def test_who_did_not_choose_mail_gets_no_code_by_it(alice: User, home: Client) -> None:
    add_app(home)
    browser = tab()
    type_password(browser, alice.email)
    before = mails_to(alice.email)
    assert browser.post("/account/security/by-mail/")["Location"] == "/login/"
    assert mails_to(alice.email) == before


def add_app_again(browser: Client) -> tuple[str, list[str]]:
    """Set up an app where it was proved already who it is."""
    page = browser.get("/account/security/totp/activate/").content.decode()
    found = re.search(r'id="seed">([A-Z2-7]+)<', page)
    assert found is not None
    answer = browser.post(
        "/account/security/totp/activate/", {"code": code_at(found[1], -1)}, follow=True
    )
    shown = re.search(r'id="recovery"[^>]*>([^<]+)</pre>', answer.content.decode())
    assert shown is not None
    return found[1], shown[1].split()


def everything_stored(place: Path) -> str:
    """Return every row of every table, and sessions also as what they hold."""
    from django.contrib.sessions.models import Session

    file = place / "dump.json"
    call_command("dumpdata", output=str(file), verbosity=0)
    sessions = [str(session.get_decoded()) for session in Session.objects.all()]
    with connection.cursor() as cursor:
        cursor.execute("SELECT cache_key, value FROM accounts_cache")
        cached = str(cursor.fetchall())
    return file.read_text() + "".join(sessions) + cached


def reset_link() -> str:
    """Return the path of the newest link to choose a password."""
    from doorward.notices import outbox

    outbox.send_due(timezone.now())
    folder = Path(django_settings.DATA) / "mail"
    for file in sorted(folder.glob("*.eml"), key=lambda one: one.stat().st_mtime_ns, reverse=True):
        text = file.read_text().replace("=\n", "").replace("=3D", "=")
        found = re.search(r"http://localhost:\d+(/password/reset/key/\S+/)", text)
        if found:
            return found[1]
    raise AssertionError("no link was mailed")
