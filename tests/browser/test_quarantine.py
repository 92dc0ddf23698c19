"""Quarantine in a browser: a file comes back byte for byte, another is gone for good."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect
from tests.agent_at_work import EICAR, working_agent
from tests.browser.conftest import DESK, SIZES, NewVisitor, Scheme
from tests.browser.test_from_sign_up_to_threat import PASSWORD
from tests.browser.test_scan_now import with_device
from tests.conftest import agent

pytestmark = pytest.mark.browser


@SIZES
def test_n14_a_file_is_put_back_as_it_was_and_another_is_deleted(
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
    with_device(alice, server, state)
    alice.open("/reports/quarantine/")
    alice.look_around("nothing in quarantine")
    contents = {"invoice.com": EICAR, "report.com": EICAR + "\n", "third.com": EICAR + "\n\n"}
    for name, text in contents.items():
        (files / name).write_text(text)
    with working_agent(state):
        expect(page.get_by_role("heading", name="Nothing is in quarantine")).to_be_visible()
        assert agent(state, "scan", str(files)).returncode == 1
        invoice = page.get_by_role("row").filter(has_text="invoice.com")
        expect(invoice).to_be_visible(timeout=10_000)
        alice.look_around("quarantine")
        if size == DESK:
            # What can be done stands in one line, and the device's name is not cut.
            acts = [each.bounding_box() for each in invoice.locator(".table-acts .button").all()]
            assert len(acts) == 3
            assert len({box["y"] for box in acts if box}) == 1
            cell = invoice.locator(".table-short").bounding_box()
            assert cell
            assert cell["width"] >= 96
        invoice.get_by_role("button", name="Put back").click()
        expect(page.get_by_role("heading", name="Put this file back?")).to_be_visible()
        alice.look_around("sure")
        page.get_by_role("button", name="Put back").click()
        # Whoever only has an open browser of hers can let nothing out.
        page.get_by_label("Password", exact=True).fill(PASSWORD)
        alice.look_around("prove again")
        page.locator("main form button[type=submit]").first.click()
        expect(page.get_by_text("Nothing was done yet: now do it again.")).to_be_visible()
        invoice.get_by_role("button", name="Put back").click()
        expect(page.get_by_role("heading", name="Put this file back?")).to_be_visible()
        page.get_by_role("button", name="Put back").click()
        expect(page.get_by_text("1 file is on its way back.")).to_be_visible()
        expect(page.get_by_role("row").filter(has_text="invoice.com")).to_have_count(
            0, timeout=15_000
        )
        assert (files / "invoice.com").read_text() == contents["invoice.com"]
        page.get_by_role("link", name="Choose several").click()
        alice.look_around("choosing")
        for name in ("report.com", "third.com"):
            page.get_by_role("checkbox", name=name).check()
        page.get_by_role("button", name="Delete").click()
        expect(page.get_by_role("heading", name="Delete 2 files?")).to_be_visible()
        page.get_by_role("button", name="Delete for good").click()
        expect(page.get_by_role("heading", name="Nothing is in quarantine")).to_be_visible(
            timeout=15_000
        )
    assert [each.name for each in files.iterdir()] == ["invoice.com"]
