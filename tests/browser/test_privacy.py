"""Privacy in a browser: a copy of everything, deleting and keeping the account, a receipt."""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
import time
import zipfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect
from tests.browser.conftest import SIZES, NewVisitor, Scheme, new_address
from tests.browser.test_from_sign_up_to_threat import sign_up
from tests.browser.test_two_step import prove_and_do_again, take_picture, type_password

pytestmark = pytest.mark.browser


def days_of_grace_pass(data: Path) -> None:
    """Have what is to be deleted be due since a minute ago, as if a week had passed."""
    past = (datetime.now(UTC) - timedelta(minutes=1)).strftime("%Y-%m-%d %H:%M:%S.%f")
    with sqlite3.connect(data / "doorward.sqlite3", timeout=20) as database:
        changed = database.execute("UPDATE accounts_deletion SET due_at = ?", [past]).rowcount
    assert changed == 1


def mail_to(server: Any, address: str, subject: str) -> str:
    """Return the mail with this subject, waiting for it to arrive."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for text in server.mails(address):
            if text.startswith(subject):
                return str(text)
        time.sleep(0.2)
    raise AssertionError(f"no mail {subject!r} came to {address}: {server.mails(address)}")


@SIZES
def test_n9_a_copy_is_taken_and_the_account_ends_with_a_receipt(
    new_visitor: NewVisitor,
    server: Any,
    tmp_path: Path,
    size: tuple[int, int],
    scheme: Scheme,
) -> None:
    alice = new_visitor(size, scheme)
    page = alice.page
    address = new_address("alice")
    sign_up(alice, server, address)

    # A copy of everything.
    alice.open("/account/")
    page.get_by_role("link", name="Privacy").click()
    expect(page.get_by_role("heading", name="A copy of everything")).to_be_visible()
    alice.look_around("privacy, nothing asked for")
    take_picture(alice, tmp_path, "privacy-empty")
    pack = page.get_by_role("button", name="Pack a copy")
    pack.click()
    prove_and_do_again(alice, pack.click)
    download = page.get_by_role("link", name="Download")
    expect(download).to_be_visible(timeout=30_000)
    alice.look_around("privacy, copy ready")
    take_picture(alice, tmp_path, "privacy-ready")
    with page.expect_download() as told:
        download.click()
    file = Path(told.value.path())
    with zipfile.ZipFile(file) as archive:
        assert archive.testzip() is None
        person = json.loads(archive.read("person.json"))
    assert person[0]["email"] == address
    assert "download it for 24 hours" in mail_to(server, address, "Your copy is ready")

    # Asked to be deleted, and kept after all.
    page.get_by_role("link", name="Delete the account").click()
    expect(page.get_by_role("heading", name="What will go")).to_be_visible()
    alice.look_around("what will go")
    take_picture(alice, tmp_path, "privacy-delete")
    page.get_by_role("button", name="Delete the account").click()
    expect(page.get_by_role("heading", name="What will go")).to_be_visible()
    page.get_by_label("I know what goes").check()
    page.get_by_role("button", name="Delete the account").click()
    expect(page.get_by_text("Everything will be deleted on")).to_be_visible()
    alice.look_around("to be deleted")
    take_picture(alice, tmp_path, "privacy-waiting")
    alice.open("/devices/")
    expect(page.get_by_text("Your account will be deleted on")).to_be_visible()
    take_picture(alice, tmp_path, "privacy-banner")
    page.get_by_role("button", name="Keep the account").click()
    expect(page.get_by_text("Your account stays")).to_be_visible()

    # Asked again, and the week passes.
    page.get_by_role("link", name="Delete the account").click()
    page.get_by_label("I know what goes").check()
    page.get_by_role("button", name="Delete the account").click()
    expect(page.get_by_text("Everything will be deleted on")).to_be_visible()
    days_of_grace_pass(server.data)
    mail = mail_to(server, address, "Your account was deleted")
    type_password(alice, address)
    expect(page.get_by_text("Invalid email or password")).to_be_visible()

    # The receipt.
    found = re.search(r"http://localhost:\d+(/deleted/[\w-]+/)", mail)
    assert found is not None
    alice.open(found[1])
    expect(page.get_by_role("heading", name="It is deleted")).to_be_visible()
    page.get_by_text("How to verify it").click()
    alice.look_around("receipt")
    take_picture(alice, tmp_path, "privacy-receipt")
    with page.expect_download() as told:
        page.get_by_role("link", name="Download the receipt").click()
    checksum = hashlib.sha256(Path(told.value.path()).read_bytes()).hexdigest()
    expect(page.get_by_text(checksum)).to_be_visible()
    assert checksum in mail
    verified = server.run("audit", "verify")
    assert verified.returncode == 0, verified.stdout + verified.stderr
