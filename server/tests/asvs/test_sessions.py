"""Sessions as OWASP ASVS 5.0 asks for them (shared list A1, rows 28 and 32 to 41)."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import time_machine
from allauth.account.models import EmailAddress
from allauth.mfa.models import Authenticator
from allauth.mfa.webauthn.internal import auth as webauthn
from allauth.usersessions.models import UserSession
from django.conf import settings as django_settings
from django.contrib.sessions.models import Session
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from server.tests.access.addresses import APPS, every_address
from server.tests.accounts.second_steps import (
    CREDENTIAL,
    App,
    add_app,
    add_passkey,
    code_at,
    is_signed_in,
    prove_again,
    second_step,
    signed_in_tab,
    tab,
    type_password,
)
from server.tests.asvs.test_second_step import reset_link
from server.tests.conftest import PASSWORD

from doorward.accounts import browsers, remembered, session_store, sessions, sweeps, tokens
from doorward.accounts.factors import ceremonies
from doorward.accounts.models import Account, KnownBrowser, RememberedBrowser, User
from doorward.accounts.session_store import kept_as
from doorward.audit.models import Event

NEW = "nine ships in the quiet morning"
COOKIE = django_settings.SESSION_COOKIE_NAME
DOCUMENT = Path(__file__).parents[3] / "docs" / "security" / "two-step.md"

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def home(alice: User) -> Client:
    """Alice's browser at home, in which she signed in."""
    return signed_in_tab(alice.email)


def id_of(browser: Client) -> str:
    return str(browser.cookies[COOKIE].value)


def with_id(session: str) -> Client:
    """Return a browser that holds this session id and nothing else."""
    browser = tab()
    browser.cookies[COOKIE] = session
    return browser


def test_v7_1_1_the_limits_are_those_of_the_document() -> None:
    text = DOCUMENT.read_text()
    for figure in (
        f"after {session_store.IDLE.days} days without use",
        f"after {session_store.ABSOLUTE.days} days in any case",
        f"at most {sessions.MOST} at once",
        f"for {remembered.LASTS.days} days",
        f"within {django_settings.ACCOUNT_REAUTHENTICATION_TIMEOUT // 60} minutes",
    ):
        assert figure in text, figure


def test_v7_1_2_the_session_over_the_bound_ends_the_one_used_longest_ago(
    alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "MOST", 3)
    browsers = [signed_in_tab(alice.email, f"Browser/{number}") for number in range(4)]
    assert [is_signed_in(browser) for browser in browsers] == [False, True, True, True]


def test_v7_2_3_ids_are_long_and_never_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    # Whether an id is taken is asked of the database; 10,000 times is more than a test needs.
    monkeypatch.setattr(session_store.SessionStore, "exists", lambda _self, _key: False)
    store: Any = session_store.SessionStore()
    drawn = {store._get_new_session_key() for _ in range(10_000)}
    assert len(drawn) == 10_000
    # 32 signs of 36 there are: 165 bits. No eight at the beginning are shared.
    assert all(re.fullmatch(r"[a-z0-9]{32}", each) for each in drawn)
    assert len({each[:8] for each in drawn}) == 10_000


def test_v7_2_4_the_id_changes_at_each_step_and_the_old_one_is_dead(alice: User) -> None:
    browser = tab()
    browser.get("/login/")
    type_password(browser, alice.email)
    before = id_of(browser)
    for act in (
        lambda: prove_again(browser, "/account/security/webauthn/add/"),
        lambda: browser.post("/account/security/email/", {"wanted": "on"}),
        lambda: browser.post(
            "/password/change/", {"oldpassword": PASSWORD, "password1": NEW, "password2": NEW}
        ),
    ):
        act()
        after = id_of(browser)
        assert after != before
        assert not is_signed_in(with_id(before))
        assert is_signed_in(browser)
        before = after
    assert UserSession.objects.get(user=alice).session_key == kept_as(before)


def test_v7_2_4_the_id_from_before_the_very_first_sign_in_is_dead_after_it(alice: User) -> None:
    browser = tab()
    # Something to be told later: somebody who never signed in has a session now.
    browser.post("/help/self-test/clear/")
    before = id_of(browser)
    assert [row.session_key for row in Session.objects.all()] == [kept_as(before)]
    type_password(browser, alice.email)
    assert is_signed_in(browser)
    assert id_of(browser) != before
    assert not is_signed_in(with_id(before))
    # Nobody who planted it can go on with it, either: there is no such session any more.
    assert [row.session_key for row in Session.objects.all()] == [kept_as(id_of(browser))]


def test_v7_2_4_the_id_from_before_the_second_step_never_opens(alice: User, home: Client) -> None:
    seed, _codes = add_app(home)
    browser = tab()
    type_password(browser, alice.email)
    before = id_of(browser)
    second_step(browser, code_at(seed))
    assert is_signed_in(browser)
    assert id_of(browser) != before
    assert not is_signed_in(with_id(before))


def test_v6_5_2_a_copy_of_the_tables_of_sessions_opens_none(alice: User, home: Client) -> None:
    kept = [*Session.objects.values_list("session_key", flat=True)]
    kept += UserSession.objects.values_list("session_key", flat=True)
    assert len(kept) == 2
    assert id_of(home) not in kept
    # Not even as it is kept: 40 characters are no id of ours, 32 of them lead to another row.
    for key in kept:
        assert not is_signed_in(with_id(key))
        assert not is_signed_in(with_id(key[:32]))
    app = Client(HTTP_HOST="localhost")
    refused = app.get("/_allauth/app/v1/auth/session", headers={"X-Session-Token": kept[0]})
    assert refused.status_code in {401, 410}
    assert is_signed_in(with_id(id_of(home)))


def test_v7_3_1_a_session_ends_after_fourteen_days_without_use(alice: User) -> None:
    with time_machine.travel(timezone.now(), tick=False) as clock:
        browser = signed_in_tab(alice.email)
        unused = signed_in_tab(alice.email)
        clock.shift(timedelta(days=13, hours=23))
        assert is_signed_in(browser)
        session = id_of(unused)
        clock.shift(timedelta(hours=1, seconds=1))
        assert is_signed_in(browser)
        # The cookie's own date is not what ends it.
        assert not is_signed_in(with_id(session))


def test_v7_3_2_a_session_ends_after_thirty_days_however_much_used(alice: User) -> None:
    with time_machine.travel(timezone.now(), tick=False) as clock:
        browser = signed_in_tab(alice.email)
        app = App()
        app.call("POST", "auth/login", email=alice.email, password=PASSWORD)
        session = id_of(browser)
        for _ in range(29):
            clock.shift(timedelta(days=1))
            assert is_signed_in(with_id(session))
            assert app.is_signed_in()
        clock.shift(timedelta(days=1, seconds=1))
        assert not is_signed_in(with_id(session))
        assert not app.is_signed_in()
        assert sweeps.forget_what_is_over(timezone.now()) >= 2
        assert not UserSession.objects.exists()


def test_v7_4_1_signing_out_ends_the_session_and_the_apps_token(alice: User, home: Client) -> None:
    session = id_of(home)
    home.post("/logout/")
    assert not is_signed_in(with_id(session))
    app = App()
    app.call("POST", "auth/login", email=alice.email, password=PASSWORD)
    token = app.token
    assert app.is_signed_in()
    app.call("DELETE", "auth/session")
    app.token = token
    assert not app.is_signed_in()


def test_v7_4_2_who_is_disabled_is_out_everywhere_at_once(alice: User, home: Client) -> None:
    app = App()
    app.call("POST", "auth/login", email=alice.email, password=PASSWORD)
    _token, text = tokens.create(alice, name="script", scopes=["devices:read"], days=1)
    tab().post("/password/reset/", {"email": alice.email})
    link = reset_link()
    waiting = tab()
    User.objects.filter(pk=alice.pk).update(is_active=False)
    assert not is_signed_in(home)
    assert not app.is_signed_in()
    assert tokens.find(text) is None
    type_password(waiting, alice.email)
    assert not is_signed_in(waiting)
    page = tab().get(link, follow=True)
    assert "This link no longer works" in page.content.decode()


def change_password(browser: Client) -> None:
    browser.post("/password/change/", {"oldpassword": PASSWORD, "password1": NEW, "password2": NEW})


def reset_password(browser: Client) -> None:
    stranger = tab()
    stranger.post("/password/reset/", {"email": "alice@example.org"})
    page = stranger.get(reset_link(), follow=True)
    stranger.post(page.request["PATH_INFO"], {"password1": NEW, "password2": NEW})


def add_an_app(browser: Client) -> None:
    add_app(browser)


def turn_mail_on(browser: Client) -> None:
    asked = browser.post("/account/security/email/", {"wanted": "on"})
    browser.post(asked["Location"], {"password": PASSWORD})
    browser.post("/account/security/email/", {"wanted": "on"})


CHANGES: list[tuple[Callable[[Client], None], bool]] = [
    (change_password, True),
    (reset_password, False),
    (add_an_app, True),
    (turn_mail_on, True),
]


@pytest.mark.parametrize(
    ("change", "stays"), CHANGES, ids=lambda case: getattr(case, "__name__", "")
)
def test_v7_4_3_each_change_ends_every_other_session_and_remembered_browser(
    alice: User, home: Client, change: Callable[[Client], None], stays: bool
) -> None:
    cafe = signed_in_tab(alice.email, "Cafe/1.0")
    app = App()
    app.call("POST", "auth/login", email=alice.email, password=PASSWORD)
    assert app.is_signed_in()
    remembered.remember(alice, "x" * 43, ip="192.0.2.1", agent="Cafe/1.0")
    change(home)
    assert not is_signed_in(cafe)
    assert not app.is_signed_in()
    assert not RememberedBrowser.objects.exists()
    assert is_signed_in(home) is stays
    assert UserSession.objects.filter(user=alice).count() == int(stays)


@pytest.mark.parametrize("change", ["remove", "generate"])
def test_v7_4_3_taking_a_factor_away_or_new_codes_end_the_others_too(
    alice: User, home: Client, change: str
) -> None:
    seed, codes = add_app(home)
    cafe = tab("Cafe/1.0")
    type_password(cafe, alice.email)
    second_step(cafe, codes[0], remember=True)
    assert is_signed_in(cafe)
    if change == "remove":
        home.post("/account/security/totp/deactivate/")
    else:
        home.post("/account/security/recovery-codes/generate/")
    assert not is_signed_in(cafe)
    assert is_signed_in(home)
    assert not RememberedBrowser.objects.exists()
    type_password(cafe, alice.email)
    second_step(cafe, codes[1])
    assert is_signed_in(cafe) is (change == "remove")
    assert seed


def test_v7_4_3_a_sign_in_begun_before_the_change_is_not_completed_after_it(
    alice: User, home: Client
) -> None:
    seed, codes = add_app(home)
    thief = tab()
    type_password(thief, alice.email)
    change_password(home)
    second_step(thief, code_at(seed))
    assert not is_signed_in(thief)
    assert codes


SENSITIVE = [
    ("GET", "/account/security/totp/activate/"),
    ("POST", "/account/security/totp/activate/"),
    ("POST", "/account/security/email/"),
    ("GET", "/account/security/webauthn/add/"),
    ("POST", "/account/security/webauthn/add/"),
    ("POST", "/account/sessions/"),
    ("POST", "/account/sessions/1/end/"),
    ("POST", "/account/sessions/browsers/forget/"),
    ("POST", "/account/sessions/browsers/0193d3a4-0000-7000-8000-000000000000/forget/"),
]
WITH_AN_APP = [
    ("GET", "/account/security/totp/deactivate/"),
    ("POST", "/account/security/totp/deactivate/"),
    ("GET", "/account/security/recovery-codes/"),
    ("GET", "/account/security/recovery-codes/download/"),
    ("GET", "/account/security/recovery-codes/generate/"),
    ("POST", "/account/security/recovery-codes/generate/"),
]


def test_v7_5_1_what_changes_factors_asks_again_who_it_is_after_fifteen_minutes(
    alice: User, home: Client
) -> None:
    with time_machine.travel(timezone.now(), tick=False) as clock:
        for method, path in SENSITIVE:
            answer = home.generic(method, path)
            assert answer.status_code == 302, path
            assert "/reauthenticate/" in answer["Location"], path
        add_app(home)
        assert home.get("/account/security/webauthn/add/").status_code == 200
        clock.shift(timedelta(minutes=15, seconds=1))
        for method, path in SENSITIVE[2:] + WITH_AN_APP:
            answer = home.generic(method, path)
            assert answer.status_code == 302, path
            assert "/reauthenticate/" in answer["Location"], path
        assert Authenticator.objects.filter(user=alice).count() == 2


def test_v7_5_1_an_app_is_asked_again_too(alice: User) -> None:
    with time_machine.travel(timezone.now(), tick=False) as clock:
        app = App()
        app.call("POST", "auth/login", email=alice.email, password=PASSWORD)
        seed = ""
        for minutes in (0, 16):
            if minutes:
                assert app.call("POST", "auth/reauthenticate", password=PASSWORD).status_code == 200
                clock.shift(timedelta(minutes=minutes))
            seed = app.call("GET", "account/authenticators/totp").json()["meta"]["secret"]
            answer = app.call("POST", "account/authenticators/totp", code=code_at(seed))
            assert answer.status_code == 401, answer.content
            assert "reauthenticate" in {flow["id"] for flow in answer.json()["data"]["flows"]}
            assert not Authenticator.objects.exists()
        # It is the proof that was missing, not the code that was wrong.
        app.call("POST", "auth/reauthenticate", password=PASSWORD)
        added = app.call("POST", "account/authenticators/totp", code=code_at(seed))
        assert added.status_code == 200, added.content


def a_second_address(alice: User) -> None:
    EmailAddress.objects.create(user=alice, email="alice@example.com", verified=True)


def an_app_and_codes(alice: User) -> None:
    for kind in ("totp", "recovery_codes"):
        Authenticator.objects.get_or_create(user=alice, type=kind, data={})


def nothing_more(_alice: User) -> None:
    pass


# Each address where an app can change something of its person: by which method, what is there
# before, and what is sent. Nothing sent is wrong: what is missing is a proof of the last minutes.
Sent = Callable[[Any], dict[str, Any]]
CHANGES_BY_APP: list[tuple[str, str, Callable[[User], None], Sent]] = [
    ("mfa:manage_totp", "POST", nothing_more, lambda held: {"code": code_at(held.seed)}),
    ("mfa:manage_totp", "DELETE", an_app_and_codes, lambda _: {}),
    ("mfa:manage_recovery_codes", "GET", an_app_and_codes, lambda _: {}),
    ("mfa:manage_recovery_codes", "POST", an_app_and_codes, lambda _: {}),
    ("mfa:manage_webauthn", "GET", nothing_more, lambda _: {}),
    (
        "mfa:manage_webauthn",
        "POST",
        nothing_more,
        lambda _: {"name": "thief's", "credential": CREDENTIAL},
    ),
    (
        "mfa:manage_webauthn",
        "PUT",
        nothing_more,
        lambda held: {"id": held.passkey, "name": "thief's"},
    ),
    (
        "mfa:manage_webauthn",
        "DELETE",
        nothing_more,
        lambda held: {"authenticators": [held.passkey]},
    ),
    ("account:manage_email", "POST", nothing_more, lambda _: {"email": "thief@example.net"}),
    (
        "account:manage_email",
        "PATCH",
        a_second_address,
        lambda _: {"email": "alice@example.com", "primary": True},
    ),
    (
        "account:manage_email",
        "DELETE",
        nothing_more,
        lambda _: {"email": "alice@example.com"},
    ),
    (
        "usersessions:sessions",
        "DELETE",
        nothing_more,
        lambda held: {"sessions": [held.other]},
    ),
]
# What changes nothing, is shut, or asks for the password itself in the same request (below).
NO_PROOF_ASKED = {"mfa:authenticators", "account:manage_phone", "account:change_password"}


def ways_of(alice: User) -> list[Any]:
    """Return all that an app could change."""
    return [
        *Authenticator.objects.filter(user=alice).order_by("pk").values_list("pk", "type", "data"),
        *EmailAddress.objects.filter(user=alice).order_by("pk").values_list("email", "primary"),
        *UserSession.objects.filter(user=alice).order_by("pk").values_list("pk"),
        User.objects.get(pk=alice.pk).password,
    ]


def test_v7_5_1_a17_every_change_by_an_app_takes_a_proof_of_the_last_fifteen_minutes(
    alice: User, home: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webauthn, "parse_registration_response", lambda credential: credential)
    monkeypatch.setattr(webauthn, "complete_registration", lambda credential: credential)
    monkeypatch.setattr(webauthn, "begin_registration", lambda *_: {})
    # What a challenge was for is tried in server/tests/abuse/test_passkey_ceremonies.py.
    monkeypatch.setattr(ceremonies, "_must_be_meant", lambda *_: None)
    paths = {
        name.removeprefix("headless:app:"): route.removeprefix(APPS)
        for name, route, _view in every_address()
        if route.startswith((f"{APPS}account/", f"{APPS}auth/sessions"))
        and name.startswith("headless:")
    }
    assert paths.keys() == {name for name, *_ in CHANGES_BY_APP} | NO_PROOF_ASKED
    with time_machine.travel(timezone.now(), tick=False) as clock:
        app = App()
        app.call("POST", "auth/login", email=alice.email, password=PASSWORD)
        assert app.call("POST", "auth/reauthenticate", password=PASSWORD).status_code == 200
        secret = app.call("GET", "account/authenticators/totp").json()["meta"]["secret"]
        other = UserSession.objects.get(session_key=kept_as(id_of(home)))
        held = SimpleNamespace(seed=secret, passkey=add_passkey(alice).pk, other=other.pk)
        clock.shift(timedelta(minutes=15, seconds=1))
        before: list[Any] = []
        for name, method, prepare, sent in CHANGES_BY_APP:
            prepare(alice)
            before = ways_of(alice)
            answer = app.call(method, paths[name], **sent(held))
            assert answer.status_code == 401, (name, method, answer.content)
            flows = {flow["id"] for flow in answer.json()["data"]["flows"]}
            assert "reauthenticate" in flows, (name, method)
            assert ways_of(alice) == before, (name, method)
        # The password is changed by the current one in the same request, and by nothing else.
        for current in ({}, {"current_password": ""}, {"current_password": "wrong"}):
            given = {**current, "new_password": NEW}
            assert app.call("POST", paths["account:change_password"], **given).status_code == 400
        assert app.call("POST", paths["account:manage_phone"], phone="+491").status_code == 404
        assert ways_of(alice) == before


def test_v7_5_2_the_list_shows_each_session_and_ends_any(alice: User, home: Client) -> None:
    cafe = signed_in_tab(alice.email, "Mozilla/5.0 (Windows NT 10.0) Gecko/20100101 Firefox/140.0")
    page = home.get("/account/sessions/").content.decode()
    assert "In 2 places." in page
    assert "Firefox on Windows" in page
    assert "Chrome on Linux" in page
    assert "Last seen" in page
    other = UserSession.objects.get(session_key=kept_as(id_of(cafe)))
    asked = home.post(f"/account/sessions/{other.pk}/end/")
    assert is_signed_in(cafe)
    home.post(asked["Location"], {"password": PASSWORD})
    assert is_signed_in(cafe)
    home.post(f"/account/sessions/{other.pk}/end/")
    assert not is_signed_in(cafe)
    cafe = signed_in_tab(alice.email)
    home.post("/account/sessions/")
    assert not is_signed_in(cafe)
    assert is_signed_in(home)


FIREFOX = "Mozilla/5.0 (Windows NT 10.0) Gecko/20100101 Firefox/140.0"


def proof_of(browser: Client) -> str:
    return str(browser.cookies[django_settings.BROWSER_COOKIE_NAME].value)


def is_known(browser: Client, user: User) -> bool:
    return browsers.find(proof_of(browser), user.email) is not None


def test_v6_5_6_v7_5_2_the_list_shows_each_known_browser_and_forgets_any_after_a_fresh_proof(
    alice: User, alices_account: Account, home: Client
) -> None:
    cafe, other = signed_in_tab(alice.email, FIREFOX), signed_in_tab(alice.email)
    KnownBrowser.objects.update(network="2001:db8:1:2::")
    cafe.post("/logout/")
    listed = home.get("/account/sessions/").content.decode().partition('id="known"')[2]
    assert listed.count("2001:db8:1:2::") == 3
    assert listed.count("first seen") == 3
    assert listed.count("This browser") == 1
    assert "Firefox on Windows" in listed
    known = browsers.find(proof_of(cafe), alice.email)
    assert known is not None
    assert home.get(f"/account/sessions/browsers/{known.pk}/forget/").status_code == 405
    asked = home.post(f"/account/sessions/browsers/{known.pk}/forget/")
    assert asked["Location"].startswith("/reauthenticate/")
    assert is_known(cafe, alice)
    home.post(asked["Location"], {"password": PASSWORD})
    assert is_known(cafe, alice)
    again = home.post(f"/account/sessions/browsers/{known.pk}/forget/", follow=True)
    assert "That browser is a new one from now on." in again.content.decode()
    assert not is_known(cafe, alice)
    assert is_known(home, alice)
    assert is_known(other, alice)
    assert home.post(f"/account/sessions/browsers/{known.pk}/forget/").status_code == 404
    (event,) = Event.objects.filter(tag="account.browser.forgotten")
    assert (event.actor_id, event.target) == (alice.pk, str(known.pk))
    assert "A known browser was forgotten" in home.get("/account/activity/").content.decode()


def test_a_forgotten_browser_is_locked_out_like_any_stranger(alice: User, home: Client) -> None:
    cafe = signed_in_tab(alice.email, FIREFOX)
    prove_again(home, "/account/security/webauthn/add/")
    home.post("/account/sessions/browsers/forget/")
    cafe.post("/logout/")
    home.post("/logout/")
    with time_machine.travel(timezone.now(), tick=False) as clock:
        for _ in range(5):
            type_password(tab(), alice.email, "not hers")
            clock.shift(timedelta(seconds=2))
        type_password(cafe, alice.email)
        type_password(home, alice.email)
        assert (is_signed_in(cafe), is_signed_in(home)) == (False, True)


def test_v7_5_2_all_others_are_forgotten_at_once_and_this_one_is_not(
    alice: User, home: Client
) -> None:
    others = [signed_in_tab(alice.email, FIREFOX) for _ in range(3)]
    asked = home.post("/account/sessions/browsers/forget/")
    assert asked["Location"].startswith("/reauthenticate/")
    home.post(asked["Location"], {"password": PASSWORD})
    home.post("/account/sessions/browsers/forget/")
    assert [is_known(each, alice) for each in (home, *others)] == [True, False, False, False]
    assert all(is_signed_in(each) for each in others)
    page = home.get("/account/sessions/").content.decode()
    assert "Forget all others" not in page
    assert "This also forgets" not in page
    # There is nothing left to tell of.
    home.post("/account/sessions/browsers/forget/")
    assert Event.objects.filter(tag="account.browser.forgotten").count() == 1


def test_v7_5_2_ending_all_other_sessions_forgets_the_other_browsers_and_says_so(
    alice: User, home: Client
) -> None:
    cafe = signed_in_tab(alice.email, FIREFOX)
    assert "This also forgets" in home.get("/account/sessions/").content.decode()
    asked = home.post("/account/sessions/")
    assert is_known(cafe, alice)
    home.post(asked["Location"], {"password": PASSWORD})
    assert is_known(cafe, alice)
    told = home.post("/account/sessions/", follow=True).content.decode()
    assert "no other browser is known any more" in told
    assert (is_known(cafe, alice), is_known(home, alice)) == (False, True)
    assert (is_signed_in(cafe), is_signed_in(home)) == (False, True)


def test_row45_charlie_forgets_none_of_alices_browsers(
    alice: User, home: Client, charlie: User
) -> None:
    stranger = signed_in_tab(charlie.email)
    prove_again(stranger, "/account/security/webauthn/add/")
    hers = browsers.of(alice)[0]
    assert stranger.post(f"/account/sessions/browsers/{hers.pk}/forget/").status_code == 404
    # One computer of both: his page lists, and his button forgets, what his account knows.
    home.post("/logout/")
    type_password(home, charlie.email)
    assert home.get("/account/sessions/").content.decode().count(str(hers.pk)) == 0
    stranger.post("/account/sessions/browsers/forget/")
    assert is_known(home, alice)
    assert not is_known(home, charlie)


def test_no_known_browser_and_more_than_are_listed(
    alice: User, home: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        signed_in_tab(alice.email)
    monkeypatch.setattr(browsers, "MOST_LISTED", 2)
    page = home.get("/account/sessions/").content.decode()
    assert page.count("first seen") == 2
    assert "These are the 2 seen last." in page
    assert "Forget all others" in page
    KnownBrowser.objects.update(revoked_at=timezone.now())
    page = home.get("/account/sessions/").content.decode()
    assert "None. The next browser you sign in with is known from then on." in page
    assert "Forget all others" not in page


def test_row45_charlie_ends_none_of_alices_sessions(
    alice: User, home: Client, charlie: User
) -> None:
    mine = UserSession.objects.get(session_key=kept_as(id_of(home)))
    stranger = signed_in_tab(charlie.email)
    asked = stranger.post("/account/sessions/999999/end/")
    stranger.post(asked["Location"], {"password": PASSWORD})
    assert stranger.post(f"/account/sessions/{mine.pk}/end/").status_code == 404
    assert is_signed_in(home)


def test_a_network_is_shown_roughly(alice: User, home: Client) -> None:
    UserSession.objects.update(ip="2001:db8:1:2:3:4:5:6")
    page = home.get("/account/sessions/").content.decode()
    assert "2001:db8:1:2::" in page
    assert "3:4:5:6" not in page


def test_v6_5_6_each_way_and_each_remembered_browser_is_revoked_by_itself(
    alice: User, home: Client, charlie: User
) -> None:
    _seed, codes = add_app(home)
    first, second = tab(), tab()
    for number, browser in enumerate((first, second)):
        type_password(browser, alice.email)
        second_step(browser, codes[number], remember=True)
        browser.post("/logout/")
    kept = RememberedBrowser.objects.order_by("created_at")[0]
    stranger = signed_in_tab(charlie.email)
    path = f"/account/security/browsers/{kept.pk}/forget/"
    assert stranger.post(path).status_code == 404
    home.post(path)
    type_password(first, alice.email)
    type_password(second, alice.email)
    assert not is_signed_in(first)
    assert is_signed_in(second)
    home.post("/account/security/browsers/forget/")
    second.post("/logout/")
    type_password(second, alice.email)
    assert not is_signed_in(second)


def test_a_remembered_browser_is_asked_again_after_thirty_days(alice: User, home: Client) -> None:
    with time_machine.travel(timezone.now(), tick=False) as clock:
        seed, _codes = add_app(home)
        browser = tab()
        type_password(browser, alice.email)
        second_step(browser, code_at(seed), remember=True)
        secret = browser.cookies[django_settings.REMEMBERED_COOKIE_NAME].value
        for days, asked in ((29, False), (2, True)):
            clock.shift(timedelta(days=days))
            again = tab()
            again.cookies[django_settings.REMEMBERED_COOKIE_NAME] = secret
            type_password(again, alice.email)
            assert is_signed_in(again) is not asked


def test_being_signed_in_costs_the_same_queries_however_many_sessions_there_are(
    alice: User, home: Client
) -> None:
    def cost() -> tuple[int, int]:
        with CaptureQueriesContext(connection) as listed:
            home.get("/account/sessions/")
        with CaptureQueriesContext(connection) as signing_in:
            signed_in_tab(alice.email)
        return len(listed), len(signing_in)

    signed_in_tab(alice.email)
    few = cost()
    for number in range(10):
        signed_in_tab(alice.email, f"Browser/{number}")
    assert len(browsers.of(alice)) == 13
    assert cost() == few


def test_a_session_is_noted_as_used_at_most_every_five_minutes(alice: User) -> None:
    with time_machine.travel(timezone.now(), tick=False) as clock:
        browser = signed_in_tab(alice.email)
        began = UserSession.objects.get(user=alice).last_seen_at
        clock.shift(timedelta(minutes=4, seconds=59))
        with CaptureQueriesContext(connection) as asked:
            browser.get("/account/security/")
        assert not [query for query in asked if not query["sql"].startswith("SELECT")]
        clock.shift(timedelta(seconds=2))
        browser.get("/account/security/")
        assert UserSession.objects.get(user=alice).last_seen_at > began
        assert Session.objects.count() == 1
