"""A device that exists twice is settled in two clicks; a new one takes an old one's place."""

from __future__ import annotations

import re
from typing import Any
from uuid import uuid4

import pytest
from django.test import Client
from django.utils import timezone
from server.tests.conftest import PASSWORD
from server.tests.portal.stock import HOSTILE, device_of

from doorward.accounts.models import Account, Membership, Shares, User
from doorward.devices import enrollment
from doorward.devices.models import Command, Device, EnrollmentCode, Twin

pytestmark = pytest.mark.django_db


@pytest.fixture
def laptop(alices_account: Account) -> Device:
    device = device_of(alices_account, hostname="laptop", capabilities=["key.rotate"])
    Device.objects.update(cloned_at=timezone.now())
    Twin.objects.create(
        device=device,
        boot_id=uuid4(),
        seq=7,
        hostname="laptop-copy",
        address="198.51.100.9",
        first_seen=timezone.now(),
    )
    return device


@pytest.fixture
def proved(alices_browser: Client) -> Client:
    assert alices_browser.post("/reauthenticate/", {"password": PASSWORD}).status_code == 302
    return alices_browser


def words(answer: Any) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", answer.content.decode()))


def test_n5_the_page_says_what_happened_and_what_is_known_of_both(
    alices_browser: Client, laptop: Device
) -> None:
    told = words(alices_browser.get(f"/devices/{laptop.pk}/"))
    assert "Two computers call as this device" in told
    assert "laptop-copy" in told
    assert "198.51.100.9" in told
    assert told.count("Keep this one") == 2


@pytest.mark.parametrize("which", ["current", "other"])
def test_n5_two_clicks_settle_it(alices_browser: Client, laptop: Device, which: str) -> None:
    page = alices_browser.get(f"/devices/{laptop.pk}/")
    first = re.search(rf'id="keep-{which}" href="([^"]+)"', page.content.decode())
    assert first is not None
    sure = alices_browser.get(first[1])
    assert not Command.objects.exists(), "looking changes nothing"
    action = re.search(
        r'<form class="section row" method="post" action="([^"]+)"', str(sure.content)
    )
    assert action is not None
    done = alices_browser.post(action[1], {"keep": which}, follow=True)
    assert "gets a key of its own" in words(done)
    assert Command.objects.get().kind == "key.rotate"
    device = Device.objects.get()
    assert device.cloned_at is None
    assert device.settling_since is not None
    assert device.epoch == laptop.epoch + (which == "other"), "who was answered is so no more"
    again = alices_browser.post(action[1], {"keep": which}, follow=True)
    assert "settled already" in words(again)
    assert Command.objects.count() == 1


def test_n5_what_cannot_change_its_key_is_told_what_to_do_instead(
    alices_browser: Client, laptop: Device
) -> None:
    Device.objects.update(capabilities=[])
    address = f"/devices/{laptop.pk}/copies/"
    done = alices_browser.post(address, {"keep": "current"}, follow=True)
    assert "unenroll --local" in words(done)
    assert Device.objects.get().cloned_at is not None


def test_n5_a_key_from_before_can_only_be_left(alices_browser: Client, laptop: Device) -> None:
    Twin.objects.update(by_former_key=True)
    told = words(alices_browser.get(f"/devices/{laptop.pk}/"))
    assert "by the key from before" in told
    assert told.count("Keep this one") == 1
    alices_browser.post(f"/devices/{laptop.pk}/copies/", {"keep": "current"})
    assert Device.objects.get().cloned_at is None
    assert not Command.objects.exists()


def test_a_viewer_and_a_stranger_settle_nothing_and_hostile_names_are_inert(
    alices_browser: Client, bobs_browser: Client, charlies_browser: Client, laptop: Device
) -> None:
    Twin.objects.update(hostname=HOSTILE, address="<b>")
    assert b"<img" not in alices_browser.get(f"/devices/{laptop.pk}/").content
    assert "Keep this one" not in words(bobs_browser.get(f"/devices/{laptop.pk}/"))
    for browser, status in ((bobs_browser, 403), (charlies_browser, 404)):
        answer = browser.post(f"/devices/{laptop.pk}/copies/", {"keep": "current"})
        assert answer.status_code == status
        assert browser.get(f"/devices/{laptop.pk}/replace/").status_code == status
    assert alices_browser.get(f"/devices/{laptop.pk}/copies/?keep=both").status_code == 400
    assert Device.objects.get().cloned_at is not None


def test_of_a_private_device_neither_name_nor_address_is_shown(
    alices_browser: Client, laptop: Device, bob: User
) -> None:
    Device.objects.update(member=bob)
    Membership.objects.filter(user=bob).update(shares=Shares.STATE)
    told = words(alices_browser.get(f"/devices/{laptop.pk}/"))
    assert "Two computers call" in told
    assert "198.51.100.9" not in told
    assert "laptop-copy" not in told


@pytest.mark.parametrize("path", ["/", "/reports/", "/reports/threats/"])
def test_n11_nothing_seen_is_not_told_as_nothing_found(
    alices_browser: Client, laptop: Device, bob: User, path: str
) -> None:
    nothing = ("No threats found", "No scans yet", "Nothing was reported yet.")
    assert any(said in words(alices_browser.get(path)) for said in nothing)
    Device.objects.update(member=bob)
    Membership.objects.filter(user=bob).update(shares=Shares.STATE)
    told = words(alices_browser.get(path))
    assert not any(said in told for said in nothing)
    assert "shared with you" in told


# -- another takes its place -----------------------------------------------------------------------


@pytest.fixture
def old(alices_account: Account) -> Device:
    return device_of(alices_account, name="Kitchen")


def test_a_code_for_the_new_one_is_made_after_a_fresh_proof(
    alices_browser: Client, old: Device
) -> None:
    address = f"/devices/{old.pk}/replace/"
    asked = alices_browser.post(address, {"what": "code"})
    assert asked["Location"].startswith("/reauthenticate/")
    assert not EnrollmentCode.objects.exists()
    alices_browser.post("/reauthenticate/", {"password": PASSWORD})
    shown = alices_browser.post(address, {"what": "code"})
    assert "A new device for Kitchen" in words(shown)
    code = re.search(r"--code ([0-9A-Z-]{14})", shown.content.decode())
    assert code is not None
    assert EnrollmentCode.objects.get().replaces == old
    assert EnrollmentCode.objects.get().selector == enrollment.as_typed(code[1])[:4]


def test_one_that_is_here_already_takes_its_place(
    proved: Client, alices_account: Account, old: Device
) -> None:
    new = device_of(alices_account, hostname="new")
    page = words(proved.get(f"/devices/{old.pk}/replace/"))
    assert "One that has joined already" in page
    done = proved.post(f"/devices/{old.pk}/replace/", {"what": "here", "new": str(new.pk)})
    assert done["Location"] == f"/devices/{new.pk}/"
    new.refresh_from_db()
    old.refresh_from_db()
    assert new.name == "Kitchen"
    assert (old.removed_why, old.replaced_by) == ("replaced", new)


@pytest.mark.parametrize("new", ["", "nonsense", "itself", "charlie"])
def test_what_takes_its_place_must_be_another_device_of_the_account(
    proved: Client, old: Device, charlie: User, new: str
) -> None:
    theirs = device_of(Account.objects.exclude(pk=old.account_id).get())
    chosen = {"itself": str(old.pk), "charlie": str(theirs.pk)}.get(new, new)
    answer = proved.post(f"/devices/{old.pk}/replace/", {"what": "here", "new": chosen})
    assert answer.status_code == 422
    assert "Choose the device" in words(answer)
    assert Device.objects.filter(revoked_at=None).count() == 2
