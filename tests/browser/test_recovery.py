"""In a browser: a lost second step is waited out, stopped, and a sign-in is approved elsewhere.

Nobody waits three days here: the times of the recovery are moved back in the database.
"""

from __future__ import annotations

import re
import sqlite3
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect
from tests.browser.conftest import DESK, SIZES, NewVisitor, Scheme, Visitor, new_address
from tests.browser.test_from_sign_up_to_threat import sign_up
from tests.browser.test_two_step import (
    app_shows,
    is_in,
    prove_again,
    sign_out,
    take_picture,
    type_password,
)

pytestmark = pytest.mark.browser


def set_up_app(visitor: Visitor) -> str:
    """Set up an authenticator app; returns its seed."""
    page = visitor.page
    visitor.open("/account/security/totp/activate/")
    prove_again(visitor)
    seed = page.locator("#seed").text_content() or ""
    page.get_by_label("Code from the app").fill(app_shows(seed, -1))
    page.get_by_role("button", name="Turn it on").click()
    expect(page.get_by_role("heading", name="Your new codes")).to_be_visible()
    return seed


def days_pass(server: Any, address: str, length: timedelta) -> None:
    """Move this person's recovery back in time by so much."""
    with closing(sqlite3.connect(server.data / "doorward.sqlite3", timeout=20)) as database:
        found = database.execute(
            "SELECT r.id, r.asked_at, r.starts_at, r.ready_at, r.ends_at, r.due_at"
            " FROM accounts_recovery r JOIN accounts_user u ON u.id = r.user_id"
            " WHERE u.email = ? AND r.ended_at IS NULL",
            [address],
        ).fetchone()
        moved = [_earlier(moment, length) for moment in found[1:]]
        database.execute(
            "UPDATE accounts_recovery SET asked_at = ?, starts_at = ?, ready_at = ?, ends_at = ?,"
            " due_at = ? WHERE id = ?",
            [*moved, found[0]],
        )
        database.commit()


def _earlier(moment: str, length: timedelta) -> str:
    known = datetime.fromisoformat(moment).replace(tzinfo=UTC) - length
    return known.strftime("%Y-%m-%d %H:%M:%S.%f")


def link_in_mail(server: Any, address: str, subject: str, *, seconds: float = 60) -> str:
    """Return the path of the link in the newest mail of this subject, waiting for it to arrive."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for text in reversed(server.mails(address)):
            found = re.search(r"http://localhost:\d+(/login/recovery/\S+)", text)
            if text.splitlines()[0] == subject and found:
                return found[1]
        time.sleep(0.1)
    pytest.fail(f"no {subject!r} in {[text.splitlines()[0] for text in server.mails(address)]}")


@SIZES
def test_a_lost_second_step_is_waited_out(
    new_visitor: NewVisitor,
    server: Any,
    tmp_path: Path,
    size: tuple[int, int],
    scheme: Scheme,
) -> None:
    home = new_visitor(size, scheme)
    address = new_address("alice")
    sign_up(home, server, address)
    set_up_app(home)
    home.open("/devices/")

    # Elsewhere: the password is right, the phone with the app is gone.
    alice = new_visitor(size, scheme)
    page = alice.page
    type_password(alice, address)
    alice.look_around("second step with approval")
    take_picture(alice, tmp_path, "second-step")
    page.get_by_role("link", name="None of these works?").click()
    expect(page.get_by_role("heading", name="Without your second step")).to_be_visible()
    alice.look_around("ways left")
    take_picture(alice, tmp_path, "ways")
    page.get_by_role("button", name="Begin the wait").click()
    expect(page.get_by_text("You are waiting until")).to_be_visible()
    alice.look_around("waiting")
    take_picture(alice, tmp_path, "waiting")

    # At home, on the page that is open anyway, without a click; there it is stopped.
    told = home.page.get_by_text("Someone asks to get in without your second step")
    expect(told).to_be_visible(timeout=5_000)
    home.look_around("told on a page")
    take_picture(home, tmp_path, "told")
    home.page.get_by_role("button", name="Stop it").click()
    expect(home.page.get_by_text("Stopped. If it wasn’t you")).to_be_visible()
    expect(told).to_be_hidden()
    stop = link_in_mail(server, address, "Someone asks to get in without your second step")
    mailbox = new_visitor(size, scheme)

    # Begun anew; this time it is stopped from the mail.
    page.reload()
    page.get_by_role("button", name="Begin the wait").click()
    expect(page.get_by_text("You are waiting until")).to_be_visible()
    stop = newest_other(server, address, stop)
    mailbox.open(stop)
    expect(mailbox.page.get_by_role("heading", name="Stop it?")).to_be_visible()
    mailbox.look_around("stop by mail")
    take_picture(mailbox, tmp_path, "stop")
    mailbox.page.get_by_role("button", name="Stop it").click()
    expect(mailbox.page.get_by_role("heading", name="Stopped")).to_be_visible()
    mailbox.look_around("stopped")
    take_picture(mailbox, tmp_path, "stopped")

    # And once more; nobody says no, and three days pass.
    page.reload()
    page.get_by_role("button", name="Begin the wait").click()
    expect(page.get_by_text("You are waiting until")).to_be_visible()
    days_pass(server, address, timedelta(hours=71, minutes=59))
    page.reload()
    expect(page.get_by_text("You are waiting until")).to_be_visible()
    days_pass(server, address, timedelta(minutes=2))
    page.reload()
    expect(page.get_by_text("The wait is over.")).to_be_visible()
    alice.look_around("the wait is over")
    take_picture(alice, tmp_path, "over")
    way_in = link_in_mail(server, address, "You can set a new second step now")
    mailbox.open(way_in)
    expect(mailbox.page.get_by_role("heading", name="Set a new second step")).to_be_visible()
    mailbox.look_around("way in")
    take_picture(mailbox, tmp_path, "way-in")
    mailbox.page.get_by_role("button", name="Go on to my password").click()
    type_password(mailbox, address)
    expect(mailbox.page.get_by_role("button", name="Remove it and let me in")).to_be_visible()
    mailbox.look_around("enter")
    take_picture(mailbox, tmp_path, "enter")
    mailbox.page.get_by_role("button", name="Remove it and let me in").click()
    expect(mailbox.page.get_by_text("Only your password is asked.")).to_be_visible()
    mailbox.look_around("in")
    take_picture(mailbox, tmp_path, "in")
    # Every page says what is missing, until it is set or put off for this session.
    mailbox.open("/devices/")
    gone = mailbox.page.get_by_text("Your second step is gone")
    expect(gone).to_be_visible()
    mailbox.look_around("second step gone")
    take_picture(mailbox, tmp_path, "gone")
    mailbox.page.get_by_role("button", name="Later").click()
    expect(gone).to_be_hidden()
    mailbox.open("/account/security/")
    mailbox.page.get_by_role("link", name="Set up an authenticator app").click()
    prove_again(mailbox)
    heading = mailbox.page.get_by_role("heading", name="Set up an authenticator app")
    expect(heading).to_be_visible()

    # The session at home has ended.
    home.open("/account/")
    expect(home.page.get_by_role("heading", name="Sign in")).to_be_visible()


def newest_other(server: Any, address: str, before: str) -> str:
    """Return the newest mailed link that stops, other than this one."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        subject = "Someone asks to get in without your second step"
        found = link_in_mail(server, address, subject)
        if found != before:
            return found
        time.sleep(0.1)
    pytest.fail("no newer mail")


@SIZES
def test_a_sign_in_is_approved_in_another_browser(
    new_visitor: NewVisitor,
    server: Any,
    tmp_path: Path,
    size: tuple[int, int],
    scheme: Scheme,
) -> None:
    phone = new_visitor(size, scheme)
    address = new_address("alice")
    sign_up(phone, server, address)
    seed = set_up_app(phone)
    sign_out(phone)
    type_password(phone, address)
    phone.page.get_by_label("Code from the app").fill(app_shows(seed))
    phone.page.get_by_role("button", name="Sign in").click()
    phone.page.get_by_role("button", name="Ask me each time").click()
    is_in(phone)
    phone.open("/reports/")

    laptop = new_visitor(DESK, scheme)
    page = laptop.page
    type_password(laptop, address)
    page.get_by_text("Approve it where you are signed in").click()
    page.get_by_role("button", name="Ask there").click()
    expect(page.get_by_role("heading", name="Look at your other browser")).to_be_visible()
    laptop.look_around("number")
    take_picture(laptop, tmp_path, "number")

    # The page that is open anyway asks, at once; refused there, it is said here.
    phone.page.get_by_role("link", name="Answer").click(timeout=5_000)
    expect(phone.page.get_by_role("heading", name="Is this you, signing in?")).to_be_visible()
    phone.look_around("answer")
    take_picture(phone, tmp_path, "answer")
    phone.page.get_by_role("button", name="It isn’t me").click()
    expect(phone.page.get_by_text("They know your password")).to_be_visible()
    expect(page.get_by_text("It was refused over there.")).to_be_visible(timeout=5_000)
    laptop.look_around("refused")
    take_picture(laptop, tmp_path, "refused")

    # Asked once more, by the keyboard alone; the right number lets it in by itself.
    page.get_by_role("button", name="Ask once more").focus()
    page.keyboard.press("Enter")
    number = page.locator(".number-to-match")
    expect(number).to_be_visible()
    digits = (number.text_content() or "")[-2:]
    link = phone.page.get_by_role("link", name="Answer")
    expect(link).to_be_visible(timeout=5_000)
    phone.look_around("asked on a page")
    take_picture(phone, tmp_path, "asked")
    link.focus()
    phone.page.keyboard.press("Enter")
    field = phone.page.get_by_label("The number that the other browser shows")
    field.focus()
    phone.page.keyboard.type(digits)
    phone.page.keyboard.press("Enter")
    expect(phone.page.get_by_text("Let in.")).to_be_visible()
    expect(page.get_by_role("heading", name="Remember this browser?")).to_be_visible(timeout=6_000)
    page.get_by_role("button", name="Ask me each time").click()
    is_in(laptop)

    # Next time it is the way offered first.
    sign_out(laptop)
    type_password(laptop, address)
    expect(page.get_by_role("button", name="Ask there")).to_be_visible()
