"""How up to date a device's definitions are, on its page and on the page of all of them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from doorward.devices.models import Device
from doorward.portal import freshness
from doorward.protection.definitions import rollout
from doorward.protection.models import DefinitionSet, SetState
from doorward_protocol.definitions import PROBLEMS

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)


def a_set(number: int, state: SetState = SetState.ALL) -> DefinitionSet:
    return DefinitionSet.objects.create(
        number=number, made_at=timezone.now(), state=state, state_at=timezone.now()
    )


def told(have: int, *, code: str = "", refused: int = 0, able: bool = True) -> freshness.Told:
    device = Device(
        capabilities=["definitions"] if able else [],
        definitions_version=have,
        definitions_code=code,
        definitions_refused=refused,
    )
    return freshness.of(device, rollout.steps(), NOW)


def test_every_reason_has_words() -> None:
    assert set(freshness.PROBLEMS) == set(PROBLEMS)


@pytest.mark.django_db
def test_without_a_set_devices_have_what_they_came_with() -> None:
    said = told(2026112200)
    assert (said.tone, str(said.word), said.more) == ("safe", "As they came with the agent", "")
    assert said.age == "3 days old"


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("facts", "word", "more"),
    [
        ({"have": 0}, "Not told yet", ""),
        ({"have": 2026112501}, "Up to date", ""),
        ({"have": 2026112200}, "Behind", "25 Nov 2026, set 1 is meant for it; it takes that"),
        (
            {"have": 2026112200, "code": "wrong-key"},
            "Behind",
            "It did not take 25 Nov 2026, set 1: they are not signed by the right keys. Those "
            "before stay in force.",
        ),
        (
            {"have": 2026112200, "code": "hits-clean", "refused": 2026112501},
            "Newer ones refused",
            "they find something in files that are clean",
        ),
        ({"have": 2026112200, "able": False}, "Needs a newer agent", ""),
    ],
)
def test_what_a_device_has_is_said_in_words(facts: dict[str, Any], word: str, more: str) -> None:
    a_set(2026112501)
    said = told(**facts)
    assert str(said.word) == word
    assert more in said.more


@pytest.mark.django_db
def test_the_pages_show_it(alices_browser: Client, laptop: Device) -> None:
    a_set(2026112501)
    Device.objects.filter(pk=laptop.pk).update(
        capabilities=["definitions"],
        definitions_version=2026112200,
        definitions_code="hits-clean",
        definitions_refused=2026112501,
    )
    for page in (f"/devices/{laptop.pk}/", "/protection/"):
        shown = alices_browser.get(page).content.decode()
        assert "Newer ones refused" in shown, page
        assert "they find something in files that are clean" in shown
