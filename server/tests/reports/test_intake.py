"""What devices report is stored once, as theirs, and the latest word about it holds."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
import pytest
import time_machine
from django.db import connection
from django.utils import timezone
from uuid_utils.compat import uuid7

from doorward.accounts.models import Account, User
from doorward.devices.models import Device
from doorward.reports import intake, rows
from doorward.reports.models import Detection, Disposition, Remediation, Scan, ScanState, Tally

from .conftest import device_of, finding, now_ms, remediation, scan_event

pytestmark = pytest.mark.django_db


def test_a_finding_becomes_a_row_with_everything_it_said(laptop: Device) -> None:
    scan = uuid7()
    event = finding(scan_uid=scan, path="/home/alice/übung.com")
    stored = intake.store(laptop.id, [event])
    assert stored.accepted == (event.metadata.uid,)
    row = Detection.objects.get()
    assert (row.device_id, row.account_id) == (laptop.id, laptop.account_id)
    assert (row.uid, row.finding_uid) == (event.metadata.uid, event.finding_info.uid)
    assert row.scan_uid == scan
    assert row.path == "/home/alice/übung.com"
    assert row.sha256 == "ab" * 32
    assert (row.title, row.rule, row.engine) == ("EICAR test file", "doorward.eicar", "yara")
    assert row.severity == 4
    assert row.disposition == row.reported_disposition == Disposition.QUARANTINED
    assert row.is_open is False
    assert row.device_time == event.time
    assert row.time == rows.EPOCH + timedelta(milliseconds=event.time)
    assert row.more_paths is None


def test_every_column_of_a_detection_is_filled() -> None:
    columns = {field.column for field in Detection._meta.concrete_fields}
    assert set(rows.COLUMNS) == columns - {"id"}


def test_times_are_stored_as_django_stores_them(laptop: Device) -> None:
    """A row written past the ORM is found by a time that goes through it."""
    intake.store(laptop.id, [finding(time=now_ms() // 1000 * 1000), finding()])
    for row in Detection.objects.all():
        assert Detection.objects.filter(time=row.time, received_at=row.received_at, id=row.id)
        assert Detection.objects.filter(uid=row.uid, device_id=row.device_id, time__gte=row.time)


def test_the_same_report_twice_is_stored_once(laptop: Device) -> None:
    events = [finding() for _ in range(70)]
    events += [scan_event(uuid7(), 2), remediation(events[0].finding_info.uid, 9)]
    uids = {event.metadata.uid for event in events}
    first = intake.store(laptop.id, events)
    assert set(first.accepted) == uids
    again = intake.store(laptop.id, events)
    assert (again.accepted, set(again.duplicate)) == ((), uids)
    assert (Detection.objects.count(), Scan.objects.count(), Remediation.objects.count()) == (
        70,
        1,
        1,
    )
    tally = Tally.objects.get(account=laptop.account_id)
    assert (tally.version, tally.scans, tally.detections) == (1, 1, 70)


def test_the_same_event_twice_in_one_report_counts_once(laptop: Device) -> None:
    event = finding()
    stored = intake.store(laptop.id, [event, event, finding()])
    assert len(stored.accepted) == 2
    assert stored.duplicate == (event.metadata.uid,)
    assert Detection.objects.count() == 2


def test_old_and_new_events_in_one_report_are_told_apart(laptop: Device) -> None:
    old = [finding() for _ in range(5)]
    intake.store(laptop.id, old)
    new = [finding() for _ in range(5)]
    stored = intake.store(laptop.id, [old[0], new[0], old[1], *new[1:]])
    assert set(stored.duplicate) == {old[0].metadata.uid, old[1].metadata.uid}
    assert set(stored.accepted) == {event.metadata.uid for event in new}
    assert Detection.objects.count() == 10


def test_two_devices_may_use_the_same_id(alices_account: Account) -> None:
    event = finding()
    for name in ("laptop", "desktop"):
        stored = intake.store(device_of(alices_account, name).id, [event])
        assert stored.accepted == (event.metadata.uid,)
    assert Detection.objects.count() == 2


def test_a_removed_device_can_store_nothing(laptop: Device) -> None:
    laptop.revoked_at = timezone.now()
    laptop.save()
    with pytest.raises(intake.DeviceGone):
        intake.store(laptop.id, [finding()])
    assert not Detection.objects.exists()


# -- dispositions --------------------------------------------------------------------------------


@pytest.mark.parametrize("remediation_first", [False, True])
def test_a_restored_file_is_shown_as_restored_whichever_arrives_first(
    laptop: Device, remediation_first: bool
) -> None:
    event = finding()
    told = [event, remediation(event.finding_info.uid, Disposition.RESTORED, time=event.time + 1)]
    for message in reversed(told) if remediation_first else told:
        intake.store(laptop.id, [message])
    row = Detection.objects.get()
    assert row.disposition == Disposition.RESTORED
    assert row.reported_disposition == Disposition.QUARANTINED
    assert not Remediation.objects.get().is_waiting


def test_the_device_numbers_decide_when_its_clock_was_set_back(laptop: Device) -> None:
    event = finding(sequence=1)
    about = event.finding_info.uid
    restored = remediation(about, Disposition.RESTORED, sequence=2, time=4_070_908_800_000)
    deleted = remediation(about, Disposition.DELETED, sequence=3, time=now_ms())
    intake.store(laptop.id, [deleted, restored, event])
    assert Detection.objects.get().disposition == Disposition.DELETED


def test_a_remediation_that_failed_changes_nothing(laptop: Device) -> None:
    event = finding()
    intake.store(laptop.id, [event, remediation(event.finding_info.uid, 9, status_id=2)])
    assert Detection.objects.get().disposition == Disposition.QUARANTINED
    assert Remediation.objects.count() == 1


def test_a_finding_that_nobody_dealt_with_is_open_until_it_is_deleted(laptop: Device) -> None:
    event = finding(disposition=Disposition.NO_ACTION)
    intake.store(laptop.id, [event])
    assert Detection.objects.get().is_open is True
    intake.store(laptop.id, [remediation(event.finding_info.uid, Disposition.DELETED)])
    assert Detection.objects.get().is_open is False


def test_another_devices_remediation_does_not_touch_this_one(
    laptop: Device, alices_account: Account
) -> None:
    event = finding()
    intake.store(laptop.id, [event])
    intake.store(device_of(alices_account, "desktop").id, [remediation(event.finding_info.uid, 9)])
    assert Detection.objects.get().disposition == Disposition.QUARANTINED


def test_an_update_of_a_finding_changes_it_and_makes_no_second_one(laptop: Device) -> None:
    event = finding(disposition=Disposition.NO_ACTION)
    update = finding(finding_uid=event.finding_info.uid, activity_id=2, disposition=3)
    for _ in range(2):
        intake.store(laptop.id, [event, update])
    assert Detection.objects.get().disposition == Disposition.QUARANTINED


# -- scans ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("end_first", [False, True])
def test_the_start_and_the_end_of_a_scan_are_one_scan(laptop: Device, end_first: bool) -> None:
    uid = uuid7()
    began = now_ms() - 60_000
    start = scan_event(uid, 1, time=began)
    end = scan_event(uid, 2, start_time=began, duration=60_000, num_files=20_000, num_detections=1)
    for event in (end, start) if end_first else (start, end):
        intake.store(laptop.id, [event])
    row = Scan.objects.get()
    assert row.state == ScanState.COMPLETED
    assert (row.files, row.detections, row.duration_ms) == (20_000, 1, 60_000)
    assert row.device_time == began
    assert row.ended_at is not None
    assert row.time < row.ended_at


def test_a_scan_that_only_began_is_running(laptop: Device) -> None:
    intake.store(laptop.id, [scan_event(uuid7(), 1)])
    assert Scan.objects.get().state == ScanState.RUNNING


def test_a_device_that_never_stops_talking_about_one_scan_is_refused(laptop: Device) -> None:
    uid = uuid7()
    events = [scan_event(uid, 2) for _ in range(intake.MAX_EVENTS_OF_A_SCAN + 2)]
    stored = intake.store(laptop.id, events)
    assert [it.position for it in stored.refused] == [16, 17]
    assert Scan.objects.count() == 1


# -- clocks --------------------------------------------------------------------------------------


@pytest.mark.parametrize("clock", [0, 4_070_908_800_000, 253_402_300_799_999])
def test_d10_a_device_whose_clock_is_wrong_is_dated_by_the_server(
    laptop: Device, clock: int
) -> None:
    with time_machine.travel("2026-11-22 12:00:00Z", tick=False):
        intake.store(laptop.id, [finding(time=clock), scan_event(uuid7(), 1, time=clock)])
        now = timezone.now()
    row = Detection.objects.get()
    assert (row.time, row.device_time) == (now, clock)
    assert Scan.objects.get().time == now


def test_d10_a_device_that_was_offline_for_weeks_keeps_its_own_times(laptop: Device) -> None:
    weeks_ago = now_ms() - 21 * 24 * 3_600_000
    intake.store(laptop.id, [finding(time=weeks_ago)])
    assert Detection.objects.get().time == rows.EPOCH + timedelta(milliseconds=weeks_ago)


# -- poison --------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 7, pytest.param(100, marks=pytest.mark.slow)])
def test_d26_one_event_that_breaks_the_storing_is_refused_alone(
    laptop: Device, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = [finding(path=f"/{number}") for number in range(size)]
    culprit = size // 2
    build = rows.builder

    def breaking(*words: Any) -> Any:
        made = build(*words)

        def row(event: Any) -> rows.Row:
            if event is events[culprit]:
                raise RuntimeError("no code of ours expected this")
            return made(event)

        return row

    monkeypatch.setattr(rows, "builder", breaking)
    stored = intake.store(laptop.id, events)
    assert [(it.position, it.uid) for it in stored.refused] == [
        (culprit, events[culprit].metadata.uid)
    ]
    assert len(stored.accepted) == Detection.objects.count() == size - 1


def test_a_device_that_moved_while_its_report_was_on_the_way_reports_to_its_new_account(
    laptop: Device, charlie: User
) -> None:
    charlies_account = Account.objects.get(memberships__user=charlie)
    submission = intake.prepared(laptop.id, laptop.account_id, [finding(), scan_event(uuid7(), 1)])
    Device.objects.filter(id=laptop.id).update(account=charlies_account)
    (stored,) = intake._store_all([submission])
    assert isinstance(stored, intake.Stored)
    assert len(stored.accepted) == 2
    assert {row.account_id for row in Detection.objects.all()} == {charlies_account.id}


def test_the_events_that_can_not_be_stored_are_told_by_their_places_among_all(
    laptop: Device,
) -> None:
    bad = msgspec.structs.replace(finding(), severity_id=2**80)
    worse = msgspec.structs.replace(scan_event(uuid7(), 1), time=2**80)
    events = [scan_event(uuid7(), 1), finding(), worse, bad, scan_event(uuid7(), 1), finding()]
    stored = intake.store(laptop.id, events)
    assert sorted((it.position, it.uid) for it in stored.refused) == [
        (2, worse.metadata.uid),
        (3, bad.metadata.uid),
    ]
    assert len(stored.accepted) == 4


def test_d26_a_value_that_the_database_refuses_is_refused_alone(laptop: Device) -> None:
    # `replace` checks nothing: as if a bound were missing in the messages.
    bad = msgspec.structs.replace(finding(), severity_id=2**80)
    good = [finding(), finding()]
    stored = intake.store(laptop.id, [good[0], bad, good[1]])
    assert [it.uid for it in stored.refused] == [bad.metadata.uid]
    assert set(stored.accepted) == {event.metadata.uid for event in good}
    assert Detection.objects.count() == 2


def test_a_database_that_is_away_refuses_nothing_and_stores_nothing(
    laptop: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broken disk must never make us tell a device to throw its findings away."""
    from django.db import DatabaseError, OperationalError

    for error in (OperationalError("disk full"), DatabaseError("malformed"), MemoryError()):

        def away(*_: Any, error: BaseException = error) -> Any:
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(rows, "insert_detections", away)
            with pytest.raises(intake.IntakeUnavailable) as caught:
                intake.store(laptop.id, [finding()])
        assert caught.value.retry_after > 0
    assert not Detection.objects.exists()
    assert connection.in_atomic_block
