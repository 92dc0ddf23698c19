"""Every way that ends in a session passes the same stages (ASVS 6.3.4, shared list A1, row 15).

That no other way is taken anywhere is watched in every test of the server
(only_by_the_stages.py). Here the watch itself is tried, each way is walked up to the second step of
somebody who has an app, and every address is visited by somebody who has not taken it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
import time_machine
from allauth.account.adapter import get_adapter
from allauth.account.internal.flows.login import perform_login
from allauth.account.models import EmailAddress, Login
from allauth.mfa.models import Authenticator
from django.conf import settings as django_settings
from django.contrib.auth import SESSION_KEY as USER_KEY
from django.contrib.auth import login
from django.contrib.sessions.models import Session
from django.core.management import call_command
from django.http import HttpRequest, HttpResponse  # noqa: TID251 - a request is made by hand
from django.test import Client, RequestFactory
from django.urls import URLPattern, URLResolver, get_resolver, resolve
from django.urls.resolvers import RegexPattern
from django.utils import timezone
from server.tests.accounts.second_steps import (
    App,
    add_app,
    code_at,
    is_signed_in,
    newest_code,
    second_step,
    signed_in_tab,
    tab,
    type_password,
)
from server.tests.accounts.test_members import link_in, mails
from server.tests.asvs.test_second_step import reset_link
from server.tests.conftest import PASSWORD, account_for, person
from server.tests.only_by_the_stages import PastTheStages

from doorward.accounts import browsers, credentials, invitations, recovery, straight_in
from doorward.accounts.models import Approval, Recovery, Role, SecondStepChoice, User
from doorward.accounts.session_store import SessionStore
from doorward.notices.models import Mail

NEW = "nine ships in the quiet morning"
STEP = "/account/security/authenticate/"
DORA = "dora@example.org"

# -- the watch that stands around every test -------------------------------------------------------


@pytest.fixture
def request_of(alice: User, rf: RequestFactory) -> HttpRequest:
    """A request in which nobody is signed in."""
    made = rf.post("/", HTTP_HOST="localhost")
    made.session = SessionStore()
    return made


def _by_djangos_login(request: HttpRequest, alice: User) -> None:
    login(request, alice, credentials.BACKEND)


def _by_hand(request: HttpRequest, alice: User) -> None:
    request.session.update({USER_KEY: str(alice.pk)})
    request.session.save()


def _by_a_row_of_its_own(_request: HttpRequest, alice: User) -> None:
    SessionStore().encode({USER_KEY: str(alice.pk)})


def _by_the_short_way_past_an_app(request: HttpRequest, alice: User) -> None:
    asked = credentials.Asked(is_confirmed=True, by_email=False, by_lasting_way=True)
    found = credentials.Found(alice, asked)
    straight_in.begin(request, found, HttpResponse(), get_adapter(request))


def _by_stages_said_to_be_over(request: HttpRequest, alice: User) -> None:
    keys = [stage.key for stage in get_adapter(request).get_login_stages()[:-1]]
    over = Login(user=alice)
    over.state["stages"] = {key: {"handled": True, "data": {}} for key in keys}
    over.state["stages"]["stamp"]["data"] = {"nonce": "n", "as_of": alice.get_session_auth_hash()}
    perform_login(request, over)


@pytest.mark.parametrize(
    "way",
    [
        _by_djangos_login,
        _by_hand,
        _by_a_row_of_its_own,
        _by_the_short_way_past_an_app,
        _by_stages_said_to_be_over,
    ],
    ids=lambda way: way.__name__.strip("_").replace("_", " "),
)
def test_v6_3_4_a_session_that_gets_a_person_past_the_stages_fails_the_test(
    alice: User,
    request_of: HttpRequest,
    way: Callable[[HttpRequest, User], None],
    refused_past_the_stages: list[str],
) -> None:
    with pytest.raises(PastTheStages):
        way(request_of, alice)
    # An edge may have caught what was raised: it is noted all the same, and fails the test.
    assert len(refused_past_the_stages) == 1
    refused_past_the_stages.clear()
    assert not people_in_sessions()


# -- each way, up to the second step ---------------------------------------------------------------


@dataclass
class Walk:
    """What a way begins with, and whom it brings to the door."""

    alice: User
    home: Client
    seed: str
    codes: list[str]
    settings: Any

    def step(self, browser: Client) -> None:
        """At this door the app is asked for, and with it the session begins."""
        assert browser.get(STEP).status_code == 200
        assert not is_signed_in(browser)
        second_step(browser, code_at(self.seed))
        assert is_signed_in(browser)


@pytest.fixture
def walk(alice: User, settings: Any) -> Iterator[Walk]:
    """Alice's browser at home, in which she set up an app; the clock stands still."""
    account_for(alice)
    with time_machine.travel(timezone.now(), tick=False):
        home = signed_in_tab(alice.email)
        yield Walk(alice, home, *add_app(home), settings)


def by_password(walk: Walk) -> Client:
    browser = tab()
    assert type_password(browser, walk.alice.email)["Location"] == STEP
    return browser


def by_app(walk: Walk) -> App:
    app = App()
    assert app.call("POST", "auth/login", email=walk.alice.email, password=PASSWORD).status_code
    return app


def by_reset(walk: Walk) -> Client:
    browser = tab()
    browser.post("/password/reset/", {"email": walk.alice.email})
    choose(browser, reset_link())
    assert not is_signed_in(browser)
    type_password(browser, walk.alice.email, NEW)
    return browser


def by_reset_in_an_app(walk: Walk) -> App:
    app = App()
    app.call("POST", "auth/password/request", email=walk.alice.email)
    key = reset_link().removesuffix("/").removeprefix("/password/reset/key/")
    done = app.call("POST", "auth/password/reset", key=key, password=NEW)
    assert done.status_code in {200, 401}, done.content
    walk.alice.refresh_from_db()
    assert walk.alice.check_password(NEW)
    assert not app.is_signed_in()
    app.call("POST", "auth/login", email=walk.alice.email, password=NEW)
    return app


def by_invitation(walk: Walk) -> Client:
    browser = tab()
    browser.post(invited(walk.alice.email))
    browser.post("/invitation/", {"password": NEW, "name": "Alice", "shares": "state"})
    assert not is_signed_in(browser)
    browser.post("/login/?next=/invitation/", {"login": walk.alice.email, "password": PASSWORD})
    browser.post("/invitation/", {"shares": "state"})
    return browser


def by_unlock_link(walk: Walk) -> Client:
    browser = tab()
    link = browsers.new_link(walk.alice).removeprefix("http://localhost:8000")
    assert browser.post(link)["Location"] == "/login/"
    assert not is_signed_in(browser)
    type_password(browser, walk.alice.email)
    return browser


def by_a_mailed_code_nobody_may_ask_for(walk: Walk) -> Client:
    """Without the password no code is mailed, and none opens."""
    browser = tab()
    before = Mail.objects.count()
    browser.post("/login/code/", {"email": walk.alice.email})
    browser.post("/login/code/confirm/", {"code": "ABC123"})
    by_json = "/_allauth/app/v1/auth/code/request"
    browser.post(by_json, {"email": walk.alice.email}, content_type="application/json")
    assert Mail.objects.count() == before
    assert not is_signed_in(browser)
    type_password(browser, walk.alice.email)
    return browser


def by_confirming_the_address(walk: Walk) -> Client:
    """The code that confirms an address is one stage; the app is the next."""
    EmailAddress.objects.filter(user=walk.alice).update(verified=False)
    browser = tab()
    assert type_password(browser, walk.alice.email)["Location"] == "/confirm-email/"
    assert not is_signed_in(browser)
    code = newest_code(walk.alice.email, walk.settings)
    browser.post("/confirm-email/", {"code": code})
    assert EmailAddress.objects.get(user=walk.alice).verified
    return browser


def by_confirming_the_address_in_an_app(walk: Walk) -> App:
    EmailAddress.objects.filter(user=walk.alice).update(verified=False)
    app = by_app(walk)
    assert not app.is_signed_in()
    app.call("POST", "auth/email/verify", key=newest_code(walk.alice.email, walk.settings))
    assert EmailAddress.objects.get(user=walk.alice).verified
    return app


def by_the_setup_link_of_an_operator(walk: Walk) -> Client:
    walk.alice.set_unusable_password()
    walk.alice.save()
    out = StringIO()
    call_command("create_operator", walk.alice.email, stdout=out)
    browser = tab()
    choose(browser, out.getvalue().strip().splitlines()[-1].removeprefix("http://localhost:8000"))
    walk.alice.refresh_from_db()
    assert walk.alice.check_password(NEW)
    assert not is_signed_in(browser)
    type_password(browser, walk.alice.email, NEW)
    return browser


def sign_in_elsewhere(walk: Walk) -> None:
    """Have a session that may be asked to approve."""
    phone = tab("Phone/1.0")
    type_password(phone, walk.alice.email)
    second_step(phone, walk.codes[0])
    assert is_signed_in(phone)


def by_an_approval_not_given(walk: Walk) -> Client:
    sign_in_elsewhere(walk)
    browser = by_password(walk)
    browser.post("/login/approval/")
    assert Approval.objects.filter(user=walk.alice).exists()
    browser.post("/login/approval/finish/")
    browser.post("/account/security/trust/", {"action": "trust"})
    return browser


def by_an_approval_not_given_to_an_app(walk: Walk) -> App:
    sign_in_elsewhere(walk)
    app = by_app(walk)
    assert app.call("POST", "auth/2fa/approval").status_code == 200
    assert app.call("PUT", "auth/2fa/approval").status_code == 409
    return app


def by_a_recovery_before_its_time(walk: Walk) -> Client:
    by_password(walk).post("/login/recovery/begin/")
    found = Recovery.objects.get(user=walk.alice)
    early = timezone.now() + timedelta(hours=django_settings.RECOVERY_DELAY_HOURS, seconds=-1)
    browser = tab()
    with time_machine.travel(early, tick=False):
        browser.post("/" + recovery.open_link(found).split("/", 3)[3])
        type_password(browser, walk.alice.email)
        browser.post("/login/recovery/enter/")
        assert not is_signed_in(browser)
        assert Authenticator.objects.filter(user=walk.alice, type="totp").exists()
    return by_password(walk)


BY_PAGE = [
    by_password,
    by_reset,
    by_invitation,
    by_unlock_link,
    by_a_mailed_code_nobody_may_ask_for,
    by_confirming_the_address,
    by_the_setup_link_of_an_operator,
    by_an_approval_not_given,
    by_a_recovery_before_its_time,
]
BY_APP = [
    by_app,
    by_reset_in_an_app,
    by_confirming_the_address_in_an_app,
    by_an_approval_not_given_to_an_app,
]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("way", BY_PAGE, ids=lambda way: way.__name__)
def test_v6_3_4_each_way_by_page_ends_at_the_second_step(
    walk: Walk, way: Callable[[Walk], Client]
) -> None:
    browser = way(walk)
    assert nothing_opens(browser)
    walk.step(browser)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("way", BY_APP, ids=lambda way: way.__name__)
def test_v6_3_4_each_way_of_an_app_ends_at_the_second_step(
    walk: Walk, way: Callable[[Walk], App]
) -> None:
    app = way(walk)
    assert not app.is_signed_in()
    for path in ("account/authenticators", "auth/sessions", "account/email"):
        assert app.call("GET", path).status_code == 401, path
    headers = {"X-Session-Token": app.token, "Authorization": f"Bearer {app.token}"}
    assert tab().get("/api/v1/devices", headers=headers).status_code == 401
    assert app.call("POST", "auth/2fa/authenticate", code=code_at(walk.seed)).status_code == 200
    assert app.is_signed_in()


@pytest.mark.django_db(transaction=True)
def test_v6_3_4_a_code_from_the_mail_instead_of_the_app_opens_when_it_is_typed(walk: Walk) -> None:
    walk.home.post("/account/security/email/", {"wanted": "on"})
    browser = by_password(walk)
    browser.post("/account/security/by-mail/")
    assert nothing_opens(browser)
    browser.post("/login/code/confirm/", {"code": "ABC123"})
    assert nothing_opens(browser)
    code = newest_code(walk.alice.email, walk.settings)
    browser.post("/login/code/confirm/", {"code": code})
    browser.post("/account/security/trust/", {"action": "skip"})
    assert is_signed_in(browser)


@pytest.mark.django_db(transaction=True)
def test_v6_3_4_signing_up_with_an_address_that_is_taken_opens_nothing(walk: Walk) -> None:
    browser, app = tab(), App()
    browser.post("/signup/", {"email": walk.alice.email, "password1": PASSWORD})
    browser.post("/confirm-email/", {"code": "ABC123"})
    app.call("POST", "auth/signup", email=walk.alice.email, password=PASSWORD)
    app.call("POST", "auth/email/verify", key="ABC123")
    assert nothing_opens(browser)
    assert not app.is_signed_in()


@pytest.mark.django_db(transaction=True)
def test_v6_3_4_a_newcomer_is_in_only_when_their_address_was_confirmed(settings: Any) -> None:
    browser, app = tab(), App()
    browser.post("/signup/", {"email": DORA, "password1": NEW})
    app.call("POST", "auth/signup", email="erin@example.org", password=NEW)
    assert not people_in_sessions()
    assert app.call("POST", "auth/email/verify", key="ABC123").status_code == 400
    browser.post("/confirm-email/", {"code": "ABC123"})
    assert not people_in_sessions()
    browser.post("/confirm-email/", {"code": newest_code(DORA, settings)})
    app.call("POST", "auth/email/verify", key=newest_code("erin@example.org", settings))
    assert is_signed_in(browser)
    assert app.is_signed_in()


@pytest.mark.django_db(transaction=True)
def test_v6_3_4_the_invitation_of_a_newcomer_is_no_way_around_the_app_they_set_up_since(
    settings: Any,
) -> None:
    browser, link = tab(), invited(DORA)
    assert browser.post(link)["Location"] == "/invitation/"
    # Before the password is chosen the link opens nothing.
    assert nothing_opens(browser)
    home = signed_in_tab(person(DORA, "Dora").email)
    with time_machine.travel(timezone.now(), tick=False):
        add_app(home)
    for password in (PASSWORD, NEW):
        browser.post("/invitation/", {"name": "Dora", "password": password, "shares": "state"})
        assert nothing_opens(browser)
    assert type_password(browser, DORA)["Location"] == STEP
    assert nothing_opens(browser)


def invited(address: str) -> str:
    """Return the path of the link by which Charlie invites whoever has this address."""
    charlie = person("charlie@example.org", "Charlie")
    invitations.invite(account_for(charlie), email=address, role=Role.HELPER, actor=charlie)
    return link_in(mails(address)[-1])


def choose(browser: Client, link: str) -> None:
    """Choose a password by a mailed link."""
    asked = browser.get(link, follow=True)
    browser.post(asked.request["PATH_INFO"], {"password1": NEW, "password2": NEW})


def nothing_opens(browser: Client) -> bool:
    """Whether no page and no API takes this browser for somebody who is signed in."""
    return (
        USER_KEY not in browser.session
        and not is_signed_in(browser)
        and browser.get("/devices/").status_code == 302
        and browser.get("/api/v1/devices").status_code == 401
    )


def people_in_sessions() -> list[str]:
    """Return whose sessions there are."""
    held = (SessionStore().decode(one.session_data) for one in Session.objects.all())
    return [str(data[USER_KEY]) for data in held if USER_KEY in data]


# -- every address there is ------------------------------------------------------------------------


def routes(patterns: list[URLPattern | URLResolver], before: str = "") -> Iterator[str]:
    """Yield each view's address, as a pattern."""
    for pattern in patterns:
        route = str(pattern.pattern)
        if isinstance(pattern.pattern, RegexPattern):
            # allauth has two in the old language: a link to a new password, one to an address.
            route = re.sub(r"\(\?P(<\w+>)[^)]*\)", r"\1", route).strip("^$")
        if isinstance(pattern, URLResolver):
            yield from routes(pattern.url_patterns, before + route)
        else:
            yield before + route


def every_address(alice: User) -> set[str]:
    """Return every address of portal, API and apps; whatever may be an id in it is Alice's."""
    found = set()
    for route in routes(get_resolver().url_patterns):
        path = "/" + re.sub(r"<int:\w+>", "1", route)
        path = re.sub(r"<(\w+:)?\w+>", str(alice.pk), path)
        resolve(path)
        found.add(path)
    return found


@pytest.mark.django_db
@pytest.mark.parametrize("halfway", [False, True], ids=["a stranger", "with the password alone"])
def test_v6_3_4_no_address_puts_anybody_into_a_session_without_the_second_step(
    alice: User, halfway: bool
) -> None:
    account_for(alice)
    add_app(signed_in_tab(alice.email))
    SecondStepChoice.objects.filter(user=alice).delete()
    Session.objects.all().delete()
    said = {
        **dict.fromkeys(("email", "login", "username", "address"), alice.email),
        **dict.fromkeys(("as", "user", "user_id", "person", "id"), str(alice.pk)),
        **dict.fromkeys(("password", "password1", "password2"), PASSWORD),
        **dict.fromkeys(("code", "key"), "123456"),
        "name": "Alice",
        "next": "/",
        "action": "trust",
        "answer": "yes",
        "number": "42",
        "shares": "state",
    }
    visited = 0
    browser = tab()
    for path in sorted(every_address(alice)):
        for method in ("GET", "POST"):
            if not halfway:
                browser = tab()
            elif not is_halfway(browser):
                browser = tab()
                type_password(browser, alice.email)
                assert is_halfway(browser), path
            send(browser, method, path, said)
            visited += 1
            assert not people_in_sessions(), (method, path)
    # A list that got lost is not walked in vain.
    assert visited > 400


def is_halfway(browser: Client) -> bool:
    return "account_login" in browser.session


def send(browser: Client, method: str, path: str, said: dict[str, str]) -> Any:
    """Visit as a page's form or as an app would, by where it leads."""
    if method == "GET":
        return browser.get(path, said)
    if path.startswith(("/_allauth/", "/api/")):
        return browser.post(path, said, content_type="application/json")
    return browser.post(path, said)
