"""A12 to A17 with two portals: guessed codes, a step left out, codes twice, stolen cookies.

The requests of one attack go to both doors, in turns or at the same moment. What stands in the way
is also tried in one process, with a clock that is set: server/tests/abuse, server/tests/accounts.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import cycle

import pytest
from tests.drills.two_doors import (
    DOORS,
    MAILED_CODE,
    NEW,
    PASSWORD,
    RESET_LINK,
    Both,
    Person,
    add_app,
    at_once,
    both,
    code_of,
    mailed,
    newcomer,
    signed_in,
    stranger,
    time_passes,
    type_password,
)

__all__ = ["both"]  # the fixture, for pytest to find

CODE_PAGE = "/login/code/confirm/"
SECOND_STEP = "/account/security/authenticate/"
# Of everything behind the sign-in, some of each room.
CLOSED = (
    "/",
    "/devices/",
    "/devices/add/",
    "/protection/",
    "/reports/",
    "/reports/threats/",
    "/reports/quarantine/",
    "/subscription/",
    "/email/",
    "/password/change/",
    "/account/",
    "/account/activity/",
    "/account/members/",
    "/account/privacy/",
    "/account/security/",
    "/account/security/recovery-codes/",
    "/account/security/totp/deactivate/",
    "/account/security/webauthn/add/",
    "/account/sessions/",
    "/account/tokens/",
)
CLOSED_TO_APPS = (
    ("GET", "auth/session"),
    ("GET", "auth/sessions"),
    ("GET", "account/email"),
    ("GET", "account/authenticators"),
    ("GET", "account/authenticators/recovery-codes"),
    ("POST", "account/authenticators/recovery-codes"),
    ("DELETE", "account/authenticators/totp"),
    ("POST", "account/password/change"),
)


def with_mailed_codes(both: Both, name: str) -> tuple[str, list[str]]:
    """Return the address of somebody who is mailed a code as the second step, and codes till now.

    The one that confirmed the address is among those: it must not be taken for the next one.
    """
    address, _app = newcomer(both, name)
    seen = [mailed(both, address, MAILED_CODE)]
    desk = signed_in(both, address)
    desk.page("/reauthenticate/", password=PASSWORD)
    desk.page("/account/security/email/", wanted="on")
    assert "Code by email" in desk.page("/account/security/", door=1)[1]
    return address, seen


def asked(both: Both, address: str, seen: list[str], *, door: int = 0) -> tuple[Person, str]:
    """Return a browser that is asked for a mailed code, and that code."""
    browser = stranger(both)
    assert type_password(browser, address, door=door)[2] == CODE_PAGE
    seen.append(mailed(both, address, MAILED_CODE, without=seen))
    return browser, seen[-1]


def tries(browser: Person, code: str, door: int) -> bool:
    """Type a mailed code at this door; whether it lets in."""
    browser.page(CODE_PAGE, door=door, code=code)
    browser.page("/account/security/trust/", door=door, action="skip")
    return browser.is_in(door)


def takes_second_step(browser: Person, code: str, door: int) -> bool:
    """Give a code of the app, or a recovery code, at this door; whether it lets in."""
    browser.page(SECOND_STEP, door=door, code=code)
    browser.page("/account/security/trust/", door=door, action="skip")
    return browser.is_in(door)


def half_way(both: Both, address: str, door: int) -> Person:
    """Return a browser that has given the password and is asked for more."""
    browser = stranger(both)
    assert type_password(browser, address, door=door)[2] == SECOND_STEP
    return browser


# -- A12: guessing a code --------------------------------------------------------------------------


def test_a12_three_tries_at_a_mailed_code_are_counted_over_both_portals(both: Both) -> None:
    address, seen = with_mailed_codes(both, "a12-three")
    browser, code = asked(both, address, seen)
    assert not tries(browser, "X001", 0)
    assert not tries(browser, "X002", 1)
    assert tries(browser, code, 0), "the third try counts"
    browser, code = asked(both, address, seen)
    for number, door in enumerate((0, 1, 0)):
        assert not tries(browser, f"X{number:03}", door)
    assert [tries(browser, code, door) for door in DOORS] == [False, False]


@pytest.mark.slow
def test_a12_after_many_codes_at_once_at_both_portals_the_right_one_comes_too_late(
    both: Both,
) -> None:
    address, seen = with_mailed_codes(both, "a12-at-once")
    browser, code = asked(both, address, seen)
    thieves = [browser.copied() for _ in range(12)]
    got_in = at_once(
        [partial(tries, thief, f"X{number:03}", number % 2) for number, thief in enumerate(thieves)]
    )
    assert got_in == [False] * 12
    assert [tries(browser.copied(), code, door) for door in DOORS] == [False, False]


@pytest.mark.slow
def test_a12_a_code_sent_again_by_the_other_portal_brings_no_new_tries(both: Both) -> None:
    address, seen = with_mailed_codes(both, "a12-again")
    browser, code = asked(both, address, seen)
    for number, door in enumerate(DOORS):
        assert not tries(browser, f"X{number:03}", door)
        browser.page(CODE_PAGE, door=1 - door, action="resend")
        seen.append(code := mailed(both, address, MAILED_CODE, without=seen))
    assert not tries(browser, "X999", 0)
    assert [tries(browser, code, door) for door in DOORS] == [False, False]


@pytest.mark.slow
def test_a12_five_codes_of_one_person_are_compared_over_all_sign_ins_at_both(both: Both) -> None:
    address, seen = with_mailed_codes(both, "a12-five")
    flows = [asked(both, address, seen, door=number % 2) for number in range(6)]
    for number, (browser, _code) in enumerate(flows[:5]):
        assert not tries(browser, f"X{number:03}", 1 - number % 2)
    last, code = flows[5]
    assert [tries(last, code, door) for door in DOORS] == [False, False]
    time_passes(both, minutes=6)
    assert tries(last, code, 1), "the lock is over after five minutes"


@pytest.mark.slow
def test_a12_of_forty_codes_of_an_app_at_once_at_both_portals_five_are_compared(
    both: Both,
) -> None:
    address, app = newcomer(both, "a12-app")
    seed, _codes = add_app(app)
    browsers = [half_way(both, address, number % 2) for number in range(40)]
    wrong = next(text for text in ("000000", "111111") if text not in codes_of_now(seed))
    got_in = at_once(
        [
            partial(takes_second_step, browser, wrong, 1 - number % 2)
            for number, browser in enumerate(browsers)
        ]
    )
    assert got_in == [False] * 40
    assert 1 <= both.events_about(address, "account.second_step.failed") <= 5
    for door in DOORS:
        assert not takes_second_step(half_way(both, address, door), code_of(seed), door)
    time_passes(both, minutes=6)
    assert takes_second_step(half_way(both, address, 1), code_of(seed), 0)


def codes_of_now(seed: str) -> set[str]:
    """What the app shows within a minute of now, either way."""
    return {code_of(seed, ahead) for ahead in range(-2, 3)}


@pytest.mark.slow
def test_a12_no_more_than_fifty_second_steps_a_day_are_compared_over_both(both: Both) -> None:
    address, app = newcomer(both, "a12-day")
    add_app(app)
    compared = within_the_hour = 0
    for turn in range(13):
        browser = half_way(both, address, turn % 2)
        for number in range(5):
            browser.page(SECOND_STEP, door=number % 2, code=f"{turn:03}{number:03}")
        compared = both.events_about(address, "account.second_step.failed")
        if turn == 4:
            within_the_hour = compared
        # Five turns within the hour, then so that no hour has more than twenty.
        time_passes(both, minutes=6 if turn < 4 else 61)
    assert 5 < within_the_hour <= 20
    assert 20 < compared <= 50


@pytest.mark.slow
def test_a12_three_tries_at_the_code_of_a_sign_up_are_counted_over_both(both: Both) -> None:
    address = "a12-new@example.org"
    app = stranger(both)
    app.call("POST", "auth/signup", email=address, password=PASSWORD)
    code = both.server.mailed_code(address)
    for number, door in enumerate((0, 1, 0)):
        assert app.call("POST", "auth/email/verify", door=door, key=f"WRNG-{number:04}")[0] == 400
    for door in DOORS:
        assert app.call("POST", "auth/email/verify", door=door, key=code)[0] != 200
        assert not app.has_session(door)


# -- A13: leaving the second step out --------------------------------------------------------------


def test_a13_the_cookie_of_the_first_step_opens_nothing_at_the_other_portal(both: Both) -> None:
    address, app = newcomer(both, "a13")
    _seed, codes = add_app(app)
    thief, app_of_thief = half_way(both, address, 0), stranger(both)
    app_of_thief.call("POST", "auth/login", email=address, password=PASSWORD)
    owner = signed_in(both, address, code=codes.pop())
    for path, door in zip(CLOSED, cycle((1, 0))):
        assert owner.page(path, door=door)[0] in {200, 302}, path
        status, _page, to = thief.copied().page(path, door=door)
        assert status == 302, path
        assert to.startswith(("/login/", "/account/security/authenticate/")), path
    for door in DOORS:
        for method, path in CLOSED_TO_APPS:
            assert app_of_thief.copied().call(method, path, door=door)[0] == 401, path
        for headers in (
            {"Authorization": f"Bearer {app_of_thief.token}"},
            {"X-Session-Token": app_of_thief.token},
            {"Cookie": f"dw_session={app_of_thief.token}"},
            {"Cookie": f"dw_session={thief.cookies['dw_session']}"},
        ):
            assert thief.ask("GET", "/api/v1/devices", door=door, headers=headers)[0] == 401
    # And it is the second step that was missing: given at the other door, it opens both.
    assert takes_second_step(thief, codes.pop(), 1)
    assert thief.is_in(0)


@pytest.mark.slow
def test_a13_the_second_step_is_not_left_out_by_what_another_portal_answers(both: Both) -> None:
    address, app = newcomer(both, "a13-around")
    add_app(app)
    thief = half_way(both, address, 0)
    for door in (1, 0):
        thief.page("/account/security/trust/", door=door, action="trust")
        thief.page("/account/security/by-mail/", door=door, really="yes")
        thief.page("/account/security/by-text/", door=door, really="yes")
        thief.page(CODE_PAGE, door=door, code="")
        thief.page("/reauthenticate/", door=door, password=PASSWORD)
        thief.page("/login/approval/finish/", door=door, really="yes")
        assert [thief.is_in(other) for other in DOORS] == [False, False]
    # Nor by giving the password again to the other, while the first waits.
    at_once([partial(type_password, thief.copied(), address, door=n % 2) for n in range(6)])
    assert [thief.is_in(door) for door in DOORS] == [False, False]


# -- A14, A15: what is good once -------------------------------------------------------------------


def test_a14_a_code_of_the_app_used_here_is_refused_over_there(both: Both) -> None:
    address, app = newcomer(both, "a14")
    seed, _codes = add_app(app)
    watched = half_way(both, address, 0)
    # Of the step to come: half a minute later it is still one that would be taken.
    code = code_of(seed, 1)
    assert takes_second_step(watched, code, 0)
    for door in (1, 0):
        thief = half_way(both, address, door)
        assert not takes_second_step(thief, code, door)
        app_of_thief = stranger(both)
        app_of_thief.call("POST", "auth/login", door=door, email=address, password=PASSWORD)
        status, _answer = app_of_thief.call("POST", "auth/2fa/authenticate", door=door, code=code)
        assert status == 400
        assert not app_of_thief.has_session(door)


@pytest.mark.slow
def test_a14_a_code_older_than_the_one_used_here_is_refused_over_there(both: Both) -> None:
    address, app = newcomer(both, "a14-older")
    seed, _codes = add_app(app)
    older = code_of(seed, 0)
    assert takes_second_step(half_way(both, address, 0), code_of(seed, 1), 0)
    for door in DOORS:
        assert not takes_second_step(half_way(both, address, door), older, door)


def uses_once(both: Both, address: str, code: str, times: int) -> list[bool]:
    """Give this code in so many sign-ins at the same moment, half of them at each door."""
    browsers = [half_way(both, address, number % 2) for number in range(times)]
    act: list[Callable[[], bool]] = [
        partial(takes_second_step, browser, code, 1 - number % 2)
        for number, browser in enumerate(browsers)
    ]
    return at_once(act)


@pytest.mark.slow
def test_a14_one_code_of_an_app_by_sixteen_at_once_at_both_portals_opens_once(both: Both) -> None:
    address, app = newcomer(both, "a14-at-once")
    seed, _codes = add_app(app)
    assert sum(uses_once(both, address, code_of(seed, 1), 16)) == 1


@pytest.mark.slow
def test_a15_a_recovery_code_by_sixteen_at_once_at_both_portals_opens_once(both: Both) -> None:
    address, app = newcomer(both, "a15")
    _seed, codes = add_app(app)
    assert sum(uses_once(both, address, codes[0], 16)) == 1
    time_passes(both, minutes=6)
    for door in DOORS:
        assert not takes_second_step(half_way(both, address, door), codes[0], door)
    assert takes_second_step(half_way(both, address, 0), codes[1], 1)


@pytest.mark.slow
def test_a15_one_sign_in_sent_to_both_portals_at_once_opens_one_session(both: Both) -> None:
    address, app = newcomer(both, "a15-one")
    _seed, codes = add_app(app)
    browser = half_way(both, address, 0)
    copies = [browser.copied() for _ in range(4)]
    opened = at_once(
        [
            partial(takes_second_step, copy, codes[number], number % 2)
            for number, copy in enumerate(copies)
        ]
    )
    assert sum(opened) <= 1
    sessions = app.call("GET", "auth/sessions", door=1)[1]["data"]
    assert len([each for each in sessions if not each["is_current"]]) <= 1


# -- A16, A17 --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a16_a_reset_at_one_portal_leaves_the_second_step_at_both(both: Both) -> None:
    address, app = newcomer(both, "a16")
    seed, _codes = add_app(app)
    thief = stranger(both)
    thief.page("/password/reset/", email=address)
    link = mailed(both, address, RESET_LINK)
    form = thief.page(link, door=1)[2]
    assert thief.page(form, door=1, password1=NEW, password2=NEW)[0] == 302
    assert [thief.is_in(door) for door in DOORS] == [False, False]
    for door in DOORS:
        assert type_password(thief, address, NEW, door=door)[2] == SECOND_STEP
        assert [thief.is_in(each) for each in DOORS] == [False, False]
        app_of_thief = stranger(both)
        status, answer = app_of_thief.call(
            "POST", "auth/login", door=door, email=address, password=NEW
        )
        assert status == 401
        pending = [flow["id"] for flow in answer["data"]["flows"] if flow.get("is_pending")]
        assert pending == ["mfa_authenticate"]
        assert not app_of_thief.has_session(1 - door)
    assert takes_second_step(thief, code_of(seed), 0), "the app is still the one there was"


CHANGES_OF_WAYS = (
    "/account/security/totp/deactivate/",
    "/account/security/webauthn/add/",
    "/account/security/recovery-codes/",
    "/account/security/recovery-codes/download/",
    "/account/security/recovery-codes/generate/",
    "/account/security/email/",
    "/account/security/number/",
    "/account/tokens/",
    "/email/",
)


def test_a17_a_stolen_cookie_changes_no_way_to_sign_in_at_either_portal(both: Both) -> None:
    address, app = newcomer(both, "a17")
    _seed, codes = add_app(app)
    owner = signed_in(both, address, code=codes.pop())
    thief = owner.copied()
    for door in (1, 0):
        assert thief.is_in(door)
        for path in CHANGES_OF_WAYS:
            fields = {"wanted": "on", "credential": "{}", "email": "evil@example.net"}
            status, _page, to = thief.page(path, door=door, **fields, action_add="")
            assert status in {302, 405}, path
            assert status == 405 or "/reauthenticate/" in to, path
    kinds = [each["type"] for each in app.call("GET", "account/authenticators", door=1)[1]["data"]]
    assert sorted(kinds) == ["recovery_codes", "totp"]
    # Once the owner has told again who they are, the cookie that was copied is nothing any more.
    owner.page("/reauthenticate/", door=0, password=PASSWORD)
    assert owner.is_in(1)
    assert [thief.is_in(door) for door in (1, 0)] == [False, False]


@pytest.mark.slow
def test_a17_a_stolen_cookie_guesses_the_password_five_times_over_both(both: Both) -> None:
    address, _app = newcomer(both, "a17-guess")
    owner = signed_in(both, address)
    thief = owner.copied()
    for number in range(5):
        thief.page("/reauthenticate/", door=number % 2, password=f"wrong {number}")
    # The sixth is not compared, and the session has ended: for the thief and for everybody.
    for door in DOORS:
        thief.page("/reauthenticate/", door=door, password=PASSWORD)
    assert [thief.is_in(door) for door in DOORS] == [False, False]
    assert thief.page("/account/security/email/", wanted="on")[2].startswith("/login/")


@pytest.mark.slow
def test_a17_a_stolen_token_of_an_app_changes_no_way_to_sign_in_at_either(both: Both) -> None:
    address, home = newcomer(both, "a17-app")
    _seed, codes = add_app(home)
    app = stranger(both)
    app.call("POST", "auth/login", email=address, password=PASSWORD)
    app.call("POST", "auth/2fa/authenticate", code=codes.pop())
    thief = app.copied()
    for door in (1, 0):
        assert thief.has_session(door)
        for method, path, body in (
            ("DELETE", "account/authenticators/totp", {}),
            ("GET", "account/authenticators/recovery-codes", {}),
            ("POST", "account/authenticators/recovery-codes", {}),
            ("GET", "account/authenticators/webauthn", {}),
            ("POST", "account/email", {"email": "evil@example.net"}),
        ):
            assert thief.copied().call(method, path, door=door, **body)[0] == 401, path
    kinds = [each["type"] for each in home.call("GET", "account/authenticators")[1]["data"]]
    assert sorted(kinds) == ["recovery_codes", "totp"]
