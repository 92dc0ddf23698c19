"""Settings over the API: the pages' layers, dry run, proof and versions."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.test import Client
from server.tests.accounts.second_steps import App
from server.tests.api.test_api import Script, script_of
from server.tests.conftest import PASSWORD
from server.tests.protection.test_policy import device_in, told

from doorward.accounts.models import Account, User
from doorward.devices.models import Device
from doorward.protection import merging, policy
from doorward.protection.models import SettingsVersion

START = {"quick_scan": {"start": "20:00"}}
OFF = {"quick_scan": {"enabled": False}}


@pytest.fixture
def script(alice: User, alices_account: Account) -> Script:
    return script_of(alice)


@pytest.fixture
def laptop(alices_account: Account) -> Device:
    return device_in(alices_account)


def test_nobody_has_said_anything_yet(script: Script, laptop: Device) -> None:
    found = script.get("/settings").json()
    assert (found["newest"], found["values"], found["effective"]) == (0, {}, merging.PRODUCT)
    assert (found["devices"], found["applied"]) == (1, 1)


def test_a_patch_is_merged_told_and_listed(script: Script, laptop: Device) -> None:
    answer = script.call("PATCH", "/settings", {"values": START, "why": "Lunch"})
    assert answer.status_code == 200
    assert answer.json()["values"] == START
    assert answer.json()["change"]["reached"] == 1
    assert told(laptop)["quick_scan"]["start"] == "20:00"
    window = {"quick_scan": {"window": 60}}
    script.call("PATCH", "/settings", {"values": window, "locked": ["/quick_scan/window"]})
    found = script.get("/settings").json()
    assert found["values"] == {"quick_scan": {"start": "20:00", "window": 60}}
    assert found["locked"] == ["/quick_scan/window"]
    listed = script.get("/settings/versions?limit=1").json()
    assert (listed["items"][0]["number"], listed["next"]) == (2, "2")
    older = script.get(f"/settings/versions?limit=1&cursor={listed['next']}").json()
    assert (older["items"][0]["why"], older["next"]) == ("Lunch", None)


def test_null_inherits_again(script: Script, laptop: Device) -> None:
    script.call("PATCH", f"/devices/{laptop.pk}/settings", {"values": START})
    found = script.get(f"/devices/{laptop.pk}/settings").json()
    assert found["values"] == START
    assert found["inherited"]["quick_scan"]["start"] == "12:00"
    assert found["applied"]["state"] == "waiting"
    gone = {"values": {"quick_scan": {"start": None}}}
    answer = script.call("PATCH", f"/devices/{laptop.pk}/settings", gone)
    assert answer.json()["values"] == {}
    assert told(laptop)["quick_scan"]["start"] == "12:00"


def test_a_dry_run_stores_nothing(script: Script, alices_account: Account, laptop: Device) -> None:
    pixel = device_in(alices_account, "pixel", os_name="android")
    change = script.call("PATCH", "/settings", {"values": OFF, "dry_run": True}).json()["change"]
    assert (change["reached"], change["unable"], change["number"]) == (2, 1, None)
    assert change["cannot"][0]["id"] == str(pixel.pk)
    assert change["cannot"][0]["reasons"] == {"/quick_scan/enabled": "Android does not scan"}
    assert change["weaker"] == ["/quick_scan/enabled"]
    assert not SettingsVersion.objects.exists()
    assert policy.told(laptop.pk) == (0, policy.DEFAULT)


def test_n7_a_token_cannot_switch_protection_off(script: Script, laptop: Device) -> None:
    for path in ("/settings", f"/devices/{laptop.pk}/settings"):
        answer = script.call("PATCH", path, {"values": OFF})
        assert answer.status_code == 403
        assert answer.json()["code"] == "reauthentication-required"
    assert policy.told(laptop.pk) == (0, policy.DEFAULT)


def test_n7_an_app_may_once_its_person_has_proved_it_again(alice: User, laptop: Device) -> None:
    app, client = App(), Client(HTTP_HOST="localhost")
    app.call("POST", "auth/login", email=alice.email, password=PASSWORD)

    def switch_off() -> int:
        headers = {"X-Session-Token": app.token}
        body = json.dumps({"values": OFF})
        kind = "application/json"
        answer = client.patch("/api/v1/settings", body, content_type=kind, headers=headers)
        return answer.status_code

    assert switch_off() == 403
    app.call("POST", "auth/reauthenticate", password=PASSWORD)
    assert switch_off() == 200
    assert told(laptop)["quick_scan"]["enabled"] is False


@pytest.mark.parametrize(
    ("body", "at"),
    [
        ({"values": {"quick_scan": {"start": "25:00"}}}, ["quick_scan", "start"]),
        ({"values": {"nothing": 1}}, ["nothing"]),
        ({"values": {"exclusions": {"x": {"path": "/"}}}}, ["exclusions", "x", "path"]),
        ({"values": {"quick_scan": 7}}, ["quick_scan"]),
        ({"locked": ["/nothing"]}, ["nothing"]),
    ],
)
def test_what_is_wrong_is_named_by_place(
    script: Script, laptop: Device, body: dict[str, Any], at: list[str]
) -> None:
    answer = script.call("PATCH", "/settings", body)
    assert answer.status_code == 422
    assert [field["at"] for field in answer.json()["fields"]] == [["body", "change", "values", *at]]
    assert not SettingsVersion.objects.exists()


def test_a_field_we_do_not_know_and_depth_are_refused(script: Script, laptop: Device) -> None:
    deep: Any = 1
    for _ in range(50):
        deep = {"a": deep}
    bodies: list[dict[str, Any]] = [{"value": {}}, {"values": deep}, {"values": {}, "base": -1}]
    for body in bodies:
        assert script.call("PATCH", "/settings", body).status_code == 422
    nul = script.call("PATCH", "/settings", {"values": {"custom_scan": {"folders": ["/a\0b"]}}})
    assert nul.status_code == 422


def test_somebody_elses_change_in_between_is_a_conflict(script: Script, laptop: Device) -> None:
    script.call("PATCH", "/settings", {"values": START})
    later = {"values": {"quick_scan": {"start": "21:00"}}, "base": 0}
    assert script.call("PATCH", "/settings", later).status_code == 409
    assert told(laptop)["quick_scan"]["start"] == "20:00"


def test_a_viewer_reads_and_changes_nothing(bob: User, laptop: Device) -> None:
    bobs = script_of(bob)
    assert bobs.get("/settings").status_code == 200
    assert bobs.call("PATCH", "/settings", {"values": START}).status_code == 403
    assert bobs.call("PATCH", f"/devices/{laptop.pk}/settings", {}).status_code == 403


def test_charlies_device_is_not_there_for_alice(script: Script, charlie: User) -> None:
    theirs = device_in(Account.objects.get(memberships__user=charlie))
    for method in ("GET", "PATCH"):
        assert script.call(method, f"/devices/{theirs.pk}/settings", {}).status_code == 404


def test_what_a_device_could_not_apply_is_told(script: Script, laptop: Device) -> None:
    script.call("PATCH", "/settings", {"values": START})
    laptop.refresh_from_db()
    Device.objects.filter(pk=laptop.pk).update(
        settings_status="failed",
        settings_failed_version=laptop.wanted_version,
        settings_errors=[{"pointer": "/quick_scan/start", "code": "invalid"}],
    )
    applied = script.get(f"/devices/{laptop.pk}/settings").json()["applied"]
    assert applied["state"] == "failed"
    assert applied["errors"] == [{"pointer": "/quick_scan/start", "code": "invalid"}]
