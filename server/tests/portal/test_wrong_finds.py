"""“It was wrong”: looked at, proved, put back for a time, told to operators, and taken back."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from typing import Any

import pytest
import time_machine
from django.test import Client
from django.utils import timezone
from server.tests.conftest import PASSWORD, person
from server.tests.portal.stock import device_of, threat_of
from server.tests.portal.test_protection_settings import change_in, told

from doorward.accounts.models import Account, Membership, Shares, User
from doorward.audit.models import Event
from doorward.devices.models import Command, Device
from doorward.notices.models import Mail
from doorward.protection import policy
from doorward.protection.models import SettingsVersion
from doorward.protection.policy import Delta
from doorward.reports.models import Detection
from doorward.support.models import Ticket

pytestmark = pytest.mark.django_db
ABLE = ["settings", "scan.run", "quarantine.restore", "quarantine.delete"]
HASH = "ab" * 32


@pytest.fixture
def laptop(alices_account: Account) -> Device:
    return device_of(alices_account, hostname="laptop", capabilities=ABLE)


@pytest.fixture
def held(laptop: Device) -> Detection:
    return threat_of(laptop, sha256=HASH, size=68, engine="yara-x", definitions_version=7)


@pytest.fixture
def proved(alices_browser: Client) -> Client:
    """Alice, who has just proved again that it is her."""
    assert alices_browser.post("/reauthenticate/", {"password": PASSWORD}).status_code == 302
    return alices_browser


def looked_at(browser: Client, threat: Detection, **fields: str) -> Any:
    values = {"where": "device", "lasts": "30", "words": ""} | fields
    return browser.post(f"/reports/threats/{threat.uid}/wrong/", values)


def said(browser: Client, threat: Detection, **fields: str) -> Any:
    change = change_in(looked_at(browser, threat, **fields))
    return browser.post(f"/reports/threats/{threat.uid}/wrong/save/", {"change": change})


def words(answer: Any) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", answer.content.decode()))


def test_letting_a_file_out_is_not_what_its_page_calls_for(
    alices_browser: Client, held: Detection
) -> None:
    page = alices_browser.get(f"/reports/threats/{held.uid}/").content.decode()
    assert "Nothing is left to do." in page
    assert 'id="wrong"' in page
    assert "button-lamp" not in page


def test_n14_what_it_means_is_shown_before_it_is_done(
    alices_browser: Client, held: Detection, laptop: Device
) -> None:
    form = words(alices_browser.get(f"/reports/threats/{held.uid}/wrong/"))
    assert "It was wrong about" in form
    assert HASH in form
    looked = words(looked_at(alices_browser, held))
    assert "1 device changes." in looked
    assert "This protects less than before." in looked
    assert "The file comes back to where it was" in looked
    assert "not its name or place" in looked
    assert not Command.objects.exists()
    assert not Ticket.objects.exists()
    assert told(laptop)["exclusions"] == {}


def test_n14_the_file_comes_back_is_let_be_until_then_and_operators_are_told(
    proved: Client, held: Detection, laptop: Device
) -> None:
    operator = person("olga@example.org", "Olga")
    User.objects.filter(pk=operator.pk).update(is_operator=True)
    with time_machine.travel(timezone.now(), tick=False):
        now = timezone.now()
        done = said(proved, held, words="Our own invoice program")
    assert done["Location"] == f"/reports/threats/{held.uid}/"
    (entry,) = told(laptop)["exclusions"].values()
    until = int((now + timedelta(days=30)).timestamp()) * 1000
    assert entry["sha256"] == HASH
    assert entry["path"] == held.path
    assert entry["until"] == until
    command = Command.objects.get()
    assert command.kind == "quarantine.restore"
    assert command.args["quarantine_id"] == str(held.quarantine_id)
    # By the device's own word only until it has surely heard of the settings.
    assert now < Command.objects.get().not_after
    assert command.not_after.timestamp() * 1000 < command.args["until"] < until
    ticket = Ticket.objects.get()
    assert ticket.about == "wrong-find"
    # Sealed, as every mail that waits; its lines are the ticket's.
    assert Mail.objects.filter(to="olga@example.org", kind="support.asked").count() == 1
    for told_words in (HASH, held.rule, "Our own invoice program"):
        assert told_words in ticket.words
    for private in ("invoice.com", "/home/alice", "laptop"):
        assert private not in ticket.words
    assert Event.objects.filter(tag="device.threat.disputed").count() == 1
    page = words(proved.get(f"/reports/threats/{held.uid}/"))
    assert "Exactly this file is let be on this device until" in page


def test_n7_a_stolen_cookie_lets_nothing_be(
    alices_browser: Client, held: Detection, laptop: Device
) -> None:
    answer = said(alices_browser, held)
    assert answer["Location"].startswith("/reauthenticate/")
    assert told(laptop)["exclusions"] == {}
    assert not Command.objects.exists()
    assert not Ticket.objects.exists()
    # The owner proves it: they come back to what they looked at, and nothing is done unless they
    # do it.
    back = alices_browser.post(answer["Location"], {"password": PASSWORD}, follow=True)
    assert back.request["PATH_INFO"] == "/protection/look/"
    page = back.content.decode()
    assert "Nothing is saved yet: look once more, then press the button." in page
    assert "The file comes back to where it was" in page
    assert not Command.objects.exists()
    save_at = f"/reports/threats/{held.uid}/wrong/save/"
    assert f'action="{save_at}"' in page
    alices_browser.post(save_at, {"change": change_in(back)})
    assert len(told(laptop)["exclusions"]) == 1
    assert Command.objects.count() == 1


def test_n7_the_signed_change_saves_nothing_at_another_address(
    proved: Client, held: Detection, laptop: Device
) -> None:
    other = threat_of(laptop, sha256="cd" * 32)
    change = change_in(looked_at(proved, held))
    assert proved.post("/protection/save/", {"change": change}).status_code == 404
    elsewhere = f"/reports/threats/{other.uid}/wrong/save/"
    assert proved.post(elsewhere, {"change": change}).status_code == 404
    assert not SettingsVersion.objects.exists()


def test_for_all_devices_it_is_the_content_wherever_it_is(
    proved: Client, held: Detection, laptop: Device, alices_account: Account
) -> None:
    kitchen = device_of(alices_account, hostname="kitchen", capabilities=ABLE)
    said(proved, held, where="account", lasts="7")
    for device in (laptop, kitchen):
        (entry,) = told(device)["exclusions"].values()
        assert (entry["sha256"], entry["path"]) == (HASH, "")


def test_said_twice_it_is_one_exclusion_that_lasts_as_said_last(
    proved: Client, held: Detection, laptop: Device
) -> None:
    said(proved, held, lasts="7")
    first = told(laptop)["exclusions"]
    said(proved, held, lasts="90")
    second = told(laptop)["exclusions"]
    assert list(first) == list(second) == [str(held.uid)]
    assert second[str(held.uid)]["until"] > first[str(held.uid)]["until"]
    assert Command.objects.count() == 1, "it comes back once"


def test_n14_taken_back_it_is_as_before_byte_by_byte(
    proved: Client, held: Detection, laptop: Device
) -> None:
    before = policy.told(laptop.pk)[1]
    said(proved, held)
    looked = proved.post(f"/reports/threats/{held.uid}/wrong/back/")
    assert "This protects less" not in words(looked)
    proved.post("/protection/save/", {"change": change_in(looked)})
    assert policy.told(laptop.pk)[1] == before
    assert "It was wrong" in words(proved.get(f"/reports/threats/{held.uid}/"))


def test_what_is_not_in_quarantine_is_let_be_without_a_command(
    proved: Client, laptop: Device
) -> None:
    left = threat_of(laptop, sha256=HASH, disposition=15, quarantine_id=None)
    assert "comes back" not in words(looked_at(proved, left))
    said(proved, left)
    assert len(told(laptop)["exclusions"]) == 1
    assert not Command.objects.exists()


def test_a_device_that_takes_nothing_from_afar_is_named_and_the_rest_holds(
    proved: Client, held: Detection, laptop: Device
) -> None:
    Device.objects.update(capabilities=["settings"])
    page = proved.get(said(proved, held)["Location"])
    assert "can’t be asked to put it back" in words(page)
    assert len(told(laptop)["exclusions"]) == 1


def test_where_exclusions_are_locked_that_is_said_beside_the_choice(
    proved: Client, held: Detection, alice: User, alices_account: Account
) -> None:
    locked = Delta("account", None, {"values": {}, "locked": ["/exclusions"]})
    policy.save(alices_account, [locked], actor=alice, proven=True)
    answer = looked_at(proved, held)
    assert answer.status_code == 422
    assert "Exclusions are locked further up" in words(answer)
    assert looked_at(proved, held, where="account").status_code == 200


def test_a51_who_may_not_see_or_change_it_lets_nothing_be(
    proved: Client,
    bobs_browser: Client,
    charlies_browser: Client,
    held: Detection,
    laptop: Device,
    bob: User,
) -> None:
    change = change_in(looked_at(proved, held))
    for browser, status in ((bobs_browser, 403), (charlies_browser, 404)):
        assert browser.get(f"/reports/threats/{held.uid}/wrong/").status_code == status
        saved = browser.post(f"/reports/threats/{held.uid}/wrong/save/", {"change": change})
        assert saved.status_code == status
    # Bob's own device, of which he shows no files.
    Device.objects.update(member=bob)
    Membership.objects.filter(user=bob).update(shares=Shares.FINDINGS)
    assert proved.get(f"/reports/threats/{held.uid}/wrong/").status_code == 404
    assert not SettingsVersion.objects.exists()
    assert "It was wrong" not in words(bobs_browser.get(f"/reports/threats/{held.uid}/"))


def test_a_find_without_a_hash_cannot_be_pinned(proved: Client, laptop: Device) -> None:
    threat = threat_of(laptop, sha256="")
    assert proved.get(f"/reports/threats/{threat.uid}/wrong/").status_code == 404
    assert "It was wrong" not in words(proved.get(f"/reports/threats/{threat.uid}/"))


def test_operators_are_told_of_ten_a_day_and_no_more(proved: Client, laptop: Device) -> None:
    for number in range(12):
        said(proved, threat_of(laptop, sha256=f"{number:064x}"))
    assert Ticket.objects.count() == 10
    assert len(json.loads(policy.told(laptop.pk)[1])["effective"]["exclusions"]) == 12
