"""The whole way in a browser: sign up, add a device, and see what its real agent found."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.sync_api import expect
from tests.agent_at_work import EICAR, working_agent
from tests.browser.conftest import DESK, PHONE, NewVisitor, Visitor, new_address
from tests.conftest import agent

PASSWORD = "seven lamps over a quiet door"
SEEN_WITHIN_MS = 5_000

pytestmark = pytest.mark.browser


def sign_up(visitor: Visitor, server: Any, address: str) -> None:
    """Create an account and confirm its address by the code from the mail."""
    page = visitor.page
    visitor.open("/login/")
    visitor.look_around("sign-in")
    page.get_by_role("link", name="Create an account").click()
    visitor.look_around("sign-up")
    page.get_by_label("Email").fill(address)
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    page.get_by_role("button", name="Create account").click()
    expect(page.get_by_role("heading", name="Look in your mail")).to_be_visible()
    visitor.look_around("code")
    page.get_by_label("Code").fill(server.mailed_code(address))
    page.get_by_role("button", name="Confirm address").click()
    expect(page.get_by_role("heading", name="Let’s protect your first device")).to_be_visible()


@pytest.mark.parametrize(
    ("size", "scheme"), [(PHONE, "light"), (DESK, "dark")], ids=["phone-light", "desk-dark"]
)
def test_from_sign_up_to_the_threat_on_the_page(
    new_visitor: NewVisitor,
    server: Any,
    tmp_path: Path,
    size: tuple[int, int],
    scheme: Literal["light", "dark"],
) -> None:
    alice = new_visitor(size, scheme)
    page = alice.page
    sign_up(alice, server, new_address("alice"))
    alice.look_around("empty home")
    alice.open("/reports/threats/")
    alice.look_around("no threats")
    alice.open("/devices/")
    alice.look_around("no devices")
    page.get_by_role("link", name="Add a device").click()
    alice.look_around("add a device")
    page.get_by_role("button", name="Get a code").click()
    alice.look_around("the code")
    command = page.locator("#enroll-linux").inner_text()
    found = re.fullmatch(
        r"./doorward agent enroll --server (\S+) --code ([0-9A-Z]{4}(?:-[0-9A-Z]{4}){2})", command
    )
    assert found is not None, command
    assert found[1] == server.device_url

    state = tmp_path / "agent"
    joined = agent(
        state, "enroll", "--server", found[1], "--code", found[2], "--name", "Kitchen PC"
    )
    assert joined.returncode == 0, joined.stdout + joined.stderr
    expect(page.get_by_role("heading", name="Kitchen PC is connected")).to_be_visible(
        timeout=SEEN_WITHIN_MS
    )
    alice.look_around("connected")

    with working_agent(state):
        page.get_by_role("link", name="Open the device").click()
        expect(page.locator("#device-state").get_by_text("Protected", exact=True)).to_be_visible(
            timeout=20_000
        )
        alice.look_around("the device")
        alice.open("/")
        expect(page.get_by_role("heading", name="Everything is protected")).to_be_visible()
        alice.look_around("home, protected")

        files = tmp_path / "files"
        files.mkdir()
        (files / "letter.txt").write_text("Dear Bob, all is well.")
        (files / "invoice.com").write_text(EICAR)
        alice.open("/reports/threats/")
        scanned = agent(state, "scan", str(files))
        assert scanned.returncode == 1, scanned.stdout + scanned.stderr
        began = time.monotonic()
        # No reload: the list asks for itself again.
        threat = page.get_by_role("link", name="invoice.com")
        expect(threat).to_be_visible(timeout=SEEN_WITHIN_MS)
        assert (time.monotonic() - began) * 1000 < SEEN_WITHIN_MS
        assert not (files / "invoice.com").exists()
        assert (files / "letter.txt").exists()
        alice.look_around("threats")

        threat.click()
        expect(
            page.get_by_role("heading", name="We put invoice.com away. It can’t run.")
        ).to_be_visible()
        for told in (str(files / "invoice.com"), "Kitchen PC", "Put away"):
            expect(page.get_by_text(told).first).to_be_visible()
        alice.look_around("the threat")
        page.get_by_text("On the device itself").click()
        restore = page.locator("#restore").inner_text().split()
        alice.open("/reports/")
        page.get_by_role("link", name="A scan found 1 threat").first.click()
        alice.look_around("the scan")
        alice.open("/")
        expect(page.get_by_text("We put invoice.com away. It can’t run.").first).to_be_visible()
        expect(page.get_by_role("heading", name="Everything is protected")).to_be_visible()
        alice.look_around("home, after the threat")

        restored = agent(state, *restore[2:])
        assert restored.returncode == 0, restored.stdout + restored.stderr
        assert (files / "invoice.com").read_text() == EICAR
        alice.open("/reports/threats/?action=back")
        expect(page.get_by_role("link", name="invoice.com")).to_be_visible(timeout=SEEN_WITHIN_MS)

    for path in (
        "/protection/",
        "/subscription/",
        "/account/",
        "/account/sessions/",
        "/password/change/",
        "/email/",
        "/help/",
        "/help/states/",
        "/help/adding-a-device/",
    ):
        alice.open(path)
        alice.look_around(path)

    alice.open("/devices/")
    page.get_by_role("link", name=re.compile("Kitchen PC")).click()
    page.get_by_role("link", name="Remove", exact=True).click()
    dialog = page.get_by_role("dialog", name=re.compile("Remove"))
    expect(dialog).to_be_visible()
    alice.look_around("the question before removing")
    dialog.get_by_role("button", name="Remove device").click()
    expect(page.get_by_role("heading", name="No devices yet")).to_be_visible()


@pytest.mark.parametrize("size", [PHONE, DESK], ids=["phone", "desk"])
def test_row78_a_hostile_file_and_device_name_break_no_page(
    new_visitor: NewVisitor, server: Any, tmp_path: Path, size: tuple[int, int]
) -> None:
    alice = new_visitor(size)
    page = alice.page
    page.on("dialog", lambda dialog: alice.problems.append(f"ran: {dialog.message}"))
    sign_up(alice, server, new_address("hostile"))
    evil = "<img src=x onerror=alert(1)>\u202egpj.exe" + "W" * 150
    page.get_by_role("link", name="Add a device").click()
    page.get_by_role("button", name="Get a code").click()
    code = page.locator("#code").inner_text()
    state, files = tmp_path / "agent", tmp_path / "files"
    joined = agent(state, "enroll", "--server", server.device_url, "--code", code, "--name", evil)
    assert joined.returncode == 0, joined.stdout + joined.stderr
    deep = files / ("d" * 200) / ("e" * 200)
    deep.mkdir(parents=True)
    with working_agent(state):
        alice.open("/reports/threats/")
        (deep / f"{evil}.com").write_text(EICAR)
        assert agent(state, "scan", str(files)).returncode == 1
        first = page.locator("a.table-name").first
        expect(first).to_be_visible(timeout=SEEN_WITHIN_MS)
        # The agent writes such characters as escapes already; the page must not trust that.
        expect(first).to_contain_text("<img src=x onerror=alert(1)>")
        alice.look_around("threats with a hostile name")
        # A live part that is renewed takes nobody's focus away.
        first.focus()
        held = first.get_attribute("id")
        (files / "second.com").write_text(EICAR)
        assert agent(state, "scan", str(files)).returncode == 1
        expect(page.get_by_role("link", name="second.com")).to_be_visible(timeout=SEEN_WITHIN_MS)
        assert page.evaluate("document.activeElement.id") == held
        page.locator("a.table-name").last.click()
        alice.look_around("a threat with a hostile name")
        for path in ("/", "/devices/", "/protection/", "/reports/"):
            alice.open(path)
            alice.look_around(path)
        alice.open("/devices/")
        page.locator("a.line").first.click()
        alice.look_around("a device with a hostile name")


def test_without_a_connection_our_own_page_says_so(new_visitor: NewVisitor) -> None:
    visitor = new_visitor()
    page = visitor.page
    visitor.open("/login/")
    page.evaluate("navigator.serviceWorker.ready.then(() => true)")
    page.context.set_offline(True)
    visitor.open("/devices/")
    expect(page.get_by_role("heading", name="No connection")).to_be_visible()
    page.context.set_offline(False)
    page.get_by_role("link", name="Try again").click()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    # What the browser says about the missing network is no fault of the page.
    visitor.problems = [said for said in visitor.problems if "ERR_INTERNET" not in said]


def test_everything_can_be_done_by_keyboard_alone(new_visitor: NewVisitor, server: Any) -> None:
    alice = new_visitor()
    page = alice.page
    address = new_address("keys")
    alice.open("/signup/")
    press_to(page, "Email")
    page.keyboard.type(address)
    press_to(page, "Password")
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Look in your mail")).to_be_visible()
    press_to(page, "Code")
    page.keyboard.type(server.mailed_code(address))
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Let’s protect your first device")).to_be_visible()
    page.keyboard.press("Tab")
    assert focused(page) == "Skip to the page"
    page.keyboard.press("Enter")
    press_to(page, "Add a device")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineWidth") == "3px"
    page.keyboard.press("Enter")
    page.wait_for_url("**/devices/add/")
    press_to(page, "Get a code")
    page.keyboard.press("Enter")
    expect(page.locator("#waiting")).to_be_visible()
    press_to(page, "Windows")
    page.keyboard.press("Enter")
    expect(page.locator("#enroll-windows")).to_be_visible()
    press_to(page, "Account of")
    page.keyboard.press("Enter")
    page.wait_for_url("**/account/")
    press_to(page, "Sign out")
    page.keyboard.press("Enter")
    page.wait_for_url("**/login/")


def test_every_page_works_without_scripts(new_visitor: NewVisitor, server: Any) -> None:
    alice = new_visitor(java_script_enabled=False)
    page = alice.page
    address = new_address("plain")
    alice.open("/signup/")
    page.get_by_label("Email").fill(address)
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    page.get_by_role("button", name="Create account").click()
    page.get_by_label("Code").fill(server.mailed_code(address))
    page.get_by_role("button", name="Confirm address").click()
    page.get_by_role("link", name="Add a device").first.click()
    page.get_by_role("button", name="Get a code").click()
    expect(page.locator("#enroll-linux")).to_be_visible()
    page.get_by_text("macOS", exact=True).click()
    expect(page.locator("#enroll-macos")).to_be_visible()
    alice.open("/account/")
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url("**/login/")


def focused(page: Any) -> str:
    """Return what a screen reader would call the element that has the focus."""
    return str(
        page.evaluate(
            "(() => { const e = document.activeElement;"
            " const label = e.labels?.[0]?.textContent ?? e.textContent;"
            " return label.replace(/\\s+/g, ' ').trim(); })()"
        )
    )


def is_focus_visible(page: Any) -> bool:
    """Whether whoever looks sees what has the focus: drawn, and with an outline or mark on it."""
    return bool(
        page.evaluate(
            """() => {
                const here = document.activeElement;
                if (!here || here === document.body) return true;
                const style = getComputedStyle(here), place = here.getBoundingClientRect();
                const drawn = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0;
                return place.width > 0 && (drawn || style.boxShadow !== "none");
            }"""
        )
    )


def press_to(page: Any, name: str) -> None:
    """Press Tab until the element of this name has the focus."""
    for _ in range(60):
        if focused(page).startswith(name):
            return
        page.keyboard.press("Tab")
        assert is_focus_visible(page), f"{focused(page)!r} on {page.url} does not show the focus"
    pytest.fail(f"Tab never reached {name!r} on {page.url}")
