"""The rule of states is written twice, for Python and for the database; they must agree."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from itertools import product

from django.test import Client
from django.utils import timezone
from server.tests.portal.stock import device_of, scan_of

from doorward.accounts.models import Account
from doorward.devices import queries, state
from doorward.devices.models import Device, Presence, Protection
from doorward.portal import telling
from doorward_protocol import protection as words

AGES = (
    None,
    timedelta(0),
    timedelta(minutes=14),
    timedelta(minutes=16),
    timedelta(hours=23),
    timedelta(hours=25),
    timedelta(days=6, hours=23),
    timedelta(days=7, hours=1),
)


def test_the_database_and_the_page_judge_every_device_alike(account: Account) -> None:
    now = timezone.now()
    devices: list[Device] = []
    for age, said, kind, copied, fresh in product(
        AGES, Protection.values, ("laptop", "server"), (False, True), (False, True)
    ):
        device = Device(
            account=account,
            thumbprint=str(len(devices)),
            type=kind,
            protection_state=said,
            enrolled_at=now - (timedelta(hours=1) if fresh else timedelta(days=30)),
            changed_at=now,
            cloned_at=now if copied else None,
        )
        devices.append(device)
        device.seen = now - age if age is not None else None  # type: ignore[attr-defined]
    Device.objects.bulk_create(devices)
    Presence.objects.bulk_create(
        Presence(device=device, last_seen=device.seen)  # type: ignore[attr-defined]
        for device in devices
    )
    stored = list(queries.of_account(account))
    expected = Counter(state.of(device, now).standing for device in stored)
    assert queries.standings(account, now) == expected
    assert set(expected) == set(state.Standing)
    in_need = sum(state.of(device, now).needs_somebody for device in stored)
    needing = queries.in_need_first(account, now, most=in_need)
    assert {device.pk for device in needing} == {
        device.pk for device in stored if state.of(device, now).needs_somebody
    }


def test_a_removed_device_is_in_no_answer(account: Account) -> None:
    device = device_of(account)
    Device.objects.filter(pk=device.pk).update(revoked_at=timezone.now())
    assert queries.find(account, device.pk) is None
    assert queries.page(account) == []
    assert queries.standings(account, timezone.now()) == {}


def test_a_page_says_how_a_device_is_in_the_words_that_the_device_itself_uses() -> None:
    assert {key: str(word) for key, word in telling.REASONS.items()} == words.REASONS
    assert {key: str(state.WORDS[state.Standing(key)]) for key in words.STATES} == words.STATES
    assert set(words.STATES) == set(Protection.values) - {Protection.UNKNOWN}


def test_a_device_that_works_is_protected_before_its_first_scan_and_its_page_says_not_scanned_yet(
    alices_browser: Client, alices_account: Account
) -> None:
    device = device_of(alices_account, said=Protection.PROTECTED)
    page = alices_browser.get(f"/devices/{device.pk}/").content.decode()
    assert "Protected" in page
    assert words.NOT_SCANNED in page
    assert words.NOT_SCANNED in alices_browser.get("/devices/").content.decode()
    # How it is stands in the head; what is asked for later has it as news for the same place.
    assert page.index('id="device-state"') < page.rindex("</header>")
    assert page.count('id="device-state"') == 1
    part = alices_browser.get(f"/devices/{device.pk}/", HTTP_HX_REQUEST="true").content.decode()
    assert part.count('id="device-state" hx-swap-oob="true"') == 1
    scan_of(device)
    assert words.NOT_SCANNED not in alices_browser.get(f"/devices/{device.pk}/").content.decode()
