"""Signing up with a passkey, moving to another address and back, help when signing in fails."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect
from tests.browser.conftest import PHONE, SIZES, NewVisitor, Scheme, new_address
from tests.browser.test_from_sign_up_to_threat import PASSWORD, sign_up
from tests.browser.test_two_step import (
    computer_with_fingerprint,
    is_in,
    prove_and_do_again,
    sign_out,
    take_picture,
    type_password,
)

pytestmark = pytest.mark.browser


def mailed_path(server: Any, address: str, wanted: str) -> str:
    """Return the path of the newest link of this kind that was mailed to the address."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        links = [
            found for mail in server.mails(address) for found in re.findall(rf"{wanted}\S*", mail)
        ]
        if links:
            return str(links[-1])
        time.sleep(0.1)
    pytest.fail(f"no {wanted} was mailed to {address}: {server.mails(address)}")


@SIZES
def test_signing_up_with_a_passkey_and_adding_a_password_later(
    new_visitor: NewVisitor, server: Any, tmp_path: Path, size: tuple[int, int], scheme: Scheme
) -> None:
    alice = new_visitor(size, scheme)
    page = alice.page
    address = new_address("alice")
    computer_with_fingerprint(alice)
    alice.open("/signup/")
    page.get_by_role("link", name="Use a passkey instead of a password").click()
    alice.look_around("sign-up by passkey")
    take_picture(alice, tmp_path, "signup-passkey")
    page.get_by_label("Email address").fill(address)
    page.get_by_role("button", name="Go on").click()
    page.get_by_label("Code").fill(server.mailed_code(address))
    page.get_by_role("button", name="Confirm address").click()
    expect(page.get_by_role("heading", name="Make your passkey")).to_be_visible()
    alice.look_around("make the passkey")
    take_picture(alice, tmp_path, "make-passkey")
    page.get_by_label("What shall we call it?").fill("Alice’s laptop")
    page.get_by_role("button", name="Make the passkey").click()
    expect(page.get_by_role("heading", name="Your new codes")).to_be_visible()
    alice.look_around("recovery codes after signing up")
    take_picture(alice, tmp_path, "codes")
    page.get_by_role("link", name="I have them").click()
    expect(page.get_by_text("There is no password that somebody could learn.")).to_be_visible()
    alice.look_around("security without a password")
    take_picture(alice, tmp_path, "security-no-password")

    # In again by the passkey alone.
    sign_out(alice)
    page.get_by_role("button", name="Sign in with a passkey").click()
    is_in(alice)

    # A password later; what is asked first is the passkey.
    alice.open("/account/")
    page.get_by_role("link", name="Password You have none").click()
    expect(page.get_by_role("heading", name="Is it still you?")).to_be_visible()
    alice.look_around("asked again, by passkey")
    page.get_by_role("button", name="Use a passkey").click()
    expect(page.get_by_role("heading", name="Set a password")).to_be_visible()
    alice.look_around("set a password")
    page.get_by_label("New password", exact=True).fill(PASSWORD)
    page.get_by_label("New password once more").fill(PASSWORD)
    page.get_by_role("button", name="Set a password").click()
    sign_out(alice)
    type_password(alice, address)
    expect(page.get_by_role("heading", name="One more step")).to_be_visible()


@SIZES
def test_another_address_and_back(
    new_visitor: NewVisitor, server: Any, tmp_path: Path, size: tuple[int, int], scheme: Scheme
) -> None:
    alice = new_visitor(size, scheme)
    page = alice.page
    old, new = new_address("alice"), new_address("elsewhere")
    sign_up(alice, server, old)
    alice.open("/account/")
    page.get_by_role("link", name="Email address").click()
    alice.look_around("address")
    take_picture(alice, tmp_path, "address")

    def give() -> None:
        page.get_by_label("New address").fill(new)
        page.get_by_role("button", name="Send the code").click()

    give()
    prove_and_do_again(alice, give)
    expect(page.get_by_role("heading", name="Look in your mail")).to_be_visible()
    alice.look_around("code for the new address")
    page.get_by_label("Code").fill(server.mailed_code(new))
    page.get_by_role("button", name="Confirm address").click()
    # Led back to where it began.
    expect(page.get_by_text("The address before can take that back")).to_be_visible()
    alice.look_around("address changed")
    take_picture(alice, tmp_path, "address-changed")

    # Whoever reads the old mailbox takes it back.
    owner = new_visitor(size, scheme)
    path = mailed_path(server, old, "/email/undo/")
    owner.open(path)
    expect(owner.page.get_by_role("heading", name="Bring this address back?")).to_be_visible()
    owner.look_around("undo")
    take_picture(owner, tmp_path, "undo")
    owner.page.get_by_role("button", name="Bring it back").click()
    expect(owner.page.get_by_role("heading", name="Choose a new password")).to_be_visible()
    owner.look_around("new password after the undo")
    take_picture(owner, tmp_path, "undone")
    alice.open("/account/")
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    chosen = "seven foxes behind the old barn"
    owner.page.get_by_label("New password", exact=True).fill(chosen)
    owner.page.get_by_label("New password once more").fill(chosen)
    owner.page.get_by_role("button", name="Set new password").click()
    # Leaving at once could cancel what was just sent.
    expect(owner.page.get_by_role("heading", name="Your password is changed")).to_be_visible()
    owner.open("/login/")
    owner.page.get_by_label("Email address").fill(old)
    owner.page.get_by_label("Password", exact=True).fill(chosen)
    owner.page.get_by_role("button", name="Sign in", exact=True).click()
    is_in(owner)


@SIZES
def test_help_when_signing_in_fails(
    new_visitor: NewVisitor, server: Any, tmp_path: Path, size: tuple[int, int], scheme: Scheme
) -> None:
    alice = new_visitor(size, scheme)
    page = alice.page
    alice.open("/login/")
    page.get_by_role("link", name="Can’t sign in?").click()
    alice.look_around("help")
    take_picture(alice, tmp_path, "help")
    cases = page.locator("details.choice")
    assert cases.count() == 9
    for number in range(cases.count()):
        # Each case ends in a button that does what its steps say.
        assert cases.nth(number).locator("a.button, button.button").count() >= 1
    cases.nth(2).locator("summary").click()
    expect(page.get_by_role("button", name="Email me a link")).to_be_visible()
    alice.look_around("help, a case open")

    # The self-test.
    alice.open("/help/signing-in/")
    page.get_by_text("Pages look old or broken").click()
    page.get_by_role("link", name="Test this browser").click()
    expect(page.get_by_text("All well here.")).to_be_visible()
    expect(page.get_by_text("Kept and sent back.")).to_be_visible()
    expect(page.get_by_text("Answers. Devices can report")).to_be_visible()
    alice.look_around("self-test")
    take_picture(alice, tmp_path, "self-test")
    page.get_by_role("button", name="Clear this site’s data").click()
    expect(page.get_by_text("The site starts afresh in this browser.")).to_be_visible()

    # A person asked, without being signed in; a card number does not stay.
    alice.open("/help/ask/?about=code")
    alice.look_around("ask")
    take_picture(alice, tmp_path, "ask")
    expect(page.get_by_label("What is it about?")).to_have_value("code")
    page.get_by_label("Where shall we answer?").fill(new_address("reader"))
    page.get_by_label("What happened").fill("The code never came. Card 4242 4242 4242 4242.")
    page.get_by_role("button", name="Send the question").click()
    expect(page.get_by_text("Your question is number")).to_be_visible()
    alice.look_around("asked")
    take_picture(alice, tmp_path, "asked")


def test_a_wrong_clock_and_a_browser_without_cookies_are_told(
    new_visitor: NewVisitor, server: Any
) -> None:
    alice = new_visitor(PHONE)
    page = alice.page
    page.clock.install(time=time.time() - 3600)
    page.route(
        "**/help/self-test/answer/",
        lambda route: route.fulfill(json={"cookie": False, "now": int(time.time() * 1000)}),
    )
    alice.open("/help/self-test/")
    page.clock.run_for(2000)
    expect(page.get_by_text("Not sent back, and without them")).to_be_visible()
    expect(page.get_by_text("Wrong. Let the device set its time")).to_be_visible()
    expect(page.get_by_text("Something is in the way.")).to_be_visible()
    alice.look_around("self-test, trouble")


def test_a_second_click_while_the_answer_is_on_its_way_sends_nothing(
    new_visitor: NewVisitor, server: Any
) -> None:
    alice = new_visitor(PHONE, "light")
    page = alice.page
    address = new_address("alice")
    sign_up(alice, server, address)
    sign_out(alice)
    page.context.clear_cookies()
    alice.open("/login/")
    page.get_by_label("Email address").fill(address)
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    sent: list[str] = []
    page.on("request", lambda asked: sent.append(asked.url) if asked.method == "POST" else None)
    page.get_by_role("button", name="Sign in", exact=True).dblclick()
    is_in(alice)
    assert sent == [f"{alice.site}/login/"]
