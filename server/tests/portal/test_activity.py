"""The activity page tells everybody what happened to them, and nobody what happened to others."""

from __future__ import annotations

import re

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from doorward.accounts.models import Account, User
from doorward.audit import queries, trail
from doorward.portal import activity


def shown(tab: Client, query: str = "") -> str:
    answer = tab.get(f"/account/activity/{query}")
    assert answer.status_code == 200
    return re.sub(r"\s+", " ", answer.content.decode())


@pytest.mark.django_db
def test_alice_sees_what_she_did_and_what_happened_in_her_account(
    alices_browser: Client, alice: User, bob: User, charlie: User, alices_account: Account
) -> None:
    trail.record("account.login.failed", actor=alice, ip="198.51.100.7", agent="Firefox")
    trail.record("device.renamed", actor=bob, account=alices_account, after="kitchen")
    trail.record("account.login.failed", actor=charlie, ip="203.0.113.9")
    page = shown(alices_browser)
    assert "Somebody tried a wrong password" in page
    assert "198.51.100.7" in page
    assert "A device was renamed" in page
    assert "kitchen" in page
    assert "by another member" in page
    assert "203.0.113.9" not in page


@pytest.mark.django_db
def test_a31_a_viewer_sees_only_what_they_did_themselves(
    bobs_browser: Client, bob: User, alice: User, alices_account: Account
) -> None:
    trail.record("account.login.failed", actor=alice, ip="198.51.100.7")
    trail.record("device.removed", actor=alice, account=alices_account, name="kitchen")
    trail.record("account.logout", actor=bob)
    page = shown(bobs_browser)
    assert "You signed out" in page
    assert "198.51.100.7" not in page
    assert "kitchen" not in page


@pytest.mark.django_db
def test_the_page_shows_one_kind_alone(
    alices_browser: Client, alice: User, alices_account: Account
) -> None:
    trail.record("account.login.failed", actor=alice)
    trail.record("device.removed", actor=alice, account=alices_account, name="kitchen")
    assert "kitchen" in shown(alices_browser, "?kind=devices")
    assert "wrong password" not in shown(alices_browser, "?kind=devices")
    assert "wrong password" in shown(alices_browser, "?kind=signing-in")
    assert "kitchen" in shown(alices_browser, "?kind=nonsense")


@pytest.mark.django_db
def test_older_events_are_on_further_pages_each_once(alice: User, alices_account: Account) -> None:
    made = [
        trail.record("device.renamed", actor=alice, account=alices_account).pk for _n in range(70)
    ]
    seen: list[int] = []
    before = 0
    while True:
        page = queries.page(
            person=alice.pk, account=alices_account.pk, kinds=("device.",), before=before
        )
        seen += [event.pk for event in page.events]
        before = page.older
        if not before:
            break
    assert seen == made[::-1]


@pytest.mark.django_db
@pytest.mark.parametrize("before", ["x", "-1", "9" * 40, "", "\u0663", "0", "%00"])
def test_a_made_up_page_is_a_page(before: str, alices_browser: Client, alice: User) -> None:
    trail.record("account.logout", actor=alice)
    shown(alices_browser, f"?before={before}")


@pytest.mark.django_db
def test_a43_a_hostile_browser_name_is_inert(alices_browser: Client, alice: User) -> None:
    trail.record("account.logout", actor=alice, agent="<img src=x onerror=alert(1)>\u202e")
    page = shown(alices_browser)
    assert "<img" not in page
    assert "&lt;img" in page
    assert "\u202e" not in page


@pytest.mark.django_db
def test_the_number_of_queries_does_not_grow_with_what_happened(
    alices_browser: Client, alice: User, alices_account: Account
) -> None:
    counts = []
    for _round in range(2):
        for _number in range(40):
            trail.record("device.renamed", actor=alice, account=alices_account)
        with CaptureQueriesContext(connection) as captured:
            shown(alices_browser)
        counts.append(len(captured))
    assert counts[0] == counts[1]


def test_every_kind_of_event_in_words_belongs_to_a_filter() -> None:
    prefixes = tuple(prefix for _words, tags in activity.KINDS.values() for prefix in tags)
    assert all(tag.startswith(prefixes) for tag in activity.WORDS)


@pytest.mark.django_db
def test_the_second_step_is_part_of_signing_in_and_setting_it_up_a_change(
    alices_browser: Client, alice: User, alices_account: Account
) -> None:
    for what in ("used", "failed", "added", "removed"):
        trail.record(f"account.second_step.{what}", actor=alice)
    signing_in, changes = (shown(alices_browser, f"?kind={it}") for it in ("signing-in", "changes"))
    for words in ("The second step was taken", "The second step failed"):
        assert words in signing_in
        assert words not in changes
    for words in ("take the second step was added", "take the second step was removed"):
        assert words in changes
        assert words not in signing_in
