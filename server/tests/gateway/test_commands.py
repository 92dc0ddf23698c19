"""What members ask reaches the device, and what the device says of it is kept."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
import time_machine
from asgiref.sync import sync_to_async
from django.utils import timezone
from server.tests.gateway.computers import Computer, Reply, joined, with_door

from doorward.devices import commands
from doorward.devices.models import Command, CommandState, Device
from doorward.gateway.door import Door
from doorward_protocol.messages import CommandArgs

KINDS = ["scan", "quarantine", "scan.run", "quarantine.restore", "quarantine.delete"]
QUICK = CommandArgs(scope="quick")


async def laptop(door: Door, code: str, **changes: Any) -> Computer:
    computer = Computer(door)
    reply = await computer.enroll(code, **({"capabilities": KINDS} | changes))
    assert reply.status == 201, reply.body
    await computer.ask_token()
    await computer.check_in()
    return computer


async def asked(kind: str = "scan.run", args: CommandArgs = QUICK) -> Command:
    def ask() -> Command:
        return commands.ask(Device.objects.get(), kind, args, actor=None)

    return await sync_to_async(ask)()


async def told(computer: Computer, uid: UUID, **state: Any) -> Reply:
    return await computer.bearing(f"/commands/{uid}", json.dumps(state).encode())


async def state_of(uid: UUID) -> Command:
    return await Command.objects.aget(uid=uid)


def uids(reply: Reply) -> list[str]:
    return [command["command_uid"] for command in reply.json["commands"]]


async def until_sent(computer: Computer) -> Reply:
    """The answer to the first check-in that brings a command; a held one, so nobody waits long."""
    return await computer.check_in(wait=5)


def test_a_command_wakes_a_held_check_in_and_is_sent_until_it_is_answered(
    alices_code: str,
) -> None:
    async def act(door: Door) -> None:
        computer = await laptop(door, alices_code)
        held = asyncio.create_task(computer.check_in(wait=30))
        await asyncio.sleep(0)
        command = await asked()
        began = asyncio.get_running_loop().time()
        reply = await asyncio.wait_for(held, 10)
        # What the gateways hear of within half a second.
        assert asyncio.get_running_loop().time() - began < 1
        (sent,) = reply.json["commands"]
        assert sent["command_uid"] == str(command.uid)
        assert (sent["kind"], sent["args"]["scope"]) == ("scan.run", "quick")
        assert (await state_of(command.uid)).state == CommandState.QUEUED
        # The answer may have been lost: it is sent again, and at once.
        assert uids(await computer.check_in(wait=30)) == [str(command.uid)]
        assert (await told(computer, command.uid, status="accepted")).status == 204
        assert (await state_of(command.uid)).state == CommandState.DELIVERED
        assert uids(await computer.check_in()) == []

    with_door(act)


def test_n4_steps_are_kept_and_the_last_one_is_final(alices_code: str) -> None:
    async def act(door: Door) -> None:
        computer = await laptop(door, alices_code)
        command = await asked()
        await until_sent(computer)
        await told(computer, command.uid, status="running")
        progress = {"files": 7, "bytes": 70, "threats": 1}
        await told(computer, command.uid, status="running", progress=progress)
        await door.known.also_writes[0]()
        row = await state_of(command.uid)
        assert (row.state, row.files, row.bytes, row.threats) == ("running", 7, 70, 1)
        last = {"files": 9, "bytes": 90, "threats": 2}
        await told(computer, command.uid, status="succeeded", progress=last)
        for late in ("running", "accepted", "failed", "canceled"):
            assert (await told(computer, command.uid, status=late)).status == 204
        await told(computer, command.uid, status="running", progress=progress)
        await door.known.also_writes[0]()
        row = await state_of(command.uid)
        assert (row.state, row.files, row.threats) == ("done", 9, 2)

    with_door(act)


def test_a_word_that_was_overtaken_changes_nothing(alices_code: str) -> None:
    async def act(door: Door) -> None:
        computer = await laptop(door, alices_code)
        command = await asked()
        await until_sent(computer)
        await told(computer, command.uid, status="running")
        await told(computer, command.uid, status="accepted")
        assert (await state_of(command.uid)).state == CommandState.RUNNING

    with_door(act)


@pytest.mark.parametrize(
    "uid", ["0c6958e4-cdd6-4d62-a5a2-8d345defe0cc", "x", "", "..", "{command_uid}"]
)
def test_a_command_that_is_not_this_devices_is_not_found(alices_code: str, uid: str) -> None:
    async def act(door: Door) -> None:
        computer = await laptop(door, alices_code)
        reply = await computer.bearing(f"/commands/{uid}", b'{"status":"accepted"}')
        assert reply.code == "not-found"

    with_door(act)


def test_a51_another_devices_command_is_nobody_elses(alices_code: str, alices_account: Any) -> None:
    from server.tests.gateway.computers import code_for

    second = code_for(alices_account)

    async def act(door: Door) -> None:
        computer = await laptop(door, alices_code)
        command = await asked()
        other = await joined(door, second, hostname="other")
        assert (await told(other, command.uid, status="succeeded")).code == "not-found"
        await door.known.refresh(timezone.now())
        assert uids(await other.check_in()) == []
        assert (await state_of(command.uid)).state == CommandState.QUEUED
        assert uids(await until_sent(computer)) == [str(command.uid)]

    with_door(act)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b'{"status":"exec"}',
        b'{"status":"done"}',
        b'{"status":"running","progress":{"files":-1}}',
        b'{"status":"failed","detail":"' + b"x" * 1001 + b'"}',
        b'{"status":"succeeded","report":"' + b"x" * 16_001 + b'"}',
        b'{"status":"failed","detail":"\\u0000"}',
    ],
)
def test_a_word_out_of_bounds_is_refused(alices_code: str, body: bytes) -> None:
    async def act(door: Door) -> None:
        computer = await laptop(door, alices_code)
        command = await asked()
        assert (await computer.bearing(f"/commands/{command.uid}", body)).code == "invalid-message"
        assert (await state_of(command.uid)).state == CommandState.QUEUED

    with_door(act)


def test_a51_a_kind_that_was_not_declared_is_never_sent(alices_code: str) -> None:
    async def act(door: Door) -> None:
        computer = await laptop(door, alices_code)
        await asked()
        # Updated, or switched off on the device itself, before it called.
        await Device.objects.aupdate(capabilities=["remote.off"])
        await door.known.refresh(timezone.now())
        assert uids(await computer.check_in()) == []
        with pytest.raises(commands.NotOffered) as caught:
            await asked(args=CommandArgs(scope="full"))
        assert caught.value.is_switched_off
        await sync_to_async(commands.settle_impossible)(timezone.now())
        assert (await Command.objects.aget()).state == CommandState.REJECTED

    with_door(act)


def test_the_device_says_anew_what_it_can_do_when_it_calls(alices_code: str) -> None:
    async def act(door: Door) -> None:
        computer = await laptop(door, alices_code, capabilities=["scan"])
        facts = {"hostname": "laptop", "os": {"name": "linux"}, "capabilities": KINDS}
        await computer.check_in(device=facts)
        await door.known.flush()
        command = await asked()
        assert uids(await until_sent(computer)) == [str(command.uid)]

    with_door(act)


def test_a_canceled_command_that_was_sent_is_told_to_stop_until_the_device_has_ended_it(
    alices_code: str,
) -> None:
    async def act(door: Door) -> None:
        computer = await laptop(door, alices_code)
        command = await asked()
        await until_sent(computer)
        await told(computer, command.uid, status="running")
        await computer.check_in()
        held = asyncio.create_task(computer.check_in(wait=30))
        await asyncio.sleep(0)
        await sync_to_async(commands.cancel)(command, actor=None)
        reply = await asyncio.wait_for(held, 10)
        assert reply.json["cancel"] == [str(command.uid)]
        # Nothing is claimed before the device has stopped.
        assert (await state_of(command.uid)).state == CommandState.RUNNING
        await told(computer, command.uid, status="canceled")
        assert (await state_of(command.uid)).state == CommandState.CANCELED
        assert (await computer.check_in()).json["cancel"] == []

    with_door(act)


def test_a_command_canceled_before_it_was_sent_is_never_sent(alices_code: str) -> None:
    async def act(door: Door) -> None:
        computer = await laptop(door, alices_code)
        command = await asked()
        await sync_to_async(commands.cancel)(command, actor=None)
        assert (await state_of(command.uid)).state == CommandState.CANCELED
        await door.known.refresh(timezone.now())
        assert uids(await computer.check_in()) == []

    with_door(act)


def test_what_was_sent_and_not_answered_is_sent_after_its_time_too_so_that_the_device_ends_it(
    alices_code: str,
) -> None:
    async def act(door: Door) -> None:
        computer = await laptop(door, alices_code)
        command = await asked()
        await until_sent(computer)
        with time_machine.travel(timezone.now() + commands.LIFE + timedelta(hours=1)):
            assert await sync_to_async(commands.settle_due)(timezone.now()) == 0
            await computer.ask_token()
            assert uids(await computer.check_in()) == [str(command.uid)]
            await told(computer, command.uid, status="expired")
        assert (await state_of(command.uid)).state == CommandState.EXPIRED

    with_door(act)


def test_a_gateway_that_starts_anew_still_knows_what_waits(alices_code: str) -> None:
    computers: list[Computer] = []

    async def before(door: Door) -> str:
        computers.append(await laptop(door, alices_code))
        return str((await asked()).uid)

    uid = with_door(before)

    async def after(door: Door) -> None:
        computers[0].door = door
        assert uids(await computers[0].check_in(wait=30)) == [uid]

    with_door(after)


def test_a_database_that_is_away_keeps_no_check_in_from_its_answer(
    alices_code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from doorward.gateway import problems

    async def act(door: Door) -> None:
        computer = await laptop(door, alices_code)
        command = await asked()
        await door.known.refresh(timezone.now())
        run = door.jobs.run

        async def away(*_: Any, **__: Any) -> Any:
            raise problems.busy()

        monkeypatch.setattr(door.jobs, "run", away)
        assert uids(await computer.check_in(wait=2)) == []
        monkeypatch.setattr(door.jobs, "run", run)
        assert uids(await computer.check_in(wait=30)) == [str(command.uid)]

    with_door(act)


def test_a_long_queue_comes_in_parts_that_fit(alices_code: str) -> None:
    async def act(door: Door) -> None:
        computer = await laptop(door, alices_code)
        long = "/" + "x" * 4000
        for number in range(4):
            paths = tuple(f"{long}{number}{more}" for more in range(32))
            await asked(args=CommandArgs(paths=paths))
        await door.known.refresh(timezone.now())
        reply = await computer.check_in()
        assert reply.json["more"]
        assert len(reply.body) < commands.MOST_BYTES + 10_000
        got = uids(reply)
        for uid in got:
            await told(computer, UUID(uid), status="accepted")
        rest = uids(await computer.check_in())
        assert rest
        assert not set(got) & set(rest)

    with_door(act)
