"""N3: every change of how one signs in, times everything opened before it, dead on both portals.

Two portals with doors of their own over one database. The change is made at one; within a second
neither lets in what was opened before. Beside it, server/tests/abuse has each change times each
token in one process, in seconds.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from tests.drills.soft_key import SoftKey
from tests.drills.two_doors import (
    DOORS,
    MAILED_CODE,
    NEW,
    PASSWORD,
    RESET_LINK,
    WAY_IN,
    Both,
    Person,
    add_app,
    both,
    mailed,
    newcomer,
    signed_in,
    stranger,
)

__all__ = ["both"]  # the fixture, for pytest to find

pytestmark = pytest.mark.slow

DEAD_WITHIN_S = 1.0


@dataclass
class Owner:
    """Whoever makes the change: with an app or at a desk, both signed in and just asked again."""

    address: str
    app: Person
    desk: Person


@dataclass
class Opened:
    """What was open before the change, in other hands."""

    address: str
    session: Person
    app: Person
    program: str
    remembered: dict[str, str]
    reset_link: str
    way_in: str
    half_way: Person
    code: str


Setup = Callable[[Owner], None]


def prepared(both: Both, before: Setup | None) -> tuple[Owner, Opened]:
    """Return who will make the change, and what else is open; ``before`` is done ahead of that."""
    address, home = newcomer(both, f"person{next(both.numbers)}")
    _seed, codes = add_app(home)
    desk = signed_in(both, address, code=codes.pop())
    desk.page("/reauthenticate/", password=PASSWORD)
    owner = Owner(address, home, desk)
    if before is not None:
        before(owner)
        address = owner.address

    browser = stranger(both)
    browser.page("/login/", login=address, password=PASSWORD)
    browser.page("/account/security/authenticate/", code=codes.pop())
    browser.page("/account/security/trust/", action="trust")
    assert browser.is_in()
    app = stranger(both)
    app.call("POST", "auth/login", email=address, password=PASSWORD)
    assert app.call("POST", "auth/2fa/authenticate", code=codes.pop())[0] == 200
    program = token_for_programs(browser)
    half_way = stranger(both)
    assert half_way.call("POST", "auth/login", email=address, password=PASSWORD)[0] == 401
    reset_link, way_in = links(both, address)
    opened = Opened(
        address=address,
        session=browser,
        app=app,
        program=program,
        remembered={name: text for name, text in browser.cookies.items() if "remembered" in name},
        reset_link=reset_link,
        way_in=way_in,
        half_way=half_way,
        code=codes.pop(),
    )
    assert opened.remembered
    return owner, opened


def token_for_programs(browser: Person) -> str:
    """Make one at the page, after telling again who it is."""
    browser.page("/reauthenticate/", password=PASSWORD)
    made = browser.page("/account/tokens/", name="script", scopes="devices:read", days="7")[1]
    program = re.search(r"dwp_[\w-]+", made)
    assert program is not None, made
    return program[0]


def links(both: Both, address: str) -> tuple[str, str]:
    """Have both mailed: the link to choose a password and the one to be let in."""
    asking = stranger(both)
    asking.page("/password/reset/", email=address)
    asking.page("/login/link/", email=address)
    return mailed(both, address, RESET_LINK), mailed(both, address, WAY_IN)


def is_remembered(opened: Opened, door: int) -> bool:
    """Whether the password alone signs in, in the browser that was remembered."""
    browser = stranger(opened.session.both)
    browser.cookies.update(opened.remembered)
    for password in (PASSWORD, NEW):
        browser.page("/login/", door=door, login=opened.address, password=password)
        if browser.is_in(door):
            return True
    return False


def opens_the_api(opened: Opened, door: int) -> bool:
    """Whether the token for programs does."""
    program = stranger(opened.app.both)
    headers = {"Authorization": f"Bearer {opened.program}"}
    return program.ask("GET", "/api/v1/devices", door=door, headers=headers)[0] == 200


TOKENS: dict[str, Callable[[Opened, int], bool]] = {
    "a session": lambda opened, door: opened.session.is_in(door),
    "an app's session token": lambda opened, door: opened.app.has_session(door),
    "a token for programs": opens_the_api,
    "a link to choose a password": lambda opened, door: (
        stranger(opened.app.both).page(opened.reset_link, door=door)[0] == 302
    ),
    "a link to be let in": lambda opened, door: (
        stranger(opened.app.both).page(opened.way_in, door=door)[0] == 200
    ),
}
LATER: dict[str, Callable[[Opened, int], bool]] = {
    # These are tried by using them: only after the change, and after the others were timed.
    "a remembered browser": is_remembered,
    "a sign-in half done": lambda opened, door: (
        opened.half_way.call("POST", "auth/2fa/authenticate", door=door, code=opened.code)[0] == 200
    ),
}


def change_password(owner: Owner, _opened: Opened) -> None:
    status, answer = owner.app.call(
        "POST", "account/password/change", current_password=PASSWORD, new_password=NEW
    )
    assert status == 200, answer


def reset_password(_owner: Owner, opened: Opened) -> None:
    browser = stranger(opened.app.both)
    _status, _page, form = browser.page(opened.reset_link)
    status, page, _to = browser.page(form, password1=NEW, password2=NEW)
    assert status == 302, page


def remove_app(owner: Owner, _opened: Opened) -> None:
    assert owner.app.call("DELETE", "account/authenticators/totp")[0] == 200


def make_new_codes(owner: Owner, _opened: Opened) -> None:
    assert owner.app.call("POST", "account/authenticators/recovery-codes")[0] == 200


def make_passkey(owner: Owner) -> None:
    both = owner.app.both
    status, offered = owner.app.call("GET", "account/authenticators/webauthn")
    assert status == 200, offered
    credential = SoftKey(both.server.url).registered(offered["data"]["creation_options"])
    status, answer = owner.app.call(
        "POST", "account/authenticators/webauthn", name="laptop", credential=credential
    )
    assert status == 200, answer
    owner.desk = owner.app  # the change has ended the desk's session


def add_passkey(owner: Owner, _opened: Opened) -> None:
    make_passkey(owner)


def remove_passkey(owner: Owner, _opened: Opened) -> None:
    _status, listed = owner.app.call("GET", "account/authenticators")
    keys = [each["id"] for each in listed["data"] if each["type"] == "webauthn"]
    assert len(keys) == 1
    assert (
        owner.app.call("DELETE", "account/authenticators/webauthn", authenticators=keys)[0] == 200
    )


def want_mailed_codes(owner: Owner) -> None:
    status, page, _to = owner.desk.page("/account/security/email/", wanted="on")
    assert status == 302, page
    assert "Code by email" in owner.desk.page("/account/security/")[1]


def turn_mailed_codes_on(owner: Owner, _opened: Opened) -> None:
    want_mailed_codes(owner)


def turn_mailed_codes_off(owner: Owner, _opened: Opened) -> None:
    _status, _page, to = owner.desk.page("/account/security/email/", wanted="")
    assert to == "/account/security/"


def give_number(owner: Owner) -> None:
    both = owner.desk.both
    number = f"+49151{next(both.numbers):08}"
    status, page, _to = owner.desk.page("/account/security/number/", number=number)
    assert status == 302, page
    texts = [file.read_text() for file in (both.server.data / "sms").glob("*.txt")]
    (text,) = [text for text in texts if text.startswith(number)]
    code = text.splitlines()[1].split()[0]
    status, page, to = owner.desk.page("/account/security/number/confirm/", code=code)
    assert (status, to) == (302, "/account/security/"), page


def confirm_number(owner: Owner, _opened: Opened) -> None:
    give_number(owner)


def forget_number(owner: Owner, _opened: Opened) -> None:
    assert owner.desk.page("/account/security/number/forget/", really="yes")[0] == 302


def move(owner: Owner) -> None:
    new = f"new-{owner.address}"
    status, answer = owner.app.call("POST", "account/email", email=new)
    assert status == 200, answer
    code = owner.app.both.server.mailed_code(new)
    status, answer = owner.app.call("POST", "auth/email/verify", key=code)
    assert status == 200, answer
    owner.address = new


def change_address(owner: Owner, _opened: Opened) -> None:
    move(owner)


def take_address_back(owner: Owner, _opened: Opened) -> None:
    both, before = owner.app.both, owner.address.removeprefix("new-")
    link = mailed(both, before, r"http://localhost:\d+(/email/undo/\S+/)")
    status, page, _to = stranger(both).page(link, really="yes")
    assert status == 302, page


@dataclass(frozen=True)
class Change:
    """A change, what has to be there before it, and whether who makes it is still signed in."""

    act: Callable[[Owner, Opened], None]
    before: Setup | None = None
    at_desk: bool = False
    stays: bool = True


CHANGES = {
    "the password is changed": Change(change_password),
    "the password is reset": Change(reset_password, stays=False),
    "the app is removed": Change(remove_app),
    "a passkey is added": Change(add_passkey),
    "a passkey is removed": Change(remove_passkey, make_passkey),
    "new recovery codes are made": Change(make_new_codes),
    "mailed codes are turned on": Change(turn_mailed_codes_on, at_desk=True),
    "mailed codes are turned off": Change(turn_mailed_codes_off, want_mailed_codes, at_desk=True),
    "a number for codes is confirmed": Change(confirm_number, at_desk=True),
    "the number for codes is forgotten": Change(forget_number, give_number, at_desk=True),
    "the address is changed": Change(change_address),
    "the address is taken back": Change(take_address_back, move, stays=False),
}


def all_works(opened: Opened, names: dict[str, Callable[[Opened, int], bool]]) -> None:
    for name, works in names.items():
        for door in DOORS:
            assert works(opened, door), f"{name} does not even work before the change"


def assert_dead_at_once(opened: Opened, what: str, names: dict[str, Callable[..., bool]]) -> None:
    """Look at everything at both doors, in less than a second from now on."""
    changed = time.monotonic()
    left = [(name, door) for name, works in names.items() for door in (1, 0) if works(opened, door)]
    took = time.monotonic() - changed
    print(f"\n{what}: looked at everything on both in {took * 1000:.0f} ms")  # noqa: T201
    assert left == []
    assert took < DEAD_WITHIN_S, "what was looked at later than that proves nothing"


def left_by_using(opened: Opened, names: dict[str, Callable[..., bool]]) -> list[tuple[str, int]]:
    """Which of these still open something, tried at both doors."""
    return [(name, door) for name, works in names.items() for door in (1, 0) if works(opened, door)]


@pytest.mark.parametrize("change", CHANGES)
def test_a25_n3_what_was_open_is_dead_within_a_second_on_both_portals(
    change: str, both: Both
) -> None:
    made = CHANGES[change]
    owner, opened = prepared(both, made.before)
    all_works(opened, TOKENS)
    made.act(owner, opened)
    assert_dead_at_once(opened, change, TOKENS)
    # Who made the change goes on at both, except where it was made by a mailed link.
    goes_on = owner.desk.is_in if made.at_desk else owner.app.has_session
    assert [goes_on(door) for door in DOORS] == [made.stays] * 2
    # Without the app nothing is asked after the password, in whatever browser.
    tried = {
        name: works
        for name, works in LATER.items()
        if name != "a remembered browser" or change != "the app is removed"
    }
    assert left_by_using(opened, tried) == []


def test_a25_n3_what_the_password_alone_opened_is_dead_once_an_app_is_set_up(both: Both) -> None:
    address, home = newcomer(both, f"person{next(both.numbers)}")
    browser = signed_in(both, address)
    app = stranger(both)
    assert app.call("POST", "auth/login", email=address, password=PASSWORD)[0] == 200
    program = token_for_programs(browser)
    reset_link, way_in = links(both, address)
    opened = Opened(address, browser, app, program, {}, reset_link, way_in, stranger(both), "")
    all_works(opened, TOKENS)
    add_app(home)
    assert_dead_at_once(opened, "an app is set up", TOKENS)
    assert [home.has_session(door) for door in DOORS] == [True, True]


def test_a25_n3_what_a_passkey_opened_is_dead_once_a_password_is_set(both: Both) -> None:
    address, key = f"person{next(both.numbers)}@example.org", SoftKey(both.server.url)
    home, app = stranger(both), stranger(both)
    home.call("POST", "auth/webauthn/signup", email=address)
    home.call("POST", "auth/email/verify", key=mailed(both, address, MAILED_CODE))
    _status, offered = home.call("GET", "auth/webauthn/signup")
    credential = key.registered(offered["data"]["creation_options"])
    status, answer = home.call("PUT", "auth/webauthn/signup", name="phone", credential=credential)
    assert status == 200, answer
    _status, asked = app.call("GET", "auth/webauthn/login")
    credential = key.proved(asked["data"]["request_options"])
    status, answer = app.call("POST", "auth/webauthn/login", door=1, credential=credential)
    assert status == 200, answer
    opened = Opened(address, home, app, "", {}, "", "", stranger(both), "")
    names = {"an app's session token": TOKENS["an app's session token"]}
    all_works(opened, names)
    _status, asked = home.call("GET", "auth/webauthn/reauthenticate")
    credential = key.proved(asked["data"]["request_options"])
    assert home.call("POST", "auth/webauthn/reauthenticate", credential=credential)[0] == 200
    status, answer = home.call("POST", "account/password/change", new_password=NEW)
    assert status == 200, answer
    assert_dead_at_once(opened, "a password is set", names)
    assert [home.has_session(door) for door in DOORS] == [True, True]


def test_a26_n3_who_is_disabled_has_nothing_left_on_either_portal(both: Both) -> None:
    owner, opened = prepared(both, None)
    all_works(opened, TOKENS)
    # As an operator does it, in the database: no door is told.
    no = "false" if both.database_url else "0"
    both.run_statement(
        f"UPDATE accounts_user SET is_active = {no} WHERE email = '{owner.address}'"  # noqa: S608 - our own words
    )
    mine: dict[str, Callable[[Opened, int], bool]] = {
        "the own session": lambda _opened, door: owner.desk.is_in(door),
        "the own app": lambda _opened, door: owner.app.has_session(door),
    }
    assert_dead_at_once(opened, "the person is disabled", {**TOKENS, **mine})
    assert left_by_using(opened, LATER) == []
    app = stranger(both)
    app.call("POST", "auth/login", door=1, email=owner.address, password=PASSWORD)
    assert not app.has_session()
