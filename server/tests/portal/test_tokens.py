"""A token for a script is made by somebody who just proved who they are, and shown once."""

from __future__ import annotations

import re

from django.test import Client
from server.tests.conftest import PASSWORD

from doorward.accounts import tokens
from doorward.accounts.models import PersonalToken, User
from doorward.devices.models import Device

WANTED = {"name": "Nightly report", "scopes": ["reports:read"], "days": "30"}


def test_row40_making_a_token_asks_again_who_it_is_and_then_shows_it_once(
    alices_browser: Client, alice: User, laptop: Device
) -> None:
    asked = alices_browser.post("/account/tokens/", WANTED)
    assert asked.status_code == 302
    assert asked["Location"].startswith("/reauthenticate/")
    assert not PersonalToken.objects.exists()
    page = alices_browser.get(asked["Location"]).content.decode()
    assert "Is it still you?" in page
    back = alices_browser.post(asked["Location"], {"password": PASSWORD}, follow=True)
    assert "Nothing was done yet: now do it again." in back.content.decode()
    assert not PersonalToken.objects.exists()
    made = alices_browser.post("/account/tokens/", WANTED)
    shown = re.search(r'id="token">(dwp_[\w-]+)<', made.content.decode())
    assert shown is not None
    found = tokens.find(shown[1])
    assert found is not None
    assert found.user == alice
    assert found.scope_list == ["reports:read"]
    later = alices_browser.get("/account/tokens/").content.decode()
    assert "Nightly report" in later
    assert shown[1] not in later


def test_a_token_without_any_right_is_refused_and_the_name_kept(
    alices_browser: Client, alice: User, laptop: Device
) -> None:
    alices_browser.post("/reauthenticate/", {"password": PASSWORD})
    answer = alices_browser.post("/account/tokens/", {"name": "Nothing", "days": "30"})
    assert answer.status_code == 422
    assert 'value="Nothing"' in answer.content.decode()
    for wrong in ({"scopes": ["everything"]}, {"days": "9999"}, {"name": "x" * 81}):
        assert alices_browser.post("/account/tokens/", {**WANTED, **wrong}).status_code == 422
    assert not PersonalToken.objects.exists()


def test_a_revoked_token_no_longer_works(
    alices_browser: Client, alice: User, laptop: Device
) -> None:
    token, text = tokens.create(alice, name="Old", scopes=["devices:read"], days=7)
    assert alices_browser.get(f"/account/tokens/{token.pk}/revoke/").status_code == 405
    answer = alices_browser.post(f"/account/tokens/{token.pk}/revoke/", follow=True)
    assert "Old is revoked. It no longer works." in answer.content.decode()
    assert tokens.find(text) is None


def test_row45_charlie_cannot_revoke_alices_token(
    charlies_browser: Client, alice: User, laptop: Device
) -> None:
    token, text = tokens.create(alice, name="Alice’s", scopes=["devices:read"], days=7)
    assert charlies_browser.post(f"/account/tokens/{token.pk}/revoke/").status_code == 404
    assert tokens.find(text) is not None
    assert "Alice’s" not in charlies_browser.get("/account/tokens/").content.decode()
