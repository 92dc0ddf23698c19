"""What was typed is there again after one was asked who one is, and nowhere else."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.sync_api import expect
from tests.browser.conftest import DESK, PHONE, NewVisitor, Scheme, new_address
from tests.browser.test_from_sign_up_to_threat import PASSWORD, sign_up
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
