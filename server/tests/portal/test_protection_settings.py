"""Settings on the pages: made from the schema, looked at before saving, taken back, proved."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest
from django.core import signing
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from server.tests.conftest import PASSWORD, signed_in
from server.tests.portal.stock import device_of

from doorward.accounts.models import Account, Membership, Role, User
from doorward.devices.models import Device
from doorward.portal import before_saving, settings_words
from doorward.protection import merging, policy, schema
from doorward.protection.models import Group, SettingsVersion

AGENT = ["scan", "quarantine", "zstd", "settings"]
QUICK = "/protection/settings/quick-scan/"


@pytest.fixture
def kitchen(alices_account: Account) -> Device:
    return device_of(alices_account, hostname="kitchen", capabilities=AGENT)


def quick(**changes: Any) -> dict[str, Any]:
    """The quick scan's form as it stands, with changes."""
    return {
        "enabled": "on",
        "days": ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"],
        "start": "12:00",
        "window": "30",
        "on_battery": "run",
        "catch_up": "on",
    } | changes


def change_in(answer: Any) -> str:
    found = re.search(r'name="change" value="([^"]+)"', answer.content.decode())
    assert found, "this is not the page that shows what a change would do"
    return found[1]


def saved(browser: Client, address: str, values: dict[str, Any], why: str = "") -> Any:
    looked = browser.post(address, values)
    assert looked.status_code == 200, looked.status_code
    return browser.post("/protection/save/", {"change": change_in(looked), "why": why})


def told(device: Device) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(policy.told(device.pk)[1])["effective"]
    return found


def test_a_change_is_looked_at_then_saved_and_told(alices_browser: Client, kitchen: Device) -> None:
    looked = alices_browser.post(QUICK, quick(start="20:00"))
    page = looked.content.decode()
    assert "1 device changes." in page
    assert "kitchen" in page
    assert told(kitchen)["quick_scan"]["start"] == "12:00", "looking changes nothing"
    done = alices_browser.post(
        "/protection/save/", {"change": change_in(looked), "why": "Lunch was disturbed"}
    )
    assert done["Location"] == "/protection/"
    assert told(kitchen)["quick_scan"]["start"] == "20:00"
    listed = alices_browser.get("/protection/versions/").content.decode()
    assert "Lunch was disturbed" in listed


@pytest.mark.parametrize("section", list(schema.BY_SLUG))
def test_every_section_has_its_page_and_says_all_of_it(
    alices_browser: Client, kitchen: Device, section: str
) -> None:
    page = alices_browser.get(f"/protection/settings/{section}/").content.decode()
    for field in schema.BY_SLUG[section].fields:
        assert str(field.label) in page
    assert alices_browser.get(f"/devices/{kitchen.pk}/settings/{section}/").status_code == 200


@pytest.mark.parametrize("section", [key for key in schema.BY_SLUG if key != "exclusions"])
def test_a_form_sent_as_it_stands_changes_nothing(
    alices_browser: Client, kitchen: Device, section: str
) -> None:
    values: dict[str, Any] = {}
    for field in schema.BY_SLUG[section].fields:
        value = field.default
        if field.kind == "switch":
            values |= {field.name: "on"} if value else {}
        else:
            values[field.name] = "\n".join(value) if field.kind == "folders" else value
    for base in ("/protection/settings", f"/devices/{kitchen.pk}/settings"):
        answer = alices_browser.post(f"{base}/{section}/", values)
        assert answer.status_code == 302, answer.content.decode()[:2000]
    assert not SettingsVersion.objects.exists()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (quick(window="0"), "A whole number from 1 to 720."),
        (quick(window="lots"), "A whole number from 1 to 720."),
        (quick(start="25:00"), "A time of day"),
        (quick(days=[]), "Choose at least one day."),
        (quick(on_battery="perhaps"), "One of:"),
    ],
)
def test_what_is_not_sound_is_said_beside_it_and_what_was_typed_stays(
    alices_browser: Client, kitchen: Device, values: dict[str, Any], words: str
) -> None:
    answer = alices_browser.post(QUICK, values | {"start": values["start"]})
    page = answer.content.decode()
    assert answer.status_code == 422
    assert words in page
    assert f'value="{values["window"]}"' in page
    assert not SettingsVersion.objects.exists()


def test_n7_a_stolen_cookie_cannot_switch_protection_off(
    alices_browser: Client, kitchen: Device
) -> None:
    off = {key: value for key, value in quick().items() if key != "enabled"}
    looked = alices_browser.post(QUICK, off)
    assert "This protects less than before." in looked.content.decode()
    asked = alices_browser.post("/protection/save/", {"change": change_in(looked)})
    assert asked["Location"].startswith("/reauthenticate/")
    assert told(kitchen)["quick_scan"]["enabled"] is True
    # The owner proves it: they come back to what they looked at, and nothing is done unless they
    # do it.
    back = alices_browser.post(asked["Location"], {"password": PASSWORD}, follow=True)
    assert back.request["PATH_INFO"] == "/protection/look/"
    assert "Nothing is saved yet: look once more, then press the button." in back.content.decode()
    assert told(kitchen)["quick_scan"]["enabled"] is True
    done = alices_browser.post("/protection/save/", {"change": change_in(back)}, follow=True)
    assert "Saved as change 1." in done.content.decode()
    assert told(kitchen)["quick_scan"]["enabled"] is False


def asked_for(browser: Client, why: str = "", **changes: Any) -> str:
    """Where it is asked who this is, after a change that protects less was to be saved."""
    off = {key: value for key, value in quick(**changes).items() if key != "enabled"}
    asked = saved(browser, QUICK, off, why)
    assert asked["Location"].startswith("/reauthenticate/")
    location: str = asked["Location"]
    return location


def test_after_the_proof_the_change_is_there_with_its_reason_and_only_to_be_looked_at(
    alices_browser: Client, kitchen: Device
) -> None:
    asked = asked_for(alices_browser, why="The film <b>evening</b>", start="20:15")
    page = alices_browser.post(asked, {"password": PASSWORD}, follow=True).content.decode()
    assert "Before it is saved" in page
    assert "This protects less than before." in page
    assert "20:15" in page
    assert 'value="The film &lt;b&gt;evening&lt;/b&gt;"' in page
    assert not SettingsVersion.objects.exists()


def test_n7_who_holds_a_stolen_session_lays_no_change_of_theirs_before_the_owner(
    alices_browser: Client, kitchen: Device
) -> None:
    asked = asked_for(alices_browser, start="20:15")
    # The same session from elsewhere, in the moment before the owner's proof.
    thief = Client()
    thief.cookies = alices_browser.cookies
    asked_for(thief, start="03:33")
    back = alices_browser.post(asked, {"password": PASSWORD}, follow=True)
    assert back.request["PATH_INFO"] == "/protection/"
    assert "That change is not here any more. Fill it in once more." in back.content.decode()
    assert "03:33" not in back.content.decode()
    assert not SettingsVersion.objects.exists()


def test_what_somebody_else_changed_during_the_proof_is_not_taken_back_unseen(
    alices_browser: Client, alice: User, kitchen: Device
) -> None:
    asked = asked_for(alices_browser, start="20:15")
    saved(signed_in(alice), QUICK, quick(start="21:00"))
    back = alices_browser.post(asked, {"password": PASSWORD}, follow=True)
    assert back.request["PATH_INFO"] == QUICK
    assert "somebody else changed the settings meanwhile" in back.content.decode()


def test_a_change_that_was_saved_is_not_looked_at_again(
    alices_browser: Client, kitchen: Device
) -> None:
    asked = asked_for(alices_browser, start="20:15")
    back = alices_browser.post(asked, {"password": PASSWORD}, follow=True)
    alices_browser.post("/protection/save/", {"change": change_in(back)})
    address = f"/protection/look/?{back.request['QUERY_STRING']}"
    assert alices_browser.get(address)["Location"] == "/protection/"
    assert alices_browser.get("/protection/look/")["Location"] == "/protection/"


def test_after_the_proof_one_looks_at_ones_own_account_alone(
    alices_browser: Client, kitchen: Device, alice: User
) -> None:
    asked = asked_for(alices_browser, start="20:15")
    back = alices_browser.post(asked, {"password": PASSWORD}, follow=True)
    session = alices_browser.session
    kept = session["change_to_look_at"]
    stranger = Account.objects.create(name="Other")
    change = signing.loads(kept["change"], salt=before_saving.SALT)
    change["account"] = str(stranger.pk)
    kept["change"] = signing.dumps(change, salt=before_saving.SALT, compress=True)
    session["change_to_look_at"] = kept
    session.save()
    mark = before_saving._mark_of(kept["change"])
    assert alices_browser.get(f"/protection/look/?of={mark}")["Location"] == "/protection/"
    assert back.status_code == 200


def test_after_too_long_the_change_is_not_looked_at_again_and_not_kept(
    alices_browser: Client, kitchen: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = asked_for(alices_browser, start="20:15")
    back = alices_browser.post(asked, {"password": PASSWORD}, follow=True)
    later = time.time() + 3601
    monkeypatch.setattr("django.core.signing.time.time", lambda: later)
    address = f"/protection/look/?{back.request['QUERY_STRING']}"
    page = alices_browser.get(address, follow=True)
    assert "that page was too old" in page.content.decode()
    assert before_saving.KEPT not in alices_browser.session


def test_a_change_of_a_monstrous_length_is_filled_in_once_more(
    alices_browser: Client, kitchen: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(before_saving, "MOST_KEPT", 10)
    asked = asked_for(alices_browser, start="20:15")
    back = alices_browser.post(asked, {"password": PASSWORD}, follow=True)
    assert back.request["PATH_INFO"] == QUICK


def test_n7_a_change_signed_for_another_account_or_made_up_is_nothing(
    alices_browser: Client, charlies_browser: Client, kitchen: Device
) -> None:
    theirs = change_in(charlies_browser.post(QUICK, quick(start="20:00")))
    assert alices_browser.post("/protection/save/", {"change": theirs}).status_code == 404
    forged = alices_browser.post("/protection/save/", {"change": theirs[:-2] + "xx"})
    assert forged["Location"] == "/protection/"
    assert not SettingsVersion.objects.exists()


def test_a_page_that_is_too_old_saves_nothing(
    alices_browser: Client, kitchen: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    change = change_in(alices_browser.post(QUICK, quick(start="20:00")))
    later = time.time() + 3601
    monkeypatch.setattr("django.core.signing.time.time", lambda: later)
    alices_browser.post("/protection/save/", {"change": change})
    assert not SettingsVersion.objects.exists()


def test_somebody_elses_change_meanwhile_is_said(alices_browser: Client, kitchen: Device) -> None:
    first = change_in(alices_browser.post(QUICK, quick(start="20:00")))
    saved(alices_browser, QUICK, quick(start="21:00"))
    answer = alices_browser.post("/protection/save/", {"change": first}, follow=True)
    assert "somebody else changed the settings meanwhile" in answer.content.decode()
    assert told(kitchen)["quick_scan"]["start"] == "21:00"


def test_a_device_has_its_own_value_beside_the_inherited_one_and_gives_it_up(
    alices_browser: Client, kitchen: Device
) -> None:
    saved(alices_browser, QUICK, quick(start="20:00"))
    here = f"/devices/{kitchen.pk}/settings/quick-scan/"
    saved(alices_browser, here, quick(start="22:00", **{"own-start": "on"}))
    assert told(kitchen)["quick_scan"]["start"] == "22:00"
    page = alices_browser.get(here).content.decode()
    assert "instead of:" in page
    assert "20:00" in page
    saved(alices_browser, here, quick(start="22:00"))
    assert told(kitchen)["quick_scan"]["start"] == "20:00", "without the tick it inherits again"
    saved(alices_browser, here, quick(start="23:00"))
    assert told(kitchen)["quick_scan"]["start"] == "23:00", "who types another value means it"


def test_a_locked_setting_cannot_be_filled_in_below(
    alices_browser: Client, kitchen: Device
) -> None:
    saved(alices_browser, QUICK, quick(start="20:00", **{"lock-start": "on"}))
    here = f"/devices/{kitchen.pk}/settings/quick-scan/"
    assert "Locked further up" in alices_browser.get(here).content.decode()
    answer = alices_browser.post(here, quick(start="23:00", **{"own-start": "on"}))
    assert answer.status_code == 302
    assert told(kitchen)["quick_scan"]["start"] == "20:00"


def test_undo_restores_byte_equal_settings(alices_browser: Client, kitchen: Device) -> None:
    saved(alices_browser, QUICK, quick(start="20:00"))
    before = policy.told(kitchen.pk)[1]
    saved(alices_browser, QUICK, quick(start="21:00"))
    looked = alices_browser.post("/protection/versions/2/undo/")
    assert "Undo change 2?" in looked.content.decode()
    alices_browser.post("/protection/save/", {"change": change_in(looked)})
    assert policy.told(kitchen.pk)[1] == before
    page = alices_browser.get("/protection/versions/").content.decode()
    assert "undoes 2" in page
    assert "21:00" in alices_browser.get("/protection/versions/2/").content.decode()


def text_of(answer: Any) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", answer.content.decode()))


def test_why_a_device_cannot_do_several_things_is_said_once_for_each_reason(
    alices_browser: Client, kitchen: Device
) -> None:
    page = text_of(alices_browser.get(f"/devices/{kitchen.pk}/settings/"))
    assert page.count("its agent can’t watch files as they are written yet") == 1
    assert "This device can’t: its agent can’t watch files" in page
    assert "it can’t keep files closed" not in page
    Device.objects.filter(pk=kitchen.pk).update(capabilities=[*AGENT, "watch"])
    page = text_of(alices_browser.get(f"/devices/{kitchen.pk}/settings/"))
    assert "Keep files in these folders closed until looked at – it can’t keep" in page


def test_any_two_versions_are_laid_beside_each_other_in_the_words_of_the_form(
    alices_browser: Client, kitchen: Device
) -> None:
    saved(alices_browser, QUICK, quick(start="20:00"), why="Lunch was disturbed")
    saved(alices_browser, QUICK, quick(start="21:00"))
    saved(alices_browser, "/protection/groups/new/", {"name": "Office", "devices": [kitchen.pk]})
    here = "/protection/versions/compare/"
    last = alices_browser.get(here)
    assert "Group Office" in text_of(last), "without a choice, the last change"
    assert "20:00" not in text_of(last)
    assert "change 1 · " in text_of(last)
    assert "Lunch was disturbed" in text_of(last)
    first = text_of(alices_browser.get(f"{here}?older=0&newer=2"))
    assert re.search(r"12:00 becomes 21:00", first), "what stood between the two is not said"
    assert alices_browser.get(f"{here}?older=2&newer=0").content.decode().count("<ins>21:00") == 1
    every = text_of(alices_browser.get(f"{here}?older=1&newer=3"))
    assert "20:00 becomes 21:00" in every
    assert "in none becomes Office" in every
    assert "Both are the same one." in text_of(alices_browser.get(f"{here}?older=2&newer=2"))
    for wrong in (
        "?older=0&newer=4",
        "?older=x",
        "?newer=-1",
        "?older=%C2%B2",
        "?newer=9999999999",
    ):
        assert alices_browser.get(here + wrong).status_code == 404
    assert 'href="/protection/versions/compare/?older=2&amp;newer=3"' in (
        alices_browser.get("/protection/versions/2/").content.decode()
    )


def test_what_was_changed_back_in_between_does_not_differ(
    alices_browser: Client, kitchen: Device
) -> None:
    for start in ("20:00", "21:00", "20:00"):
        saved(alices_browser, QUICK, quick(start=start))
    page = text_of(alices_browser.get("/protection/versions/compare/?older=1&newer=3"))
    assert "Nothing differs" in page


def test_going_back_to_a_version_restores_byte_equal_settings_and_says_so(
    alices_browser: Client, kitchen: Device
) -> None:
    assert alices_browser.post("/protection/versions/0/back/").status_code == 404
    saved(alices_browser, QUICK, quick(start="20:00"))
    before = policy.told(kitchen.pk)[1]
    saved(alices_browser, "/protection/groups/new/", {"name": "Office", "devices": [kitchen.pk]})
    group = Group.objects.get()
    inside = f"/protection/groups/{group.pk}/settings/quick-scan/"
    saved(alices_browser, inside, quick(start="19:00"))
    saved(alices_browser, QUICK, quick(start="22:00"))
    page = alices_browser.get("/protection/versions/compare/?older=1&newer=3").content.decode()
    assert "Go back to how it stood after change 1" in page
    assert "What was changed once more since then would be taken back too." in page
    looked = alices_browser.post("/protection/versions/1/back/")
    assert "Go back to how it stood after change 1?" in looked.content.decode()
    assert policy.told(kitchen.pk)[1] != before, "looking changes nothing"
    why = "Back to how it stood after change 1"
    assert f'value="{why}"' in looked.content.decode()
    alices_browser.post("/protection/save/", {"change": change_in(looked), "why": why})
    assert policy.told(kitchen.pk)[1] == before
    assert not Group.objects.exists()
    # That, too, can be taken back, and what was there is there again.
    again = alices_browser.post("/protection/versions/4/back/")
    alices_browser.post("/protection/save/", {"change": change_in(again)})
    assert told(kitchen)["quick_scan"]["start"] == "19:00"
    assert Group.objects.get().pk == group.pk


def test_the_names_of_groups_change_places_when_all_goes_back(
    alices_browser: Client, kitchen: Device
) -> None:
    for name in ("Kids", "Office"):
        saved(alices_browser, "/protection/groups/new/", {"name": name})
    kids, office = Group.objects.order_by("name")
    for group, name in ((kids, "Other"), (office, "Kids"), (kids, "Office")):
        saved(alices_browser, f"/protection/groups/{group.pk}/edit/", {"name": name})
    looked = alices_browser.post("/protection/versions/2/back/")
    alices_browser.post("/protection/save/", {"change": change_in(looked)})
    assert [each.pk for each in Group.objects.order_by("name")] == [kids.pk, office.pk]


def test_comparing_asks_the_database_the_same_for_2_and_for_60_versions(
    alices_browser: Client, kitchen: Device
) -> None:
    asked = []
    done = 0
    for total in (2, 20, 60):
        while done < total:
            saved(alices_browser, QUICK, quick(start=f"1{done % 2}:{done % 60:02}"))
            done += 1
        here = f"/protection/versions/compare/?older=0&newer={total}"
        alices_browser.get(here)
        with CaptureQueriesContext(connection) as queries:
            assert alices_browser.get(here).status_code == 200
        asked.append(len(queries))
    assert len(set(asked)) == 1, asked
    assert asked[0] <= 14


def test_who_may_only_look_compares_and_cannot_go_back(
    bobs_browser: Client, bob: User, alices_browser: Client, kitchen: Device
) -> None:
    Membership.objects.filter(user=bob).update(role=Role.VIEWER)
    saved(alices_browser, QUICK, quick(start="20:00"))
    page = bobs_browser.get("/protection/versions/compare/?older=0&newer=1")
    assert "20:00" in text_of(page)
    assert b"/back/" not in page.content
    assert bobs_browser.post("/protection/versions/0/back/").status_code == 403


def test_charlie_compares_nothing_of_alices(
    charlies_browser: Client, alices_browser: Client, kitchen: Device
) -> None:
    saved(alices_browser, QUICK, quick(start="20:00"))
    address = "/protection/versions/compare/?older=0&newer=1"
    assert charlies_browser.get(address).status_code == 404
    assert "Nothing was changed yet" in text_of(
        charlies_browser.get("/protection/versions/compare/")
    )


def test_a_group_is_made_filled_told_and_removed(alices_browser: Client, kitchen: Device) -> None:
    saved(
        alices_browser,
        "/protection/groups/new/",
        {"name": "Office", "devices": [str(kitchen.pk)]},
    )
    group = Group.objects.get()
    here = f"/protection/groups/{group.pk}/"
    saved(alices_browser, f"{here}settings/quick-scan/", quick(start="19:00"))
    assert told(kitchen)["quick_scan"]["start"] == "19:00"
    saved(alices_browser, f"{here}edit/", {"name": "Shop", "devices": [str(kitchen.pk)]})
    assert "Shop" in alices_browser.get("/protection/").content.decode()
    taken = alices_browser.post("/protection/groups/new/", {"name": "shop"})
    assert taken.status_code == 422
    assert "called so already" in taken.content.decode()
    saved(alices_browser, f"{here}remove/", {})
    assert told(kitchen)["quick_scan"]["start"] == "12:00"
    assert alices_browser.get(here).status_code == 404


def test_an_exclusion_is_added_with_an_end_and_taken_away(
    alices_browser: Client, kitchen: Device
) -> None:
    here = "/protection/settings/exclusions/"
    wrong = alices_browser.post(here, {"act": "add", "path": "/", "lasts": "7"})
    assert wrong.status_code == 422
    assert "nearly everything" in wrong.content.decode()
    looked = alices_browser.post(here, {"act": "add", "path": "/srv/build", "lasts": "7"})
    alices_browser.post("/reauthenticate/", {"password": PASSWORD})
    alices_browser.post("/protection/save/", {"change": change_in(looked)})
    (entry,) = told(kitchen)["exclusions"].values()
    assert entry["path"] == "/srv/build"
    assert 6.9 < (entry["until"] / 1000 - time.time()) / 86400 <= 7
    (name,) = told(kitchen)["exclusions"]
    below = f"/devices/{kitchen.pk}/settings/exclusions/"
    saved(alices_browser, below, {"act": "remove", "name": name})
    assert told(kitchen)["exclusions"][name]["active"] is False
    saved(alices_browser, here, {"act": "remove", "name": name})
    assert all(not each["active"] for each in told(kitchen)["exclusions"].values())


def test_the_page_says_who_applies_it_and_why_not(
    alices_browser: Client, alices_account: Account, kitchen: Device
) -> None:
    device_of(alices_account, hostname="old", capabilities=["scan"])
    saved(alices_browser, QUICK, quick(start="20:00"))
    kitchen.refresh_from_db()
    page = alices_browser.get("/protection/").content.decode()
    assert "Applied on 0 of 2." in page
    assert "Not applied yet" in page
    assert "Needs a newer agent" in page
    Device.objects.filter(pk=kitchen.pk).update(
        settings_status="failed",
        settings_failed_version=kitchen.wanted_version,
        settings_errors=[{"pointer": "/quick_scan/start", "code": "invalid"}],
    )
    page = alices_browser.get("/protection/").content.decode()
    assert "Could not be applied" in page
    assert "Quick scan: Not before" in page
    assert "stay in force" in page
    Device.objects.filter(pk=kitchen.pk).update(
        settings_status="applied", settings_version=kitchen.wanted_version
    )
    assert "Applied on 1 of 2." in alices_browser.get("/protection/").content.decode()


def test_a_device_that_cannot_is_named_before_saving(
    alices_browser: Client, alices_account: Account, kitchen: Device
) -> None:
    pixel = device_of(alices_account, hostname="pixel", capabilities=AGENT)
    Device.objects.filter(pk=pixel.pk).update(os_name="android")
    page = alices_browser.post(QUICK, quick(start="20:00")).content.decode()
    assert "2 devices change, 1 can’t do all of it." in page
    assert "Android does not scan" in page


def test_a_viewer_sees_and_changes_nothing(bobs_browser: Client, kitchen: Device) -> None:
    page = bobs_browser.get("/protection/").content.decode()
    assert "/protection/settings/" not in page
    assert bobs_browser.get(QUICK).status_code == 403
    assert bobs_browser.post("/protection/save/", {"change": "x"}).status_code == 403


def test_a_helper_may_change_what_devices_are_told(
    alices_account: Account, bob: User, kitchen: Device
) -> None:
    Membership.objects.filter(user=bob).update(role=Role.HELPER)
    saved(signed_in(bob), QUICK, quick(start="20:00"))
    assert told(kitchen)["quick_scan"]["start"] == "20:00"


@pytest.mark.parametrize(
    "address", ["/protection/", "/protection/versions/", "/protection/settings/quick-scan/"]
)
def test_the_cost_of_a_page_does_not_grow(
    alices_browser: Client, alices_account: Account, kitchen: Device, address: str
) -> None:
    saved(alices_browser, QUICK, quick(start="20:00"))
    counts = []
    for number in range(2):
        with CaptureQueriesContext(connection) as queries:
            assert alices_browser.get(address).status_code == 200
        counts.append(len(queries))
        for each in range(20 * (1 - number)):
            device_of(alices_account, hostname=f"device {each}", capabilities=AGENT)
            saved(alices_browser, QUICK, quick(start=f"{each:02}:30"))
    assert counts[0] == counts[1]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "Put it away and report it, in the usual places"),
        ({"mode": "off"}, "Off: do not watch files"),
        (
            {"folders": ["/srv", "/opt"], "block": ["/srv/in"]},
            "Put it away and report it, in the usual places, 2 folders of your own,"
            " 1 folder kept closed",
        ),
        ({"usual_places": False}, "Put it away and report it, but no folder is watched"),
    ],
)
def test_real_time_protection_is_said_in_one_line(changes: dict[str, Any], words: str) -> None:
    section = next(each for each in schema.SECTIONS if each.key == "real_time")
    document = {"real_time": {**merging.PRODUCT["real_time"], **changes}}
    assert settings_words.summary(section, document) == words
