"""A08, A19, A20, A24, A29 and A30 with two portals: what is told, mailed, taken back and joined.

The requests of one attack go to both doors, in turns or at the same moment. What stands in the way
is also tried in one process, with a clock that is set: server/tests/abuse, server/tests/accounts.
"""

from __future__ import annotations

import http.client
import re
import time
import urllib.parse
from collections.abc import Callable, Sequence
from functools import partial

import pytest
from tests.drills.two_doors import (
    DOORS,
    NEW,
    PASSWORD,
    RESET_LINK,
    Both,
    Person,
    at_once,
    both,
    mailed,
    newcomer,
    signed_in,
    stranger,
    time_passes,
    type_password,
)

__all__ = ["both"]  # the fixture, for pytest to find

# Each case also has quicker tests in one process (server/tests); these take minutes together.
pytestmark = pytest.mark.slow

OTHER = "six lanterns over a frozen lake"
UNDO_LINK = r"http://localhost:\d+(/email/undo/\S+/)"
INVITATION = r"http://localhost:\d+(/invitation/[\w-]+/)"
INVITED = "/invitation/"


# -- A08: who has an account -----------------------------------------------------------------------


def told(person: Person, answer: tuple[int, str, str], *addresses: str) -> tuple[object, ...]:
    """Return all that an answer says, without what is drawn anew for each and the address."""
    status, text, location = answer
    text = re.sub(r'(name="csrfmiddlewaretoken" value=)"[^"]+"', r"\1", text)
    text = re.sub(r'nonce="[^"]+"', "", text)
    text = re.sub(r'"session_token": "[^"]+"', "", text)
    for address in addresses:
        text = text.replace(address, "ADDRESS")
    headers = []
    for name, value in person.headers:
        if name.lower() == "set-cookie":
            value = re.sub(r"expires=[^;]+", "", re.sub(r"=[^;]*", "=", value, count=1))
        if name.lower() == "content-security-policy":
            # Each process has an order of its own for these.
            value = "; ".join(sorted(value.split("; ")))
        if name.lower() not in {"date", "expires", "retry-after"}:
            headers.append((name.lower(), value))
    return status, location, text, sorted(headers)


def sent(both: Both, path: str, door: int, email: str, **fields: str) -> list[tuple[object, ...]]:
    """Send a form with this address as a stranger; all of the answer and of where it leads."""
    browser = stranger(both)
    name = "login" if path == "/login/" else "email"
    answer = browser.page(path, door=door, **{name: email}, **fields)
    said = [told(browser, answer, email)]
    if answer[2]:
        said.append(told(browser, browser.page(answer[2], door=door), email))
    return said


def called(both: Both, path: str, door: int, email: str, **body: str) -> tuple[object, ...]:
    """Call as a stranger's app; all of the answer."""
    app = stranger(both)
    status, answer = app.call("POST", path, door=door, email=email, **body)
    answer.get("meta", {}).pop("session_token", None)
    return told(app, (status, repr(answer), ""), email)


def assert_all_alike(said: Sequence[object]) -> None:
    assert [each for each in said if each != said[0]] == []


def test_a08_who_signs_in_or_asks_for_a_link_is_told_the_same_by_both_portals(both: Both) -> None:
    known, _app = newcomer(both, "a08-known")
    nobody = "a08-nobdy@example.org"
    for path, fields in (
        ("/login/", {"password": "wrong"}),
        ("/password/reset/", {}),
        ("/login/link/", {}),
    ):
        said = []
        for door in DOORS:
            said += [sent(both, path, door, address, **fields) for address in (known, nobody)]
            time_passes(both, minutes=1)
        assert_all_alike(said)
    for path, body in (("auth/login", {"password": "wrong"}), ("auth/password/request", {})):
        called_back = []
        for door in DOORS:
            called_back += [
                called(both, path, door, address, **body) for address in (known, nobody)
            ]
            time_passes(both, minutes=1)
        assert_all_alike(called_back)


def test_a08_a_lock_looks_the_same_at_both_portals_whoever_it_is(both: Both) -> None:
    known, _app = newcomer(both, "a08-lockd")
    nobody = "a08-lockn@example.org"
    statuses = []
    for step in range(8):
        pages = [
            sent(both, "/login/", (step + n) % 2, address, password="wrong")
            for n, address in enumerate((known, nobody))
        ]
        assert pages[0] == pages[1], step
        statuses.append("Too many tries" in str(pages[0]))
        calls = [
            called(both, "auth/login", (step + n) % 2, address, password="wrong")
            for n, address in enumerate((nobody, known))
        ]
        assert calls[0] == calls[1], step
        time_passes(both, minutes=1 / 30)
    # Also past four free tries, where it locks.
    assert statuses[0] is False
    assert statuses[-1] is True
    # And with the right password, which a stranger's browser is not told of.
    locked = [
        sent(both, "/login/", door, address, password=PASSWORD)
        for door in DOORS
        for address in (known, nobody)
    ]
    assert_all_alike(locked)


def test_a08_who_signs_up_is_told_the_same_by_both_portals(both: Both) -> None:
    ways: dict[str, Callable[[int, str], object]] = {
        "a": lambda door, address: sent(both, "/signup/", door, address, password1=OTHER),
        "b": lambda door, address: sent(both, "/signup/passkey/", door, address),
        "c": lambda door, address: called(both, "auth/signup", door, address, password=OTHER),
        "d": lambda door, address: called(both, "auth/webauthn/signup", door, address),
    }
    for letter, way in ways.items():
        known, _app = newcomer(both, f"a08-up-{letter}")
        said = []
        for door in DOORS:
            said += [way(door, known), way(door, f"a08-nw{door}{letter}@example.org")]
        assert_all_alike(said)


def test_a08_who_invites_or_moves_does_not_learn_who_has_an_account(both: Both) -> None:
    newcomer(both, "a08-there")
    said: list[object] = []
    for name, other in (("a08-host0", "a08-there"), ("a08-host1", "a08-nwher")):
        address, _app = newcomer(both, name)
        them = f"{other}@example.org"
        host = signed_in(both, address)
        host.page("/reauthenticate/", password=PASSWORD)
        shown = []
        for path, fields in (
            ("/account/members/invite/", {"role": "viewer"}),
            ("/email/", {"action_add": ""}),
        ):
            answer = host.page(path, door=1, email=them, **fields)
            shown += [told(host, answer, them, address)]
            shown += [told(host, host.page(answer[2], door=door), them, address) for door in DOORS]
        said.append(re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}|\d{4}-\d\d-\d\dT[^\"]+", "", repr(shown)))
    assert "ADDRESS" in str(said[0])
    assert_all_alike(said)


# -- A19, A20: links to choose a password ----------------------------------------------------------


def asked_raw(
    person: Person, door: int, hosts: tuple[str, ...], more: dict[str, str], to: str, email: str
) -> int:
    """Ask for a link to choose a password with exactly these Host lines; the status."""
    both = person.both
    body = urllib.parse.urlencode(
        {"email": email, "csrfmiddlewaretoken": person.cookies["dw_csrf"]}
    )
    connection = http.client.HTTPConnection(
        "127.0.0.1", both.doors[door], timeout=60, source_address=(person.source, 0)
    )
    try:
        connection.putrequest("POST", f"{to}/password/reset/", skip_host=True)
        for host in hosts:
            connection.putheader("Host", host)
        headers = {
            "Cookie": f"dw_csrf={person.cookies['dw_csrf']}",
            "Origin": both.server.url,
            "Content-Type": "application/x-www-form-urlencoded",
            "Content-Length": str(len(body)),
            **more,
        }
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders(body.encode())
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()


def test_a19_no_portal_mails_a_link_that_leads_where_a_request_says(both: Both) -> None:
    site, evil = f"localhost:{both.server.port}", "evil.example"
    ways: list[tuple[tuple[str, ...], dict[str, str], str]] = [
        ((evil,), {}, ""),
        ((f"{site}.{evil}",), {}, ""),
        ((f"{site}@{evil}",), {}, ""),
        ((f"{evil}:{both.server.port}",), {}, ""),
        ((site, evil), {}, ""),
        ((evil, site), {}, ""),
        (("",), {}, ""),
        ((), {}, ""),
        ((evil,), {"X-Forwarded-Host": site}, ""),
        ((site,), {"X-Forwarded-Host": evil, "X-Forwarded-Proto": "https"}, ""),
        ((site,), {"Forwarded": f"host={evil};proto=https", "X-Original-Host": evil}, ""),
        ((site,), {"X-Forwarded-Server": evil, "X-Host": evil, "Referer": f"http://{evil}/"}, ""),
        ((site,), {}, f"http://{evil}"),
        ((evil,), {}, f"http://{site}"),
    ]
    answers: dict[int, list[int]] = {0: [], 1: []}
    accepted = []
    for number, (hosts, more, to) in enumerate(ways):
        # Each somebody else: three mails an hour are all that one gets.
        address, _app = newcomer(both, f"a19-{number}")
        browser = stranger(both)
        browser.page("/login/")
        for door in DOORS:
            status = asked_raw(browser, door, hosts, more, to, address)
            answers[door].append(status)
            if status == 302:
                accepted.append(address)
            else:
                assert 400 <= status < 500, (hosts, more, to, status)
    assert answers[0] == answers[1]
    assert answers[0][0] == 400
    # Those that named this site too, so that something was mailed at all.
    assert len(accepted) >= 6
    for address in accepted:
        assert mailed(both, address, RESET_LINK)
    for address in [f"a19-{number}@example.org" for number in range(len(ways))]:
        for text in both.server.mails(address):
            assert evil not in text
            found = re.findall(r"https?://[^\s/]+", text)
            assert set(found) <= {both.server.url}, text


def is_good(both: Both, link: str, door: int) -> bool:
    """Whether the link to choose a password opens the form."""
    return stranger(both).page(link, door=door)[0] == 302


def new_link(both: Both, address: str, door: int, seen: list[str]) -> str:
    """Have a link to choose a password mailed."""
    assert stranger(both).page("/password/reset/", door=door, email=address)[0] == 302
    seen.append(mailed(both, address, RESET_LINK, without=seen))
    return seen[-1]


def test_a20_a_link_used_here_is_used_over_there_and_the_newest_alone_is_good(both: Both) -> None:
    address, _app = newcomer(both, "a20")
    seen: list[str] = []
    older = new_link(both, address, 0, seen)
    assert [is_good(both, older, door) for door in DOORS] == [True, True]
    wait_for_another_second(older)
    newest = new_link(both, address, 1, seen)
    assert [is_good(both, older, door) for door in DOORS] == [False, False]
    tabs = [stranger(both), stranger(both)]
    forms = [tab.page(newest, door=door)[2] for door, tab in enumerate(tabs)]
    policy = dict(tabs[1].headers)
    assert {name.lower(): value for name, value in policy.items()}["referrer-policy"] in {
        "same-origin",
        "no-referrer",
    }
    assert tabs[0].page(forms[0], door=0, password1=NEW, password2=NEW)[0] == 302
    # The other tab had the form open at the other door.
    tabs[1].page(forms[1], door=1, password1=OTHER, password2=OTHER)
    assert [is_good(both, newest, door) for door in DOORS] == [False, False]
    for door in DOORS:
        browser = stranger(both)
        type_password(browser, address, OTHER, door=door)
        assert not browser.is_in(door)
        time_passes(both, minutes=1)
        type_password(browser, address, NEW, door=door)
        assert browser.is_in(1 - door)


def wait_for_another_second(link: str) -> None:
    """Links tell when they were made in seconds: two of one second would be the same link."""
    made = int(re.findall(r"-([0-9a-z]+)-", link)[0], 36)
    began = 978_307_200  # what Django counts from: 2001-01-01
    while time.time() < began + made + 1:
        time.sleep(0.02)


def test_a20_a_link_used_by_eight_at_once_at_both_portals_sets_one_password(both: Both) -> None:
    address, _app = newcomer(both, "a20-at-once")
    link = new_link(both, address, 0, [])
    tabs = [stranger(both) for _ in range(8)]
    forms = [tab.page(link, door=number % 2)[2] for number, tab in enumerate(tabs)]
    passwords = [f"{NEW} number {number}" for number in range(8)]
    at_once(
        [
            partial(tab.page, forms[n], door=1 - n % 2, password1=word, password2=word)
            for n, (tab, word) in enumerate(zip(tabs, passwords, strict=True))
        ]
    )
    assert both.events_about(address, "account.password.reset") == 1
    works = []
    for number, word in enumerate(passwords):
        browser = stranger(both)
        type_password(browser, address, word, door=number % 2)
        works.append(browser.is_in(number % 2))
        time_passes(both, minutes=70)
    assert sum(works) == 1


def test_a20_signing_in_here_ends_a_link_that_waits_over_there(both: Both) -> None:
    address, _app = newcomer(both, "a20-in")
    link = new_link(both, address, 0, [])
    form = stranger(both)
    opened = form.page(link, door=1)[2]
    signed_in(both, address, door=0)
    assert [is_good(both, link, door) for door in DOORS] == [False, False]
    form.page(opened, door=1, password1=NEW, password2=NEW)
    browser = stranger(both)
    type_password(browser, address, NEW, door=1)
    assert not browser.is_in()


# -- A24: another address --------------------------------------------------------------------------


def test_a24_a_stolen_session_moves_no_address_at_either_portal(both: Both) -> None:
    address, app = newcomer(both, "a24-stolen")
    thief = signed_in(both, address).copied()
    for door in (1, 0):
        for email, act in (
            ("evil@example.net", "action_add"),
            (address, "action_primary"),
            (address, "action_remove"),
        ):
            answer = thief.page("/email/", door=door, **{"email": email, act: ""})
            assert "/reauthenticate/" in answer[2], act
    listed = app.call("GET", "account/email", door=1)[1]["data"]
    assert [each["email"] for each in listed] == [address]
    assert both.server.mails("evil@example.net") == []


def test_a24_a_change_made_here_is_taken_back_over_there_once(both: Both) -> None:
    old, _app = newcomer(both, "a24")
    new = "a24-moved@example.org"
    thief = signed_in(both, old)
    thief.page("/reauthenticate/", password=PASSWORD)
    thief.page("/email/", door=0, email=new, action_add="")
    assert thief.page("/confirm-email/", door=1, code=both.server.mailed_code(new))[0] == 302
    assert new in thief.page("/email/", door=0)[1]
    link = mailed(both, old, UNDO_LINK)
    # Looking does not use it up, wherever.
    assert [stranger(both).page(link, door=door)[0] for door in DOORS] == [200, 200]
    owners = [stranger(both) for _ in range(6)]
    answers = at_once(
        [partial(owner.page, link, door=n % 2, really="yes") for n, owner in enumerate(owners)]
    )
    assert sorted(status for status, _page, _to in answers) == [302, *[410] * 5]
    assert [thief.is_in(door) for door in DOORS] == [False, False]
    first = next(n for n, (status, _page, _to) in enumerate(answers) if status == 302)
    for door, address in enumerate((old, new)):
        type_password(thief, address, door=door)
        assert [thief.is_in(each) for each in DOORS] == [False, False]
    # A new password is chosen at the other door, and signs in at both.
    owner, door = owners[first], 1 - first % 2
    form = owner.page(answers[first][2], door=door)[2]
    assert owner.page(form, door=door, password1=NEW, password2=NEW)[0] == 302
    for door in DOORS:
        browser = stranger(both)
        type_password(browser, old, NEW, door=door)
        assert browser.is_in(1 - door)


# -- A29: other sites ------------------------------------------------------------------------------

NOT_TAKEN = (
    "/accounts/google/login/callback/?code=x&state=y",
    "/google/login/",
    "/github/login/callback/?code=x&state=y",
    "/oidc/example/login/callback/?code=x&state=y",
    "/saml/example/acs/",
    "/social/signup/",
    "/account/3rdparty/",
    "/_allauth/app/v1/auth/provider/token",
    "/_allauth/app/v1/auth/provider/signup",
    "/_allauth/app/v1/account/providers",
    "/_allauth/browser/v1/auth/provider/redirect",
)


def test_a29_no_portal_believes_another_site_about_who_somebody_is(both: Both) -> None:
    address, _app = newcomer(both, "a29")
    vouching = {"provider": "google", "process": "login", "email": address, "token": "x.y.z"}
    for door in DOORS:
        browser = stranger(both)
        for path in NOT_TAKEN:
            assert browser.page(path, door=door)[0] in {404, 405}, path
            assert browser.page(path, door=door, **vouching)[0] in {404, 405}, path
        status, answer = browser.call("GET", "config", door=door)
        assert (status, "socialaccount" in answer["data"]) == (200, False)
        # Nor a proxy that nobody said stands there.
        for name in ("Remote-User", "X-Remote-User", "X-Forwarded-User", "X-Forwarded-Email"):
            headers = {name: address, "X-Auth-Request-Email": address}
            for path, refusal in (("/devices/", 302), ("/api/v1/devices", 401)):
                assert browser.ask("GET", path, door=door, headers=headers)[0] == refusal
        assert [browser.is_in(each) for each in DOORS] == [False, False]


# -- A30: who is invited ---------------------------------------------------------------------------


def asks_api(app: Person, method: str, path: str, door: int, account: str) -> tuple[int, str]:
    """Call the interface for programs about this account, as an app that is signed in."""
    headers = {"X-Session-Token": app.token, "X-Account": account}
    return app.ask(method, f"/api/v1{path}", door=door, headers=headers)[:2]


def test_a30_who_is_invited_may_nothing_at_either_portal_until_they_have_joined(
    both: Both,
) -> None:
    host, hosts_app = newcomer(both, "a30-host")
    owner = signed_in(both, host)
    owner.page("/reauthenticate/", password=PASSWORD)
    _status, listed = asks_api(hosts_app, "GET", "/accounts", 0, "")
    account = re.findall(r'"account": ?"([0-9a-f-]{36})"', listed)[0]
    me = re.findall(r'"id": ?"([0-9a-f-]{36})"', asks_api(hosts_app, "GET", "/me", 0, "")[1])[0]
    shown = owner.page("/devices/add/", really="yes")[1]
    code = re.findall(r"/devices/add/([0-9a-f-]{36})/", shown)[0]
    assert asks_api(hosts_app, "GET", f"/devices/codes/{code}", 1, account)[0] == 200
    address, app = newcomer(both, "a30-guest")
    guest = signed_in(both, address, door=1)
    assert owner.page("/account/members/invite/", email=address, role="helper")[0] == 302
    link = mailed(both, address, INVITATION)
    waiting = re.findall(
        r"/invitations/([0-9a-f-]{36})/", owner.page("/account/members/", door=1)[1]
    )[0]
    assert guest.page(link, door=1, really="yes")[2] == INVITED

    for door in (0, 1):
        assert guest.page("/account/accounts/", door=door, to=account)[0] == 404
        for path in (
            f"/account/members/{me}/",
            f"/account/members/{me}/role/",
            f"/account/members/{me}/remove/",
            f"/account/members/invitations/{waiting}/resend/",
            f"/account/members/invitations/{waiting}/withdraw/",
        ):
            assert guest.page(path, door=door, role="viewer")[0] in {403, 404, 405}, path
            assert guest.page(path, door=door)[0] in {404, 405}, path
        assert host not in guest.page("/account/members/", door=door)[1]
        for method, path in (
            ("GET", "/devices"),
            ("GET", "/members"),
            ("GET", "/invitations"),
            ("POST", "/devices/codes"),
            ("GET", f"/devices/codes/{code}"),
            ("DELETE", f"/members/{me}"),
        ):
            assert asks_api(app, method, path, door, account)[0] == 403, path
    # Taken back at one door: what was shown at the other opens nothing.
    assert owner.page(f"/account/members/invitations/{waiting}/withdraw/", really="yes")[0] == 302
    for door in (1, 0):
        assert guest.page(INVITED, door=door, shares="state")[0] == 410
        assert stranger(both).page(link, door=door)[0] == 410
        assert asks_api(app, "GET", "/devices", door, account)[0] == 403
    # Invited again, shown here and answered there: now they belong to it, at both.
    owner.page("/account/members/invite/", email=address, role="helper")
    again = mailed(both, address, INVITATION, without=[link])
    guest.page(again, door=0, really="yes")
    assert guest.page(INVITED, door=1, shares="state")[0] == 302
    assert [asks_api(app, "GET", "/devices", door, account)[0] for door in DOORS] == [200, 200]
    # As what they were invited, not as an owner.
    role = f"/account/members/{me}/role/"
    assert [guest.page(role, door=door, role="viewer")[0] for door in DOORS] == [403, 403]


def test_a30_who_signed_up_with_an_invited_address_and_never_confirmed_it_gets_nothing(
    both: Both,
) -> None:
    host, _app = newcomer(both, "a30-other")
    owner = signed_in(both, host)
    owner.page("/reauthenticate/", password=PASSWORD)
    address = "a30-new@example.org"
    mallory, mallorys_app = stranger(both), stranger(both)
    mallory.page("/signup/", door=0, email=address, password1=PASSWORD)
    mallorys_app.call("POST", "auth/signup", door=1, email=address, password=PASSWORD)
    owner.page("/account/members/invite/", email=address, role="helper")
    link = mailed(both, address, INVITATION)

    def is_shut_out() -> bool:
        for door in (1, 0):
            type_password(mallory, address, door=door)
            mallorys_app.call("POST", "auth/login", door=door, email=address, password=PASSWORD)
            time_passes(both, minutes=70)
        inside = [mallory.is_in(door) or mallorys_app.has_session(door) for door in DOORS]
        return inside == [False, False]

    assert is_shut_out()
    guest = stranger(both)
    guest.page(link, door=0, really="yes")
    assert guest.page(INVITED, door=1, password=NEW, name="", shares="state")[0] == 302
    assert [guest.is_in(door) for door in DOORS] == [True, True]
    assert is_shut_out()
