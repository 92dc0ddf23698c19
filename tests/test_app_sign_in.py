"""The example client of docs/app-sign-in.md against a real server."""

from __future__ import annotations

import base64
import hmac
import re
import struct
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


def code_of(seed: str, ahead: int) -> str:
    """Return the app's code of the 30-second step so many before or after this one (RFC 6238)."""
    counter = struct.pack(">Q", int(time.time()) // 30 + ahead)
    mac = hmac.new(base64.b32decode(seed), counter, "sha1").digest()
    at = mac[-1] & 15
    return f"{(struct.unpack('>I', mac[at : at + 4])[0] & 0x7FFFFFFF) % 1_000_000:06}"


def test_v6_6_4_the_documented_client_approves_a_sign_in_of_another(
    server: Server, example: Any
) -> None:
    address = "approving@example.org"
    phone = example.Account(server.url)
    phone.sign_up(address, PASSWORD)
    phone.confirm_address(server.mailed_code(address))
    phone.auth("POST", "reauthenticate", {"password": PASSWORD})
    totp = "/_allauth/app/v1/account/authenticators/totp"
    _status, offered, _wait = phone.call("GET", totp)
    seed = offered["meta"]["secret"]
    status, answer, _wait = phone.call("POST", totp, {"code": code_of(seed, -1)})
    assert status == 200, answer
    phone.sign_out()
    assert phone.sign_in(address, PASSWORD) == "mfa_authenticate"
    assert phone.second_step(code_of(seed, 0)) == ""

    laptop = example.Account(server.url)
    assert laptop.sign_in(address, PASSWORD) == "mfa_authenticate"
    number = laptop.ask_for_approval()
    assert laptop.approval() == "waiting"
    (asks,) = phone.who_asks()
    phone.approve(asks["id"], number)
    assert laptop.approval() == "approved"
    assert laptop.go_on() == ""
    assert laptop.api("GET", "/me")["user"]["email"] == address

    tablet = example.Account(server.url)
    tablet.sign_in(address, PASSWORD)
    tablet.ask_for_approval()
    (asks,) = phone.who_asks()
    phone.refuse(asks["id"])
    assert tablet.approval() == "denied"
    with pytest.raises(example.Refused) as refusal:
        tablet.go_on()
    assert refusal.value.status == 409


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
