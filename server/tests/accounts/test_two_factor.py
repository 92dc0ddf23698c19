"""The second step by pages: set up, asked for, and what it ends."""

from __future__ import annotations

from server.tests.accounts.second_steps import (
    add_app,
    code_at,
    is_signed_in,
    signed_in_tab,
    tab,
    type_password,
)

from doorward.accounts.models import Account, User


def test_try(alice: User, alices_account: Account) -> None:
    browser = signed_in_tab(alice.email)
    seed, codes = add_app(browser)
    assert len(codes) == 10
    assert is_signed_in(browser)
    again = tab()
    a = type_password(again, alice.email)
    assert a["Location"] == "/account/security/authenticate/", a["Location"]
    again.get(a["Location"])
    assert not is_signed_in(again)
    b = again.post(a["Location"], {"code": code_at(seed)})
    b = again.post(b["Location"], {"action": "trust"})
    assert is_signed_in(again)
    assert browser.get("/account/sessions/").status_code == 200
