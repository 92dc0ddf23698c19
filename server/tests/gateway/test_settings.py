"""What a device must do: told to it alone, woken for it, and never the same mistake twice."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import msgspec
import pytest
from server.tests.gateway.computers import DOOR, Computer, Reply, ask, code_for, joined, with_door

from doorward.accounts.models import Account, User
from doorward.devices import removal
from doorward.devices.models import Device
from doorward.gateway import known
from doorward.gateway.door import Door
from doorward.protection import policy
from doorward.protection.policy import Delta
from doorward_protocol.messages import SettingsAnswer


async def settings_of(computer: Computer, **headers: str) -> Reply:
    carried = {"Authorization": f"Bearer {computer.token}"} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    return await ask(computer.door, "GET", f"{DOOR}/settings", headers=carried)


def change(account: Account, actor: User, start: str) -> None:
    values = {"quick_scan": {"start": start}}
    deltas = [Delta("account", None, {"values": values, "locked": ["/quick_scan/start"]})]
    policy.save(account, deltas, actor=actor, proven=True)


def in_force(version: int, **more: Any) -> dict[str, Any]:
    return {"settings": {"version": version} | more}


def test_a_device_gets_its_settings_and_304_when_it_has_them(
    alices_code: str, alices_account: Account, alice: User
) -> None:
    async def act(door: Door) -> tuple[Reply, Reply, Reply]:
        laptop = await joined(door, alices_code)
        await door.jobs.run(change, alices_account, alice, "20:00")
        first = await settings_of(laptop)
        again = await settings_of(laptop, If_None_Match=first.headers["etag"])
        await door.jobs.run(change, alices_account, alice, "21:00")
        return first, again, await settings_of(laptop, If_None_Match=first.headers["etag"])

    first, again, later = with_door(act)
    answer = msgspec.json.decode(first.body, type=SettingsAnswer)
    assert answer.effective.quick_scan.start == "20:00"
    assert answer.locked == ("/quick_scan/start",)
    assert first.headers["cache-control"] == "no-store"
    assert (again.status, again.body) == (304, b"")
    assert (later.status, later.json["effective"]["quick_scan"]["start"]) == (200, "21:00")
    assert later.json["version"] > answer.version


def test_a_device_of_another_account_gets_its_own(
    alices_code: str, alices_account: Account, alice: User, charlie: User
) -> None:
    theirs = Account.objects.exclude(pk=alices_account.pk).get()
    code = code_for(theirs)

    async def act(door: Door) -> Reply:
        stranger = await joined(door, code)
        await door.jobs.run(change, alices_account, alice, "20:00")
        return await settings_of(stranger)

    reply = with_door(act)
    assert (reply.json["version"], reply.json["effective"]["quick_scan"]["start"]) == (0, "12:00")


def test_nobody_without_a_token_is_told_anything(alices_code: str) -> None:
    async def act(door: Door) -> list[Reply]:
        laptop = await joined(door, alices_code)
        laptop.token = "made up"
        return [await settings_of(laptop), await ask(door, "GET", f"{DOOR}/settings")]

    assert [reply.code for reply in with_door(act)] == ["unauthorized"] * 2


@pytest.mark.parametrize("waits", [True, False])
def test_a_change_reaches_a_connected_device_within_two_seconds(
    alices_code: str, alices_account: Account, alice: User, waits: bool
) -> None:
    async def act(door: Door) -> tuple[Reply, float]:
        laptop = await joined(door, alices_code)
        await laptop.check_in()
        held = asyncio.ensure_future(laptop.check_in(wait=50)) if waits else None
        await asyncio.sleep(0)
        began = time.monotonic()
        await door.jobs.run(change, alices_account, alice, "20:00")
        reply = await held if held is not None else await laptop.check_in()
        while not reply.json["settings_version"] and time.monotonic() - began < 5:
            await asyncio.sleep(0.02)
            reply = await laptop.check_in()
        return reply, time.monotonic() - began

    reply, took = with_door(act)
    assert reply.json["settings_version"] == Device.objects.get().wanted_version > 0
    assert took < 2


def test_settings_that_failed_are_no_news_and_the_next_ones_are(
    alices_code: str, alices_account: Account, alice: User
) -> None:
    async def act(door: Door) -> tuple[bool, Reply]:
        laptop = await joined(door, alices_code)
        await door.jobs.run(change, alices_account, alice, "20:00")
        version = (await settings_of(laptop)).json["version"]
        errors = [{"pointer": "/quick_scan/start", "code": "invalid"}]
        failed = in_force(0, status="failed", failed_version=version, errors=errors)
        held = asyncio.ensure_future(laptop.check_in(wait=50, **failed))
        await asyncio.sleep(1.2)
        waits = not held.done()
        await door.jobs.run(change, alices_account, alice, "21:00")
        return waits, await asyncio.wait_for(held, 5)

    waits, reply = with_door(act)
    device = Device.objects.get()
    assert waits, "what failed is not offered again and again"
    assert reply.json["settings_version"] == device.wanted_version
    assert device.settings_failed_version < device.wanted_version
    assert device.settings_errors == [{"pointer": "/quick_scan/start", "code": "invalid"}]


@pytest.mark.parametrize("restarted", [False, True])
def test_after_a_restore_a_device_that_heard_newer_settings_is_told_newer_ones(
    alices_code: str, alices_account: Account, alice: User, restarted: bool
) -> None:
    ahead = 2**30

    async def heard(door: Door) -> Computer:
        laptop = await joined(door, alices_code)
        await laptop.check_in(**in_force(ahead))
        return laptop

    async def whole(door: Door) -> Reply:
        laptop = await heard(door)
        return await asyncio.wait_for(laptop.check_in(wait=50, **in_force(ahead)), 5)

    if not restarted:
        reply = with_door(whole)
    else:
        laptop = with_door(heard)

        async def after(door: Door) -> Reply:
            laptop.door = door
            return await asyncio.wait_for(laptop.check_in(wait=50, **in_force(ahead)), 5)

        reply = with_door(after)
    assert reply.json["settings_version"] == ahead + 1
    assert Device.objects.get().wanted_version == ahead + 1


def test_an_agent_that_was_updated_tells_what_it_can_do_now(alices_code: str) -> None:
    async def act(door: Door) -> None:
        laptop = await joined(door, alices_code)
        device = {"hostname": "h", "os": {"name": "linux"}, "capabilities": ["scan", "settings"]}
        await laptop.check_in(device=device)

    with_door(act)
    assert Device.objects.get().capabilities == ["scan", "settings"]


@pytest.mark.parametrize("what", ["settings", "removal"])
def test_a_connected_device_hears_of_a_change_by_the_bell_and_not_at_the_next_round(
    alices_code: str,
    alices_account: Account,
    alice: User,
    monkeypatch: pytest.MonkeyPatch,
    what: str,
) -> None:
    # A round so long that only the bell can have told it.
    monkeypatch.setattr(known, "REFRESH_SECONDS", 30.0)

    def act() -> None:
        if what == "settings":
            change(alices_account, alice, "20:00")
        else:
            removal.remove(Device.objects.select_related("account").get(), actor=alice)

    async def held(door: Door) -> Reply:
        laptop = await joined(door, alices_code)
        call = asyncio.ensure_future(laptop.check_in(wait=50))
        await asyncio.sleep(0.2)
        await door.jobs.run(act)
        return await asyncio.wait_for(call, 5)

    reply = with_door(held)
    if what == "settings":
        assert reply.json["settings_version"] == Device.objects.get().wanted_version > 0
    else:
        assert reply.code == "revoked"
