"""The home page answers three questions, truly, and costs the same for every account."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import time_machine
from django.test import Client
from django.utils import timezone
from server.tests.portal.stock import device_of, scan_of, threat_of
from server.tests.reports.conftest import finding, remediation

from doorward.accounts.models import Account
from doorward.devices.models import Device, Presence, Protection
from doorward.reports import intake
from doorward.reports.models import Disposition

MOST_QUERIES = 12


@pytest.fixture(autouse=True)
def half_past_noon() -> Iterator[None]:
    # Lines gather by the hour and days have names: no test shall cross the turn of either.
    with time_machine.travel(timezone.now().replace(hour=12, minute=30)):
        yield


def text_of(client: Client, address: str = "/") -> str:
    answer = client.get(address)
    assert answer.status_code == 200, answer
    return answer.content.decode()


def test_an_account_without_devices_is_told_how_to_begin(
    alices_browser: Client, account: Account
) -> None:
    page = text_of(alices_browser)
    assert "Let’s protect your first device" in page
    assert 'href="/devices/add/"' in page
    assert "#door-open" in page


def test_everything_is_protected_only_while_every_device_was_just_heard(
    alices_browser: Client, account: Account
) -> None:
    device_of(account)
    device_of(account)
    page = text_of(alices_browser)
    assert "Everything is protected" in page
    assert "#door-well" in page
    device_of(account, seen=timezone.now() - timedelta(minutes=16))
    page = text_of(alices_browser)
    assert "Everything is protected" not in page
    assert "2 of 3 devices are protected now." in page


@pytest.mark.parametrize(
    ("age", "words"),
    [
        (timedelta(minutes=15), "Protected"),
        (timedelta(minutes=16), "Away"),
        (timedelta(hours=25), "State unknown"),
        (timedelta(days=8), "Silent"),
    ],
)
def test_protected_fades_with_age(
    alices_browser: Client, account: Account, age: timedelta, words: str
) -> None:
    moment = timezone.now()
    device_of(account, seen=moment)
    with time_machine.travel(moment + age, tick=False):
        assert f"</svg>{words}</span>" in text_of(alices_browser)


def test_what_a_device_said_is_wrong_stays_wrong_when_it_goes_quiet(
    alices_browser: Client, account: Account
) -> None:
    device_of(account, said=Protection.OFF, seen=timezone.now() - timedelta(days=3))
    page = text_of(alices_browser)
    assert "One thing needs you" in page
    assert "is not protected" in page


def test_a_threat_that_is_still_there_comes_first_and_opens_the_door(
    alices_browser: Client, laptop: Device
) -> None:
    threat = threat_of(laptop, disposition=Disposition.DETECTED)
    page = text_of(alices_browser)
    assert "#door-ajar" in page
    assert "invoice.com is still there." in page
    assert f'id="first-step" href="/reports/threats/{threat.uid}/"' in page


def test_what_was_put_away_is_told_and_needs_nobody(alices_browser: Client, laptop: Device) -> None:
    threat_of(laptop)
    page = text_of(alices_browser)
    assert "We put invoice.com away. It can’t run." in page
    assert "Everything is protected" in page


def test_many_threats_of_one_scan_are_one_line_and_leave_room_for_the_rest(
    alices_browser: Client, laptop: Device
) -> None:
    threat_of(laptop, path="/home/alice/older.com", time=timezone.now() - timedelta(hours=2))
    scan = scan_of(laptop, detections=120)
    for _ in range(117):
        threat_of(laptop, scan_uid=scan.uid)
    for _ in range(3):
        threat_of(laptop, scan_uid=scan.uid, disposition=Disposition.DETECTED)
    page = text_of(alices_browser)
    assert page.count(">120 threats<") == 1
    assert "117 dealt with, 3 still there" in page
    assert "We put older.com away." in page
    assert "We put invoice.com away." not in page


def test_many_threats_that_are_still_there_are_one_need_for_each_device(
    alices_browser: Client, account: Account, laptop: Device
) -> None:
    other = device_of(account, hostname="desk")
    for _ in range(40):
        threat_of(laptop, disposition=Disposition.DETECTED)
    threat_of(other, disposition=Disposition.DETECTED)
    page = text_of(alices_browser)
    assert "2 things need you" in page
    assert f"40 threats on {laptop.label} are still there" in page
    assert f"/reports/threats/?device={laptop.pk}&amp;action=open" in page


def test_what_was_done_about_many_at_once_is_one_line(
    alices_browser: Client, laptop: Device
) -> None:
    events = [finding() for _ in range(20)]
    intake.store(laptop.pk, events)
    done = [remediation(it.finding_info.uid, Disposition.RESTORED) for it in events]
    intake.store(laptop.pk, done)
    page = text_of(alices_browser)
    assert ">20 files<" in page
    assert "Put back" in page


@pytest.mark.parametrize(
    ("system", "command"), [("linux", "./doorward"), ("windows", "py doorward")]
)
def test_a_device_that_has_just_joined_is_started_by_the_command_that_is_shown(
    alices_browser: Client, account: Account, system: str, command: str
) -> None:
    device = device_of(account, enrolled_at=timezone.now())
    Device.objects.update(os_name=system)
    Presence.objects.update(last_seen=None)
    page = text_of(alices_browser)
    assert f"Start the protection of {device.label}" in page
    assert f'<code id="start">{command} agent run</code>' in page
    assert f"{command} agent run" in text_of(alices_browser, f"/devices/{device.pk}/")
    Presence.objects.update(last_seen=timezone.now())
    assert "agent run" not in text_of(alices_browser)


def test_the_home_page_tells_of_numbers_within_its_queries(
    alices_browser: Client, account: Account, django_assert_max_num_queries: Any
) -> None:
    for _ in range(3):
        device = device_of(account)
        scan = scan_of(device)
        events = [finding(scan_uid=scan.uid) for _ in range(9)]
        intake.store(device.pk, events)
        intake.store(
            device.pk, [remediation(it.finding_info.uid, Disposition.RESTORED) for it in events[:4]]
        )
    alices_browser.get("/")
    with django_assert_max_num_queries(MOST_QUERIES):
        text_of(alices_browser)


@pytest.mark.parametrize("devices", [1, 20, 30])
def test_the_home_page_takes_at_most_twelve_queries(
    alices_browser: Client, account: Account, devices: int, django_assert_max_num_queries: Any
) -> None:
    for number in range(devices):
        device = device_of(account, said=Protection.OFF if number % 3 else Protection.PROTECTED)
        scan_of(device)
        threat_of(device, disposition=Disposition.DETECTED)
    alices_browser.get("/")
    with django_assert_max_num_queries(MOST_QUERIES):
        text_of(alices_browser)


def test_a_live_part_is_sent_again_only_when_it_says_something_new(
    alices_browser: Client, laptop: Device
) -> None:
    asked = {"HX-Request": "true"}
    first = alices_browser.get("/", headers=asked)
    assert first.status_code == 200
    assert b"<html" not in first.content
    asked["If-None-Match"] = first["ETag"]
    assert alices_browser.get("/", headers=asked).status_code == 204
    with time_machine.travel(timezone.now() + timedelta(minutes=5), tick=False):
        # Older, but no news: the browser lets ages walk by itself.
        assert alices_browser.get("/", headers=asked).status_code == 204
    with time_machine.travel(timezone.now() + timedelta(minutes=20), tick=False):
        faded = alices_browser.get("/", headers=asked)
    assert faded.status_code == 200
    assert "Away" in faded.content.decode()
    intake.store(laptop.pk, [finding(path="/home/alice/invoice.com")])
    assert "invoice.com" in alices_browser.get("/", headers=asked).content.decode()


@pytest.mark.parametrize("address", ["/", "/devices/", "/devices/{}/", "/reports/threats/"])
def test_each_live_list_learns_of_a_threat_a_restoration_and_a_new_name(
    alices_browser: Client, laptop: Device, address: str
) -> None:
    address = address.format(laptop.pk)
    asked = {"HX-Request": "true"}

    def looks_new() -> bool:
        answer = alices_browser.get(address, headers=asked)
        was_new = answer.status_code == 200
        asked["If-None-Match"] = answer["ETag"]
        return was_new

    assert looks_new()
    assert not looks_new()
    event = finding()
    intake.store(laptop.pk, [event])
    assert looks_new()
    intake.store(laptop.pk, [remediation(event.finding_info.uid, Disposition.RESTORED)])
    assert looks_new()
    alices_browser.post(f"/devices/{laptop.pk}/rename/", {"name": "Kitchen PC"})
    assert looks_new()
    assert not looks_new()


def test_asking_a_live_part_that_has_no_news_takes_at_most_seven_queries(
    alices_browser: Client, laptop: Device, django_assert_max_num_queries: Any
) -> None:
    for address in ("/", "/devices/", "/reports/", "/reports/threats/"):
        tag = alices_browser.get(address, headers={"HX-Request": "true"})["ETag"]
        asked = {"HX-Request": "true", "If-None-Match": tag}
        with django_assert_max_num_queries(7):
            assert alices_browser.get(address, headers=asked).status_code == 204


def test_a_device_whose_presence_was_never_written_is_awaited(
    alices_browser: Client, account: Account
) -> None:
    device = device_of(account, enrolled_at=timezone.now())
    Presence.objects.filter(device=device).delete()
    assert "First call awaited" in text_of(alices_browser)
