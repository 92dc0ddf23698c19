"""A device's life: copied and settled, installed anew, replaced, removed; and who is told why."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.utils import timezone
from server.tests.gateway.computers import DOOR, Computer, Reply, code_for, joined, with_door

from doorward.accounts.models import Account, Membership, Role, User
from doorward.accounts.origin import Origin
from doorward.billing.models import Subscription
from doorward.devices import clones, commands, enrollment, removal, replacing, seats
from doorward.devices.models import Command, Device, GoneDevice, Presence, Twin
from doorward.gateway.door import Door
from doorward.protection import policy
from doorward.protection.models import Group
from doorward.protection.policy import Delta
from doorward_protocol import signing

HERE = Origin("", "")
ROTATES = ["scan", "settings", "commands", "key.rotate"]
MARK = "m" * 43


def copy_of(computer: Computer, **more: Any) -> Computer:
    return Computer(computer.door, key=computer.key, seq=computer.seq, token=computer.token, **more)


async def take_new_key(computer: Computer) -> Reply:
    """Do what `key.rotate` asks for."""
    fresh = Computer(computer.door)
    jwk = signing.jwk_of(fresh.key.public_key())
    proof = signing.prove_key_change(fresh.key, computer.thumbprint)
    message = {"jwk": {"kty": jwk.kty, "crv": jwk.crv, "x": jwk.x}, "proof": proof}
    reply = await computer.signed("POST", f"{DOOR}/keys", message)
    assert reply.status == 200, reply.body
    computer.key = fresh.key
    return reply


def facts(hostname: str) -> dict[str, Any]:
    return {
        "hostname": hostname,
        "os": {"name": "linux", "version": "12"},
        "type": "laptop",
        "agent_version": "1",
        "capabilities": ROTATES,
    }


async def copied(door: Door, code: str) -> tuple[Computer, Computer]:
    """A device that was noticed to be two: the one whose calls count, and the other."""
    laptop = await joined(door, code)
    await laptop.check_in(device=facts("laptop"))
    twin = copy_of(laptop, hostname="twin", client="198.51.100.9")
    await laptop.check_in()
    reply = await twin.check_in(device=facts("twin"))
    assert reply.code == "device-cloned"
    await door.known.flush()
    return laptop, twin


def keep(which: clones.Which) -> None:
    clones.keep(Device.objects.get(), which, actor=User.objects.get(), origin=HERE)


def seen_from_the_beginning() -> datetime:
    return timezone.now() - timedelta(minutes=1)


def due() -> None:
    """Let the moment come in which every gateway knows which one is kept."""
    now = timezone.now()
    Command.objects.update(
        created_at=now - timedelta(seconds=3), not_before=now - timedelta(seconds=1)
    )
    assert commands.settle_due(now) == 1


def late(**changes: Any) -> None:
    """Let the minute be over in which the old key still counts."""
    Device.objects.update(former_key_until="2020-01-01T00:00:00Z", **changes)


def test_n5_a_copy_is_flagged_with_what_is_known_of_it_and_costs_no_seat(
    alices_code: str, alices_account: Account
) -> None:
    with_door(lambda door: copied(door, alices_code))
    twin = Twin.objects.get()
    assert (twin.hostname, twin.by_former_key) == ("twin", False)
    assert Device.objects.get().cloned_at is not None
    assert seats.of(alices_account).used == 1


@pytest.mark.parametrize("which", ["current", "other"])
def test_n5_keeping_one_gives_it_a_key_of_its_own_and_ends_the_others(
    alices_code: str, alices_account: Account, which: clones.Which
) -> None:
    async def act(door: Door) -> list[Any]:
        laptop, twin = await copied(door, alices_code)
        kept, other = (laptop, twin) if which == "current" else (twin, laptop)
        await door.jobs.run(keep, which)
        await door.jobs.run(due)
        await door.known.refresh(door_began)
        for each in (kept, other):
            await each.ask_token()
        told = await kept.check_in()
        refused = await other.check_in()
        await take_new_key(kept)
        await door.jobs.run(late)
        await door.known.refresh(door_began)
        await kept.ask_token()
        after = await kept.check_in()
        by_token, by_key = await other.check_in(), await other.ask_token()
        return [told, refused, after, by_token, by_key]

    door_began = seen_from_the_beginning()
    told, refused, after, by_token, by_key = with_door(act)
    assert [each["kind"] for each in told.json["commands"]] == ["key.rotate"]
    assert refused.code == "device-cloned"
    assert after.status == 200
    assert by_token.code == "unauthorized", "its token ended at once"
    assert by_key.code == "device-cloned"
    assert "the other one was kept" in by_key.json["detail"]
    device = Device.objects.get()
    assert (device.cloned_at, device.settling_since) == (None, None)
    assert not Twin.objects.exists()
    assert seats.of(alices_account).used == 1


def test_n5_a_kept_computer_that_lost_the_answer_is_not_shut_out(alices_code: str) -> None:
    async def act(door: Door) -> list[Reply]:
        laptop, _twin = await copied(door, alices_code)
        await door.jobs.run(keep, "current")
        old = laptop.key
        await take_new_key(laptop)
        new, laptop.key = laptop.key, old
        jwk = signing.jwk_of(new.public_key())
        message = {
            "jwk": {"kty": jwk.kty, "crv": jwk.crv, "x": jwk.x},
            "proof": signing.prove_key_change(new, laptop.thumbprint),
        }
        again = await laptop.signed("POST", f"{DOOR}/keys", message)
        laptop.key = new
        return [again, await laptop.ask_token(), await laptop.check_in()]

    assert [reply.status for reply in with_door(act)] == [200, 200, 200]


def test_n5_what_cannot_change_its_key_from_afar_is_not_called_settled(
    alices_code: str, alice: User
) -> None:
    with_door(lambda door: copied(door, alices_code))
    Device.objects.update(capabilities=["scan"])
    with pytest.raises(commands.NotOffered):
        keep("current")
    device = Device.objects.get()
    assert device.cloned_at is not None
    assert device.settling_since is None
    clones.leave_both(device, actor=alice, origin=HERE)
    assert Device.objects.get().cloned_at is None
    with pytest.raises(clones.NothingToSettle):
        keep("current")


def test_n5_installed_anew_a_device_gets_its_seat_back(
    alices_code: str, alices_account: Account
) -> None:
    Subscription.objects.update(seats=1)
    second = code_for(alices_account)

    async def act(door: Door) -> tuple[Reply, Reply, Reply, Reply]:
        before = Computer(door)
        first = await before.enroll(alices_code, machine=MARK)
        await before.ask_token()
        await before.check_in()
        # Wiped: another key, the same computer and folder.
        after = Computer(door)
        again = await after.enroll(second, machine=MARK)
        await after.ask_token()
        return first, again, await after.check_in(), await before.check_in()

    first, again, call, stale = with_door(act)
    assert (first.status, again.status) == (201, 200)
    assert first.json["device_id"] == again.json["device_id"]
    assert call.status == 200
    assert stale.code == "unauthorized"
    assert seats.of(alices_account).used == 1
    assert Device.objects.get().cloned_at is None


def test_n5_should_the_key_from_before_be_used_again_there_are_two(
    alices_code: str, alices_account: Account
) -> None:
    second = code_for(alices_account)

    async def act(door: Door) -> Reply:
        before, after = Computer(door), Computer(door)
        await before.enroll(alices_code, machine=MARK)
        await after.enroll(second, machine=MARK)
        await after.ask_token()
        await after.check_in()
        return await before.ask_token()

    assert with_door(act).code == "device-cloned"
    assert Device.objects.get().cloned_at is not None
    assert Twin.objects.get().by_former_key
    with pytest.raises(clones.NothingToSettle):
        keep("other")
    keep("current")
    assert Device.objects.get().cloned_at is None
    assert not Command.objects.exists(), "its key is its own already"


@pytest.mark.parametrize("whose", ["another member", "another account", "no mark"])
def test_nobody_elses_place_is_taken_by_a_mark(
    alices_code: str, alices_account: Account, bob: User, charlie: User, whose: str
) -> None:
    Membership.objects.filter(user=bob).update(role=Role.HELPER)
    account = alices_account
    if whose == "another account":
        account = Account.objects.exclude(pk=account.pk).get()
    made_by = bob if whose == "another member" else None
    _code, second = enrollment.new_code(account, made_by)

    async def act(door: Door) -> tuple[Reply, Reply]:
        mark = "" if whose == "no mark" else MARK
        return (
            await Computer(door).enroll(alices_code, machine=mark),
            await Computer(door).enroll(second, machine=mark),
        )

    Device.objects.all().delete()
    first, again = with_door(act)
    if whose == "another member":
        assert Device.objects.count() == 2
    assert first.json["device_id"] != again.json["device_id"]


def test_a_new_device_replaces_an_old_one_though_every_seat_is_taken(
    alices_code: str, alices_account: Account, alice: User
) -> None:
    Subscription.objects.update(seats=1)

    async def act(door: Door) -> list[Reply]:
        old = await joined(door, alices_code)
        await old.check_in()
        code = await door.jobs.run(prepared)
        new = Computer(door, hostname="new")
        first = await new.enroll(code)
        await new.ask_token()
        await door.known.refresh(seen_from_the_beginning())
        return [first, await new.check_in(), await old.check_in(), await old.ask_token()]

    def prepared() -> str:
        device = Device.objects.get()
        Device.objects.update(name="Kitchen", member=alice)
        group = uuid4()
        group_of = {"name": "Children", "values": {}, "locked": []}
        deltas = [
            Delta("group", group, group_of),
            Delta("place", device.pk, {"group": str(group)}),
            Delta("device", device.pk, {"values": {"quick_scan": {"start": "20:00"}}}),
        ]
        policy.save(alices_account, deltas, actor=alice, proven=True)
        return enrollment.new_code(alices_account, alice, replaces=device)[1]

    first, call, stale, refused = with_door(act)
    assert first.status == 201
    assert call.status == 200
    assert stale.code == "revoked"
    assert refused.code == "revoked"
    assert "taken its place" in refused.json["detail"]
    old, new = Device.objects.order_by("enrolled_at")
    assert (old.removed_why, old.replaced_by_id) == ("replaced", new.pk)
    assert (new.name, new.member_id, new.hostname) == ("Kitchen", alice.pk, "new")
    assert seats.of(alices_account).used == 1
    standing = policy.state_of(alices_account)
    assert standing.places[new.pk] == Group.objects.get().pk
    assert standing.own[new.pk] == {"quick_scan": {"start": "20:00"}}
    assert first.json["settings_version"] == new.wanted_version > 0


def test_one_that_has_joined_takes_an_old_ones_place_later(
    alices_code: str, alices_account: Account, alice: User
) -> None:
    second = code_for(alices_account)

    async def act(door: Door) -> None:
        await joined(door, alices_code)
        await joined(door, second)

    with_door(act)
    old, new = Device.objects.select_related("account").order_by("enrolled_at")
    replacing.replace(old, new, actor=alice, origin=HERE)
    assert seats.of(alices_account).used == 1
    with pytest.raises(replacing.CannotReplace):
        replacing.replace(old, new, actor=alice, origin=HERE)
    with pytest.raises(replacing.CannotReplace):
        replacing.replace(new, new, actor=alice, origin=HERE)


def test_n4_a_removed_device_is_told_why_by_its_token_and_by_its_key(
    alices_code: str, alice: User
) -> None:
    async def act(door: Door) -> list[Reply]:
        laptop = await joined(door, alices_code)
        await laptop.check_in()
        await door.jobs.run(remove)
        await door.known.refresh(seen_from_the_beginning())
        return [await laptop.check_in(), await laptop.ask_token()]

    def remove() -> None:
        removal.remove(Device.objects.select_related("account").get(), actor=alice)

    for reply in with_door(act):
        assert reply.code == "revoked"
        assert reply.json["detail"] == "It was removed on the account’s pages."


def test_one_call_of_a_gateways_memory_does_not_undo_which_one_is_kept(alices_code: str) -> None:
    async def act(door: Door) -> None:
        laptop, _twin = await copied(door, alices_code)
        await laptop.check_in()
        await door.jobs.run(keep, "other")
        # What the gateway had heard before is written only now.
        await door.known.flush()

    with_door(act)
    presence = Presence.objects.get()
    assert presence.boot_id == Twin.objects.get().boot_id
    assert presence.seq == Twin.objects.get().seq
    assert not GoneDevice.objects.exists()


def test_n5_the_one_that_waits_when_the_other_is_kept_is_not_told_to_change_its_key(
    alices_code: str,
) -> None:
    async def act(door: Door) -> Reply:
        laptop, _twin = await copied(door, alices_code)
        held = asyncio.ensure_future(laptop.check_in(wait=50))
        await asyncio.sleep(0.1)
        await door.jobs.run(keep, "other")
        await door.jobs.run(due)
        return await asyncio.wait_for(held, 5)

    assert with_door(act).code == "unauthorized"
