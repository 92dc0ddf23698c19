"""The example client of docs/app-sign-in.md against a real server."""

from __future__ import annotations

import re
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.conftest import Server

DOCUMENT = Path(__file__).parents[1] / "docs" / "app-sign-in.md"
PASSWORD = "seven lamps above the harbor"


@pytest.fixture(scope="module")
def example() -> Any:
    (code,) = re.findall(r"^```python\n(.*?)^```", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(code, str(DOCUMENT), "exec"), names)  # noqa: S102 - our own document
    return SimpleNamespace(**names)


def test_the_documented_client_signs_up_in_and_out(server: Server, example: Any) -> None:
    address = "app@example.org"
    app = example.Account(server.url)
    assert app.sign_up(address, PASSWORD) == "verify_email"
    assert app.confirm_address(server.mailed_code(address)) == ""
    assert app.known_browser
    assert app.api("GET", "/me")["user"]["email"] == address
    code = app.api("POST", "/devices/codes")
    assert app.api("GET", f"/devices/codes/{code['id']}")["state"] == "waiting"

    before = app.session
    app.sign_out()
    stale = example.Account(server.url, session=before)
    with pytest.raises(example.Refused) as refusal:
        stale.api("GET", "/me")
    assert refusal.value.status == 401

    assert app.sign_in(address, PASSWORD) == ""
    assert app.session != before


def test_the_documented_client_sees_a_lock_and_is_let_in_by_its_known_browser(
    server: Server, example: Any
) -> None:
    address = "locked@example.org"
    owner = example.Account(server.url)
    owner.sign_up(address, PASSWORD)
    owner.confirm_address(server.mailed_code(address))
    owner.sign_out()

    stranger = example.Account(server.url)
    refusals: list[Any] = []
    deadline = time.monotonic() + 60
    while not (refusals and refusals[-1].status == 429):
        assert time.monotonic() < deadline
        with pytest.raises(example.Refused) as refusal:
            stranger.sign_in(address, "wrong")
        refusals.append(refusal.value)
        time.sleep(0.2)
    assert {refusal.status for refusal in refusals} == {400, 429}
    assert "Invalid email or password." in str(refusals[0].answer)
    assert 0 < refusals[-1].wait <= 60

    assert owner.sign_in(address, PASSWORD) == ""
