"""Each limit of docs/security/limits.md, at its figure and one beyond, and after its end.

For what strangers cause; those of second steps and of being asked again have their own files.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from server.tests.accounts.test_lockout import (
    LOCKED,
    NEW,
    WRONG,
    Clock,
    Counted,
    alices_known,
    checked,
    clock,
    fail_until_locked,
    is_in,
    link_in,
    sign_in,
)
from server.tests.accounts.test_signing_in import mails, text_of
from server.tests.conftest import PASSWORD

from doorward.accounts import browsers, lockout, unlock
from doorward.accounts.models import Account, KnownBrowser, User
from doorward.audit.models import Event
from doorward.notices.models import Mail

__all__ = ["alices_known", "checked", "clock"]  # fixtures

pytestmark = pytest.mark.django_db

HERE = "198.51.100.9"
ELSEWHERE = "203.0.113.77"
SECOND = timedelta(seconds=1)
LOST_WAIT = "Too many tries from new browsers. We can e-mail you a link to sign in"


def fail(address: str, *, ip: str = HERE) -> lockout.Locked | None:
    """Try a wrong password from a stranger's browser; returns the refusal, if it was one."""
    try:
        lockout.begin(address, ip=ip, browser=None)
    except lockout.Locked as locked:
        return locked
    return None


def by_app(address: str, ip: str = HERE) -> Any:
    return Client(HTTP_HOST="localhost").post(
        "/_allauth/app/v1/auth/login",
        {"email": address, "password": "wrong"},
        content_type="application/json",
        REMOTE_ADDR=ip,
    )


def gets_in_by_link(user: User, *, ip: str = HERE) -> bool:
    """Tell whether a new browser gets in by the mailed link."""
    tab = Client(HTTP_HOST="localhost")
    tab.post(browsers.new_link(user).removeprefix("http://localhost:8000"), REMOTE_ADDR=ip)
    return is_in(sign_in(user.email, PASSWORD, tab=tab, ip=ip))


# -- networks --------------------------------------------------------------------------------------


def test_the_twentieth_failure_in_five_minutes_is_checked_and_the_next_waits_five_minutes(
    alice: User, alices_known: Client, clock: Clock
) -> None:
    for number in range(20):
        assert fail(f"person{number % 7}@example.org") is None, number
        clock.shift(timedelta(seconds=10))
    # 290 s of the lock that the twentieth began are left.
    answer = by_app("somebody@example.org")
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "290")
    refused = fail("somebody@example.org")
    assert refused is not None
    assert (refused.everybody, refused.seconds) == (True, 290)
    assert fail("somebody@example.org", ip=ELSEWHERE) is None
    assert is_in(sign_in(alice.email, PASSWORD, tab=alices_known, ip=HERE))
    assert gets_in_by_link(alice)
    clock.shift(timedelta(seconds=289))
    assert fail("somebody.else@example.org") is not None
    clock.shift(SECOND)
    assert fail("somebody.else@example.org") is None


def test_twenty_failures_over_more_than_five_minutes_lock_no_network(clock: Clock) -> None:
    for number in range(40):
        assert fail(f"person{number % 10}@example.org") is None, number
        # Nineteen within five minutes.
        clock.shift(timedelta(seconds=16))
        if number % 19 == 18:
            clock.shift(timedelta(minutes=5))


def test_the_hundredth_failure_in_a_day_is_checked_and_then_only_known_browsers_and_the_link(
    alice: User, alices_known: Client, clock: Clock
) -> None:
    for number in range(100):
        assert fail(f"person{number}@example.org") is None, number
        # So slowly that neither twenty in five minutes nor ten addresses in ten come together.
        clock.shift(timedelta(seconds=70))
    refused = fail("somebody@example.org")
    assert refused is not None
    assert (refused.everybody, refused.wait, refused.seconds) == (True, None, 24 * 3600)
    assert LOST_WAIT in sign_in(alice.email, PASSWORD, ip=HERE).content.decode()
    assert by_app("somebody@example.org").status_code == 429
    assert is_in(sign_in(alice.email, PASSWORD, ip=ELSEWHERE))
    assert is_in(sign_in(alice.email, PASSWORD, tab=alices_known, ip=HERE))
    assert gets_in_by_link(alice)
    clock.shift(timedelta(hours=24) - timedelta(seconds=71))
    assert fail("somebody@example.org") is not None
    clock.shift(SECOND)
    assert fail("somebody@example.org") is None


def test_a09_a_tenth_address_is_checked_an_eleventh_is_not_for_thirty_minutes(
    alice: User, alices_known: Client, clock: Clock
) -> None:
    for number in range(10):
        assert fail(f"person{number}@example.org") is None, number
        clock.shift(timedelta(seconds=30))
    # One of the ten again is no further address.
    assert fail("person9@example.org") is None
    refused = fail("person10@example.org")
    assert refused is not None
    assert (refused.everybody, refused.wait) == (True, timedelta(minutes=30))
    assert fail("person0@example.org") is not None
    assert fail("person10@example.org", ip=ELSEWHERE) is None
    assert Event.objects.filter(tag="operator.alert.spraying").count() == 1
    assert is_in(sign_in(alice.email, PASSWORD, tab=alices_known, ip=HERE))
    assert gets_in_by_link(alice)
    clock.shift(timedelta(minutes=30) - SECOND)
    assert fail("person10@example.org") is not None
    clock.shift(SECOND)
    assert fail("person10@example.org") is None


def test_a09_ten_addresses_over_more_than_ten_minutes_are_no_spraying(clock: Clock) -> None:
    for number in range(30):
        assert fail(f"person{number}@example.org") is None, number
        clock.shift(timedelta(seconds=61))
    assert not Event.objects.filter(tag="operator.alert.spraying").exists()


# -- everybody together ----------------------------------------------------------------------------


def test_the_thousandth_failure_in_five_minutes_is_checked_and_then_strangers_go_by_the_link(
    alice: User, alices_known: Client, clock: Clock
) -> None:
    for number in range(1000):
        ip = f"10.0.{number // 250}.{number % 250}"
        assert fail(f"person{number}@example.org", ip=ip) is None, number
        clock.shift(timedelta(milliseconds=200))
    refused = fail("somebody@example.org", ip=ELSEWHERE)
    assert refused is not None
    assert (refused.everybody, refused.wait) == (True, None)
    assert LOST_WAIT in sign_in(alice.email, PASSWORD, ip=ELSEWHERE).content.decode()
    assert Event.objects.filter(tag="operator.alert.flood").count() == 1
    assert is_in(sign_in(alice.email, PASSWORD, tab=alices_known, ip=ELSEWHERE))
    assert gets_in_by_link(alice, ip=ELSEWHERE)
    # The lock began with the thousandth, 200 ms before the clock was last moved.
    clock.shift(timedelta(minutes=5) - timedelta(milliseconds=201))
    assert fail("somebody@example.org", ip=ELSEWHERE) is not None
    clock.shift(timedelta(milliseconds=1))
    assert fail("somebody@example.org", ip=ELSEWHERE) is None


def test_a_thousand_failures_over_more_than_five_minutes_are_no_flood(
    clock: Clock,
) -> None:
    for number in range(999):
        assert lockout.allow((lockout.EVERYBODY, "")), number
    clock.shift(timedelta(minutes=5))
    for number in range(999):
        assert lockout.allow((lockout.EVERYBODY, "")), number


# -- one known browser -----------------------------------------------------------------------------


def known_browsers() -> int:
    return KnownBrowser.objects.filter(revoked_at=None).count()


def test_a_known_browsers_tenth_failure_in_fifteen_minutes_is_checked_then_it_is_a_stranger(
    alice: User, alices_known: Client, clock: Clock, checked: Counted
) -> None:
    before = checked.times
    for number in range(10):
        assert WRONG in sign_in(alice.email, tab=alices_known).content.decode()
        assert (checked.times - before, known_browsers()) == (number + 1, 1)
        clock.shift(timedelta(seconds=88))
    # 14 minutes and 50 seconds after the first; and the right password is no way around it.
    fail_until_locked(alice.email, clock, ip=ELSEWHERE)
    assert LOCKED in sign_in(alice.email, PASSWORD, tab=alices_known).content.decode()
    assert (checked.times - before, known_browsers()) == (10 + 5, 0)
    # Waiting does not make it known again; the mailed link does.
    clock.shift(timedelta(seconds=20))
    assert LOCKED in sign_in(alice.email, PASSWORD, tab=alices_known).content.decode()
    alices_known.post(browsers.new_link(alice).removeprefix("http://localhost:8000"))
    assert is_in(sign_in(alice.email, PASSWORD, tab=alices_known))


def test_after_fifteen_minutes_a_known_browser_has_ten_failures_again(
    alice: User, alices_known: Client, clock: Clock
) -> None:
    for _quarter in range(3):
        for _try in range(10):
            sign_in(alice.email, tab=alices_known)
        clock.shift(timedelta(minutes=15))
    assert known_browsers() == 1
    assert is_in(sign_in(alice.email, PASSWORD, tab=alices_known))


# -- a hundred in all ------------------------------------------------------------------------------


@pytest.fixture
def after_a_hundred(alice: User, alices_account: Account, clock: Clock) -> User:
    """Alice, at whose address strangers have failed a hundred times in all."""
    for number in range(100):
        assert fail(alice.email, ip=f"198.51.{number}.7") is None, number
        clock.shift(timedelta(hours=1))
    # Waiting does not help, however long.
    clock.shift(timedelta(days=60))
    refused = fail(alice.email, ip=ELSEWHERE)
    assert refused is not None
    assert (refused.everybody, refused.wait) == (False, None)
    assert LOST_WAIT in sign_in(alice.email, PASSWORD).content.decode()
    return alice


def test_l1_after_a_hundred_in_all_the_mailed_link_lets_a_new_browser_in(
    after_a_hundred: User, settings: Any
) -> None:
    tab = Client(HTTP_HOST="localhost")
    tab.post("/login/link/", {"email": after_a_hundred.email})
    tab.post(link_in(text_of(mails(settings)[-1])))
    # The link itself helps nobody else.
    assert LOST_WAIT in sign_in(after_a_hundred.email, PASSWORD).content.decode()
    assert is_in(sign_in(after_a_hundred.email, PASSWORD, tab=tab))


def test_l1_after_a_hundred_in_all_a_new_password_lets_new_browsers_in(
    after_a_hundred: User, clock: Clock, settings: Any
) -> None:
    tab = Client(HTTP_HOST="localhost")
    tab.post("/password/reset/", {"email": after_a_hundred.email})
    (key,) = re.findall(
        r"http://localhost:8000(/password/reset/key/\S+)", text_of(mails(settings)[-1])
    )
    page = tab.get(key)
    tab.post(page.headers["Location"], {"password1": NEW, "password2": NEW})
    assert WRONG in sign_in(after_a_hundred.email, PASSWORD).content.decode()
    clock.shift(timedelta(seconds=2))
    assert is_in(sign_in(after_a_hundred.email, NEW, ip=ELSEWHERE))


# -- mails -----------------------------------------------------------------------------------------


def ask(path: str, address: str, *, ip: str) -> tuple[int, str]:
    answer = Client(HTTP_HOST="localhost").post(path, {"email": address}, REMOTE_ADDR=ip)
    return answer.status_code, answer.headers.get("Location", "")


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("path", ["/password/reset/", "/login/link/"])
def test_a21_three_mails_an_hour_and_five_a_day_to_one_address_then_again(
    path: str, known: bool, alice: User, clock: Clock
) -> None:
    address = alice.email if known else "nobody@example.org"
    answers, sent = set(), []
    # At once, when the hour is nearly and then quite over, and the same for the day.
    for number, wait in enumerate((0, 0, 0, 3599, 1, 1, 1, 24 * 3600 - 2, 1)):
        clock.shift(timedelta(seconds=wait))
        answers.add(ask(path, address, ip=f"198.51.100.{number}"))
        sent.append(Mail.objects.filter(to=address).count())
    assert (
        sent
        == {
            "/password/reset/": [1, 2, 3, 3, 4, 5, 5, 5, 6],
            # One beyond in half an hour: what strangers ask for leaves the owner a way in (L3).
            "/login/link/": [1, 2, 3, 4, 5, 6, 6, 7, 8],
        }[path]
    )
    assert len(answers) == 1


@pytest.mark.parametrize("path", ["/password/reset/", "/login/link/"])
def test_twenty_mails_an_hour_are_caused_from_one_network_then_again(
    path: str, clock: Clock
) -> None:
    answers = set()
    for number in range(21):
        answers.add(ask(path, f"person{number}@example.org", ip=HERE))
        assert Mail.objects.count() == min(number + 1, 20)
    # Silently; and other networks are not held up.
    assert len(answers) == 1
    ask(path, "person21@example.org", ip=ELSEWHERE)
    assert Mail.objects.count() == 21
    clock.shift(timedelta(hours=1) - SECOND)
    ask(path, "person22@example.org", ip=HERE)
    assert Mail.objects.count() == 21
    clock.shift(SECOND)
    ask(path, "person22@example.org", ip=HERE)
    assert Mail.objects.count() == 22


def test_l7_a_second_lock_is_mailed_after_six_hours_and_a_fourth_in_a_day_is_not(
    alice: User, clock: Clock
) -> None:
    sent = []
    # 5 h 59 min 59 s after the first mail, at six hours; then each time six hours are over.
    for wait in (0, 6 * 3600 - 1, 1, 6 * 3600, 6 * 3600 - 1, 1):
        clock.shift(timedelta(seconds=wait))
        unlock.tell_of_lock(alice.email, alice, failures=5, ip=HERE, agent="")
        sent.append(Mail.objects.count())
    assert sent == [1, 1, 2, 3, 3, 3]
    # A day after the third, which was written at twelve hours.
    for wait, written in ((18 * 3600 - 1, 3), (1, 4)):
        clock.shift(timedelta(seconds=wait))
        unlock.tell_of_lock(alice.email, alice, failures=5, ip=HERE, agent="")
        assert Mail.objects.count() == written


def test_five_mails_a_day_tell_of_new_browsers_then_again(
    alice: User, alices_account: Account, clock: Clock
) -> None:
    for number in range(6):
        assert is_in(sign_in(alice.email, PASSWORD))
        assert Mail.objects.count() == min(number + 1, 5)
    # The sixth is still written down.
    assert Event.objects.filter(tag="account.browser.known").count() == 6
    clock.shift(timedelta(hours=24) - SECOND)
    sign_in(alice.email, PASSWORD)
    assert Mail.objects.count() == 5
    clock.shift(SECOND)
    sign_in(alice.email, PASSWORD)
    assert Mail.objects.count() == 6


# -- signing up ------------------------------------------------------------------------------------


def sign_up(address: str, *, ip: str = HERE) -> Any:
    fields = {"email": address, "password1": "seven lamps over water"}
    return Client(HTTP_HOST="localhost").post("/signup/", fields, REMOTE_ADDR=ip)


def test_the_twentieth_sign_up_of_an_hour_from_one_network_goes_and_the_next_waits(
    clock: Clock,
) -> None:
    for number in range(20):
        assert sign_up(f"person{number}@example.org").status_code == 302, number
    refused = sign_up("person20@example.org")
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "3600")
    assert not User.objects.filter(email="person20@example.org").exists()
    assert sign_up("person20@example.org", ip=ELSEWHERE).status_code == 302
    clock.shift(timedelta(hours=1) - SECOND)
    assert sign_up("person21@example.org").status_code == 429
    clock.shift(SECOND)
    assert sign_up("person21@example.org").status_code == 302


@pytest.mark.parametrize("known", [True, False])
def test_three_sign_ups_a_day_with_one_address_however_it_is_spelled_then_again(
    known: bool, alice: User, clock: Clock
) -> None:
    name = "alice" if known else "dora"
    for number, spelled in enumerate((name, name.upper(), name.title())):
        answer = sign_up(f"{spelled}@Example.org", ip=f"198.51.100.{number}")
        assert answer.status_code == 302, spelled
    assert sign_up(f"{name}@example.org", ip=ELSEWHERE).status_code == 429
    assert sign_up("charlie@example.org", ip=ELSEWHERE).status_code == 302
    clock.shift(timedelta(hours=24) - SECOND)
    assert sign_up(f"{name}@example.org", ip=ELSEWHERE).status_code == 429
    clock.shift(SECOND)
    assert sign_up(f"{name}@example.org", ip=ELSEWHERE).status_code == 302


# -- the owner's new browser -----------------------------------------------------------------------


def test_l3_a_new_browser_of_the_owner_takes_one_mail_and_one_click_while_the_lock_stands(
    alice: User, alices_account: Account, clock: Clock, settings: Any
) -> None:
    fail_until_locked(alice.email, clock)
    # The one that told of the lock: nothing has to be asked for, or waited for.
    (mail,) = mails(settings)
    tab = Client(HTTP_HOST="localhost")
    assert tab.post(link_in(text_of(mail))).status_code == 302
    assert is_in(sign_in(alice.email, PASSWORD, tab=tab))
    assert LOCKED in sign_in(alice.email, PASSWORD).content.decode()
    assert Mail.objects.filter(kind__in=["account.locked", "account.login_link"]).count() == 1


@pytest.mark.parametrize(
    ("ip", "shown"),
    [("203.0.113.9", "From: 203.0.113.9,"), ("2001:db8:1:2:3:4:5:6", "From: 2001:db8:1:2::,")],
)
def test_the_mail_of_a_lock_names_the_network_the_passwords_came_from(
    ip: str, shown: str, alice: User, clock: Clock, settings: Any
) -> None:
    fail_until_locked(alice.email, clock, ip=ip)
    (mail,) = mails(settings)
    assert shown in " ".join(text_of(mail).split())
