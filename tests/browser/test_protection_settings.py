"""A real agent and its owner's browser: told, applied, asked again who is there, taken back."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect
from tests.agent_at_work import working_agent
from tests.browser.conftest import SIZES, NewVisitor, Scheme, Visitor, new_address
from tests.browser.test_from_sign_up_to_threat import sign_up
from tests.browser.test_two_step import prove_again, take_picture
from tests.conftest import agent

from doorward_agent import database, policy
from doorward_protocol.settings import Settings

REACHED_WITHIN_S = 2.0
SHOWN_WITHIN_MS = 15_000

pytestmark = pytest.mark.browser


def in_force(state: Path) -> Settings:
    db = database.open_in(state)
    try:
        return policy.current(db)[1]
    finally:
        db.close()


def until(state: Path, start: str, began: float) -> float:
    """Wait until the agent's quick scan begins then; the seconds since it was asked for."""
    while in_force(state).quick_scan.start != start:
        assert time.monotonic() - began < 30, "the change did not arrive"
        time.sleep(0.01)
    return time.monotonic() - began


def change_start(visitor: Visitor, start: str) -> None:
    visitor.open("/protection/settings/quick-scan/")
    visitor.page.get_by_label("Not before").fill(start)
    visitor.page.get_by_role("button", name="See what this changes").click()
    expect(visitor.page.get_by_role("heading", name="Before it is saved")).to_be_visible()


def joined(visitor: Visitor, state: Path) -> None:
    page = visitor.page
    visitor.open("/devices/add/")
    page.get_by_role("button", name="Get a code").click()
    command = page.locator("#enroll-linux").inner_text()
    found = re.search(r"--server (\S+) --code (\S+)", command)
    assert found is not None
    words = ("--server", found[1], "--code", found[2], "--name", "Kitchen PC")
    done = agent(state, "enroll", *words)
    assert done.returncode == 0, done.stdout + done.stderr


@SIZES
def test_a_change_reaches_the_device_is_shown_applied_and_is_taken_back(
    new_visitor: NewVisitor,
    server: Any,
    tmp_path: Path,
    size: tuple[int, int],
    scheme: Scheme,
) -> None:
    alice = new_visitor(size, scheme)
    page = alice.page
    sign_up(alice, server, new_address("alice"))
    alice.open("/protection/")
    alice.look_around("protection, no devices")
    alice.open("/protection/versions/")
    alice.look_around("no changes")
    state = tmp_path / "agent"
    joined(alice, state)
    with working_agent(state):
        alice.open("/protection/")
        expect(page.get_by_text("Applied on the one device there is.")).to_be_visible()
        expect(page.locator("#live").get_by_text("Protected", exact=True)).to_be_visible(
            timeout=20_000
        )
        alice.look_around("protection")
        take_picture(alice, tmp_path, "protection")

        alice.open("/protection/settings/quick-scan/")
        alice.look_around("the quick scan")
        take_picture(alice, tmp_path, "quick-scan")
        page.get_by_label("Begins within").fill("0")
        page.get_by_role("button", name="See what this changes").click()
        expect(page.get_by_text("A whole number from 1 to 720.")).to_be_visible()
        alice.problems[:] = [each for each in alice.problems if "status of 422" not in each]
        alice.look_around("a mistake")
        take_picture(alice, tmp_path, "mistake")

        change_start(alice, "20:00")
        alice.look_around("before it is saved")
        take_picture(alice, tmp_path, "look")
        began = time.monotonic()
        page.get_by_role("button", name="Save and tell the devices").click()
        took = until(state, "20:00", began)
        assert took < REACHED_WITHIN_S, took
        (tmp_path / "took").write_text(f"{took:.3f}")
        expect(page.get_by_text("Applied on the one device there is.")).to_be_visible(
            timeout=SHOWN_WITHIN_MS
        )

        # Protecting less asks who is there (promise N7).
        alice.open("/protection/settings/quick-scan/")
        page.get_by_label("Run it by itself").uncheck()
        page.get_by_role("button", name="See what this changes").click()
        expect(page.get_by_text("This protects less than before.")).to_be_visible()
        alice.look_around("protecting less")
        take_picture(alice, tmp_path, "weaker")
        page.get_by_role("button", name="Save and tell the devices").click()

        prove_again(alice)
        # What was looked at is there again: only the button is left to press.
        expect(page.get_by_text("Nothing is saved yet: look once more")).to_be_visible()
        expect(page.get_by_text("This protects less than before.")).to_be_visible()
        alice.look_around("looked at again")
        take_picture(alice, tmp_path, "look-again")
        page.get_by_role("button", name="Save and tell the devices").click()
        expect(page.get_by_text("Saved as change 2.")).to_be_visible()

        alice.open("/protection/versions/2/")
        alice.look_around("a change")
        take_picture(alice, tmp_path, "version")
        page.get_by_role("button", name="Undo this change").click()
        page.get_by_role("button", name="Undo it").click()
        expect(page.get_by_text("Saved as change 3.")).to_be_visible()
        alice.look_around("changes")
        take_picture(alice, tmp_path, "versions")

        page.get_by_role("link", name="Compare two").click()
        page.get_by_label("From").select_option("1")
        page.get_by_label("To").select_option("2")
        page.get_by_role("button", name="See what differs").click()
        expect(page.locator(".compared")).to_contain_text("Run it by itself")
        alice.look_around("two versions")
        take_picture(alice, tmp_path, "compare")
        page.get_by_role("button", name="Go back to how it stood after change 1").click()
        expect(page.get_by_text("Nothing was changed: it stands so already.")).to_be_visible()

        alice.open("/protection/groups/new/")
        page.get_by_label("Name").fill("Downstairs")
        page.get_by_label("Kitchen PC").check()
        alice.look_around("a new group")
        page.get_by_role("button", name="See what this changes").click()
        page.get_by_role("button", name="Save and tell the devices").click()
        expect(page.get_by_role("heading", name="Downstairs")).to_be_visible()
        alice.look_around("a group")
        take_picture(alice, tmp_path, "group")

        page.get_by_role("link", name="Kitchen PC").click()
        alice.look_around("a device's settings")
        take_picture(alice, tmp_path, "device")
        page.get_by_role("link", name="Quick scan").click()
        alice.look_around("a device's quick scan")
        take_picture(alice, tmp_path, "device-quick")
        alice.open("/protection/settings/exclusions/")
        alice.look_around("exclusions")
        take_picture(alice, tmp_path, "exclusions")
    told = json.loads(agent(state, "status", "--json").stdout)
    assert told["settings_refused"] is None
