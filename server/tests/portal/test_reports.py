"""Lists of scans and threats, their filters, and one of each."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.test import Client
from django.utils import timezone
from server.tests.portal.stock import device_of, scan_of, threat_of

from doorward.devices.models import Device
from doorward.reports.models import Disposition, ScanState


def listed(client: Client, address: str, kind: str) -> int:
    answer = client.get(address)
    assert answer.status_code == 200, address
    return answer.content.decode().count(f'id="{kind}-')


def test_each_threat_shows_file_device_rule_when_and_what_was_done(
    alices_browser: Client, laptop: Device
) -> None:
    threat = threat_of(laptop)
    page = alices_browser.get(f"/reports/threats/{threat.uid}/").content.decode()
    for told in (
        "/home/alice/invoice.com",
        "Alice’s laptop",
        "eicar",
        "Put away",
        f"./doorward agent quarantine restore {threat.quarantine_id}",
    ):
        assert told in page
    row = alices_browser.get("/reports/threats/").content.decode()
    for told in ("invoice.com", "Alice’s laptop", "Put away", "just now"):
        assert told in row


def test_filters_are_links_that_can_be_kept(alices_browser: Client, laptop: Device) -> None:
    other = device_of(laptop.account, name="Office server")
    threat_of(laptop)
    threat_of(laptop, disposition=Disposition.DETECTED)
    threat_of(other, disposition=Disposition.RESTORED, time=timezone.now() - timedelta(days=8))
    found = {
        "": 3,
        f"device={laptop.pk}": 2,
        "action=away": 1,
        "action=open": 1,
        "action=back": 1,
        "time=week": 2,
        f"device={other.pk}&time=week": 0,
        "text=INVOICE": 3,
    }
    for query, number in found.items():
        assert listed(alices_browser, f"/reports/threats/?{query}", "threat") == number, query
    page = alices_browser.get("/reports/threats/?action=away").content.decode()
    assert f'href="?action=away&amp;device={laptop.pk}"' in page
    assert 'href="?action=away" aria-current="true"' in page


def test_scans_are_filtered_by_their_result(alices_browser: Client, laptop: Device) -> None:
    scan_of(laptop)
    scan_of(laptop, detections=2)
    scan_of(laptop, state=ScanState.RUNNING)
    scan_of(laptop, state=ScanState.FAILED)
    for result, number in {"threats": 1, "clean": 1, "running": 1, "failed": 1}.items():
        assert listed(alices_browser, f"/reports/?result={result}", "scan") == number


@pytest.mark.parametrize(
    "query", ["device=x", "action=x", "time=x", "result=x", "at=x", "at=%00", "device=1'--"]
)
def test_a_filter_nobody_offered_is_a_400_not_an_error(
    alices_browser: Client, laptop: Device, query: str
) -> None:
    address = "/reports/" if query.startswith("result") else "/reports/threats/"
    answer = alices_browser.get(f"{address}?{query}")
    assert answer.status_code == 400
    assert "We could not read that" in answer.content.decode()


def test_older_and_newer_lead_through_all_of_them_and_back(
    alices_browser: Client, laptop: Device
) -> None:
    now = timezone.now()
    scans = [scan_of(laptop, time=now - timedelta(minutes=n)) for n in range(45)]
    seen: list[str] = []
    older = newer = ""
    address = "/reports/"
    for _ in range(3):
        answer = alices_browser.get(address)
        seen += [str(scan.uid) for scan in answer.context["scans"]]
        older, newer = answer.context["older"], answer.context["newer"]
        address = f"/reports/{older}" if older else ""
    assert seen == [str(scan.uid) for scan in scans]
    assert older == ""
    back = alices_browser.get(f"/reports/{newer}")
    assert [str(scan.uid) for scan in back.context["scans"]] == seen[20:40]


@pytest.mark.parametrize("address", ["/reports/", "/reports/threats/", "/devices/"])
def test_a_list_takes_the_same_queries_for_one_row_as_for_twenty(
    alices_browser: Client, laptop: Device, address: str, django_assert_max_num_queries: Any
) -> None:
    scan_of(laptop)
    threat_of(laptop)
    with django_assert_max_num_queries(12) as few:
        alices_browser.get(address)
    for _ in range(19):
        device = device_of(laptop.account)
        scan_of(device)
        threat_of(device)
    with django_assert_max_num_queries(len(few)):
        alices_browser.get(address)


def test_row45_charlie_finds_none_of_alices_reports(
    charlies_browser: Client, laptop: Device
) -> None:
    scan, threat = scan_of(laptop), threat_of(laptop)
    nowhere = charlies_browser.get(f"/reports/scans/{uuid4()}/")
    assert nowhere.status_code == 404
    for address in (f"/reports/scans/{scan.uid}/", f"/reports/threats/{threat.uid}/"):
        answer = charlies_browser.get(address)
        assert answer.status_code == 404
        assert answer.content == nowhere.content
    for address in ("/reports/", "/reports/threats/"):
        page = charlies_browser.get(f"{address}?device={laptop.pk}").content.decode()
        assert "invoice" not in page
        assert "Alice’s laptop" not in page


def test_a_removed_device_leaves_its_reports(alices_browser: Client, laptop: Device) -> None:
    threat = threat_of(laptop)
    alices_browser.post(f"/devices/{laptop.pk}/remove/")
    page = alices_browser.get(f"/reports/threats/{threat.uid}/").content.decode()
    assert "(removed)" in page
    assert listed(alices_browser, f"/reports/threats/?device={laptop.pk}", "threat") == 1
