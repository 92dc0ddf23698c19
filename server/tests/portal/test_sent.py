"""N12: what a device sends, byte for byte, each field explained, optional ones switched there."""

from __future__ import annotations

import gzip
import html
import json
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import zstandard
from django.test import Client
from django.utils import timezone
from msgspec import inspect
from server.tests.portal.stock import device_of
from server.tests.portal.test_protection_settings import told

from doorward.accounts.models import Account, Membership, Shares, User
from doorward.devices import bell, payloads
from doorward.devices.models import Device, Payload
from doorward.devices.payloads import Sent
from doorward.portal import sent_words
from doorward.protection import policy, schema
from doorward.protection.models import SettingsVersion
from doorward.protection.policy import Delta

pytestmark = pytest.mark.django_db
CALL = (
    '{"boot_id":"0193d3a4-0000-4000-8000-000000000000","seq":7,"settings":{"version":3},'
    '"protection":{"state":"protected"},"device":{"hostname":"küche","os":{"name":"linux",'
    '"version":"Debian 12"},"type":"laptop"}}'
).encode()


@pytest.fixture
def laptop(alices_account: Account) -> Device:
    return device_of(alices_account, hostname="laptop", capabilities=["settings"])


def sent(device: Device, kind: payloads.Kind, body: bytes, **more: Any) -> None:
    payloads.store([Sent(device.pk, kind, body, timezone.now(), **more)])


def page_of(browser: Client, device: Device) -> str:
    return browser.get(f"/devices/{device.pk}/sends/").content.decode()


def words(page: str) -> str:
    page = re.sub(r"<wbr>|</?bdi[^>]*>", "", page)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))


def test_n12_the_page_and_its_file_are_the_bytes_on_the_wire(
    alices_browser: Client, laptop: Device
) -> None:
    sent(laptop, "check-in", CALL)
    place = r'<pre[^>]+id="sent-check-in"[^>]*>(.*?)</pre>'
    shown = re.search(place, page_of(alices_browser, laptop))
    assert shown is not None
    assert html.unescape(shown[1]).encode() == CALL
    file = alices_browser.get(f"/devices/{laptop.pk}/sends/check-in.json")
    assert file.content == CALL
    assert file["Content-Type"] == "application/json"
    assert "attachment" in file["Content-Disposition"]


def test_n12_each_field_that_was_sent_is_explained(alices_browser: Client, laptop: Device) -> None:
    sent(laptop, "check-in", CALL)
    page = words(page_of(alices_browser, laptop))
    for place in ("boot_id", "device.os.version", "protection.state"):
        assert place in page
    assert "tells a copied disk" in page
    assert "Debian 12" in page
    assert "Not known to this server" not in page


def _structs(shape: Any) -> set[type]:
    found: set[type] = set()
    if isinstance(shape, inspect.StructType):
        found.add(shape.cls)
        for field in shape.fields:
            found |= _structs(field.type)
    for name in ("item_type", "value_type"):
        if hasattr(shape, name):
            found |= _structs(getattr(shape, name))
    for each in getattr(shape, "types", ()):
        found |= _structs(each)
    return found


@pytest.mark.parametrize("kind", payloads.KINDS)
def test_n12_no_field_of_the_protocol_is_without_its_words(kind: str) -> None:
    for struct in _structs(inspect.type_info(sent_words.ROOTS[kind])):
        info = inspect.type_info(struct)
        assert isinstance(info, inspect.StructType)
        known = sent_words.WORDS[struct.__name__]
        assert {field.encode_name for field in info.fields} <= set(known), struct


def test_n12_all_that_the_settings_share_can_be_switched_here() -> None:
    of_sharing = {at for at in schema.FIELDS if at.startswith("/sharing/")}
    assert set(sent_words.OPTIONAL.values()) == of_sharing
    for name, field in sent_words.OPTIONAL:
        assert field in sent_words.WORDS[name]


def test_n12_what_is_optional_is_left_out_and_sent_again_by_one_click(
    alices_browser: Client, laptop: Device
) -> None:
    before = policy.told(laptop.pk)[1]
    here = f"/devices/{laptop.pk}/sends/"
    pointer = {"pointer": "/sharing/system_version"}
    alices_browser.post(f"{here}switch/", {**pointer, "on": "0"})
    assert told(laptop)["sharing"]["system_version"] is False
    assert "It is not sent" in words(page_of(alices_browser, laptop))
    alices_browser.post(f"{here}switch/", {**pointer, "on": "1"})
    assert policy.told(laptop.pk)[1] == before
    assert not policy.state_of(laptop.account).own, "it inherits again"
    assert SettingsVersion.objects.count() == 2
    other = {"pointer": "/real_time/mode", "on": "0"}
    assert alices_browser.post(f"{here}switch/", other).status_code == 404


def test_what_is_locked_further_up_is_said(
    alices_browser: Client, alice: User, alices_account: Account, laptop: Device
) -> None:
    locked = {"values": {}, "locked": ["/sharing/system_version"]}
    policy.save(alices_account, [Delta("account", None, locked)], actor=alice, proven=True)
    page = page_of(alices_browser, laptop)
    assert "locked further up" in words(page)
    assert page.count('action="/devices/') < 4
    post = {"pointer": "/sharing/system_version", "on": "0"}
    alices_browser.post(f"/devices/{laptop.pk}/sends/switch/", post)
    assert told(laptop)["sharing"]["system_version"] is True


def test_have_it_call_now_keeps_each_call_for_a_while(
    alices_browser: Client, laptop: Device
) -> None:
    changed = laptop.changed_at
    page_of(alices_browser, laptop)
    assert Device.objects.get().watched_until is None, "looking alone asks nothing of the device"
    before = bell.rung()
    answer = alices_browser.post(f"/devices/{laptop.pk}/sends/watch/")
    assert answer["Location"] == f"/devices/{laptop.pk}/sends/"
    device = Device.objects.get()
    assert device.watched_until is not None
    assert timezone.now() < device.watched_until <= timezone.now() + payloads.WATCHED_FOR
    assert device.changed_at > changed
    assert bell.rung() >= before
    assert "Each of its calls is shown here" in words(page_of(alices_browser, laptop))


def test_a_report_that_is_too_long_is_said_by_its_length(
    alices_browser: Client, laptop: Device
) -> None:
    sent(laptop, "reports", b"x" * (payloads.LONGEST + 1), was_packed=True)
    page = words(page_of(alices_browser, laptop))
    assert "65537 bytes" in page.replace(",", "")
    assert "too long to be kept here" in page
    assert alices_browser.get(f"/devices/{laptop.pk}/sends/reports.json").status_code == 404


def test_a_report_is_explained_event_by_event(alices_browser: Client, laptop: Device) -> None:
    events = [
        {"class_uid": 6007, "scan": {"uid": "x", "name": "q"}, "unmapped": {"paths": ["/home"]}},
        {"class_uid": 2004, "evidences": [{"file": {"path": "/a", "hashes": [{"value": "ab"}]}}]},
        {"class_uid": 7002, "file": {"path": "/b"}, "new": 1},
        {"class_uid": 1},
    ]
    sent(laptop, "reports", json.dumps({"events": events}).encode())
    page = words(page_of(alices_browser, laptop))
    for place in ("events[0].unmapped.paths", "events[1].evidences[0].file.hashes[0].value"):
        assert place in page
    assert "Not known to this server" in page


def test_a43_what_was_sent_is_inert_and_signs_that_turn_the_text_are_written_out(
    alices_browser: Client, laptop: Device
) -> None:
    evil = '{"device":{"hostname":"<img src=x onerror=alert(1)>\u202egpj"}}'.encode()
    sent(laptop, "check-in", evil)
    page = page_of(alices_browser, laptop)
    assert "<img src" not in page
    assert "\u202e" not in page
    assert r"\u202egpj" in page
    assert "The file has the very bytes" in page
    assert alices_browser.get(f"/devices/{laptop.pk}/sends/check-in.json").content == evil
    for broken in (b"\xff\xfe", b"[1,2]", b"null", b"{"):
        sent(laptop, "check-in", broken)
        assert alices_browser.get(f"/devices/{laptop.pk}/sends/").status_code == 200


def test_who_may_not_see_the_files_sees_none_of_it(
    alices_browser: Client,
    bobs_browser: Client,
    charlies_browser: Client,
    laptop: Device,
    bob: User,
) -> None:
    sent(laptop, "check-in", CALL)
    here = f"/devices/{laptop.pk}/sends/"
    assert bobs_browser.get(here).status_code == 200
    assert bobs_browser.post(f"{here}switch/", {}).status_code == 403
    for path in ("", "check-in.json"):
        assert charlies_browser.get(here + path).status_code == 404
    Device.objects.update(member=bob)
    Membership.objects.filter(user=bob).update(shares=Shares.FINDINGS)
    for path in ("", "check-in.json"):
        assert alices_browser.get(here + path).status_code == 404
        assert bobs_browser.get(here + path).status_code == 200
    # What it sent in somebody else's time stays theirs.
    Device.objects.update(member=None, private_until=timezone.now() + timedelta(seconds=1))
    assert "küche" not in page_of(alices_browser, laptop)
    assert alices_browser.get(f"{here}check-in.json").status_code == 404


def test_what_a_device_that_is_gone_sent_is_dropped(laptop: Device) -> None:
    other = Device(pk="0193d3a4-0000-7000-8000-000000000000")
    now = timezone.now()
    payloads.store(
        [Sent(laptop.pk, "check-in", b"{}", now), Sent(other.pk, "check-in", b"{}", now)]
    )
    payloads.store([Sent(laptop.pk, "check-in", CALL, now)])
    assert bytes(Payload.objects.get().body) == CALL


@pytest.mark.parametrize("pack", [zstandard.compress, gzip.compress], ids=["zstd", "gzip"])
def test_what_came_packed_is_kept_as_it_came_and_shown_unpacked(
    laptop: Device, pack: Callable[[bytes], bytes]
) -> None:
    said = b'{"events":[' + b'{"class_uid":2004},' * 200 + b"{}]}"
    sent(laptop, "reports", pack(said), was_packed=True, length=len(said))
    assert len(bytes(Payload.objects.get().body)) < len(said) / 4
    (found,) = payloads.of(laptop)
    assert (bytes(found.body), found.length) == (said, len(said))
    sent(laptop, "reports", pack(said)[:-20], was_packed=True, length=len(said))
    assert bytes(payloads.of(laptop)[0].body) != said, "what is broken breaks no page"
