"""“It was wrong”, in a browser: looked at, proved, back byte for byte, and taken back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect
from tests.agent_at_work import EICAR, until, working_agent
from tests.browser.conftest import SIZES, NewVisitor, Scheme
from tests.browser.test_from_sign_up_to_threat import PASSWORD
from tests.browser.test_scan_now import with_device
from tests.conftest import agent

pytestmark = pytest.mark.browser


@SIZES
def test_n14_a_find_that_was_wrong_is_put_right_and_what_is_sent_is_seen(
    new_visitor: NewVisitor,
    server: Any,
    tmp_path: Path,
    size: tuple[int, int],
    scheme: Scheme,
) -> None:
    alice = new_visitor(size, scheme)
    page = alice.page
    state, files = tmp_path / "agent", tmp_path / "files"
    files.mkdir()
    device = with_device(alice, server, state)
    (files / "invoice.com").write_text(EICAR)
    with working_agent(state):
        agent(state, "scan", str(files))
        alice.open("/reports/threats/")
        page.get_by_role("link", name="invoice.com").first.click(timeout=15_000)
        page.get_by_role("link", name="It was wrong").click()
        alice.look_around("it was wrong")
        page.get_by_label("What is this file?").fill("Our own program")
        page.get_by_role("button", name="See what this changes").click()
        expect(page.get_by_role("heading", name="Before it is saved")).to_be_visible()
        alice.look_around("before it is saved")
        page.get_by_role("button", name="Put it right").click()
        # Whoever only has an open browser of hers lets nothing be.
        page.get_by_label("Password", exact=True).fill(PASSWORD)
        page.locator("main form button[type=submit]").first.click()
        expect(
            page.get_by_text("Nothing is saved yet: look once more, then press the button.")
        ).to_be_visible()
        page.get_by_role("button", name="Put it right").click()
        expect(page.get_by_text("The file is on its way back")).to_be_visible()
        expect(page.get_by_role("heading", name="Said to be wrong")).to_be_visible()
        until((files / "invoice.com").exists)
        assert (files / "invoice.com").read_text() == EICAR
        alice.look_around("said to be wrong")
        page.get_by_role("button", name="Take that back").click()
        page.get_by_role("button", name="Save and tell the devices").click()
        expect(page.get_by_role("link", name="It was wrong")).to_be_visible()
        alice.open(device)
        page.get_by_role("link", name="What this device sends").click()
        page.get_by_role("button", name="Have it call now").click()
        expect(page.get_by_text("Each of its calls is shown here")).to_be_visible()
        expect(page.locator("#sent-check-in")).to_contain_text('"boot_id"', timeout=15_000)
        page.locator("#explain-check-in").click()
        alice.look_around("what it sends")
        page.get_by_role("button", name="Leave it out The version of its system").click()
        expect(page.get_by_text("It is told not to send that any more.")).to_be_visible()
        alice.open("/devices/choose/")
        page.get_by_role("link", name="all 1").click()
        expect(page.get_by_role("checkbox").first).to_be_checked()
        alice.look_around("choosing devices")
        page.get_by_role("button", name="Scan now").click()
        expect(page.get_by_text("1 device is asked.")).to_be_visible()
        alice.look_around("what was asked")
