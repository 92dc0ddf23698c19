"""The regular call: what it stores, what it answers, and whom it refuses."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from server.tests.gateway.computers import (
    Computer,
    Reply,
    code_for,
    joined,
    open_door,
    whole,
    with_door,
)

from doorward.accounts.models import Account, User
from doorward.accounts.origin import Origin
from doorward.audit.models import Event
from doorward.billing.models import Subscription
from doorward.devices import clones, removal
from doorward.devices.models import Device, Presence
from doorward.gateway.door import Door
from doorward_protocol.messages import CheckInAnswer


def test_what_a_device_says_of_itself_is_stored(alices_code: str) -> None:
    async def act(door: Door) -> Reply:
        laptop = await joined(door, alices_code)
        return await laptop.check_in(
            protection={"state": "attention", "reasons": ["definitions-old"]},
            settings={
                "version": 3,
                "status": "failed",
                "errors": [{"pointer": "/scan/paths", "code": "unknown"}],
            },
            definitions={"version": 7},
            queue={"depth": 12, "dropped": 3},
            device={"hostname": "new-name", "os": {"name": "linux", "version": "13"}},
        )

    assert with_door(act).status == 200
    device = Device.objects.get()
    assert (device.protection_state, device.protection_reasons) == (
        "attention",
        ["definitions-old"],
    )
    assert (device.settings_version, device.settings_status) == (3, "failed")
    assert device.settings_errors == [{"pointer": "/scan/paths", "code": "unknown"}]
    assert (device.definitions_version, device.queue_depth, device.queue_dropped) == (7, 12, 3)
    assert (device.hostname, device.os_version) == ("new-name", "13")


def test_facts_told_before_are_not_lost_under_those_told_after(alices_code: str) -> None:
    async def act(door: Door) -> None:
        laptop = await joined(door, alices_code)
        await laptop.check_in(device={"hostname": "new-name", "os": {"name": "linux"}})
        await laptop.check_in(definitions={"version": 9})

    with_door(act)
    device = Device.objects.get()
    assert (device.hostname, device.definitions_version) == ("new-name", 9)


def test_the_answer_is_the_message_that_the_protocol_describes(alices_code: str) -> None:
    import msgspec

    async def act(door: Door) -> Reply:
        return await (await joined(door, alices_code)).check_in()

    reply = with_door(act)
    answer = msgspec.json.decode(reply.body, type=CheckInAnswer)
    assert answer.next_check_in == 60
    assert len(reply.body) == int(reply.headers["content-length"])


def test_a_check_in_asks_no_database(alices_code: str) -> None:
    async def act(door: Door) -> list[Reply]:
        laptop = await joined(door, alices_code)
        await laptop.check_in()
        # From here on a question to the database would fail: there is nobody to carry it there.
        door.jobs.run = _forbidden  # type: ignore[method-assign]  # the point of this test
        replies = [await laptop.check_in() for _ in range(50)]
        del door.jobs.run
        return replies

    assert {reply.status for reply in with_door(act)} == {200}


async def _forbidden(*args: object, **kwargs: object) -> Any:
    raise AssertionError("the database was asked")


def test_facts_that_are_stored_are_not_stored_again(alices_code: str) -> None:
    laptop = with_door(lambda door: _called_once(door, alices_code))

    async def after_a_restart(door: Door) -> tuple[int, int]:
        laptop.door = door
        await laptop.check_in()
        same = len(door.known._facts)
        await laptop.check_in(definitions={"version": 2})
        return same, len(door.known._facts)

    assert with_door(after_a_restart) == (0, 1)
    assert Device.objects.get().definitions_version == 2


async def _called_once(door: Door, code: str) -> Computer:
    laptop = await joined(door, code)
    await laptop.check_in()
    return laptop


def test_a_second_of_calls_is_one_statement(alices_code: str, alices_account: Account) -> None:
    codes = [alices_code, *(code_for(alices_account) for _ in range(4))]

    async def act(door: Door) -> int:
        computers = [await joined(door, code) for code in codes]
        for computer in computers:
            await computer.check_in()
        await door.known.flush()
        for _ in range(10):
            for computer in computers:
                await computer.check_in()
        return await door.jobs.run(_queries_of_flush, door)

    assert with_door(act) == 1
    assert set(Presence.objects.values_list("seq", flat=True)) == {11}


def _queries_of_flush(door: Door) -> int:
    """The statements of one write, counted in the thread that makes them."""
    run = door.jobs.run

    async def here(act: Any, *args: Any) -> Any:
        return act(*args)

    door.jobs.run = here  # type: ignore[method-assign,assignment]  # so that the statements can be counted
    try:
        with CaptureQueriesContext(connection) as queries:
            flushed = door.known.flush()
            with pytest.raises(StopIteration):
                flushed.send(None)
    finally:
        door.jobs.run = run  # type: ignore[method-assign]  # as it was
    return len([query for query in queries if "UPDATE" in query["sql"]])


def test_last_seen_is_on_disk_within_two_seconds(alices_code: str) -> None:
    async def act(door: Door) -> float:
        laptop = await joined(door, alices_code)
        await laptop.check_in()
        began = time.monotonic()
        while not await door.jobs.run(_seen):
            assert time.monotonic() - began < 5
            await asyncio.sleep(0.02)
        return time.monotonic() - began

    assert with_door(act) < 2.5


def _seen() -> bool:
    return Presence.objects.filter(last_seen__isnull=False).exists()


def test_a_write_that_fails_is_made_up_for(alices_code: str) -> None:
    async def act(door: Door) -> None:
        laptop = await joined(door, alices_code)
        await laptop.check_in(device={"hostname": "renamed", "os": {"name": "linux"}})
        run = door.jobs.run

        async def broken(*args: object) -> Any:
            raise OSError("disk away")

        door.jobs.run = broken  # type: ignore[method-assign,assignment]  # the outside world fails
        with pytest.raises(OSError, match="disk away"):
            await door.known.flush()
        door.jobs.run = run  # type: ignore[method-assign]  # and is back
        await laptop.check_in()

    with_door(act)
    device = Device.objects.select_related("presence").get()
    assert device.hostname == "renamed"
    assert device.presence.boot_id is not None
    assert device.presence.seq == 2


# -------------------------------------------------------------------------------- revocation


@pytest.mark.parametrize("waits", [False, True])
def test_a38_a_removed_device_is_refused_within_a_second(
    alices_code: str, alice: User, waits: bool
) -> None:
    def remove() -> None:
        removal.remove(Device.objects.get(), actor=alice)

    async def act(door: Door) -> tuple[Reply, Reply, float]:
        laptop = await joined(door, alices_code)
        assert (await laptop.check_in()).status == 200
        waiting = asyncio.ensure_future(laptop.check_in(wait=50)) if waits else None
        await asyncio.sleep(0)
        # In another process: this gateway hears of it by the database alone.
        await door.jobs.run(remove)
        began = time.monotonic()
        if waiting is not None:
            reply = await waiting
        else:
            reply = await _until_refused(laptop)
        took = time.monotonic() - began
        return reply, await laptop.report(), took

    called, reported, took = with_door(act)
    assert called.status == 403
    assert called.code == "revoked"
    assert reported.code == "revoked"
    assert took < 1.0


async def _until_refused(laptop: Computer) -> Reply:
    reply = await laptop.check_in()
    for _ in range(500):
        if reply.status != 200:
            break
        await asyncio.sleep(0.01)
        reply = await laptop.check_in()
    return reply


def test_a_device_of_a_deleted_account_is_unknown(
    alices_code: str, alices_account: Account
) -> None:
    laptop = with_door(lambda door: joined(door, alices_code))
    alices_account.delete()

    async def act(door: Door) -> tuple[Reply, Reply]:
        laptop.door = door
        return await laptop.check_in(), await laptop.ask_token()

    called, token = with_door(act)
    assert called.code == "unauthorized"
    assert token.code == "unauthorized"


def test_a_changed_subscription_reaches_the_device(
    alices_code: str, alices_account: Account
) -> None:
    def suspend() -> None:
        Subscription.objects.filter(account=alices_account).update(state="suspended")

    async def act(door: Door) -> Reply:
        laptop = await joined(door, alices_code)
        await laptop.check_in()
        await door.jobs.run(suspend)
        state = await door.known.get((await door.jobs.run(Device.objects.get)).pk.bytes)
        assert state is not None
        state.entitlement_read_at -= 61
        await laptop.check_in()
        await door.known.refresh(timezone.now())
        return await laptop.check_in()

    assert with_door(act).json["entitlement"]["state"] == "suspended"


# ------------------------------------------------------------------------------------- waiting


def test_waiting_ends_with_the_time_asked_for(alices_code: str) -> None:
    async def act(door: Door) -> tuple[Reply, float]:
        laptop = await joined(door, alices_code)
        began = time.monotonic()
        return await laptop.check_in(wait=1), time.monotonic() - began

    reply, took = with_door(act)
    assert reply.status == 200
    assert 0.9 < took < 2


def test_whoever_waits_is_answered_when_the_gateway_stops(alices_code: str) -> None:
    async def act() -> tuple[Reply, float]:
        async with open_door() as door:
            laptop = await joined(door, alices_code)
            waiting = asyncio.ensure_future(laptop.check_in(wait=50))
            await asyncio.sleep(0.05)
            assert not waiting.done()
            began = time.monotonic()
        return await waiting, time.monotonic() - began

    reply, took = asyncio.run(act())
    assert reply.status == 200
    assert took < 2


def test_whoever_hangs_up_while_waiting_is_waited_for_no_more(alices_code: str) -> None:
    async def act(door: Door) -> None:
        laptop = await joined(door, alices_code)
        told: Iterator[dict[str, Any]] = iter(
            [
                {"type": "http.request", "body": b"", "more_body": False},
                {"type": "http.disconnect"},
            ]
        )
        first = whole(_call(laptop))
        is_first = True

        async def receive() -> dict[str, Any]:
            nonlocal is_first
            if is_first:
                is_first = False
                return await first()
            return next(told)

        with pytest.raises(ConnectionError):
            await laptop.bearing("/check-in", b"", {"Prefer": "wait=50"}, receive=receive)
        assert not door.known._waiting

    with_door(act)


def _call(laptop: Computer, **changes: Any) -> bytes:
    laptop.seq += 1
    return json.dumps({"boot_id": str(laptop.boot_id), "seq": laptop.seq} | changes).encode()


@pytest.mark.parametrize("prefer", ["wait=0", "wait=-5", "wait=", "wait=x", "respond-async", "²"])
def test_who_asks_for_no_sensible_wait_does_not_wait(alices_code: str, prefer: str) -> None:
    async def act(door: Door) -> tuple[int, float]:
        laptop = await joined(door, alices_code)
        began = time.monotonic()
        reply = await laptop.bearing("/check-in", _call(laptop), {"Prefer": prefer})
        return reply.status, time.monotonic() - began

    status, took = with_door(act)
    assert status == 200
    assert took < 0.9


# -------------------------------------------------------------------------------------- copies


def _copy_of(computer: Computer) -> Computer:
    return Computer(computer.door, key=computer.key, seq=computer.seq, token=computer.token)


def test_a_copied_disk_is_flagged_and_the_copy_must_enroll_anew(alices_code: str) -> None:
    async def act(door: Door) -> list[Reply]:
        laptop = await joined(door, alices_code)
        for _ in range(3):
            await laptop.check_in()
        copy = _copy_of(laptop)
        await laptop.check_in()
        # The copy's count stands where the original's stood when it was copied.
        return [await copy.check_in(), await copy.check_in(seq=1), await laptop.check_in()]

    copied, again, original = with_door(act)
    assert (copied.status, copied.code) == (409, "device-cloned")
    assert again.code == "device-cloned"
    assert original.status == 200
    assert Device.objects.get().cloned_at is not None
    assert Event.objects.filter(tag="device.cloned").count() == 1


def test_two_copies_that_take_turns_are_found(alices_code: str) -> None:
    async def act(door: Door) -> list[Reply]:
        laptop = await joined(door, alices_code)
        await laptop.check_in()
        copy = _copy_of(laptop)
        return [
            await copy.check_in(seq=2),
            await laptop.check_in(seq=3),
            await copy.check_in(seq=4),
        ]

    assert [reply.status for reply in with_door(act)] == [200, 409, 200]
    assert Device.objects.get().cloned_at is not None


def test_a_copy_with_a_key_of_its_own_is_a_device_of_its_own(
    alices_code: str, alices_account: Account
) -> None:
    another = code_for(alices_account)

    async def act(door: Door) -> list[Reply]:
        laptop = await joined(door, alices_code)
        await laptop.check_in()
        copy = await joined(door, another)
        return [await copy.check_in(), await laptop.check_in()]

    assert {reply.status for reply in with_door(act)} == {200}
    assert Device.objects.filter(cloned_at=None).count() == 2


def test_restarts_crashes_and_lost_answers_are_no_copies(alices_code: str) -> None:
    async def act(door: Door) -> list[Reply]:
        laptop = await joined(door, alices_code)
        replies = [await laptop.check_in() for _ in range(3)]
        replies.append(await laptop.check_in(seq=laptop.seq))  # its answer was lost
        replies.append(await laptop.check_in(seq=1))  # overtaken on its way
        for _ in range(3):
            laptop.boot_id, laptop.seq = uuid4(), laptop.seq + 5  # calls that never arrived
            replies.append(await laptop.check_in())
        return replies

    async def after_a_restart_of_the_gateway(door: Door) -> Reply:
        laptop = await joined(door, alices_code)
        return await laptop.check_in()

    assert {reply.status for reply in with_door(act)} == {200}
    assert Device.objects.get().cloned_at is None
    presence = Presence.objects.get()
    assert presence.seq == 19
    assert presence.last_seen is not None
    assert timezone.now() - presence.last_seen < timedelta(seconds=10)


def test_a_settled_copy_is_flagged_again_when_it_comes_back(alices_code: str, alice: User) -> None:
    def settle() -> None:
        clones.leave_both(Device.objects.get(), actor=alice, origin=Origin("", ""))

    async def act(door: Door) -> None:
        laptop = await joined(door, alices_code)
        await laptop.check_in()
        copy = _copy_of(laptop)
        assert (await copy.check_in(seq=1)).code == "device-cloned"
        await door.jobs.run(settle)
        await door.known.refresh(timezone.now())
        assert (await copy.check_in(seq=1)).code == "device-cloned"

    with_door(act)
    assert Device.objects.get().cloned_at is not None
    assert Event.objects.filter(tag="device.cloned").count() == 2


def test_many_devices_that_call_at_once_after_a_restart_are_read_together(
    alices_code: str, alices_account: Account
) -> None:
    Subscription.objects.filter(account=alices_account).update(seats=100)
    codes = [alices_code, *(code_for(alices_account) for _ in range(39))]

    async def before(door: Door) -> list[Computer]:
        return [await joined(door, code) for code in codes]

    computers = with_door(before)

    async def after(door: Door) -> tuple[set[int], int]:
        asked = 0
        run = door.jobs.run

        async def counted(act: Any, *args: Any, **kwargs: Any) -> Any:
            nonlocal asked
            asked += 1
            return await run(act, *args, **kwargs)

        door.jobs.run = counted  # type: ignore[method-assign]  # to count
        for computer in computers:
            computer.door = door
        replies = await asyncio.gather(*(computer.check_in() for computer in computers))
        counted_until_then = asked
        door.jobs.run = run  # type: ignore[method-assign]  # as it was
        return {reply.status for reply in replies}, counted_until_then

    statuses, asked = with_door(after)
    assert statuses == {200}
    assert asked <= 2
