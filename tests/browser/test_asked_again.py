"""What was typed is there again after one was asked who one is, and nowhere else."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.sync_api import expect
from tests.browser.conftest import DESK, PHONE, NewVisitor, Scheme, new_address
from tests.browser.test_from_sign_up_to_threat import PASSWORD, sign_up
from tests.browser.test_members import expected
from tests.browser.test_two_step import prove_again

pytestmark = pytest.mark.browser

KEPT = "sessionStorage.getItem('typed')"


@pytest.mark.parametrize(
    ("size", "scheme"), [(PHONE, "dark"), (DESK, "light")], ids=["phone-dark", "desk-light"]
)
def test_what_was_typed_before_the_proof_need_not_be_typed_again(
    new_visitor: NewVisitor, server: Any, size: tuple[int, int], scheme: Scheme
) -> None:
    alice = new_visitor(size, scheme)
    sign_up(alice, server, new_address("alice"))
    page = alice.page
    alice.open("/account/tokens/")
    page.get_by_label("What is it for?").fill("Backup at night")
    page.get_by_label("See the devices").uncheck()
    page.get_by_label("See scans and threats").check()
    page.get_by_label("How long should it work?").select_option("90")
    page.get_by_role("button", name="Make token").click()

    # A wrong password on the way takes nothing from it, and is said where one types next.
    page.get_by_label("Password", exact=True).fill("not my password at all")
    page.get_by_role("button", name="It’s me").click()
    wrong = page.get_by_label("Password", exact=True)
    expect(wrong).to_be_focused()
    expect(wrong).to_have_accessible_description(re.compile("That is not your password"))
    assert PASSWORD not in str(page.evaluate(KEPT))
    prove_again(alice)

    expect(page.get_by_label("What is it for?")).to_have_value("Backup at night")
    expect(page.get_by_label("What is it for?")).to_be_focused()
    expect(page.get_by_label("See the devices")).not_to_be_checked()
    expect(page.get_by_label("See scans and threats")).to_be_checked()
    expect(page.get_by_label("How long should it work?")).to_have_value("90")
    alice.look_around("typed again")
    assert page.evaluate(KEPT) is None
    page.get_by_role("button", name="Make token").click()
    expect(page.get_by_role("button", name="Revoke Backup at night")).to_be_visible()
    expect(page.get_by_label("What is it for?")).to_have_value("")


def test_what_alice_typed_is_not_typed_for_who_signs_in_after_her(
    new_visitor: NewVisitor, server: Any
) -> None:
    alice = new_visitor()
    sign_up(alice, server, new_address("alice"))
    asked = alice.page
    alice.open("/account/tokens/")
    asked.get_by_label("What is it for?").fill("Backup at night")
    asked.get_by_role("button", name="Make token").click()
    expect(asked.get_by_role("heading", name="Is it still you?")).to_be_visible()

    # In another tab, while the question waits in this one. The session ends unseen: signing out
    # would have the browser forget what it keeps.
    asked.context.clear_cookies()
    alice.page = asked.context.new_page()
    sign_up(alice, server, new_address("charlie"))
    asked.goto(f"{alice.site}/account/tokens/")
    expect(asked.get_by_role("heading", name="Access for programs")).to_be_visible()
    expect(asked.get_by_label("What is it for?")).to_have_value("")
    assert asked.evaluate(KEPT) is None


def test_what_was_typed_is_forgotten_by_who_goes_elsewhere(
    new_visitor: NewVisitor, server: Any
) -> None:
    alice = new_visitor()
    sign_up(alice, server, new_address("alice"))
    page = alice.page
    alice.open("/account/tokens/")
    page.get_by_label("What is it for?").fill("Backup at night")
    page.get_by_role("button", name="Make token").click()
    page.get_by_role("link", name="Not now").click()
    expect(page.get_by_role("heading", name="Is it still you?")).to_be_hidden()
    assert page.evaluate(KEPT) is None
    alice.open("/account/tokens/")
    expect(page.get_by_label("What is it for?")).to_have_value("")


def test_a_form_that_came_back_wrong_begins_where_it_is_wrong(
    new_visitor: NewVisitor, server: Any
) -> None:
    alice = new_visitor(PHONE, "dark")
    address = new_address("alice")
    page = alice.page
    alice.open("/signup/")
    page.get_by_label("Email").fill(address)
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    page.get_by_role("button", name="Create account").click()
    page.get_by_label("Code").fill("000000")
    page.get_by_role("button", name="Confirm address").click()
    # A code that was wrong is gone: typed on the keyboard, the right one stands alone.
    expect(page.get_by_label("Code")).to_be_focused()
    page.keyboard.type(server.mailed_code(address))
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Let’s protect your first device")).to_be_visible()

    alice.open("/account/tokens/")
    page.get_by_label("What is it for?").fill("Backup at night")
    page.get_by_role("button", name="Make token").click()
    prove_again(alice)
    page.get_by_label("See the devices").uncheck()
    page.get_by_role("button", name="Make token").click()
    expect(page.get_by_text("Choose at least one.")).to_be_in_viewport()
    expect(page.get_by_label("See the devices")).to_be_focused()
    alice.look_around("nothing chosen")
    expected(alice, "422")
