"""Roles that change while requests run: two portal processes, on SQLite and on PostgreSQL.

What each page does for a role that is taken away under it is tried page by page in
server/tests/access/test_meanwhile.py; here the requests really run beside each other. Every change
is an event, and events are one chain: what stands behind the change of a role came after it.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from functools import partial

import pytest
from tests.drills.test_abuse_over_two_portals import (
    PASSWORD,
    Browser,
    Portals,
    at_once,
    portals,
    signed_up,
)

__all__ = ["portals"]  # the fixture, for pytest to find

pytestmark = pytest.mark.slow

EVENTS = "SELECT id, tag, target FROM audit_event ORDER BY id"
ROUNDS = 8


def person_of(portals: Portals, address: str) -> str:
    """The id of the person with this address, with its dashes."""
    found = portals.rows(f"SELECT id FROM accounts_user WHERE email = '{address}'")  # noqa: S608 - our own words
    text = str(found[0][0]).replace("-", "")
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def places(portals: Portals, role: str, *addresses: str) -> int:
    """How many of these people have this role somewhere else than in an account of their own."""
    named = ", ".join(f"'{address}'" for address in addresses)
    statement = (
        "SELECT count(*) FROM accounts_membership m JOIN accounts_user u ON u.id = m.user_id"  # noqa: S608 - as above
        f" WHERE m.role = '{role}' AND u.email IN ({named})"
    )
    return int(portals.rows(statement)[0][0])


def count(portals: Portals, tag: str) -> int:
    statement = f"SELECT count(*) FROM audit_event WHERE tag = '{tag}'"  # noqa: S608 - as above
    return int(portals.rows(statement)[0][0])


def link_for(portals: Portals, address: str) -> str:
    """The path of the newest invitation that was mailed to this address."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        for text in reversed(portals.server.mails(address)):
            found = re.search(r"/invitation/[A-Za-z0-9_-]+/", text)
            if found:
                return found[0]
        time.sleep(0.05)
    raise AssertionError(f"no invitation was mailed to {address}")


def invited(portals: Portals, owner: Browser, address: str, role: str) -> str:
    sent = owner.post("/account/members/invite/", email=address, role=role)
    assert sent.startswith("302"), sent
    return link_for(portals, address)


def joined(portals: Portals, owner: Browser, address: str, role: str) -> Browser:
    """Somebody new who has followed an invitation."""
    link = invited(portals, owner, address, role)
    browser = Browser(portals.server, f"127.8.{len(address)}.{sum(address.encode()) % 250 + 1}")
    browser.post(link)
    answer = browser.post("/invitation/", password=PASSWORD, name="", shares="state")
    assert answer.startswith("302"), answer
    assert browser.ask("GET", "/devices/")[0] == 200
    return browser


def test_a_role_taken_away_over_there_ends_what_is_under_way_here(portals: Portals) -> None:
    owner = signed_up(portals, "roles@example.org")
    helper = joined(portals, owner, "helping@example.org", "helper")
    who = person_of(portals, "helping@example.org")
    began, done = threading.Event(), threading.Event()
    answers: list[str] = []

    def act() -> None:
        while not done.is_set():
            answers.append(helper.post("/devices/add/")[:3])
            began.set()

    acting = [threading.Thread(target=act) for _ in range(6)]
    for thread in acting:
        thread.start()
    assert began.wait(30)
    taken = owner.post(f"/account/members/{who}/role/", role="viewer")
    for _ in range(5):
        owner.ask("GET", "/devices/")
    done.set()
    for thread in acting:
        thread.join()
    assert taken.startswith("302"), taken
    assert set(answers) == {"200", "403"}
    events = [(tag, str(target).replace("-", "")) for _id, tag, target in portals.rows(EVENTS)]
    changed = events.index(("account.member.role.changed", who.replace("-", "")))
    assert not [tag for tag, _target in events[changed:] if tag == "device.code.made"]


def test_an_invitation_that_many_accept_at_once_makes_one_member(portals: Portals) -> None:
    owner = signed_up(portals, "inviting@example.org")
    link = invited(portals, owner, "guest@example.org", "viewer")
    before = count(portals, "account.member.joined")
    guests = [Browser(portals.server, f"127.8.1.{number + 1}") for number in range(12)]
    for guest in guests:
        guest.post(link)

    def accepting(guest: Browser) -> Callable[[], str]:
        return lambda: guest.post("/invitation/", password=PASSWORD, name="", shares="state")

    answers = at_once([accepting(guest) for guest in guests])
    assert not [answer for answer in answers if answer.startswith("5")]
    assert places(portals, "viewer", "guest@example.org") == 1
    assert count(portals, "account.member.joined") - before == 1
    inside = [guest for guest in guests if guest.ask("GET", "/devices/")[0] == 200]
    assert len(inside) == 1


def test_of_two_owners_who_step_down_at_once_one_stays(portals: Portals) -> None:
    one = signed_up(portals, "first@example.org")
    other = joined(portals, one, "second@example.org", "helper")
    ids = {each: person_of(portals, f"{each}@example.org") for each in ("first", "second")}
    browsers = {"first": one, "second": other}

    def stepping_down(who: str) -> Callable[[], str]:
        address = f"/account/members/{ids[who]}/role/"
        return lambda: browsers[who].post(address, role="helper")

    down = "second"
    for _round in range(ROUNDS):
        up = "first" if down == "second" else "second"
        made = browsers[up].post(f"/account/members/{ids[down]}/role/", role="owner")
        assert made.startswith("302"), made
        at_once([stepping_down("first"), stepping_down("second")])
        assert places(portals, "owner", "first@example.org", "second@example.org") == 1
        shown = browsers["first"].ask("GET", f"/account/members/{ids['second']}/")[0]
        down = "second" if shown == 200 else "first"


def test_an_offer_that_is_taken_and_taken_back_at_once_leaves_one_owner(portals: Portals) -> None:
    giver = signed_up(portals, "giving@example.org")
    taker = joined(portals, giver, "taking@example.org", "helper")
    ids = {each: person_of(portals, f"{each}@example.org") for each in ("giving", "taking")}
    browsers = {"giving": giver, "taking": taker}
    owner, other = "giving", "taking"
    for _round in range(3):
        offered = browsers[owner].post(
            f"/account/members/{ids[other]}/hand-over/", role_after="helper"
        )
        assert offered.startswith("302"), offered
        answers = at_once(
            [
                partial(browsers[other].post, "/account/members/offer/take/"),
                partial(browsers[other].post, "/account/members/offer/take/"),
                partial(browsers[owner].post, "/account/members/offer/end/"),
            ]
        )
        assert not [answer for answer in answers if answer.startswith("5")]
        assert places(portals, "owner", "giving@example.org", "taking@example.org") == 1
        if browsers[other].ask("GET", f"/account/members/{ids[owner]}/")[0] == 200:
            owner, other = other, owner
