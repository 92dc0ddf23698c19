"""The frame around the pages: where one is, and where typing begins."""

from __future__ import annotations

import pytest
from django.test import Client

from doorward.accounts.models import Account


@pytest.mark.parametrize("address", ["/account/", "/email/", "/password/change/"])
def test_the_menu_shows_the_account_on_all_of_its_pages(
    alices_browser: Client, account: Account, address: str
) -> None:
    answer = alices_browser.get(address, follow=True)
    page = answer.content.decode()
    assert answer.status_code == 200
    assert '<a href="/account/" aria-current=' in page


@pytest.mark.django_db
def test_whoever_is_asked_for_a_mailed_code_can_type_it_at_once() -> None:
    browser = Client()
    browser.post("/signup/", {"email": "new@example.org", "password1": "seven lamps above the bay"})
    page = browser.get("/confirm-email/").content.decode()
    field = page[page.index('name="code"') :].partition(">")[0]
    assert "autofocus" in field
    assert 'autocomplete="one-time-code"' in field
