"""Scan now, in a browser: running within a second, moving, done; and the truth when it is not."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.sync_api import expect
from tests.agent_at_work import EICAR, working_agent
from tests.browser.conftest import DESK, PHONE, NewVisitor, Visitor, new_address
from tests.browser.test_from_sign_up_to_threat import sign_up
from tests.conftest import agent
from tests.journeys.test_commands import much

RUNNING_WITHIN_MS = 1_000

pytestmark = pytest.mark.browser


def with_device(visitor: Visitor, server: Any, state: Path) -> str:
    """Sign somebody up with one device; return the address of its page."""
    page = visitor.page
    sign_up(visitor, server, new_address("alice"))
    visitor.open("/devices/add/")
    page.get_by_role("button", name="Get a code").click()
    command = page.locator("#enroll-linux").inner_text().split()
    joined = agent(
        state, "enroll", "--server", command[4], "--code", command[6], "--name", "Kitchen PC"
    )
    assert joined.returncode == 0, joined.stdout + joined.stderr
    page.get_by_role("link", name="Open the device").click()
    page.wait_for_url("**/devices/*-*/")
    return page.url.removeprefix(visitor.site)


@pytest.mark.parametrize(
    ("size", "scheme"), [(PHONE, "light"), (DESK, "dark")], ids=["phone-light", "desk-dark"]
)
def test_n4_scan_now_is_running_within_a_second_moves_and_is_done(
    new_visitor: NewVisitor,
    server: Any,
    tmp_path: Path,
    size: tuple[int, int],
    scheme: Literal["light", "dark"],
) -> None:
    alice = new_visitor(size, scheme)
    page = alice.page
    # A name that can be broken nowhere must not make a phone's page wider.
    state, files = tmp_path / "agent", tmp_path / ("files" + "W" * 60)
    files.mkdir()
    much(files, 200)
    (files / "zz.com").write_text(EICAR)
    with_device(alice, server, state)
    with working_agent(state):
        expect(page.locator("#device-state").get_by_text("Protected", exact=True)).to_be_visible(
            timeout=20_000
        )
        page.reload()
        page.get_by_text("Scan a folder, and more").click()
        page.get_by_label("Folder or file on the device").fill("files/../x")
        page.get_by_role("button", name="Scan it").click()
        expect(page.get_by_role("alert")).to_contain_text("whole path")
        assert page.get_by_label("Folder or file on the device").input_value() == "files/../x"
        alice.look_around("a path refused")
        page.get_by_label("Folder or file on the device").fill(str(files))
        began = time.monotonic()
        page.get_by_role("button", name="Scan it").click()
        expect(page.locator("#asked").get_by_text("Running", exact=True)).to_be_visible(
            timeout=RUNNING_WITHIN_MS
        )
        took = time.monotonic() - began
        assert took < 1, f"running was shown after {took:.2f} s"
        alice.look_around("running")
        moved = set()
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not page.locator("[data-state=done]").count():
            figures = page.locator(".order-figures")
            if figures.count():
                moved.add(figures.first.inner_text())
            page.wait_for_timeout(100)
        assert len(moved) > 2, moved
        done = page.locator("[data-state=done]")
        expect(done).to_contain_text("201 files looked at")
        expect(done).to_contain_text("1 threat found")
        alice.look_around("done")
        done.get_by_role("link").click()
        alice.look_around("one command")
        alice.open("/devices/")


def test_n4_a_scan_whose_agent_was_killed_is_interrupted_never_done_and_one_can_be_canceled(
    new_visitor: NewVisitor, server: Any, tmp_path: Path
) -> None:
    alice = new_visitor(DESK, "light")
    page = alice.page
    state, files = tmp_path / "agent", tmp_path / "files"
    files.mkdir()
    much(files, 2000)
    address = with_device(alice, server, state)
    with working_agent(state) as work:
        expect(page.locator("#device-state").get_by_text("Protected", exact=True)).to_be_visible(
            timeout=20_000
        )

        def scan_files() -> None:
            alice.open(address)
            page.get_by_text("Scan a folder, and more").click()
            page.get_by_label("Folder or file on the device").fill(str(files))
            page.get_by_role("button", name="Scan it").click()
            expect(page.locator("#asked").get_by_text("Running", exact=True)).to_be_visible()

        scan_files()
        expect(page.locator(".order-figures")).to_contain_text("files looked at")
        # On a phone, too: what can be done never gives way to room.
        page.set_viewport_size({"width": PHONE[0], "height": PHONE[1]})
        expect(page.get_by_role("button", name="Cancel")).to_be_visible()
        alice.look_around("to be canceled on a phone")
        page.get_by_role("button", name="Cancel").click()
        expect(page.locator("[data-state=canceled]")).to_contain_text("It was stopped.")
        scan_files()
        work.kill()
    expect(page.locator("[data-state=running]")).to_be_visible()
    with working_agent(state):
        expect(page.locator("[data-state=interrupted]")).to_be_visible(timeout=30_000)
    expect(page.locator("[data-state=interrupted]")).to_contain_text("before the end of it")
    alice.look_around("interrupted")
