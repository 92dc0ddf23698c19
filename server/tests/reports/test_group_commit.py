"""Many devices at once: one transaction for all, nobody answered before it, nobody kept from it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from django.db import OperationalError, connection

from doorward.accounts.models import Account
from doorward.devices.models import Device
from doorward.reports import intake, rows
from doorward.reports.intake import DeviceGone, Intake, IntakeUnavailable
from doorward.reports.models import Detection

from .conftest import device_of, finding, report

pytestmark = pytest.mark.django_db(transaction=True)


def with_intake(act: Callable[[Intake], Awaitable[Any]]) -> Any:
    """Run the act with an intake that is closed afterwards."""

    async def run() -> Any:
        taking = Intake()
        try:
            return await act(taking)
        finally:
            await taking.close()

    return asyncio.run(run())


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many reports each transaction held."""
    sizes: list[int] = []
    write = intake._write

    def counting(submissions: Any) -> Any:
        sizes.append(len(submissions))
        return write(submissions)

    monkeypatch.setattr(intake, "_write", counting)
    return sizes


def test_reports_that_arrive_together_share_a_transaction(
    alices_account: Account, batches: list[int]
) -> None:
    devices = [device_of(alices_account, str(number)).id for number in range(250)]

    async def act(taking: Intake) -> Any:
        return await asyncio.gather(
            *(taking.store(report(device, [finding()])) for device in devices)
        )

    answers = with_intake(act)
    assert all(len(answer.accepted) == 1 for answer in answers)
    assert Detection.objects.count() == 250
    assert batches == [100, 100, 50]


def test_no_answer_before_the_commit(laptop: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    may_commit = threading.Event()
    written = threading.Event()
    insert = rows.insert_detections

    def halting(*words: Any) -> Any:
        done = insert(*words)
        written.set()
        assert may_commit.wait(10)
        return done

    monkeypatch.setattr(rows, "insert_detections", halting)

    async def act(taking: Intake) -> None:
        answer = asyncio.ensure_future(taking.store(report(laptop.id, [finding()])))
        assert await asyncio.to_thread(written.wait, 10)
        assert not answer.done()
        may_commit.set()
        assert len((await answer).accepted) == 1

    with_intake(act)


def test_one_removed_device_does_not_keep_the_others_out(
    laptop: Device, alices_account: Account
) -> None:
    gone = device_of(alices_account, "gone")
    Device.objects.filter(id=gone.id).update(revoked_at=gone.enrolled_at)

    async def act(taking: Intake) -> Any:
        return await asyncio.gather(
            taking.store(report(laptop.id, [finding()])),
            taking.store(report(gone.id, [finding()])),
            return_exceptions=True,
        )

    stored, refused = with_intake(act)
    assert len(stored.accepted) == 1
    assert isinstance(refused, DeviceGone)


def test_d26_a_report_that_breaks_the_storing_does_not_take_the_batch_with_it(
    alices_account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    devices = [device_of(alices_account, str(number)).id for number in range(50)]
    culprit = rows.identity(connection, devices[17])
    insert = rows.insert_detections

    def breaking(of: Any, groups: Any) -> Any:
        if any(row[rows.COLUMNS.index("device_id")] == culprit for made in groups for row in made):
            raise RuntimeError("no code of ours expected this")
        return insert(of, groups)

    monkeypatch.setattr(rows, "insert_detections", breaking)

    async def act(taking: Intake) -> Any:
        return await asyncio.gather(
            *(taking.store(report(device, [finding()])) for device in devices)
        )

    answers = with_intake(act)
    assert [len(answer.accepted) for answer in answers] == [1] * 17 + [0] + [1] * 32
    assert len(answers[17].refused) == 1
    assert Detection.objects.count() == 49


def test_a_database_that_is_away_acknowledges_nothing_and_is_used_again_when_back(
    laptop: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any) -> Any:
        raise OperationalError("disk I/O error")

    async def act(taking: Intake) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(rows, "insert_detections", away)
            with pytest.raises(IntakeUnavailable):
                await taking.store(report(laptop.id, [finding()]))
        assert len((await taking.store(report(laptop.id, [finding()]))).accepted) == 1

    with_intake(act)


def test_more_than_fits_is_refused_at_once(laptop: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "MAX_WAITING_REPORTS", 3)

    async def act(taking: Intake) -> Any:
        return await asyncio.gather(
            *(taking.store(report(laptop.id, [finding()])) for _ in range(5)),
            return_exceptions=True,
        )

    answers = with_intake(act)
    assert [type(answer).__name__ for answer in answers] == ["Stored"] * 3 + [
        "IntakeUnavailable"
    ] * 2
    assert answers[-1].retry_after > 0
    assert Detection.objects.count() == 3


def test_more_bytes_than_fit_are_refused_at_once(laptop: Device) -> None:
    half = intake.MAX_WAITING_BYTES // 2 + 1

    async def act(taking: Intake) -> Any:
        return await asyncio.gather(
            taking.store(report(laptop.id, [finding()]), size=half),
            taking.store(report(laptop.id, [finding()]), size=half),
            return_exceptions=True,
        )

    first, second = with_intake(act)
    assert len(first.accepted) == 1
    assert isinstance(second, IntakeUnavailable)
    # What was stored makes room again.
    assert (
        len(with_intake(lambda it: it.store(report(laptop.id, [finding()]), size=half)).accepted)
        == 1
    )


def test_closing_stores_what_was_taken_and_takes_no_more(laptop: Device) -> None:
    async def act(taking: Intake) -> None:
        waiting = [
            asyncio.ensure_future(taking.store(report(laptop.id, [finding()]))) for _ in range(300)
        ]
        await asyncio.sleep(0)
        await taking.close()
        assert all(len(stored.accepted) == 1 for stored in await asyncio.gather(*waiting))
        with pytest.raises(IntakeUnavailable):
            await taking.store(report(laptop.id, [finding()]))

    async def run() -> None:
        await act(Intake())

    asyncio.run(run())
    assert Detection.objects.count() == 300


def test_a_device_that_hangs_up_does_not_hold_up_the_others(laptop: Device) -> None:
    async def act(taking: Intake) -> None:
        leaving = asyncio.ensure_future(taking.store(report(laptop.id, [finding()])))
        staying = asyncio.ensure_future(taking.store(report(laptop.id, [finding()])))
        await asyncio.sleep(0)
        leaving.cancel()
        assert len((await staying).accepted) == 1

    with_intake(act)


@pytest.mark.skipif("connection.vendor != 'postgresql'", reason="SQLite has no server to lose")
def test_d06_the_intake_recovers_when_its_database_connection_was_cut(laptop: Device) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        (mine,) = cursor.fetchone()

    async def act(taking: Intake) -> None:
        await taking.store(report(laptop.id, [finding()]))
        await asyncio.to_thread(cut_all_connections_but, mine)
        assert len((await taking.store(report(laptop.id, [finding()]))).accepted) == 1

    with_intake(act)


def cut_all_connections_but(kept: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid NOT IN (pg_backend_pid(), %s)",
            [kept],
        )
    connection.close()


def test_who_was_answered_together_is_stored_together_again(
    alices_account: Account, batches: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    # All of them come back, so that the wait always ends by that, however slow the machine is.
    monkeypatch.setattr(intake, "GATHER_S", 60)
    devices = [device_of(alices_account, str(number)).id for number in range(40)]

    async def call(taking: Intake, number: int) -> None:
        await taking.store(report(devices[number], [finding()]))
        for _ in range(number):  # They come back one after the other.
            await asyncio.sleep(0)
        await taking.store(report(devices[number], [finding()]))

    async def act(taking: Intake) -> None:
        await asyncio.gather(*(call(taking, number) for number in range(40)))

    with_intake(act)
    assert batches == [40, 40]
    assert Detection.objects.count() == 80


def test_a_report_that_waits_for_company_in_vain_is_stored_all_the_same(
    laptop: Device, batches: list[int]
) -> None:
    async def act(taking: Intake) -> None:
        await asyncio.gather(*(taking.store(report(laptop.id, [finding()])) for _ in range(5)))
        await taking.store(report(laptop.id, [finding()]))
        await taking.store(report(laptop.id, [finding()]))

    with_intake(act)
    assert batches == [5, 1, 1]


def test_closing_does_not_leave_anybody_waiting_for_company(laptop: Device) -> None:
    async def run() -> None:
        taking = Intake()
        await asyncio.gather(*(taking.store(report(laptop.id, [finding()])) for _ in range(5)))
        lone = asyncio.ensure_future(taking.store(report(laptop.id, [finding()])))
        await asyncio.sleep(0)
        await taking.close()
        assert len((await lone).accepted) == 1

    asyncio.run(run())
