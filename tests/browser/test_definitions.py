"""A device that is behind is brought up to date by one click, and the pages say so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect
from tests.agent_at_work import working_agent
from tests.browser.conftest import SIZES, NewVisitor, Scheme
from tests.browser.test_scan_now import with_device
from tests.conftest import Server
from tests.journeys.test_definitions import Olga

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def olga(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Olga:
    made = Olga(server, tmp_path_factory.mktemp("olga") / "own")
    made.makes_keys()
    made.imports(["yesterday’s threat"])
    return made


@SIZES
def test_a_device_that_is_behind_is_brought_up_to_date(
    new_visitor: NewVisitor,
    server: Any,
    olga: Olga,
    tmp_path: Path,
    size: tuple[int, int],
    scheme: Scheme,
) -> None:
    alice = new_visitor(size, scheme)
    page = alice.page
    state = tmp_path / "agent"
    device = with_device(alice, server, state)
    with working_agent(state):
        alice.open("/protection/")
        expect(page.get_by_text("Behind")).to_be_visible(timeout=20_000)
        expect(page.get_by_text("is meant for it; it takes that within")).to_be_visible()
        alice.look_around("protection, behind")
        alice.open(device)
        expect(page.get_by_text("Behind")).to_be_visible()
        page.locator("#ask-more").click()
        alice.look_around("device, behind")
        page.get_by_role("button", name="Update definitions").click()
        expect(page.get_by_text("It has the newest definitions that are meant")).to_be_visible(
            timeout=30_000
        )
        expect(page.get_by_text("Up to date")).to_be_visible(timeout=10_000)
        alice.look_around("device, up to date")
