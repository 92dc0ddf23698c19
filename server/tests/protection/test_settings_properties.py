"""Merging, locking, versions and undo hold for whatever is said, in whatever order."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from server.tests.protection.test_policy import device_in
from uuid_utils.compat import uuid7

from doorward.accounts.models import Account, Membership, Role, User
from doorward.protection import merging, policy
from doorward.protection.merging import Layer, merged
from doorward.protection.models import DeviceSettings, SettingsVersion
from doorward.protection.policy import Delta
from doorward_protocol.settings import DAYS

scalars = st.none() | st.booleans() | st.integers(-5, 5) | st.text("ab", max_size=2)
documents = st.recursive(
    scalars,
    lambda inner: (
        st.dictionaries(st.sampled_from("abc"), inner, max_size=3) | st.lists(inner, max_size=2)
    ),
    max_leaves=8,
)


def rfc_7396(target: Any, patch: Any) -> Any:
    """The RFC's own pseudocode, section 2."""
    if isinstance(patch, dict):
        if not isinstance(target, dict):
            target = {}
        target = dict(target)
        for name, value in patch.items():
            if value is None:
                if name in target:
                    del target[name]
            else:
                target[name] = rfc_7396(target.get(name), value)
        return target
    return patch


@given(target=documents, patch=documents)
def test_a_patch_is_merged_as_the_rfc_says_and_touches_neither(target: Any, patch: Any) -> None:
    before = json.dumps([target, patch])
    assert merged(target, patch) == rfc_7396(target, patch)
    assert json.dumps([target, patch]) == before


@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"a": "foo"}, "bar", "bar"),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_the_examples_of_the_rfc(target: Any, patch: Any, result: Any) -> None:
    assert merged(target, patch) == result


times = st.sampled_from(["00:00", "06:30", "12:00", "23:59"])
said = st.fixed_dictionaries(
    {},
    optional={
        "quick_scan": st.fixed_dictionaries(
            {},
            optional={
                "enabled": st.booleans(),
                "start": times,
                "days": st.lists(st.sampled_from(DAYS), min_size=1, unique=True),
            },
        ),
        "finding": st.fixed_dictionaries({}, optional={"action": st.just("report")}),
        "exclusions": st.dictionaries(
            st.sampled_from("xyz"),
            st.fixed_dictionaries(
                {"path": st.sampled_from(["/srv/a", "/srv/b"])},
                optional={"active": st.booleans(), "until": st.integers(0, 9)},
            ),
            max_size=2,
        ),
    },
).map(merging.without_empty)
locks = st.lists(
    st.sampled_from(["/quick_scan/start", "/quick_scan/days", "/finding/action", "/exclusions"]),
    unique=True,
).map(tuple)
layers = st.lists(st.builds(Layer, said, locks), max_size=3)


@given(above=layers, below=st.builds(Layer, said))
def test_whatever_is_locked_above_holds_below(above: list[Layer], below: Layer) -> None:
    over, locked = merging.effective(above)
    under, _all_locked = merging.effective([*above, below])
    for pointer in locked:
        assert merging.at(under, pointer) == merging.at(over, pointer)


@given(chain=layers, at=st.integers(0, 3))
def test_a_layer_that_says_nothing_changes_nothing(chain: list[Layer], at: int) -> None:
    assert merging.text_of([*chain[:at], Layer(), *chain[at:]]) == merging.text_of(chain)


@given(chain=layers)
def test_what_is_told_is_always_whole_and_always_the_same_text(chain: list[Layer]) -> None:
    document, _locked = merging.effective(chain)
    assert set(document) == set(merging.PRODUCT)
    again = json.loads(merging.text_of(chain))
    assert merging.canonical(again) == merging.text_of(chain)


# A history: who says what in which layer, and which changes are taken back, in any order.
steps = st.lists(
    st.one_of(
        st.tuples(st.just("account"), said, locks),
        st.tuples(st.just("group"), said, locks),
        st.tuples(st.just("device"), st.integers(0, 1), said),
        st.tuples(st.just("place"), st.integers(0, 1), st.booleans()),
        st.tuples(st.just("regroup"), st.booleans(), st.none()),
        st.tuples(st.just("undo-last"), st.none(), st.none()),
        st.tuples(st.just("undo"), st.integers(1, 12), st.none()),
    ),
    max_size=12,
)


@pytest.mark.django_db
@settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(history=steps)
def test_whatever_the_history_versions_rise_undo_restores_and_the_memory_is_true(
    alice: User, history: list[Any]
) -> None:
    account = Account.objects.create(name="One of many")
    Membership.objects.create(account=account, user=alice, role=Role.OWNER)
    devices = [device_in(account, name) for name in ("laptop", "server")]
    group = UUID(str(uuid7()))
    versions = {device.pk: 0 for device in devices}
    for step in history:
        before = [policy.told(device.pk) for device in devices]
        done = _take(account, alice, step, devices, group)
        state = policy.state_of(account)
        for device, (number, text) in zip(devices, before, strict=True):
            now, told = policy.told(device.pk)
            # What is stored is what the layers say, always.
            assert told == merging.text_of(state.layers(device.pk))
            # A version rises exactly when what is told is other than before.
            assert (now > number) == (told != text)
            versions[device.pk] = now
        if done is not None and step[0] != "undo":
            _undone_and_done_again(account, alice, done, before, devices)
    numbers = list(
        SettingsVersion.objects.filter(account=account)
        .order_by("number")
        .values_list("number", flat=True)
    )
    assert numbers == list(range(1, len(numbers) + 1))
    DeviceSettings.objects.filter(account=account).delete()


def _take(
    account: Account, actor: User, step: Any, devices: list[Any], group: UUID
) -> SettingsVersion | None:
    kind, first, second = step
    state = policy.state_of(account)
    deltas: list[Delta] = []
    undoes = None
    if kind == "account":
        deltas = [Delta("account", None, {"values": first, "locked": sorted(second)})]
    elif kind == "group" and group in state.groups:
        after = {"name": "Office", "values": first, "locked": sorted(second)}
        deltas = [Delta("group", group, after)]
    elif kind == "regroup":
        made: Any = {"name": "Office", "values": {}, "locked": []}
        if (group in state.groups) != first:
            deltas = [Delta("group", group, made if first else None)]
    elif kind == "device":
        deltas = [Delta("device", devices[first].pk, {"values": second} if second else None)]
    elif kind == "place" and group in state.groups:
        place = {"group": str(group)} if second else None
        deltas = [Delta("place", devices[first].pk, place)]
    elif kind in {"undo", "undo-last"}:
        number = state.newest if kind == "undo-last" else first
        version = SettingsVersion.objects.filter(account=account, number=number).first()
        if version is None:
            return None
        try:
            deltas, undoes = policy.undoing(account, version), version.number
        except policy.CannotUndo:
            return None
    try:
        return policy.save(account, deltas, actor=actor, proven=True, undoes=undoes)
    except policy.Invalid:
        return None  # Something is locked above.


def _undone_and_done_again(
    account: Account,
    actor: User,
    done: SettingsVersion,
    before: list[tuple[int, str]],
    devices: list[Any],
) -> None:
    after = [policy.told(device.pk)[1] for device in devices]
    back = policy.undoing(account, done)
    undone = policy.save(account, back, actor=actor, proven=True, undoes=done.number)
    assert undone is not None
    assert [policy.told(device.pk)[1] for device in devices] == [text for _n, text in before]
    again = policy.undoing(account, undone)
    policy.save(account, again, actor=actor, proven=True, undoes=undone.number)
    assert [policy.told(device.pk)[1] for device in devices] == after
