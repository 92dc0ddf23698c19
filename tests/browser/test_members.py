"""Two people and one account, in two browsers: invited, joined, another role, handed over, left."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect
from tests.browser.conftest import SIZES, NewVisitor, Scheme, Visitor, new_address
from tests.browser.test_from_sign_up_to_threat import PASSWORD, sign_up
from tests.browser.test_two_step import prove_and_do_again, sign_out, take_picture

pytestmark = pytest.mark.browser


def mailed_link(server: Any, address: str, seconds: float = 15) -> str:
    """Return the path of the newest invitation mailed to this address."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for text in reversed(server.mails(address)):
            found = re.search(r"http://localhost:\d+(/invitation/[A-Za-z0-9_-]+/)", text)
            if found:
                return found[1]
        time.sleep(0.05)
    pytest.fail(f"no invitation was mailed to {address}; mails: {server.mails(address)}")


def expected(visitor: Visitor, status: str) -> None:
    """Forget that the browser wrote this answer's status into its console: it was meant."""
    visitor.problems[:] = [each for each in visitor.problems if f"status of {status}" not in each]


def invite(visitor: Visitor, address: str, role: str) -> None:
    page = visitor.page
    visitor.open("/account/")
    page.get_by_role("link", name="Members").click()
    page.get_by_role("link", name="Invite somebody").click()
    visitor.look_around("invite")
    page.get_by_label("Their email address").fill(address)
    page.get_by_label(role, exact=True).check()
    page.get_by_role("button", name="Send the invitation").click()
    expect(page.get_by_text("is on its way")).to_be_visible()


@SIZES
def test_invited_joined_promoted_and_gone(
    new_visitor: NewVisitor,
    server: Any,
    tmp_path: Path,
    size: tuple[int, int],
    scheme: Scheme,
) -> None:
    alice, dora = new_visitor(size, scheme), new_visitor(size, scheme)
    hers, new = alice.page, dora.page
    her_address, new_one = new_address("alice"), new_address("dora")
    sign_up(alice, server, her_address)

    # Alone, then somebody is invited.
    alice.open("/account/members/")
    expect(hers.get_by_text("Only you look after this account.")).to_be_visible()
    alice.look_around("members, alone")
    take_picture(alice, tmp_path, "members-alone")
    alice.open("/account/members/invite/")
    take_picture(alice, tmp_path, "invite")
    invite(alice, new_one, "Viewer")
    alice.look_around("members, one invited")
    take_picture(alice, tmp_path, "members-invited")

    # Dora, who was never here, joins by the link.
    link = mailed_link(server, new_one)
    dora.open(link)
    expect(new.get_by_role("heading", name="You are invited")).to_be_visible()
    dora.look_around("the link")
    take_picture(dora, tmp_path, "link")
    new.get_by_role("button", name="Go on").click()
    expect(new.get_by_role("heading", name="Join")).to_be_visible()
    assert link not in new.url
    dora.look_around("join")
    take_picture(dora, tmp_path, "join")
    new.get_by_label("What should we call you?").fill("Dora")
    new.get_by_label("Choose a password").fill("short")
    new.get_by_role("button", name="Join").click()
    expect(new.locator(".field-error")).to_be_visible()
    dora.look_around("join, weak password")
    expected(dora, "422")
    new.get_by_label("Choose a password").fill(PASSWORD)
    new.get_by_label("Also what was found").check()
    new.get_by_role("button", name="Join").click()
    expect(new.get_by_role("link", name="Account of")).to_be_visible()
    dora.look_around("home of a viewer")
    take_picture(dora, tmp_path, "viewer-home")
    expect(new.get_by_role("link", name="Add a device")).to_have_count(0)

    # The link is used up.
    late = new_visitor(size, scheme)
    late.page.goto(f"{late.site}{link}")
    expect(late.page.get_by_role("heading", name="This invitation has ended")).to_be_visible()
    late.look_around("ended")
    expected(late, "410")

    # Another role holds at Dora's next step.
    alice.open("/account/members/")
    hers.get_by_role("link", name="Dora").click()
    alice.look_around("a member")
    take_picture(alice, tmp_path, "member")
    hers.get_by_label("Helper", exact=True).check()
    hers.get_by_role("button", name="Change role").click()
    expect(hers.get_by_text("Dora: Helper, from now on.")).to_be_visible()
    take_picture(alice, tmp_path, "members")
    dora.open("/devices/")
    new.get_by_role("link", name="Add a device").first.click()
    expect(new.get_by_label("Whose device is it?")).to_be_visible()
    dora.look_around("add a device, whose")
    take_picture(dora, tmp_path, "whose")
    dora.open("/account/members/")
    dora.look_around("members, as a helper")
    take_picture(dora, tmp_path, "members-helper")

    # Handing over takes both.
    alice.open("/account/members/")
    hers.get_by_role("link", name="Dora").click()
    hers.get_by_role("link", name="Hand over to this member").click()
    alice.look_around("hand over")
    take_picture(alice, tmp_path, "hand-over")
    hers.get_by_label("Viewer", exact=True).check()
    hers.get_by_role("button", name="Offer the account").click()

    def offer() -> None:
        hers.get_by_label("Viewer", exact=True).check()
        hers.get_by_role("button", name="Offer the account").click()

    prove_and_do_again(alice, offer)
    expect(hers.get_by_role("heading", name="You offered this account")).to_be_visible()
    alice.look_around("offered")
    dora.open("/account/members/")
    expect(new.get_by_role("heading", name="This account is offered to you")).to_be_visible()
    dora.look_around("an offer")
    take_picture(dora, tmp_path, "offer")
    become = new.get_by_role("button", name="Become the owner")
    become.click()
    prove_and_do_again(dora, become.click)
    expect(new.get_by_text("The account is yours now.")).to_be_visible()

    # Alice leaves, and begins anew.
    alice.open("/account/members/")
    expect(hers.get_by_role("link", name="Invite somebody")).to_have_count(0)
    hers.get_by_role("link", name="Leave this account").click()
    alice.look_around("leave")
    take_picture(alice, tmp_path, "leave")
    hers.get_by_role("button", name="Leave this account").click()
    expect(hers.get_by_text("You belong to none.")).to_be_visible()
    alice.look_around("no account")
    take_picture(alice, tmp_path, "accounts-none")
    hers.get_by_role("button", name="Start an account of your own").click()
    expect(hers.get_by_role("heading", name="Let’s protect your first device")).to_be_visible()

    # Dora invites Alice back: she signs in with what she has, and belongs to two accounts.
    invite(dora, her_address, "Helper")
    sign_out(alice)
    alice.open(mailed_link(server, her_address))
    hers.get_by_role("button", name="Go on").click()
    alice.look_around("sign in to answer")
    take_picture(alice, tmp_path, "sign-in-to-answer")
    hers.get_by_role("link", name="Sign in").click()
    hers.get_by_label("Email address").fill(her_address)
    hers.get_by_label("Password", exact=True).fill(PASSWORD)
    hers.get_by_role("button", name="Sign in", exact=True).click()
    expect(hers.get_by_role("heading", name="Join?")).to_be_visible()
    alice.look_around("join?")
    take_picture(alice, tmp_path, "join-signed-in")
    hers.get_by_role("button", name="Join", exact=True).click()
    expect(hers.get_by_text("You look at the account of")).to_be_visible()
    alice.look_around("home, one of two accounts")
    take_picture(alice, tmp_path, "two-accounts")
    hers.get_by_role("link", name="Switch").click()
    alice.look_around("accounts")
    take_picture(alice, tmp_path, "accounts")
    hers.get_by_role("button", name="Look at it").click()
    expect(hers.get_by_role("heading", name="Let’s protect your first device")).to_be_visible()

    # Removing asks again only when the proof has grown old; here it is fresh.
    dora.open("/account/members/")
    new.locator("a.line", has_text=her_address).click()
    new.get_by_role("link", name="Remove from this account").click()
    dora.look_around("remove")
    take_picture(dora, tmp_path, "remove")
    new.get_by_role("button", name="Remove member").click()
    expect(new.get_by_text("no longer belongs to this account.")).to_be_visible()
    dora.open("/account/activity/?kind=members")
    expect(new.get_by_text("A member was removed")).to_be_visible()
    dora.look_around("activity of members")
    take_picture(dora, tmp_path, "activity")
