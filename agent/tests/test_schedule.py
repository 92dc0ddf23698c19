"""What is due: every slot once, missed ones caught up once, in any zone and under any clock."""

from __future__ import annotations

import dataclasses
import datetime as dt
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doorward_agent import schedule
from doorward_agent.schedule import Kind, Plan

QUICK = Plan(kind="quick", hour=12, spread=0)
FULL = Plan(kind="full", hour=12, minute=30, days=frozenset({2}), spread=0, on_battery="wait")
BERLIN = ZoneInfo("Europe/Berlin")
LONG_AGO = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def at(text: str, zone: dt.tzinfo = dt.UTC) -> dt.datetime:
    return dt.datetime.fromisoformat(text).replace(tzinfo=zone)


def due(
    now: dt.datetime,
    *,
    zone: dt.tzinfo = dt.UTC,
    since: dt.datetime = LONG_AGO,
    on_battery: bool = False,
    plans: tuple[Plan, ...] = (QUICK, FULL),
    **started: dt.datetime,
) -> list[Kind]:
    found = schedule.due(
        plans,
        {kind: started[kind] for kind in schedule.KINDS if kind in started},
        now,
        device="d",
        since=since,
        zone=zone,
        on_battery=on_battery,
    )
    return [plan.kind for plan in found]


def test_a_new_device_is_scanned_at_once() -> None:
    now = at("2026-03-02 08:00")
    assert due(now, since=now) == ["quick"]


def test_the_first_full_scan_waits_for_its_slot() -> None:
    start = at("2026-03-02 08:00")  # a Monday
    assert "full" not in due(at("2026-03-04 12:29"), since=start)
    assert "full" in due(at("2026-03-04 12:30"), since=start)


def test_the_quick_scan_runs_once_a_day() -> None:
    ran = at("2026-03-02 12:01")
    assert due(at("2026-03-03 11:59"), quick=ran, full=ran) == []
    assert due(at("2026-03-03 12:00"), quick=ran, full=ran) == ["quick"]
    assert due(at("2026-03-03 12:05"), quick=at("2026-03-03 12:00"), full=ran) == []


def test_a_full_scan_stands_in_for_the_quick_one() -> None:
    full = at("2026-03-04 12:30")
    assert due(at("2026-03-04 13:00"), quick=at("2026-03-03 12:00"), full=full) == []


def test_after_weeks_away_each_kind_runs_once() -> None:
    ran = at("2026-02-02 12:01")
    now = at("2026-03-02 09:00")
    assert due(now, quick=ran, full=ran) == ["full", "quick"]
    assert due(now, quick=ran, full=now) == []


def test_a_run_noted_under_a_wrong_clock_does_not_end_all_scanning() -> None:
    wrong = at("2099-01-01 00:00")
    assert due(at("2026-03-04 13:00"), quick=wrong, full=wrong, since=wrong) != []


def test_d10_a_clock_that_begins_in_1970_still_scans_after_it_is_set_right() -> None:
    wrong = at("1970-01-01 00:05")
    assert "quick" in due(at("2026-03-04 13:00"), quick=wrong, full=wrong)


def test_a_clock_set_back_a_little_repeats_nothing() -> None:
    now = at("2026-03-02 12:00")
    assert due(now, quick=now + dt.timedelta(minutes=5), full=now) == []


def test_a_full_scan_waits_for_mains_power_but_not_for_ever() -> None:
    ran = at("2026-03-03 12:00")
    last = at("2026-02-25 12:30")
    wednesday = at("2026-03-04 12:31")
    assert due(wednesday, quick=wednesday, full=last, on_battery=True) == []
    assert due(wednesday, quick=ran, full=last, on_battery=True) == ["quick"]
    later = wednesday + dt.timedelta(days=3)
    assert "full" in due(later, quick=later, full=last, on_battery=True)


def test_not_on_battery_means_not_on_battery() -> None:
    plan = (dataclasses.replace(QUICK, on_battery="skip"),)
    ran, now = at("2026-03-01 12:00"), at("2026-03-12 12:30")
    assert due(now, quick=ran, plans=plan, on_battery=True) == []
    assert due(now, quick=ran, plans=plan) == ["quick"]


def test_what_was_missed_is_left_out_where_the_plan_says_so() -> None:
    plan = (dataclasses.replace(QUICK, catch_up=False),)
    ran = at("2026-03-01 12:00")
    assert due(at("2026-03-03 09:00"), quick=ran, plans=plan) == [], "the laptop slept at noon"
    assert due(at("2026-03-03 12:30"), quick=ran, plans=plan) == ["quick"]
    assert due(at("2026-03-03 13:01"), quick=ran, plans=plan) == []
    assert due(at("2026-03-03 09:00"), plans=plan) == [], "nor does a new device begin at once"


def test_a_plan_runs_on_each_of_its_days_and_on_no_other() -> None:
    plan = (dataclasses.replace(QUICK, days=frozenset({0, 4}), catch_up=False),)
    monday = dt.datetime(2026, 3, 2, 12, 10, tzinfo=dt.UTC)
    days = [monday + dt.timedelta(days=number) for number in range(7)]
    ran = at("2026-02-20 12:00")
    assert [bool(due(day, quick=ran, plans=plan)) for day in days] == [
        True, False, False, False, True, False, False,
    ]  # fmt: skip


def test_nothing_stands_in_for_a_scan_of_chosen_folders() -> None:
    plan = (Plan(kind="custom", hour=12, spread=0),)
    now = at("2026-03-04 12:40")
    assert due(now, quick=now, full=now, custom=at("2026-03-03 12:00"), plans=plan) == ["custom"]


def test_the_skipped_hour_of_spring_still_has_its_slot() -> None:
    night = (Plan(kind="quick", hour=2, minute=30, spread=0),)
    ran = at("2026-03-28 02:30", BERLIN)
    # On 29 March 2026 the clocks in Berlin go from 02:00 to 03:00.
    before, after = at("2026-03-29 01:59", BERLIN), at("2026-03-29 03:30", BERLIN)
    assert due(before, zone=BERLIN, quick=ran, plans=night) == []
    assert due(after, zone=BERLIN, quick=ran, plans=night) == ["quick"]


def test_the_doubled_hour_of_autumn_has_one_slot() -> None:
    night = (Plan(kind="quick", hour=2, minute=30, spread=0),)
    first = dt.datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN, fold=0)
    second = dt.datetime(2026, 10, 25, 2, 31, tzinfo=BERLIN, fold=1)
    assert due(first, zone=BERLIN, quick=at("2026-10-24 02:30", BERLIN), plans=night) == ["quick"]
    assert due(second, zone=BERLIN, quick=first, plans=night) == []


def test_each_device_keeps_its_own_delay() -> None:
    plan = Plan(kind="quick", hour=12, spread=30)
    slot = at("2026-03-02 12:00")
    delays = {schedule.delay(plan, slot, f"device{number}") for number in range(200)}
    assert len(delays) == 200
    assert max(delays) < dt.timedelta(minutes=30)
    assert schedule.delay(plan, slot, "device1") == schedule.delay(plan, slot, "device1")


zones = st.sampled_from(
    ["UTC", "Europe/Berlin", "America/St_Johns", "Asia/Kathmandu", "Pacific/Apia", "Asia/Gaza"]
).map(ZoneInfo)
plans = st.builds(
    Plan,
    kind=st.sampled_from(schedule.KINDS),
    hour=st.integers(0, 23),
    minute=st.integers(0, 59),
    days=st.frozensets(st.integers(0, 6), min_size=1),
    spread=st.integers(0, 60),
)
FIRST, LAST = dt.datetime(2011, 6, 1), dt.datetime(2035, 1, 1)  # noqa: DTZ001 - as hypothesis wants
moments = st.datetimes(FIRST, LAST, timezones=st.just(dt.UTC))


@given(plan=plans, now=moments, zone=zones)
def test_now_lies_between_two_slots(plan: Plan, now: dt.datetime, zone: ZoneInfo) -> None:
    before = schedule.slot_before(plan, now, zone)
    after = schedule.slot_after(plan, now, zone)
    assert before <= now < after
    # Apia left out a whole day in 2011; elsewhere a change of the clock is hours at most.
    assert after - before <= plan.period + dt.timedelta(days=7)


@given(plan=plans, begin=moments, zone=zones, steps=st.lists(st.integers(1, 4000), max_size=60))
@settings(deadline=None)
def test_whatever_the_pauses_a_plan_never_runs_twice_in_one_slot(
    plan: Plan, begin: dt.datetime, zone: ZoneInfo, steps: list[int]
) -> None:
    plan = dataclasses.replace(plan, spread=0)
    now, started = begin, {plan.kind: begin}
    runs: list[dt.datetime] = []
    for minutes in steps:
        now += dt.timedelta(minutes=minutes)
        if schedule.due((plan,), started, now, device="d", since=begin, zone=zone):
            runs.append(now)
            started = {plan.kind: now}
            # Just run, it is not due again a moment later.
            again = schedule.due((plan,), started, now, device="d", since=begin, zone=zone)
            assert again == []
    slots = [schedule.slot_before(plan, run, zone) for run in runs]
    assert slots == sorted(set(slots))


@given(plan=plans, now=moments, zone=zones)
def test_a_plan_that_has_not_run_for_two_periods_is_due(
    plan: Plan, now: dt.datetime, zone: ZoneInfo
) -> None:
    last = now - 2 * plan.period - dt.timedelta(days=2)
    assert schedule.due((plan,), {plan.kind: last}, now, device="d", since=last, zone=zone)


@pytest.mark.parametrize("zone", [dt.UTC, BERLIN])
def test_the_next_moment_lies_ahead(zone: dt.tzinfo) -> None:
    now = at("2026-03-02 12:10")
    found = schedule.next_moment(schedule.DEFAULT_PLANS, now, device="d", zone=zone)
    assert found is not None
    assert now < found <= now + dt.timedelta(days=1, minutes=30)
