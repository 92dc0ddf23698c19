"""Who is asked again who they are comes back to the form: nothing that was sent is kept or done."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from typing import Any

import pytest
import time_machine
from django.contrib.sessions.models import Session
from django.db import transaction
from django.test import Client
from django.utils import timezone
from server.tests.access.places import PAGES, PERSON
from server.tests.access.test_access import Things, address_of
from server.tests.accounts.second_steps import signed_in_tab, tab
from server.tests.conftest import PASSWORD

from doorward.accounts import asking_again, exports, tokens
from doorward.accounts.models import Account, Membership, PersonalToken, Role, User
from doorward.accounts.origin import Origin
from doorward.accounts.permissions import Act
from doorward.accounts.privacy_rows import Deletion
from doorward.accounts.session_store import SessionStore, kept_as

AGAIN = "Nothing was done yet: now do it again."
LATER = timedelta(minutes=16)


@pytest.fixture
def own(alice: User, alices_account: Account) -> Things:
    return Things(alices_account, alice)


def held_by(browser: Client) -> dict[str, Any]:
    row = Session.objects.get(pk=kept_as(browser.cookies["dw_session"].value))
    return SessionStore().decode(row.session_data)


def proves(browser: Client, asked: Any) -> Any:
    return browser.post(asked["Location"], {"password": PASSWORD}, follow=True)


def test_a17_what_a_stolen_session_sent_is_not_done_by_the_owners_proof(
    alice: User, bob: User, alices_account: Account
) -> None:
    role, delete = f"/account/members/{bob.pk}/role/", "/account/privacy/delete/"
    for act, fields in (
        (role, {"role": "owner"}),
        (delete, {"understood": "yes"}),
        ("/account/tokens/", {"name": "x", "scopes": ["devices:read"], "days": "30"}),
    ):
        for led_by in ("the page it was of", "a link", "another page"):
            owners, thief = signed_in_tab(alice.email), tab("Thief")
            thief.cookies["dw_session"] = owners.cookies["dw_session"].value
            with time_machine.travel(timezone.now() + LATER):
                planted = thief.post(act, fields)
                assert "/reauthenticate/" in planted["Location"], act
                at = {
                    "the page it was of": planted["Location"],
                    "a link": f"/reauthenticate/?next={act}",
                    "another page": owners.get(delete)["Location"],
                }[led_by]
                assert owners.post(at, {"password": PASSWORD}).status_code == 302, (act, led_by)
            assert not Deletion.objects.exists(), (act, led_by)
            assert not PersonalToken.objects.exists(), (act, led_by)
            assert Membership.objects.get(user=bob).role == Role.VIEWER, (act, led_by)


def test_v6_5_2_a17_nothing_that_was_sent_is_in_the_session(
    alice: User, alices_account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser = signed_in_tab(alice.email)
    typed = "a wholly secret new pass phrase"
    with time_machine.travel(timezone.now() + LATER):
        browser.post(
            "/password/set/",
            {"password1": typed, "password2": typed},
            DOORWARD_DATABASE_URL="postgres://in the environment",
        )
        held = held_by(browser)
    assert held[asking_again.KEPT] == {"not_done_at": "/password/set/", "is_filled_in": False}
    text = json.dumps(held)
    for kept in (typed, "in the environment", browser.cookies["dw_session"].value, "HTTP_COOKIE"):
        assert kept not in text


def test_a17_a_long_address_is_kept_short(alice: User, alices_account: Account) -> None:
    browser = signed_in_tab(alice.email)
    with time_machine.travel(timezone.now() + LATER):
        asked = browser.post(f"/account/tokens/?x={'y' * 1000}", {"name": "x"})
        assert len(held_by(browser)[asking_again.KEPT]["not_done_at"]) == asking_again.LONGEST
        # All the same it leads there, and says so.
        assert AGAIN in proves(browser, asked).content.decode()


def test_a17_a_stranger_is_led_to_sign_in_and_fills_no_disk(db: None) -> None:
    stranger = tab()
    answer = stranger.post("/account/security/webauthn/keys/1/edit/", {"name": "x" * 100_000})
    assert answer.status_code == 302
    assert answer["Location"].startswith("/login/?next=")
    assert not Session.objects.exists()
    assert "dw_session" not in stranger.cookies


def test_row40_each_page_that_asks_leads_to_where_it_can_be_done(alice: User, own: Things) -> None:
    """After the proof there is a page with the form, and it says that nothing was done."""
    export = exports.ask(alice, Origin("203.0.113.5", ""))
    exports.pack_due(timezone.now())
    token, _text = tokens.create(alice, name="x", scopes=["devices:read"], days=1)
    mine = {"token_id": token.pk, "export_id": export.pk}
    wanted = {
        "account_email": {"email": "new@example.org", "action_add": ""},
        "member_role": {"role": "owner"},
        "member_remove": {"devices": "stay"},
        "member_hand_over": {"role_after": "viewer"},
        "device_replace": {"what": "code"},
        "devices_act": {"what": "remove", "sure": "1", "item": str(own.ids["device_id"])},
        "quarantine_act": {"what": "restore", "sure": "1", "item": str(own.ids["threat"])},
    }
    browser, led = signed_in_tab(alice.email), {}
    session = browser.cookies["dw_session"].value
    for name, place in PAGES.items():
        if not (isinstance(place, Act) or place == PERSON) or name.startswith("number"):
            continue
        for method in ("get", "post"):
            browser.cookies["dw_session"] = session
            with time_machine.travel(timezone.now() + LATER), transaction.atomic():
                address = address_of(name, own, mine)
                asked = getattr(browser, method)(address, wanted.get(name, {}))
                if "/reauthenticate/" in asked.headers.get("Location", ""):
                    led[method, name] = address
                    page = proves(browser, asked)
                    # Of passkeys there is none here.
                    is_there = 404 if name == "mfa_remove_webauthn" else 200
                    assert page.status_code == is_there, (method, name)
                    assert "Is it still you" not in page.content.decode(), (method, name)
                    says_so = is_there == 200 and (method == "post" or "download" in name)
                    assert (AGAIN in page.content.decode()) == says_so, (method, name)
                transaction.set_rollback(True)
    assert set(led) == {
        ("get", "account_set_password"),
        ("post", "account_set_password"),
        ("post", "account_email"),
        ("post", "devices_act"),
        ("post", "device_replace"),
        ("post", "email_code_switch"),
        ("post", "known_forget"),
        ("post", "known_forget_others"),
        ("get", "mfa_remove_webauthn"),
        ("post", "mfa_remove_webauthn"),
        ("post", "member_hand_over"),
        ("post", "member_remove"),
        ("post", "member_role"),
        ("get", "privacy_delete"),
        ("post", "privacy_delete"),
        ("get", "privacy_download"),
        ("post", "privacy_export"),
        ("post", "quarantine_act"),
        ("post", "session_end"),
        ("post", "tokens"),
        ("post", "usersessions_list"),
    }


def test_row40_whoever_only_looks_is_not_told_to_do_it_again(
    alice: User, alices_account: Account
) -> None:
    browser = signed_in_tab(alice.email)
    with time_machine.travel(timezone.now() + LATER):
        browser.post("/account/tokens/", {"name": "x"})
        page = proves(browser, browser.get("/account/privacy/delete/"))
    assert AGAIN not in page.content.decode()
    assert asking_again.KEPT not in held_by(browser)


def test_row40_what_a_session_held_before_is_neither_called_nor_carried_out(
    alice: User, alices_account: Account
) -> None:
    browser = signed_in_tab(alice.email)
    before = (
        {"callback": "os.abort", "state": {}},
        {"request": json.dumps({"path": "/account/privacy/delete/", "method": "POST"})},
        "nonsense",
    )
    for held in before:
        with time_machine.travel(timezone.now() + LATER, tick=False):
            session = browser.session
            session[asking_again.KEPT] = held
            session.save()
            answer = browser.post("/reauthenticate/?next=/account/privacy/", {"password": PASSWORD})
            assert answer["Location"] == "/account/privacy/", held


def test_row40_the_download_of_a_copy_asks_again(alice: User, alices_account: Account) -> None:
    export = exports.ask(alice, Origin("203.0.113.5", ""))
    exports.pack_due(timezone.now())
    here = f"/account/privacy/export/{export.pk}/"
    browser = signed_in_tab(alice.email)
    with time_machine.travel(timezone.now() + LATER):
        asked = browser.get(here)
        assert "/reauthenticate/" in asked["Location"]
        page = proves(browser, asked).content.decode()
        assert re.search(rf'href="{here}"', page)
        answer = browser.get(here)
        assert answer.status_code == 200
        answer.close()


@pytest.mark.parametrize("asks", ["/account/asks/", "/devices/", "/nowhere/", "/login/"])
def test_row40_what_the_page_asked_meanwhile_signs_nobody_out_who_has_just_proved_it(
    asks: str, alice: User, own: Things
) -> None:
    hers, still_open = signed_in_tab(alice.email), tab("The same page")
    old = hers.cookies["dw_session"].value
    still_open.cookies["dw_session"] = old
    with time_machine.travel(timezone.now() + LATER):
        asked = hers.post("/account/tokens/", {"name": "x"})
        proves(hers, asked)
        assert hers.cookies["dw_session"].value != old
        late = still_open.get(asks)
        # The browser has one cookie of this name, and what is said last holds.
        assert "dw_session" not in late.cookies
        assert "Cookie" in late["Vary"]
        assert hers.get("/devices/").status_code == 200


def test_who_ends_a_session_loses_its_cookie_all_the_same(alice: User, own: Things) -> None:
    hers, elsewhere = signed_in_tab(alice.email), tab("Elsewhere")
    old = elsewhere.cookies["dw_session"] = hers.cookies["dw_session"].value
    hers.post("/logout/")
    assert hers.cookies["dw_session"].value != old
    assert elsewhere.get("/devices/")["Location"].startswith("/login/")
