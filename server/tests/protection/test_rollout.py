"""Some devices get a set first; it goes on, or stops, by what they tell."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doorward.accounts.models import Account
from doorward.audit.models import Event
from doorward.devices.models import Device
from doorward.protection.definitions import rollout
from doorward.protection.models import DefinitionSet, SetState

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
LATER = NOW + timedelta(hours=7)
pytestmark = pytest.mark.django_db


def a_set(number: int = 2026112201, state: SetState = SetState.PREPARING) -> DefinitionSet:
    return DefinitionSet.objects.create(number=number, made_at=NOW, state=state, state_at=NOW)


def fleet(account: Account, count: int) -> list[Device]:
    return Device.objects.bulk_create(
        Device(
            account=account,
            name=f"computer {number}",
            public_key=f"{number:043}",
            thumbprint=f"{number:043}",
            capabilities=["definitions"],
            enrolled_at=NOW,
            changed_at=NOW,
        )
        for number in range(count)
    )


def tells(devices: list[Device], **facts: Any) -> None:
    Device.objects.filter(pk__in=[device.pk for device in devices]).update(**facts)


def early(devices: list[Device], made: DefinitionSet) -> list[Device]:
    return [each for each in devices if rollout.wanted(each.pk, rollout.steps()) == made.number]


@given(device=st.uuids(), number=st.integers(1, 2**31 - 1), share=st.floats(0, 1))
def test_a_devices_place_is_always_the_same_and_a_larger_share_holds_the_smaller(
    device: UUID, number: int, share: float
) -> None:
    place = rollout.place(device, number)
    assert place == rollout.place(device, number)
    assert 0 <= place < rollout.PLACES
    below = int(share * rollout.PLACES)
    if rollout.wanted(device, ((number, below),)):
        assert rollout.wanted(device, ((number, min(rollout.PLACES, below * 2)),)) == number
    assert rollout.wanted(device, ((number, rollout.PLACES),)) == number


def test_about_one_in_twenty_gets_a_new_set_first(alices_account: Account) -> None:
    devices = fleet(alices_account, 1000)
    before, made = a_set(2026112200, SetState.ALL), a_set()
    rollout.begin(made, NOW)
    assert made.state == SetState.EARLY
    first = early(devices, made)
    assert 25 <= len(first) <= 80
    rest = [device for device in devices if device not in first]
    assert {rollout.wanted(each.pk, rollout.steps()) for each in rest} == {before.number}


@pytest.mark.parametrize("count", [1, 3])
def test_few_devices_are_never_fewer_than_one(alices_account: Account, count: int) -> None:
    devices = fleet(alices_account, count)
    made = a_set()
    rollout.begin(made, NOW)
    assert len(early(devices, made)) >= 1


def test_where_nobody_can_try_it_it_is_for_all() -> None:
    made = a_set()
    rollout.begin(made, NOW)
    assert made.state == SetState.ALL


def test_what_was_taken_goes_on_to_all_after_some_hours(alices_account: Account) -> None:
    devices = fleet(alices_account, 40)
    made = a_set()
    rollout.begin(made, NOW)
    tells(early(devices, made)[:1], definitions_version=made.number)
    assert rollout.advance(NOW + timedelta(hours=1)) == 0
    assert rollout.advance(LATER) == 1
    assert len(early(devices, made)) == 40
    assert Event.objects.filter(tag="definitions.for_all").count() == 1


@pytest.mark.parametrize("code", rollout.FAULTS)
def test_what_is_refused_goes_no_further(alices_account: Account, code: str) -> None:
    devices = fleet(alices_account, 40)
    before, made = a_set(2026112200, SetState.ALL), a_set()
    rollout.begin(made, NOW)
    first = early(devices, made)
    tells(first[:1], definitions_refused=made.number, definitions_code=code)
    rollout.advance(NOW + timedelta(minutes=1))
    made.refresh_from_db()
    assert (made.state, code in made.why) == (SetState.STOPPED, True)
    assert {rollout.wanted(each.pk, rollout.steps()) for each in devices} == {before.number}
    rollout.advance(LATER)
    made.refresh_from_db()
    assert made.state == SetState.STOPPED, "only a person lets it go on"


@pytest.mark.parametrize("code", ["unreachable", "no-space", "other-engine", "expired"])
def test_troubles_of_a_device_do_not_speak_against_the_set(
    alices_account: Account, code: str
) -> None:
    devices = fleet(alices_account, 40)
    made = a_set()
    rollout.begin(made, NOW)
    first = early(devices, made)
    tells(first, definitions_refused=made.number, definitions_code=code)
    tells(first[:1], definitions_refused=0, definitions_code="", definitions_version=made.number)
    rollout.advance(LATER)
    made.refresh_from_db()
    assert made.state == SetState.ALL


def test_where_the_first_are_away_others_try_it(alices_account: Account) -> None:
    devices = fleet(alices_account, 60)
    made = a_set()
    rollout.begin(made, NOW)
    counts = [len(early(devices, made))]
    moment = NOW
    for _ in range(6):
        moment += timedelta(hours=7)
        rollout.advance(moment)
        counts.append(len(early(devices, made)))
    made.refresh_from_db()
    assert counts == sorted(counts)
    assert counts[-1] == 60
    assert made.state == SetState.EARLY, "never for all before one took it"


def test_a_set_for_all_stops_where_many_refuse_it_later(alices_account: Account) -> None:
    devices = fleet(alices_account, 40)
    made = a_set(state=SetState.ALL)
    tells(devices[:20], definitions_version=made.number)
    faulty = {"definitions_refused": made.number, "definitions_code": "crash"}
    tells(devices[20:22], **faulty)
    rollout.advance(NOW)
    made.refresh_from_db()
    assert made.state == SetState.ALL, "two may have troubles of their own"
    tells(devices[20:24], **faulty)
    rollout.advance(NOW)
    made.refresh_from_db()
    assert made.state == SetState.STOPPED


def test_an_operator_pauses_resumes_and_releases(alices_account: Account) -> None:
    devices = fleet(alices_account, 40)
    made = a_set()
    rollout.begin(made, NOW)
    count = len(early(devices, made))
    rollout.pause(made.number, by="olga", now=NOW)
    assert early(devices, made) == []
    with pytest.raises(rollout.NotPossible):
        rollout.pause(made.number, by="olga", now=NOW)
    rollout.resume(made.number, by="olga", now=NOW, everybody=False)
    assert len(early(devices, made)) == count
    rollout.resume(made.number, by="olga", now=NOW, everybody=True)
    assert len(early(devices, made)) == 40
    tags = set(Event.objects.values_list("tag", flat=True))
    assert tags >= {"definitions.paused", "definitions.resumed", "definitions.for_all"}
    with pytest.raises(rollout.NotPossible, match="no set 7"):
        rollout.pause(7, by="olga", now=NOW)


def test_removed_devices_count_for_nothing(alices_account: Account) -> None:
    devices = fleet(alices_account, 2)
    tells(devices, revoked_at=NOW)
    made = a_set()
    rollout.begin(made, NOW)
    assert made.state == SetState.ALL


def test_which_set_is_meant_costs_one_query(
    alices_account: Account, django_assert_num_queries: Any
) -> None:
    for number in range(30):
        a_set(2026112201 + number, SetState.ALL if number % 3 else SetState.WITHDRAWN)
    with django_assert_num_queries(1):
        steps = rollout.steps()
    assert len(steps) == 1
    assert rollout.wanted(uuid4(), steps) == 2026112230
