"""A forgotten password, a code by mail, a lock and the link that opens it, two accounts left."""

from __future__ import annotations

import sqlite3
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect
from tests.browser.conftest import DESK, PHONE, NewVisitor, new_address
from tests.browser.test_from_sign_up_to_threat import sign_up
from tests.browser.test_signing_in_flows import mailed_path
from tests.browser.test_two_step import (
    is_in,
    prove_again,
    prove_and_do_again,
    sign_out,
    take_picture,
    type_password,
)

pytestmark = pytest.mark.browser

CHOSEN = "seven foxes behind the old barn"


def test_a_forgotten_password_and_a_code_by_mail(
    new_visitor: NewVisitor, server: Any, tmp_path: Path
) -> None:
    alice = new_visitor(PHONE, "dark")
    page = alice.page
    address = new_address("alice")
    sign_up(alice, server, address)
    alice.open("/account/security/")
    turn_on = page.get_by_role("button", name="Turn on")
    turn_on.click()
    expect(page.get_by_role("heading", name="Is it still you?")).to_be_visible()
    assert page.evaluate("document.activeElement.name") == "password"
    take_picture(alice, tmp_path, "asked-again")
    prove_and_do_again(alice, turn_on.click)
    expect(page.get_by_text("From now on we mail you a code")).to_be_visible()
    sign_out(alice)

    # Forgotten: the mailed link, a wrong repetition, then a new one.
    page.get_by_role("link", name="Forgot your password?").click()
    expect(page.get_by_role("heading", name="Forgot your password?")).to_be_visible()
    alice.look_around("forgot")
    page.get_by_label("Email address").fill(address)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Look in your mail")).to_be_visible()
    alice.look_around("reset mailed")
    alice.open(mailed_path(server, address, "/password/reset/key/"))
    expect(page.get_by_role("heading", name="Choose a new password")).to_be_visible()
    page.get_by_label("New password", exact=True).fill(CHOSEN)
    page.get_by_label("New password once more").fill("another one altogether")
    page.get_by_role("button", name="Set new password").click()
    expect(page.get_by_text("The two are not the same.")).to_be_visible()
    alice.look_around("not the same")
    take_picture(alice, tmp_path, "not-the-same")
    page.get_by_label("New password", exact=True).fill(CHOSEN)
    page.get_by_label("New password once more").fill(CHOSEN)
    page.get_by_role("button", name="Set new password").click()
    expect(page.get_by_role("heading", name="Your password is changed")).to_be_visible()
    alice.look_around("reset done")

    # It signed nobody in, and the second step is asked: the code in the newest mail.
    alice.open("/login/")
    page.get_by_label("Email address").fill(address)
    page.get_by_label("Password", exact=True).fill(CHOSEN)
    page.get_by_role("button", name="Sign in", exact=True).click()
    expect(page.get_by_role("heading", name="Look in your mail")).to_be_visible()
    expect(page.get_by_role("link", name="No code comes")).to_be_visible()
    alice.look_around("code by mail")
    take_picture(alice, tmp_path, "code-by-mail")
    page.get_by_label("Code").fill(code_to_sign_in(page, server, address))
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("button", name="Ask me each time").click()
    is_in(alice)


def code_to_sign_in(page: Any, server: Any, address: str) -> str:
    """Return the code of the mail about signing in, waiting for it."""
    for _try in range(200):
        for text in reversed(server.mails(address)):
            if text.startswith("Your code to sign in"):
                lines = [line.strip() for line in str(text).splitlines()[1:]]
                return next(line for line in lines if 6 <= len(line) <= 9)
        page.wait_for_timeout(100)
    raise AssertionError(server.mails(address))


@pytest.mark.slow
def test_a_lock_and_the_mailed_link_that_lets_one_browser_in(
    new_visitor: NewVisitor, server: Any, tmp_path: Path
) -> None:
    alice = new_visitor()
    address = new_address("alice")
    sign_up(alice, server, address)
    stranger = new_visitor(PHONE)
    page = stranger.page
    for _guess in range(5):
        stranger.open("/login/")
        page.get_by_label("Email address").fill(address)
        page.get_by_label("Password", exact=True).fill("a wrong guess, tried again")
        page.get_by_role("button", name="Sign in", exact=True).click()
        expect(page.get_by_role("alert")).to_be_visible()
        page.wait_for_timeout(1_100)
    type_password(stranger, address)
    expect(page.get_by_text("Too many tries for this address from new browsers.")).to_be_visible()
    stranger.look_around("locked")
    take_picture(stranger, tmp_path, "locked")
    # The owner's own browser is not touched by it.
    sign_out(alice)
    type_password(alice, address)
    is_in(alice)
    # A new one of hers asks for the link.
    page.get_by_role("button", name="Email me a link").click()
    expect(page.get_by_role("heading", name="Look in your mail")).to_be_visible()
    stranger.look_around("link mailed")
    stranger.open(mailed_path(server, address, "/login/link/"))
    expect(page.get_by_role("heading", name="Let this browser in?")).to_be_visible()
    stranger.look_around("let in?")
    take_picture(stranger, tmp_path, "let-in")
    page.get_by_role("button", name="Let this browser in").click()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    type_password(stranger, address)
    is_in(stranger)


def test_whoever_owns_two_accounts_sees_both_before_leaving(
    new_visitor: NewVisitor, server: Any, tmp_path: Path
) -> None:
    alice = new_visitor(DESK, "light")
    page = alice.page
    address = new_address("alice")
    sign_up(alice, server, address)
    with sqlite3.connect(server.data / "doorward.sqlite3", timeout=20) as database:
        (person,) = database.execute(
            "SELECT id FROM accounts_user WHERE email = ?", [address]
        ).fetchone()
        account, now = uuid.uuid4().hex, datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
        database.execute(
            "INSERT INTO accounts_account (id, name, created_at) VALUES (?, 'The bakery', ?)",
            [account, now],
        )
        database.execute(
            "INSERT INTO accounts_membership (account_id, user_id, role, shares, created_at)"
            " VALUES (?, ?, 'owner', 'state', ?)",
            [account, person, now],
        )
    alice.open("/account/privacy/delete/")
    prove_again(alice)
    expect(page.get_by_text("The 2 accounts you alone own:")).to_be_visible()
    expect(page.get_by_text("The bakery")).to_be_visible()
    alice.look_around("two accounts to go")
    take_picture(alice, tmp_path, "two-accounts")
    page.set_viewport_size({"width": PHONE[0], "height": PHONE[1]})
    page.emulate_media(color_scheme="dark")
    alice.look_around("two accounts to go, on a phone")
    take_picture(alice, tmp_path, "two-accounts-phone")


def test_going_back_to_what_answered_a_form_shows_the_form_and_no_lost_connection(
    new_visitor: NewVisitor,
) -> None:
    stranger = new_visitor(PHONE, "light")
    page = stranger.page
    stranger.open("/login/")
    page.evaluate("navigator.serviceWorker.ready.then(() => true)")
    stranger.open("/login/")
    assert page.evaluate("navigator.serviceWorker.controller !== null")
    page.get_by_label("Email address").fill(new_address("nobody"))
    page.get_by_label("Password", exact=True).fill("a wrong one")
    page.get_by_role("button", name="Sign in", exact=True).click()
    expect(page.get_by_role("alert")).to_be_visible()
    page.get_by_role("link", name="Can’t sign in?").click()
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    page.go_back()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    expect(page.get_by_text("No connection")).to_have_count(0)
