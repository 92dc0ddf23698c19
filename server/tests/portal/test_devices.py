"""Adding, naming and removing devices in the browser."""

from __future__ import annotations

import re
from datetime import timedelta
from uuid import uuid4

import time_machine
from django.test import Client
from django.utils import timezone
from server.tests.conftest import PASSWORD, signed_in
from server.tests.portal.stock import device_of, threat_of

from doorward.accounts.models import Account, User
from doorward.devices.models import Device, EnrollmentCode
from doorward.reports.models import Disposition

HTMX = {"HX-Request": "true"}


def test_looking_at_the_add_page_makes_no_code(alices_browser: Client, account: Account) -> None:
    alices_browser.get("/devices/add/")
    alices_browser.head("/devices/add/")
    assert not EnrollmentCode.objects.exists()


def test_a_code_is_shown_once_with_the_exact_command_of_each_system(
    alices_browser: Client, account: Account
) -> None:
    page = alices_browser.post("/devices/add/").content.decode()
    code = EnrollmentCode.objects.get()
    shown = re.search(rf"{code.selector}-[0-9A-Z]{{4}}-[0-9A-Z]{{4}}", page)
    assert shown is not None
    for command in ("./doorward agent", "py doorward agent"):
        assert f"{command} enroll --server http://127.0.0.1:8001 --code {shown[0]}" in page
        assert f"{command} run" in page
    assert '<svg viewBox="0 0 ' in page  # the same as a QR code
    watched = alices_browser.get(f"/devices/add/{code.pk}/", headers=HTMX).content.decode()
    assert "Waiting for the computer" in watched
    assert shown[0] not in watched


def test_the_waiting_page_turns_into_connected(alices_browser: Client, account: Account) -> None:
    alices_browser.post("/devices/add/")
    code = EnrollmentCode.objects.get()
    device = device_of(account, name="Kitchen <PC>")
    EnrollmentCode.objects.filter(pk=code.pk).update(used_at=timezone.now(), device=device)
    page = alices_browser.get(f"/devices/add/{code.pk}/", headers=HTMX).content.decode()
    assert "Kitchen &lt;PC&gt;</bdi> is connected" in page
    assert f'href="/devices/{device.pk}/"' in page
    assert "hx-get" not in page


def test_a_code_that_ran_out_says_so_and_stops_asking(
    alices_browser: Client, account: Account
) -> None:
    alices_browser.post("/devices/add/")
    code = EnrollmentCode.objects.get()
    with time_machine.travel(timezone.now() + timedelta(minutes=11)):
        page = alices_browser.get(f"/devices/add/{code.pk}/", headers=HTMX).content.decode()
    assert "The code has run out" in page
    assert "hx-get" not in page


def test_row45_charlie_cannot_watch_alices_code(
    alices_browser: Client, charlies_browser: Client, account: Account
) -> None:
    alices_browser.post("/devices/add/")
    code = EnrollmentCode.objects.get()
    for wrong in (code.pk, uuid4()):
        answer = charlies_browser.get(f"/devices/add/{wrong}/", headers=HTMX)
        assert answer.status_code == 404


def test_without_a_free_place_no_code_is_offered(alices_browser: Client, account: Account) -> None:
    for _ in range(5):
        device_of(account)
    page = alices_browser.get("/devices/add/").content.decode()
    assert "No place is free" in page
    assert "Get a code" not in page


def test_a_device_is_renamed(alices_browser: Client, laptop: Device) -> None:
    answer = alices_browser.post(
        f"/devices/{laptop.pk}/rename/", {"name": "Kitchen PC"}, follow=True
    )
    assert "It is called Kitchen PC now." in answer.content.decode()
    laptop.refresh_from_db()
    assert laptop.name == "Kitchen PC"


def test_a_name_that_would_turn_the_text_is_refused_and_kept_in_the_field(
    alices_browser: Client, laptop: Device
) -> None:
    answer = alices_browser.post(f"/devices/{laptop.pk}/rename/", {"name": "a\u202eb"})
    assert answer.status_code == 422
    page = answer.content.decode()
    assert "Use letters, digits and signs that can be seen" in page
    assert 'aria-invalid="true"' in page
    laptop.refresh_from_db()
    assert laptop.name == "Alice’s laptop"


def test_removing_says_what_is_lost_and_happens_only_on_post(
    alices_browser: Client, laptop: Device
) -> None:
    page = alices_browser.get(f"/devices/{laptop.pk}/remove/").content.decode()
    assert "Its place is free at once" in page
    assert Device.objects.get(pk=laptop.pk).revoked_at is None
    answer = alices_browser.post(f"/devices/{laptop.pk}/remove/", follow=True)
    assert "is removed. Its place is free." in answer.content.decode()
    assert Device.objects.get(pk=laptop.pk).revoked_at is not None
    assert alices_browser.get(f"/devices/{laptop.pk}/").status_code == 404


def test_v7_5_3_the_sixth_device_taken_out_in_an_hour_takes_a_fresh_proof(
    alices_browser: Client, alice: User, account: Account
) -> None:
    devices = [device_of(account) for _ in range(9)]

    def left() -> int:
        return Device.objects.filter(revoked_at=None).count()

    def remove(browser: Client) -> str:
        device = Device.objects.filter(revoked_at=None).earliest("pk")
        return str(browser.post(f"/devices/{device.pk}/remove/")["Location"])

    with time_machine.travel(timezone.now(), tick=False) as clock:
        for _ in range(5):
            assert remove(alices_browser) == "/devices/"
        # Neither once more nor from another session of hers.
        asked = ""
        for browser in (alices_browser, signed_in(alice)):
            asked = remove(browser)
            assert asked.startswith("/reauthenticate/")
            assert left() == 4
        # Looking at the question costs nothing; after the answer to it the removal is asked anew.
        assert alices_browser.get(f"/devices/{devices[6].pk}/remove/").status_code == 200
        alices_browser.post(asked, {"password": "not hers"})
        assert left() == 4
        asked = remove(alices_browser)
        alices_browser.post(asked, {"password": PASSWORD})
        assert left() == 4
        assert remove(alices_browser) == "/devices/"
        assert left() == 3
        assert remove(alices_browser) == "/devices/"
        clock.shift(timedelta(minutes=15, seconds=1))
        assert remove(alices_browser).startswith("/reauthenticate/")
        clock.shift(timedelta(minutes=45))
        assert remove(alices_browser) == "/devices/"
        assert left() == 1


def test_row45_charlie_finds_nothing_at_alices_addresses(
    charlies_browser: Client, laptop: Device
) -> None:
    random_page = charlies_browser.get(f"/devices/{uuid4()}/")
    for rest in ("", "rename/", "remove/"):
        answer = charlies_browser.get(f"/devices/{laptop.pk}/{rest}")
        assert answer.status_code == 404
        assert answer.content == random_page.content
    for rest in ("rename/", "remove/", "settle/"):
        answer = charlies_browser.post(f"/devices/{laptop.pk}/{rest}", {"name": "mine"})
        assert answer.status_code == 404
    laptop.refresh_from_db()
    assert laptop.revoked_at is None
    assert laptop.name == "Alice’s laptop"


def test_row44_bob_may_look_but_not_change(bobs_browser: Client, laptop: Device) -> None:
    page = bobs_browser.get(f"/devices/{laptop.pk}/").content.decode()
    assert "Remove" not in page
    assert bobs_browser.get("/devices/add/").status_code == 403
    assert bobs_browser.post("/devices/add/").status_code == 403
    for rest in ("rename/", "remove/", "settle/"):
        assert bobs_browser.post(f"/devices/{laptop.pk}/{rest}", {"name": "x"}).status_code == 403
    laptop.refresh_from_db()
    assert laptop.revoked_at is None


def test_a_long_list_goes_on_at_the_next_page(alices_browser: Client, account: Account) -> None:
    devices = [device_of(account) for _ in range(52)]
    page = alices_browser.get("/devices/").content.decode()
    assert page.count('id="device-') == 50
    following = alices_browser.get(f"/devices/?after={devices[49].pk}").content.decode()
    assert following.count('id="device-') == 2
    assert "First page" in following
    assert alices_browser.get("/devices/?after=nonsense").status_code == 404


def test_what_is_still_there_stands_first_on_the_devices_page_however_old(
    alices_browser: Client, laptop: Device
) -> None:
    long_ago = timezone.now() - timedelta(days=40)
    threat_of(laptop, path="/home/alice/left.com", time=long_ago, disposition=Disposition.DETECTED)
    for _ in range(6):
        threat_of(laptop, path="/home/alice/away.com")
    page = alices_browser.get(f"/devices/{laptop.pk}/").content.decode()
    assert page.index("left.com") < page.index("away.com")
    assert "All threats that are still there" not in page
    for _ in range(5):
        threat_of(laptop, path="/home/alice/left.com", disposition=Disposition.DETECTED)
    page = alices_browser.get(f"/devices/{laptop.pk}/").content.decode()
    assert "All threats that are still there" in page
    assert "away.com" not in page
