"""The meter beside a new password: it says what the rules will say, before anything is sent."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import expect
from tests.browser.conftest import SIZES, NewVisitor, Scheme
from tests.browser.test_two_step import take_picture

pytestmark = pytest.mark.browser


@SIZES
def test_v6_2_6_a_password_is_judged_while_it_is_typed(
    new_visitor: NewVisitor,
    tmp_path: Path,
    size: tuple[int, int],
    scheme: Scheme,
) -> None:
    alice = new_visitor(size, scheme)
    page = alice.page
    alice.open("/signup/")
    page.get_by_label("Email").fill("liddell@example.org")
    field = page.get_by_label("Password", exact=True)
    field.fill("passwordpassword")
    expect(page.get_by_text("lists guessers begin with")).to_be_visible()
    alice.look_around("a weak password")
    take_picture(alice, tmp_path, "meter-weak")
    page.get_by_role("button", name="Show what I type").click()
    expect(field).to_have_attribute("type", "text")
    field.fill("seven liddell sisters row")
    expect(page.get_by_text("This contains “liddell”")).to_be_visible()
    field.fill("the lamp over the harbor door")
    expect(page.get_by_text("Strong", exact=True)).to_be_visible()
    alice.look_around("a strong password")
    take_picture(alice, tmp_path, "meter-strong")
    field.fill("")
    expect(page.get_by_text("Strong", exact=True)).to_be_hidden()
