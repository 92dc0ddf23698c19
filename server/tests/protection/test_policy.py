"""What each device is told: layers, locks, versions, undo, dry run, proof."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest
import time_machine
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from server.tests.gateway.computers import code_for, joined, with_door
from uuid_utils.compat import uuid7

from doorward.accounts.models import Account, User
from doorward.audit.models import Event
from doorward.devices.models import Device, Presence
from doorward.gateway.door import Door
from doorward.protection import merging, policy, schema
from doorward.protection.models import DeviceSettings, SettingsVersion
from doorward.protection.policy import Delta
from doorward_protocol import settings as device_settings

AGENT = ["scan", "quarantine", "zstd", "settings"]


def device_in(account: Account, name: str = "laptop", **more: Any) -> Device:
    now = timezone.now()
    words = {
        "os_name": "linux",
        "capabilities": AGENT,
        "public_key": "k" * 43,
        "thumbprint": str(uuid7()),
        "enrolled_at": now,
        "changed_at": now,
    } | more
    device = Device.objects.create(account=account, hostname=name, **words)
    Presence.objects.create(device=device)
    return device


@pytest.fixture
def laptop(alices_account: Account) -> Device:
    return device_in(alices_account)


def of_account(values: dict[str, Any], *locked: str) -> Delta:
    return Delta("account", None, {"values": values, "locked": sorted(locked)})


def of_device(device: Device, values: dict[str, Any]) -> Delta:
    return Delta("device", device.pk, {"values": values} if values else None)


def group_of(name: str, values: dict[str, Any], *devices: Device, locked: Any = ()) -> list[Delta]:
    key = UUID(str(uuid7()))
    group = Delta("group", key, {"name": name, "values": values, "locked": sorted(locked)})
    return [group, *(Delta("place", device.pk, {"group": str(key)}) for device in devices)]


def save(account: Account, actor: User, *deltas: Delta, **more: Any) -> SettingsVersion | None:
    return policy.save(account, deltas, actor=actor, **({"proven": True} | more))


def told(device: Device) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(policy.told(device.pk)[1])["effective"]
    return found


LATER = {"quick_scan": {"start": "20:00"}}


def test_where_nobody_said_anything_the_product_holds(laptop: Device) -> None:
    assert policy.told(laptop.pk) == (0, policy.DEFAULT)
    assert told(laptop) == merging.PRODUCT


def test_the_nearest_layer_wins(alice: User, alices_account: Account, laptop: Device) -> None:
    save(alices_account, alice, of_account({"quick_scan": {"start": "20:00", "window": 60}}))
    assert (told(laptop)["quick_scan"]["start"], told(laptop)["quick_scan"]["window"]) == (
        "20:00",
        60,
    )
    save(alices_account, alice, *group_of("Office", {"quick_scan": {"start": "21:00"}}, laptop))
    assert told(laptop)["quick_scan"]["start"] == "21:00"
    save(alices_account, alice, of_device(laptop, {"quick_scan": {"start": "22:00"}}))
    assert told(laptop)["quick_scan"]["start"] == "22:00"
    assert told(laptop)["quick_scan"]["window"] == 60


def test_removing_an_override_inherits_again(
    alice: User, alices_account: Account, laptop: Device
) -> None:
    save(alices_account, alice, of_account(LATER))
    before = policy.told(laptop.pk)[1]
    save(alices_account, alice, of_device(laptop, {"quick_scan": {"start": "22:00"}}))
    save(alices_account, alice, of_device(laptop, {}))
    assert policy.told(laptop.pk)[1] == before


def test_a_locked_value_holds_below(alice: User, alices_account: Account, laptop: Device) -> None:
    save(alices_account, alice, of_device(laptop, {"quick_scan": {"start": "22:00"}}))
    save(alices_account, alice, of_account(LATER, "/quick_scan/start"))
    assert told(laptop)["quick_scan"]["start"] == "20:00"
    assert json.loads(policy.told(laptop.pk)[1])["locked"] == ["/quick_scan/start"]
    with pytest.raises(policy.Invalid) as refused:
        save(alices_account, alice, of_device(laptop, {"quick_scan": {"start": "23:00"}}))
    assert [each.at for each in refused.value.problems] == ["/quick_scan/start"]
    save(alices_account, alice, of_account(LATER))
    assert told(laptop)["quick_scan"]["start"] == "22:00", "what it said itself is still there"


def test_only_devices_whose_settings_change_get_a_new_version(
    alice: User, alices_account: Account, laptop: Device
) -> None:
    other = device_in(alices_account, "server")
    save(alices_account, alice, of_device(laptop, LATER))
    laptop.refresh_from_db()
    other.refresh_from_db()
    assert laptop.wanted_version > 0
    assert other.wanted_version == 0


def test_each_version_is_higher_also_when_the_clock_was_set_back(
    alice: User, alices_account: Account, laptop: Device
) -> None:
    seen = []
    for year, start in ((2030, "01:00"), (2027, "02:00"), (2027, "03:00")):
        with time_machine.travel(datetime(year, 1, 1, tzinfo=UTC), tick=False):
            save(alices_account, alice, of_device(laptop, {"quick_scan": {"start": start}}))
        seen.append(policy.told(laptop.pk)[0])
    assert seen == sorted(set(seen))
    assert seen[-1] < policy.NEWEST


def test_the_same_change_again_makes_no_version(
    alice: User, alices_account: Account, laptop: Device
) -> None:
    assert save(alices_account, alice, of_account(LATER)) is not None
    version = policy.told(laptop.pk)
    assert save(alices_account, alice, of_account(LATER)) is None
    assert policy.told(laptop.pk) == version
    assert SettingsVersion.objects.count() == 1


def test_a_version_says_who_when_why_and_what(
    alice: User, alices_account: Account, laptop: Device
) -> None:
    version = save(alices_account, alice, of_account(LATER), why="Lunch was disturbed")
    assert version is not None
    assert (version.number, version.by, version.why, version.devices) == (
        1,
        alice,
        "Lunch was disturbed",
        1,
    )
    assert version.changes == [
        {
            "kind": "account",
            "subject": None,
            "name": "",
            "before": {"values": {}, "locked": []},
            "after": {"values": LATER, "locked": []},
        }
    ]
    event = Event.objects.get(tag="protection.settings.changed")
    assert event.actor_id == alice.pk


def test_somebody_elses_change_in_between_is_not_overwritten(
    alice: User, alices_account: Account, laptop: Device
) -> None:
    save(alices_account, alice, of_account(LATER))
    with pytest.raises(policy.Outdated):
        save(alices_account, alice, of_account({}), base=0)
    assert told(laptop)["quick_scan"]["start"] == "20:00"


@pytest.mark.parametrize(
    ("values", "at"),
    [
        ({"quick_scan": {"start": "25:00"}}, "/quick_scan/start"),
        ({"quick_scan": {"window": 0}}, "/quick_scan/window"),
        ({"quick_scan": {"window": True}}, "/quick_scan/window"),
        ({"quick_scan": {"days": []}}, "/quick_scan/days"),
        ({"quick_scan": {"days": ["monday", "monday"]}}, "/quick_scan/days"),
        ({"real_time": {"mode": "sometimes"}}, "/real_time/mode"),
        ({"scanning": {"archives": "yes"}}, "/scanning/archives"),
        ({"nothing": 1}, "/nothing"),
        ({"scanning": {"unknown": 1}}, "/scanning/unknown"),
        ({"scanning": 7}, "/scanning"),
        ({"exclusions": {"a": {"path": "/"}}}, "/exclusions/a/path"),
        ({"exclusions": {"a": {"path": "C:\\"}}}, "/exclusions/a/path"),
        ({"exclusions": {"a": {"path": "/home/"}}}, "/exclusions/a/path"),
        ({"exclusions": {"a": {"path": "build"}}}, "/exclusions/a/path"),
        ({"exclusions": {"a": {"path": "/srv/../etc"}}}, "/exclusions/a/path"),
        ({"exclusions": {"a": {}}}, "/exclusions/a/path"),
        ({"exclusions": {"a": {"path": "/srv/\0"}}}, "/exclusions/a/path"),
        ({"exclusions": {"a": {"path": "/srv/\ud800"}}}, "/exclusions/a/path"),
        ({"exclusions": {"a": {"path": "/srv/x", "note": "\0"}}}, "/exclusions/a/note"),
        ({"custom_scan": {"folders": ["/srv/\u202e"]}}, "/custom_scan/folders/0"),
        ({"exclusions": {"a": {"sha256": "00"}}}, "/exclusions/a/sha256"),
        ({"exclusions": {"a/b": {"path": "/srv/x"}}}, "/exclusions/a~1b"),
        ({"exclusions": []}, "/exclusions"),
        ({"custom_scan": {"folders": ["srv"]}}, "/custom_scan/folders/0"),
        ({"custom_scan": {"enabled": True}}, "/custom_scan/folders"),
    ],
)
def test_what_is_not_sound_is_refused_by_place(
    alice: User, alices_account: Account, laptop: Device, values: dict[str, Any], at: str
) -> None:
    with pytest.raises(policy.Invalid) as refused:
        save(alices_account, alice, of_account(values))
    assert [each.at for each in refused.value.problems] == [at]
    assert all(str(each.words) for each in refused.value.problems)
    assert policy.told(laptop.pk) == (0, policy.DEFAULT)


def test_more_than_a_device_can_be_told_is_refused(alice: User, alices_account: Account) -> None:
    long = {str(number): {"path": "/srv/" + "x" * 4000} for number in range(20)}
    with pytest.raises(policy.Invalid):
        save(alices_account, alice, of_account({"exclusions": long}))


# -- dry run -------------------------------------------------------------------------------------


def test_a_dry_run_says_whom_it_reaches_and_who_cannot_and_changes_nothing(
    alices_account: Account, laptop: Device
) -> None:
    device_in(alices_account, "tablet", os_name="android")
    device_in(alices_account, "old", capabilities=["scan"])
    device_in(alices_account, "watching", capabilities=[*AGENT, "watch"])
    found = policy.plan(alices_account, [of_account({"real_time": {"mode": "notify"}})])
    cannot = {each.device.label: str(each.cannot[0][1]) for each in found.unable}
    assert [each.device.label for each in found.able] == ["watching"]
    assert cannot["tablet"] == "Android does not scan"
    assert "too old" in cannot["old"]
    assert "can’t watch files" in cannot["laptop"]
    assert found.others == 0
    assert policy.told(laptop.pk) == (0, policy.DEFAULT)


def test_a_dry_run_counts_devices_that_stay_as_they_are(
    alice: User, alices_account: Account, laptop: Device
) -> None:
    other = device_in(alices_account, "server")
    save(alices_account, alice, of_device(other, LATER))
    found = policy.plan(alices_account, [of_account(LATER)])
    assert [each.device for each in found.reached] == [laptop]
    assert found.others == 1


# -- protecting less needs fresh proof -------------------------------------------------------------

WEAKER = [
    {"real_time": {"mode": "off"}},
    {"real_time": {"mode": "notify"}},
    {"quick_scan": {"enabled": False}},
    {"full_scan": {"enabled": False}},
    {"quick_scan": {"days": ["monday"]}},
    {"quick_scan": {"on_battery": "skip"}},
    {"quick_scan": {"catch_up": False}},
    {"scanning": {"archives": False}},
    {"scanning": {"largest_file": 1}},
    {"scanning": {"second_engine": False}},
    {"finding": {"action": "report"}},
    {"updates": {"interval": 168}},
    {"exclusions": {"x": {"path": "/srv/build"}}},
    {"exclusions": {"x": {"sha256": "0" * 64}}},
]


@pytest.mark.parametrize("values", WEAKER, ids=str)
@pytest.mark.parametrize("layer", ["account", "group", "device"])
def test_n7_whoever_has_not_just_proved_who_they_are_weakens_nothing(
    alice: User, alices_account: Account, laptop: Device, values: dict[str, Any], layer: str
) -> None:
    deltas = {
        "account": [of_account(values)],
        "group": group_of("Office", values, laptop),
        "device": [of_device(laptop, values)],
    }[layer]
    with pytest.raises(policy.NeedsProof):
        save(alices_account, alice, *deltas, proven=False)
    assert policy.told(laptop.pk) == (0, policy.DEFAULT)
    assert not SettingsVersion.objects.exists()
    assert save(alices_account, alice, *deltas) is not None
    undone = policy.undoing(alices_account, SettingsVersion.objects.get())
    # Protecting more again asks nobody.
    assert save(alices_account, alice, *undone, proven=False) is not None


def test_n7_a_weaker_default_needs_proof_though_no_device_is_there_yet(
    alice: User, alices_account: Account
) -> None:
    with pytest.raises(policy.NeedsProof):
        save(alices_account, alice, of_account({"quick_scan": {"enabled": False}}), proven=False)


def test_n7_undoing_what_made_it_stronger_needs_proof_too(
    alice: User, alices_account: Account, laptop: Device
) -> None:
    save(alices_account, alice, of_account({"quick_scan": {"enabled": False}}))
    stronger = save(alices_account, alice, of_account({}), proven=False)
    assert stronger is not None
    with pytest.raises(policy.NeedsProof):
        save(alices_account, alice, *policy.undoing(alices_account, stronger), proven=False)


def test_n7_moving_a_device_into_a_laxer_group_needs_proof(
    alice: User, alices_account: Account, laptop: Device
) -> None:
    lax = group_of("Lax", {"finding": {"action": "report"}})
    save(alices_account, alice, *lax)
    with pytest.raises(policy.NeedsProof):
        save(
            alices_account,
            alice,
            Delta("place", laptop.pk, {"group": str(lax[0].subject)}),
            proven=False,
        )


def test_an_exclusion_that_ends_sooner_or_only_gets_another_note_is_not_weaker() -> None:
    entry = {"path": "/x", "sha256": "", "until": 10, "note": "", "active": True}
    before = {"a": entry}
    assert not schema.excludes_more(before, {"a": entry | {"until": 9}})
    assert not schema.excludes_more(before, {"a": entry | {"note": "n"}})
    assert not schema.excludes_more(before, {"a": entry | {"active": False}})
    assert not schema.excludes_more(before, {})
    assert schema.excludes_more(before, {"a": entry | {"until": None}})
    assert schema.excludes_more(before, {"a": entry | {"path": "/"}})
    assert schema.excludes_more({"a": entry | {"active": False}}, before)


# -- groups and undo -------------------------------------------------------------------------------


def test_undo_restores_byte_equal_settings(
    alice: User, alices_account: Account, laptop: Device
) -> None:
    save(
        alices_account,
        alice,
        of_account(LATER),
        of_device(laptop, {"sharing": {"system_version": False}}),
    )
    before = policy.told(laptop.pk)[1]
    group = group_of("Office", {"full_scan": {"days": ["sunday"]}}, laptop)
    version = save(alices_account, alice, *group)
    assert version is not None
    assert policy.told(laptop.pk)[1] != before
    save(alices_account, alice, *policy.undoing(alices_account, version), undoes=version.number)
    assert policy.told(laptop.pk)[1] == before
    assert SettingsVersion.objects.order_by("-number")[0].undoes == version.number


def test_undo_brings_back_what_has_been_locked_further_up_since(
    alice: User, alices_account: Account, laptop: Device
) -> None:
    save(alices_account, alice, of_device(laptop, LATER))
    gone = save(alices_account, alice, of_device(laptop, {}))
    save(alices_account, alice, of_account({}, "/quick_scan/start"))
    assert gone is not None
    back = policy.undoing(alices_account, gone)
    assert save(alices_account, alice, *back, undoes=gone.number) is not None
    assert told(laptop)["quick_scan"]["start"] == "12:00", "the lock still holds"
    save(alices_account, alice, of_account({}))
    assert told(laptop)["quick_scan"]["start"] == "20:00"


def test_a_removed_group_comes_back_with_its_devices(
    alice: User, alices_account: Account, laptop: Device
) -> None:
    group = group_of("Office", LATER, laptop)
    save(alices_account, alice, *group)
    before, state = policy.told(laptop.pk)[1], policy.state_of(alices_account)
    version = save(alices_account, alice, Delta("group", group[0].subject, None))
    assert version is not None
    assert told(laptop)["quick_scan"]["start"] == "12:00"
    save(alices_account, alice, *policy.undoing(alices_account, version))
    after = policy.state_of(alices_account)
    assert policy.told(laptop.pk)[1] == before
    assert (after.groups, after.places) == (state.groups, state.places)


def test_a_place_in_a_group_that_is_gone_cannot_be_given_back_alone(
    alice: User, alices_account: Account, laptop: Device
) -> None:
    group = group_of("Office", LATER, laptop)
    save(alices_account, alice, *group)
    moved = save(alices_account, alice, Delta("place", laptop.pk, None))
    save(alices_account, alice, Delta("group", group[0].subject, None))
    assert moved is not None
    with pytest.raises(policy.CannotUndo):
        policy.undoing(alices_account, moved)


def test_two_groups_of_one_name_are_refused(alice: User, alices_account: Account) -> None:
    save(alices_account, alice, *group_of("Office", {}))
    with pytest.raises(policy.Invalid):
        save(alices_account, alice, *group_of("office", {}))


def test_one_accounts_settings_reach_no_other(
    alice: User, alices_account: Account, charlie: User
) -> None:
    theirs = device_in(Account.objects.exclude(pk=alices_account.pk).get())
    save(alices_account, alice, of_account(LATER))
    assert policy.told(theirs.pk) == (0, policy.DEFAULT)
    # Named from outside, it is not there: its own settings stay as they are.
    save(alices_account, alice, of_device(theirs, LATER))
    assert policy.told(theirs.pk) == (0, policy.DEFAULT)


# -- devices that come and come back ---------------------------------------------------------------


def test_a_device_that_joins_is_told_its_accounts_settings(
    alice: User, alices_account: Account, transactional_db: None
) -> None:
    save(alices_account, alice, of_account(LATER))
    code = code_for(alices_account)

    async def act(door: Door) -> int:
        return int((await (await joined(door, code)).check_in()).json["settings_version"])

    assert with_door(act) > 0
    assert told(Device.objects.get())["quick_scan"]["start"] == "20:00"


def test_after_a_restore_the_server_goes_beyond_what_the_device_has_heard(laptop: Device) -> None:
    ahead = 2**30
    assert policy.overtake({laptop.pk: ahead}) == 1
    assert policy.told(laptop.pk)[0] == ahead + 1
    assert policy.overtake({laptop.pk: ahead}) == 0
    assert policy.overtake({laptop.pk: policy.NEWEST}) == 0, "there is nothing beyond the last"


def test_after_an_update_of_the_product_every_device_is_told_anew(
    alice: User, alices_account: Account, laptop: Device
) -> None:
    save(alices_account, alice, of_account(LATER))
    version = policy.told(laptop.pk)[0]
    assert policy.renew(timezone.now()) == 0
    DeviceSettings.objects.update(made_by="older", merged="{}")
    assert policy.renew(timezone.now()) == 1
    assert policy.told(laptop.pk)[0] > version
    assert told(laptop)["quick_scan"]["start"] == "20:00"


def test_saving_costs_the_same_however_many_devices_there_are(
    alice: User, alices_account: Account, laptop: Device
) -> None:
    save(alices_account, alice, of_account({"full_scan": {"start": "01:00"}}))
    counts = []
    for number, start in ((0, "20:00"), (30, "21:00"), (0, "22:00")):
        for each in range(number):
            device_in(alices_account, f"device {each}")
        with CaptureQueriesContext(connection) as queries:
            save(alices_account, alice, of_account({"quick_scan": {"start": start}}))
        counts.append(len(queries))
    assert counts[2] <= counts[0] + 2


# -- the schema ------------------------------------------------------------------------------------


def test_every_setting_has_its_words_and_stands_in_one_section() -> None:
    assert set(schema.FIELDS) == set(schema.TYPES)
    for section in schema.SECTIONS:
        for field in section.fields:
            assert field.section == section.key
            assert str(field.label)


def test_every_choice_of_the_protocol_has_its_words() -> None:
    for field in schema.FIELDS.values():
        if field.kind == "choice":
            values = set(msgspec.inspect.type_info(field.type).values)  # type: ignore[attr-defined]  # a literal
            assert {value for value, _words in field.choices} == values
            assert field.default in values


def test_the_product_protects_as_the_protocol_says() -> None:
    assert msgspec.convert(merging.PRODUCT, device_settings.Settings) == device_settings.Settings()


def test_every_setting_stands_in_the_operators_document() -> None:
    text = (Path(__file__).parents[3] / "docs/operators/settings.md").read_text()
    rows = re.findall(r"^\| `(/\S+)` \| (.*?) \| .*? \| `(\w+)` \| .*? \|$", text, re.MULTILINE)
    written = {at: (default.strip("`"), needs) for at, default, needs in rows}
    coded = {
        at: (
            "every day"
            if field.kind == "days" and len(field.default) == 7
            else json.dumps(field.default),
            field.needs,
        )
        for at, field in schema.FIELDS.items()
    }
    assert written == coded
