"""The second step in a browser: an app, recovery codes, a passkey, a remembered browser."""

from __future__ import annotations

import base64
import hashlib
import hmac
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect
from tests.browser.conftest import PHONE, SIZES, NewVisitor, Scheme, Visitor, new_address
from tests.browser.test_from_sign_up_to_threat import PASSWORD, sign_up

pytestmark = pytest.mark.browser


def app_shows(seed: str, ahead: int = 0) -> str:
    """Return the code of an authenticator app (RFC 6238), written here once more."""
    step = int(time.time()) // 30 + ahead
    mac = hmac.new(base64.b32decode(seed), struct.pack(">Q", step), hashlib.sha1).digest()
    start = mac[-1] & 15
    return f"{(struct.unpack('>I', mac[start : start + 4])[0] & 0x7FFFFFFF) % 1_000_000:06}"


def computer_with_fingerprint(visitor: Visitor) -> Any:
    """Give the browser an authenticator of its own, with a finger always on it."""
    tools = visitor.page.context.new_cdp_session(visitor.page)
    tools.send("WebAuthn.enable")
    made = tools.send(
        "WebAuthn.addVirtualAuthenticator",
        {
            "options": {
                "protocol": "ctap2",
                "transport": "internal",
                "hasResidentKey": True,
                "hasUserVerification": True,
                "isUserVerified": True,
                "automaticPresenceSimulation": True,
            }
        },
    )
    return tools, made["authenticatorId"]


def prove_again(visitor: Visitor) -> None:
    """Type the password where it is asked again."""
    page = visitor.page
    expect(page.get_by_role("heading", name="Is it still you?")).to_be_visible()
    visitor.look_around("asked again")
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    page.get_by_role("button", name="It’s me").click()


def prove_and_do_again(visitor: Visitor, act: Callable[[], None]) -> None:
    """Type the password where it is asked again; then the form is there, and is sent once more."""
    prove_again(visitor)
    expect(visitor.page.get_by_text("Nothing was done yet: now do it again.")).to_be_visible()
    visitor.look_around("to be done again")
    act()


def sign_out(visitor: Visitor) -> None:
    visitor.open("/account/")
    visitor.page.get_by_role("button", name="Sign out").click()
    expect(visitor.page.get_by_role("heading", name="Sign in")).to_be_visible()


def type_password(visitor: Visitor, address: str) -> None:
    page = visitor.page
    visitor.open("/login/")
    page.get_by_label("Email address").fill(address)
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    page.get_by_role("button", name="Sign in", exact=True).click()


def is_in(visitor: Visitor) -> None:
    expect(visitor.page.get_by_role("link", name="Account of")).to_be_visible()


def take_picture(visitor: Visitor, where: Path, name: str) -> None:
    visitor.page.screenshot(path=where / f"{name}.png", full_page=True)


@SIZES
def test_an_app_recovery_codes_and_a_passkey(
    new_visitor: NewVisitor,
    server: Any,
    tmp_path: Path,
    size: tuple[int, int],
    scheme: Scheme,
) -> None:
    alice = new_visitor(size, scheme)
    page = alice.page
    address = new_address("alice")
    sign_up(alice, server, address)

    # An authenticator app.
    alice.open("/account/")
    page.get_by_role("link", name="Signing in and security").click()
    expect(page.get_by_text("Only your password is asked.")).to_be_visible()
    alice.look_around("security, nothing set up")
    take_picture(alice, tmp_path, "security-empty")
    page.get_by_role("link", name="Set up an authenticator app").click()
    prove_again(alice)
    expect(page.get_by_role("heading", name="Set up an authenticator app")).to_be_visible()
    alice.look_around("app")
    take_picture(alice, tmp_path, "app")
    seed = page.locator("#seed").text_content() or ""
    page.get_by_label("Code from the app").fill(app_shows(seed, -1))
    page.get_by_role("button", name="Turn it on").click()

    # Recovery codes, to keep.
    expect(page.get_by_role("heading", name="Your new codes")).to_be_visible()
    alice.look_around("recovery codes")
    take_picture(alice, tmp_path, "recovery")
    codes = page.locator("#recovery").inner_text().split()
    assert len(codes) == len(set(codes)) == 10
    with page.expect_download() as told:
        page.get_by_role("link", name="Download").click()
    kept = Path(told.value.path()).read_text().splitlines()
    assert kept[0].endswith(address)
    assert kept[1:11] == codes
    page.get_by_role("link", name="I have them").click()
    expect(page.get_by_text("10 of 10 left")).to_be_visible()
    alice.look_around("security, with an app")
    take_picture(alice, tmp_path, "security-app")

    # Signing in takes both; a wrong code does not do.
    sign_out(alice)
    type_password(alice, address)
    expect(page.get_by_role("heading", name="One more step")).to_be_visible()
    alice.look_around("second step")
    take_picture(alice, tmp_path, "second-step")
    alice.open("/account/")
    expect(page.get_by_role("heading", name="One more step")).to_be_visible()
    page.get_by_label("Code from the app").fill("000000")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_text("That did not work.")).to_be_visible()
    alice.look_around("wrong code")
    page.get_by_label("Code from the app").fill(app_shows(seed))
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="Remember this browser?")).to_be_visible()
    alice.look_around("remember")
    page.get_by_role("button", name="Remember it for 30 days").click()
    is_in(alice)

    # Remembered: the password is enough, until it is forgotten.
    sign_out(alice)
    type_password(alice, address)
    is_in(alice)
    alice.open("/account/security/")
    page.get_by_role("button", name="Forget Chrome").click()
    expect(page.get_by_text("None. After a second step")).to_be_visible()

    # A recovery code opens once.
    sign_out(alice)
    for attempt in range(2):
        type_password(alice, address)
        page.get_by_text("Recovery code", exact=True).click()
        page.get_by_label("One of your recovery codes").fill(codes[0].lower())
        page.get_by_role("button", name="Use it up").click()
        if attempt == 0:
            page.get_by_role("button", name="Ask me each time").click()
            is_in(alice)
            sign_out(alice)
    expect(page.get_by_text("That did not work.")).to_be_visible()
    page.get_by_label("One of your recovery codes").fill(codes[1])
    page.get_by_role("button", name="Use it up").click()
    page.get_by_role("button", name="Ask me each time").click()

    # A passkey: added, and then enough by itself.
    tools, finger = computer_with_fingerprint(alice)
    alice.open("/account/security/webauthn/add/")
    prove_again(alice)
    expect(page.get_by_role("heading", name="Add a passkey or security key")).to_be_visible()
    alice.look_around("passkey")
    take_picture(alice, tmp_path, "passkey")
    page.get_by_label("What shall we call it?").fill("Alice’s laptop")
    page.get_by_role("button", name="Add it").click()
    expect(page.get_by_text("Passkey: signs in without the password")).to_be_visible()
    alice.look_around("security, with all")
    take_picture(alice, tmp_path, "security-all")
    kept_by_it = tools.send("WebAuthn.getCredentials", {"authenticatorId": finger})["credentials"]
    assert [each["rpId"] for each in kept_by_it] == ["localhost"]
    sign_out(alice)
    take_picture(alice, tmp_path, "login")
    page.get_by_role("button", name="Sign in with a passkey").click()
    is_in(alice)

    # As a second step it is offered first, since it was used last.
    sign_out(alice)
    type_password(alice, address)
    page.get_by_role("button", name="Use a passkey").click()
    page.get_by_role("button", name="Ask me each time").click()
    is_in(alice)

    # A finger that is not recognized: told in words, and nothing else happens.
    sign_out(alice)
    tools.send("WebAuthn.setUserVerified", {"authenticatorId": finger, "isUserVerified": False})
    page.get_by_role("button", name="Sign in with a passkey").click()
    expect(page.get_by_text("The passkey was not used.")).to_be_visible()
    tools.send("WebAuthn.setUserVerified", {"authenticatorId": finger, "isUserVerified": True})

    # Taking it away again.
    page.get_by_role("button", name="Sign in with a passkey").click()
    is_in(alice)
    alice.open("/account/security/")
    page.get_by_role("link", name="Remove Alice’s laptop").click()
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    page.get_by_role("button", name="It’s me").click()
    alice.look_around("remove a passkey")
    page.get_by_role("button", name="Remove it").click()
    expect(page.get_by_text("Passkey: signs in without the password")).to_be_hidden()
    # The mail goes out by the worker, a moment after the page has answered.
    deadline = time.monotonic() + 15
    while True:
        subjects = " | ".join(mail.splitlines()[0] for mail in server.mails(address))
        if "A passkey was removed" in subjects or time.monotonic() > deadline:
            break
        page.wait_for_timeout(100)
    for told_by_mail in (
        "Your authenticator app was added",
        "A recovery code was used",
        "A passkey was added",
        "A passkey was removed",
    ):
        assert told_by_mail in subjects, subjects


def test_a_lost_session_is_ended_from_the_list(new_visitor: NewVisitor, server: Any) -> None:
    alice = new_visitor()
    address = new_address("alice")
    sign_up(alice, server, address)
    cafe = new_visitor(PHONE)
    type_password(cafe, address)
    is_in(cafe)
    cafe.open("/devices/")
    page = alice.page
    alice.open("/account/sessions/")
    expect(page.get_by_text("In 2 places.")).to_be_visible()
    alice.look_around("sessions")
    other = page.get_by_role("button", name="Sign out Chrome")
    other.click()
    prove_and_do_again(alice, other.click)
    expect(page.get_by_text("In one place.")).to_be_visible()
    # The page that is open there shows nothing of hers any more, without being asked to.
    expect(cafe.page.get_by_role("heading", name="Sign in")).to_be_visible(timeout=15_000)
    expect(cafe.page.get_by_role("link", name="Devices")).to_have_count(0)
    cafe.look_around("signed out from elsewhere")
    cafe.open("/account/")
    expect(cafe.page.get_by_role("heading", name="Sign in")).to_be_visible()
    is_in(alice)
