"""Whatever is sent, how often, in whatever order: each event counts once, the end is the same."""

from __future__ import annotations

import random
from typing import Any
from uuid import UUID

import pytest
from django.db import OperationalError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from uuid_utils.compat import uuid7

from doorward.accounts.models import Account
from doorward.devices.models import Device
from doorward.reports import intake, rows
from doorward.reports.models import Detection, Remediation, Scan, Tally

from .conftest import device_of, finding, now_ms, remediation, scan_event

DISPOSITIONS = (1, 3, 5, 9, 13, 16)


@st.composite
def stories(draw: st.DrawFn) -> list[dict[str, Any]]:
    """What happened on a device: findings, what was done about them, scans."""
    told: list[dict[str, Any]] = []
    sequence = 0
    for number in range(draw(st.integers(1, 4))):
        sequence += 1
        told.append({"kind": "finding", "about": number, "sequence": sequence})
        for disposition in draw(st.lists(st.sampled_from(DISPOSITIONS), max_size=4)):
            sequence += 1
            told.append(
                {
                    "kind": draw(st.sampled_from(["remediation", "update"])),
                    "about": number,
                    "disposition": disposition,
                    "status": draw(st.sampled_from([1, 1, 2])),
                    "sequence": draw(st.sampled_from([sequence, sequence, 0])),
                    "clock": draw(st.sampled_from([0, 5_000, -5_000])),
                }
            )
    for number in range(draw(st.integers(0, 2))):
        for activity in draw(st.lists(st.sampled_from([1, 2, 3, 6]), min_size=1, max_size=3)):
            sequence += 1
            told.append(
                {"kind": "scan", "about": number, "activity": activity, "sequence": sequence}
            )
    return told


def events_of(story: list[dict[str, Any]], now: int) -> list[Any]:
    """The story as the events of one device."""
    names: dict[tuple[str, int], UUID] = {}

    def name(kind: str, number: int) -> UUID:
        return names.setdefault((kind, number), uuid7())

    events = []
    for number, it in enumerate(story):
        at = now + number + it.get("clock", 0)
        if it["kind"] == "finding":
            event = finding(
                finding_uid=name("finding", it["about"]), sequence=it["sequence"], time=at
            )
        elif it["kind"] == "remediation":
            event = remediation(
                name("finding", it["about"]),
                it["disposition"],
                sequence=it["sequence"],
                status_id=it["status"],
                time=at,
            )
        elif it["kind"] == "update":
            event = finding(
                finding_uid=name("finding", it["about"]),
                activity_id=2,
                disposition=it["disposition"],
                sequence=it["sequence"],
                time=at,
            )
        else:
            event = scan_event(
                name("scan", it["about"]),
                it["activity"],
                sequence=it["sequence"],
                num_files=it["sequence"],
                time=at,
            )
        events.append(event)
    return events


def end_of(device: Device) -> Any:
    """What is known of the device in the end, but for when the server heard it."""
    return (
        sorted(
            Detection.objects.filter(device=device).values_list(
                "uid", "disposition", "reported_disposition", "is_open", "quarantine_id", "time"
            )
        ),
        sorted(
            Remediation.objects.filter(device=device).values_list(
                "uid", "disposition", "finding_uid", "is_waiting"
            )
        ),
        sorted(
            (scan.uid, sorted(scan.event_uids), scan.state, scan.files, scan.time, scan.name)
            for scan in Scan.objects.filter(device=device)
        ),
    )


@pytest.mark.django_db
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(story=stories(), seed=st.integers(0, 2**32))
def test_duplicates_reordering_and_failures_change_nothing_in_the_end(
    alices_account: Account, story: list[dict[str, Any]], seed: int
) -> None:
    events = events_of(story, now_ms() - 60_000)
    orderly = device_of(alices_account, "orderly")
    for event in events:
        intake.store(orderly.id, [event])

    chance = random.Random(seed)  # noqa: S311 - repeatable chance, no secret
    messy = device_of(alices_account, "messy")
    tally_before = Tally.objects.get(account=alices_account).detections
    accepted: list[UUID] = []
    sent = [*events, *chance.choices(events, k=len(events))]
    chance.shuffle(sent)
    while sent:
        size = chance.randint(1, 5)
        report, sent = sent[:size], sent[size:]
        if chance.random() < 0.3:
            store_in_vain(messy, report)
        stored = intake.store(messy.id, report)
        assert stored.refused == ()
        accepted += stored.accepted
    assert sorted(accepted) == sorted(event.metadata.uid for event in events)
    assert end_of(messy) == end_of(orderly)
    findings = sum(it["kind"] == "finding" for it in story)
    assert Tally.objects.get(account=alices_account).detections - tally_before == findings


def store_in_vain(device: Device, report: list[Any]) -> None:
    """The database fails when all was written but the tally: nothing of it may remain."""
    with pytest.MonkeyPatch.context() as patch:

        def away(*_: Any) -> None:
            raise OperationalError("disk I/O error")

        patch.setattr(rows, "add_to_tallies", away)
        before = end_of(device)
        try:
            stored = intake.store(device.id, report)
        except intake.IntakeUnavailable:
            pass
        else:
            # All of it was known, so there was nothing to write.
            assert stored.accepted == ()
        assert end_of(device) == before
