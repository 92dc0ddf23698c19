"""Codes by text message in a browser: a number given, a sign-in by it, the number forgotten."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect
from tests.browser.conftest import SIZES, NewVisitor, Scheme, new_address
from tests.browser.test_from_sign_up_to_threat import sign_up
from tests.browser.test_members import expected
from tests.browser.test_recovery import set_up_app
from tests.browser.test_two_step import (
    is_in,
    prove_again,
    sign_out,
    take_picture,
    type_password,
)
from tests.conftest import Server, new_installed

NUMBER = "+4915123456789"

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, installed: Path) -> Iterator[Server]:
    """A real server whose operator has switched text messages on."""
    running = new_installed(installed, tmp_path_factory.mktemp("texting"), DOORWARD_SMS_URL="file:")
    running.start()
    yield running
    running.stop()


def texted_code(server: Server, count: int) -> str:
    """Return the code of the message of this number, counted from 1, waiting for it."""
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        texts = sorted((server.data / "sms").glob("*.txt"))
        if len(texts) >= count:
            number, words = texts[count - 1].read_text().splitlines()
            assert number == NUMBER
            return words.split()[0]
        time.sleep(0.05)
    pytest.fail(f"message {count} was not sent")


@SIZES
def test_codes_by_text_message(
    new_visitor: NewVisitor,
    server: Any,
    tmp_path: Path,
    size: tuple[int, int],
    scheme: Scheme,
) -> None:
    alice = new_visitor(size, scheme)
    page = alice.page
    address = new_address("alice")
    sent = len(list((server.data / "sms").glob("*.txt")))
    sign_up(alice, server, address)

    # Beside an app only; a slip in the number is told with what to do.
    set_up_app(alice)
    alice.open("/account/security/")
    page.get_by_role("link", name="Code by text message").click()
    expect(page.get_by_text("Restricted: the weakest of the ways")).to_be_visible()
    alice.look_around("number")
    take_picture(alice, tmp_path, "number")
    page.get_by_label("Mobile number").fill("0151 23456789")
    page.get_by_role("button", name="Text me a code").click()
    expect(page.get_by_text("Begin with + and the country")).to_be_visible()
    alice.look_around("number, wrong")
    page.get_by_label("Mobile number").fill("+49 (151) 2345-6789")
    page.get_by_role("button", name="Text me a code").click()
    expect(page.get_by_text("+49 ••• 89")).to_be_visible()
    alice.look_around("confirm the number")
    take_picture(alice, tmp_path, "confirm")
    code = texted_code(server, sent + 1)
    wrong = f"{(int(code) + 1) % 1_000_000:06}"
    page.get_by_label("Code from the message").fill(wrong)
    page.get_by_role("button", name="Confirm the number").click()
    expect(page.get_by_text("That is not the code.")).to_be_visible()
    expected(alice, "422")
    page.get_by_label("Code from the message").fill(code)
    page.get_by_role("button", name="Confirm the number").click()
    expect(page.get_by_text("The number is confirmed.")).to_be_visible()
    expect(page.get_by_text("On, to +49 ••• 89")).to_be_visible()
    alice.look_around("security, with a number")
    take_picture(alice, tmp_path, "security-number")

    # It takes the second step.
    sign_out(alice)
    type_password(alice, address)
    page.get_by_text("Code by text message", exact=True).click()
    alice.look_around("second step by text")
    take_picture(alice, tmp_path, "second-step")
    page.get_by_role("button", name="Text the code").click()
    expect(page.get_by_role("heading", name="Look at your phone")).to_be_visible()
    alice.look_around("look at your phone")
    take_picture(alice, tmp_path, "phone")
    page.get_by_label("Code").fill(texted_code(server, sent + 2))
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("button", name="Ask me each time").click()
    is_in(alice)

    # Forgotten, it is offered no more.
    alice.open("/account/security/number/")
    prove_again(alice)
    expect(page.get_by_text("Now codes go to +49 ••• 89")).to_be_visible()
    alice.look_around("number, kept")
    page.get_by_role("button", name="Forget this number").click()
    expect(page.get_by_text("The number is forgotten.")).to_be_visible()
    sign_out(alice)
    type_password(alice, address)
    expect(page.get_by_role("heading", name="One more step")).to_be_visible()
    expect(page.get_by_text("Code by text message")).to_have_count(0)
