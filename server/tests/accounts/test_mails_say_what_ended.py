"""The mail about a change of how one signs in says what else ended by it, and counts truly."""

from __future__ import annotations

import email
import email.policy
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.sessions.models import Session
from django.utils import timezone
from server.tests.abuse.test_every_change_ends_every_token import (
    CHANGES,
    NEW,
    NEW_ADDRESS,
    at_home,
    change_address,
    opened,
    reset_password,
)
from server.tests.accounts.second_steps import App, choose_email, signed_in_tab
from server.tests.conftest import PASSWORD

from doorward.accounts import tokens
from doorward.accounts.models import Account, PersonalToken, RememberedBrowser, User
from doorward.notices import outbox
from doorward.notices.models import Mail

pytestmark = pytest.mark.django_db(transaction=True)

NOTHING = "Nothing else had to end: no other session, remembered browser or token."


def texts_since(there: set[Any], settings: Any) -> list[str]:
    """Return the text of each mail written since these, sent now."""
    outbox.send_due(timezone.now())
    found = []
    for mail in Mail.objects.exclude(pk__in=there).order_by("created_at"):
        file = Path(settings.DATA) / "mail" / f"{mail.pk}.eml"
        message = email.message_from_bytes(file.read_bytes(), policy=email.policy.default)
        body = message.get_body(("plain",))
        assert body is not None
        found.append(" ".join(body.get_content().split()))
    return found


@pytest.mark.parametrize("change", [each for each in CHANGES if "taken back" not in each])
def test_n3_the_mail_about_a_change_counts_what_ended_by_it(
    change: str,
    alice: User,
    alices_account: Account,
    settings: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    act, _stays = CHANGES[change]
    home, seed, codes = at_home(alice, monkeypatch)
    opened(alice, seed, codes, home)
    there = set(Mail.objects.values_list("pk", flat=True))
    act(home, alice, settings)
    # By the mailed link, the browser that was signed in ends too: the one that made it is another.
    sessions = 3 if act is reset_password else 2
    counted = f"{sessions} other sessions, 1 remembered browser, 1 token for programs"
    telling = [text for text in texts_since(there, settings) if f"ended: {counted}." in text]
    assert len(telling) == 1, telling


def test_what_had_run_out_already_is_not_counted(
    alice: User, alices_account: Account, settings: Any
) -> None:
    home, cafe = signed_in_tab(alice.email), signed_in_tab(alice.email)
    assert cafe.session.session_key
    past = timezone.now() - timedelta(days=1)
    tokens.create(alice, name="script", scopes=["devices:read"], days=1)
    PersonalToken.objects.update(expires_at=past)
    RememberedBrowser.objects.create(
        user=alice,
        digest="x",
        agent="",
        ip="",
        created_at=past,
        last_used_at=past,
        expires_at=past,
    )
    kept = home.cookies["dw_session"].value
    from doorward.accounts.session_store import kept_as

    Session.objects.exclude(session_key=kept_as(kept)).update(expire_date=past)
    there = set(Mail.objects.values_list("pk", flat=True))
    home.post("/password/change/", {"oldpassword": PASSWORD, "password1": NEW, "password2": NEW})
    (text,) = texts_since(there, settings)
    assert NOTHING in text


def test_an_app_that_changes_the_password_has_it_told_too(
    alice: User, alices_account: Account, settings: Any
) -> None:
    signed_in_tab(alice.email)
    app = App()
    app.call("POST", "auth/login", email=alice.email, password=PASSWORD)
    there = set(Mail.objects.values_list("pk", flat=True))
    app.call("POST", "account/password/change", current_password=PASSWORD, new_password=NEW)
    (text,) = texts_since(there, settings)
    assert "With it ended: 1 other session." in text


def test_the_first_second_step_says_what_it_ended(
    alice: User, alices_account: Account, settings: Any
) -> None:
    home = signed_in_tab(alice.email)
    signed_in_tab(alice.email)
    there = set(Mail.objects.values_list("pk", flat=True))
    choose_email(home)
    (text,) = texts_since(there, settings)
    assert "With it ended: 1 other session." in text


def test_the_address_before_is_told_what_ended(
    alice: User, alices_account: Account, settings: Any
) -> None:
    home = signed_in_tab(alice.email)
    signed_in_tab(alice.email)
    home.post("/reauthenticate/", {"password": PASSWORD})
    there = set(Mail.objects.values_list("pk", flat=True))
    change_address(home, alice, settings)
    told = [text for text in texts_since(there, settings) if "take the change back" in text]
    assert len(told) == 1
    assert "With it ended: 1 other session." in told[0]
    assert NEW_ADDRESS not in told[0], "masked"
