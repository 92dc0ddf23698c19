"""People see their own reports, all of them, page by page, at a cost that does not grow."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from uuid_utils.compat import uuid7

from doorward.accounts.models import Account, Membership, User
from doorward.devices.models import Device
from doorward.reports import intake, queries
from doorward.reports.models import Detection, Disposition, Scan
from doorward.reports.queries import ScanFilter, ThreatFilter

from .conftest import device_of, finding, now_ms, remediation, scan_event

pytestmark = pytest.mark.django_db


@pytest.fixture
def charlies_account(charlie: User) -> Account:
    return Membership.objects.get(user=charlie).account


def all_pages(read: Callable[[str], queries.Page[Any]]) -> list[Any]:
    """Every row, from page to page toward the older ones."""
    rows: list[Any] = []
    cursor = ""
    while True:
        page = read(cursor)
        rows += page.rows
        cursor = page.older
        if not cursor:
            return rows


def test_every_threat_is_on_exactly_one_page_newest_first(laptop: Device) -> None:
    now = now_ms()
    # Many of the same millisecond: the time alone does not tell them apart.
    intake.store(laptop.id, [finding(time=now - number // 7) for number in range(53)])
    rows = all_pages(lambda cursor: queries.threats(laptop.account, cursor=cursor, limit=5))
    assert len({row.id for row in rows}) == len(rows) == 53
    assert rows == sorted(rows, key=lambda row: (row.time, row.id), reverse=True)


def test_the_way_back_shows_the_same_pages(laptop: Device) -> None:
    now = now_ms()
    intake.store(laptop.id, [finding(time=now - number) for number in range(20)])
    first = queries.threats(laptop.account, limit=8)
    second = queries.threats(laptop.account, cursor=first.older, limit=8)
    third = queries.threats(laptop.account, cursor=second.older, limit=8)
    assert (first.newer, third.older) == ("", "")
    assert [len(page.rows) for page in (first, second, third)] == [8, 8, 4]
    back = queries.threats(laptop.account, cursor=third.newer, limit=8)
    assert back.rows == second.rows
    again = queries.threats(laptop.account, cursor=back.newer, limit=8)
    assert again.rows == first.rows
    assert again.newer == ""


def test_a_threat_that_arrives_meanwhile_shifts_no_page(laptop: Device) -> None:
    now = now_ms()
    intake.store(laptop.id, [finding(time=now - 10 - number) for number in range(10)])
    first = queries.threats(laptop.account, limit=5)
    intake.store(laptop.id, [finding(time=now)])
    second = queries.threats(laptop.account, cursor=first.older, limit=5)
    assert not {row.id for row in first.rows} & {row.id for row in second.rows}
    assert len(second.rows) == 5


@pytest.mark.parametrize("cursor", ["x", "AAAA", "é", "-" * 500, "\0", "AH__________AAAAAAAAAAA"])
def test_a_cursor_that_is_not_ours_is_refused_by_name(alices_account: Account, cursor: str) -> None:
    with pytest.raises(queries.InvalidCursor):
        queries.threats(alices_account, cursor=cursor)


def test_filters_show_what_they_say(laptop: Device, alices_account: Account) -> None:
    desktop = device_of(alices_account, "desktop")
    scan = uuid7()
    now = now_ms()
    intake.store(laptop.id, [scan_event(scan, 2, time=now, start_time=now - 1000)])
    intake.store(
        laptop.id,
        [
            finding(path="/home/alice/Invoice.COM", scan_uid=scan, severity=5),
            finding(disposition=Disposition.NO_ACTION, rule="doorward.miner", severity=3),
        ],
    )
    intake.store(desktop.id, [finding(time=now - 3 * 86_400_000)])

    def count(**wanted: Any) -> int:
        return len(queries.threats(alices_account, ThreatFilter(**wanted)).rows)

    assert count() == 3
    assert count(device=desktop.id) == 1
    assert count(is_open=True) == count(dispositions=frozenset({16})) == 1
    assert count(severities=frozenset({3, 5})) == 2
    assert count(text="invoice") == count(text="MINER") == 1
    assert count(text="%") == 0
    assert count(since=timezone.now() - timedelta(days=1)) == 2
    assert count(until=timezone.now() - timedelta(days=1)) == 1
    assert count(scan=Scan.objects.get()) == 1


def test_scans_are_filtered_by_device_state_and_what_they_found(
    laptop: Device, alices_account: Account
) -> None:
    desktop = device_of(alices_account, "desktop")
    intake.store(laptop.id, [scan_event(uuid7(), 1), scan_event(uuid7(), 2, num_detections=3)])
    intake.store(desktop.id, [scan_event(uuid7(), 3)])

    def count(**wanted: Any) -> int:
        return len(queries.scans(alices_account, ScanFilter(**wanted)).rows)

    assert count() == 3
    assert count(device=laptop.id) == 2
    assert count(states=frozenset({1, 3})) == 2
    assert count(with_detections=True) == 1
    assert count(with_detections=False) == 2


def test_charlie_sees_nothing_of_alices(laptop: Device, charlies_account: Account) -> None:
    event, scan = finding(), uuid7()
    intake.store(laptop.id, [event, scan_event(scan, 2)])
    assert queries.threats(charlies_account).rows == ()
    assert queries.threats(charlies_account, ThreatFilter(device=laptop.id)).rows == ()
    assert queries.scans(charlies_account, ScanFilter(device=laptop.id)).rows == ()
    assert queries.lately(charlies_account) == []
    assert queries.of_devices(charlies_account, [laptop.id])[laptop.id].last_scan is None
    assert queries.summary(charlies_account).threats == queries.version(charlies_account) == 0
    with pytest.raises(Detection.DoesNotExist):
        queries.threat_detail(charlies_account, event.metadata.uid)
    with pytest.raises(Scan.DoesNotExist):
        queries.scan(charlies_account, scan)


def test_a_threat_tells_what_was_done_in_the_devices_order(laptop: Device) -> None:
    scan = uuid7()
    event = finding(scan_uid=scan, sequence=1)
    about = event.finding_info.uid
    deleted = remediation(about, 5, sequence=3)
    restored = remediation(about, 9, sequence=2)
    intake.store(laptop.id, [deleted, event, restored, scan_event(scan, 2)])
    detail = queries.threat_detail(laptop.account, event.metadata.uid)
    assert [it.disposition for it in detail.remediations] == [9, 5]
    assert detail.threat.disposition == 5
    assert detail.scan is not None
    assert detail.scan.uid == scan


def test_the_summary_counts_and_its_version_rises_with_each_change(laptop: Device) -> None:
    before = queries.summary(laptop.account)
    assert (before.threats, before.scans, bool(before.open_threats)) == (0, 0, False)
    event = finding(disposition=16)
    intake.store(laptop.id, [event, finding(), scan_event(uuid7(), 2)])
    after = queries.summary(laptop.account)
    assert (after.threats, after.scans, after.open_threats.value) == (2, 1, 1)
    assert (after.recent_threats.value, after.recent_scans.value) == (2, 1)
    assert after.last_scan is not None
    intake.store(laptop.id, [remediation(event.finding_info.uid, 5)])
    latest = queries.summary(laptop.account)
    assert before.version < after.version < latest.version
    assert not latest.open_threats


def test_counting_stops_at_its_limit(laptop: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queries, "COUNT_LIMIT", 10)
    intake.store(laptop.id, [finding() for _ in range(12)])
    assert str(queries.summary(laptop.account).recent_threats) == "10+"


def test_devices_show_their_last_scan_and_open_threats(
    laptop: Device, alices_account: Account
) -> None:
    desktop = device_of(alices_account, "desktop")
    now = now_ms()
    old, new = uuid7(), uuid7()
    intake.store(laptop.id, [scan_event(new, 2, time=now), scan_event(old, 2, time=now - 5000)])
    intake.store(laptop.id, [finding(disposition=16), finding()])
    told = queries.of_devices(alices_account, [laptop.id, desktop.id])
    last = told[laptop.id].last_scan
    assert last is not None
    assert (last.uid, told[laptop.id].open_threats) == (new, 1)
    assert told[desktop.id] == queries.DeviceReports()


def test_a_scan_without_an_end_is_unfinished_after_a_day(laptop: Device) -> None:
    intake.store(laptop.id, [scan_event(uuid7(), 1)])
    scan = Scan.objects.get()
    assert not queries.is_unfinished(scan)
    assert queries.is_unfinished(scan, now=timezone.now() + timedelta(hours=25))


# -- cost ----------------------------------------------------------------------------------------


def test_reading_takes_as_many_queries_for_many_rows_as_for_few(laptop: Device) -> None:
    def asked() -> list[int]:
        counts = []
        for read in (
            lambda: queries.threats(laptop.account),
            lambda: queries.scans(laptop.account),
            lambda: queries.summary(laptop.account),
            lambda: queries.lately(laptop.account),
            lambda: queries.of_devices(laptop.account, [laptop.id]),
            lambda: queries.version(laptop.account),
        ):
            with CaptureQueriesContext(
                connection,
            ) as captured:
                found = read()
                # What a page shows of each row must be there already.
                for row in getattr(found, "rows", ()):
                    assert row.device.label == "laptop"
            counts.append(len(captured))
        return counts

    intake.store(laptop.id, [finding(), scan_event(uuid7(), 2)])
    few = asked()
    intake.store(laptop.id, [finding() for _ in range(60)])
    intake.store(laptop.id, [scan_event(uuid7(), 2) for _ in range(60)])
    assert asked() == few == [1, 1, 5, 3, 2, 1]


LISTS: dict[str, tuple[str, Callable[[Device], Any]]] = {
    "threats": ("detections_of_account", lambda it: queries.threats(it.account)),
    "scans": ("scans_of_account", lambda it: queries.scans(it.account)),
    "threats of a device": (
        "detections_of_device",
        lambda it: queries.threats(it.account, ThreatFilter(device=it.id)),
    ),
    "scans of a device": (
        "scans_of_device",
        lambda it: queries.scans(it.account, ScanFilter(device=it.id)),
    ),
    "open threats": (
        "detections_open",
        lambda it: queries.threats(it.account, ThreatFilter(is_open=True)),
    ),
    "an older page": (
        "detections_of_account",
        lambda it: queries.threats(
            it.account, cursor=queries.threats(it.account, limit=5).older, limit=5
        ),
    ),
}


@pytest.mark.parametrize("name", LISTS)
def test_a_list_is_read_from_its_index_and_never_sorted(laptop: Device, name: str) -> None:
    """Then twenty rows cost what twenty rows cost, however many millions lie beside them."""
    index, read = LISTS[name]
    others = [device_of(laptop.account, str(number)) for number in range(10)]
    for device in (laptop, *others):
        intake.store(
            device.id,
            [finding(disposition=16 if number % 2 else 3) for number in range(200)]
            + [scan_event(uuid7(), 2) for _ in range(200)],
        )
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
        if connection.vendor == "postgresql":
            # As it will plan when the tables are large; these few pages it would rather read whole.
            cursor.execute("SET LOCAL enable_seqscan = off")
            cursor.execute("SET LOCAL enable_bitmapscan = off")
    with CaptureQueriesContext(connection) as captured:
        read(laptop)
    statement = captured[-1]["sql"]
    with connection.cursor() as cursor:
        prefix = "EXPLAIN" if connection.vendor == "postgresql" else "EXPLAIN QUERY PLAN"
        cursor.execute(f"{prefix} {statement}")
        plan = "\n".join(str(row) for row in cursor.fetchall())
    assert index in plan, plan
    assert "TEMP B-TREE" not in plan, plan
    assert "Sort" not in plan, plan
