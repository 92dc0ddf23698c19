"""A device takes a new key and stays the same device."""

from __future__ import annotations

import time
from typing import Any

import time_machine
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from server.tests.gateway.computers import DOOR, Computer, Reply, code_for, joined, with_door

from doorward.accounts.models import Account
from doorward.audit.models import Event
from doorward.devices.models import Device
from doorward.gateway.door import Door
from doorward_protocol import signing


def asking(
    new: Ed25519PrivateKey, old: Computer, *, prover: Ed25519PrivateKey | None = None
) -> dict[str, Any]:
    jwk = signing.jwk_of(new.public_key())
    return {
        "jwk": {"kty": jwk.kty, "crv": jwk.crv, "x": jwk.x},
        "proof": signing.prove_key_change(prover or new, old.thumbprint),
    }


async def change(old: Computer, new: Ed25519PrivateKey) -> Reply:
    return await old.signed("POST", f"{DOOR}/keys", asking(new, old))


def test_with_a_new_key_it_is_the_same_device(alices_code: str) -> None:
    new = Ed25519PrivateKey.generate()

    async def act(door: Door) -> list[Reply]:
        laptop = await joined(door, alices_code)
        changed = await change(laptop, new)
        again = await change(laptop, new)
        renewed = Computer(door, key=new)
        return [
            changed,
            again,
            await renewed.ask_token(),
            await laptop.ask_token(),
            await laptop.check_in(),
        ]

    changed, again, new_token, old_token, called = with_door(act)
    assert [reply.status for reply in (changed, again, new_token, old_token, called)] == [200] * 5
    assert again.json == changed.json
    assert abs(changed.json["old_key_until"] / 1000 - time.time() - 7 * 86400) < 60
    assert new_token.json["device_id"] == old_token.json["device_id"]
    assert Device.objects.get().thumbprint == signing.thumbprint(signing.jwk_of(new.public_key()))
    assert Event.objects.filter(tag="device.key.changed").count() == 1


def test_after_seven_days_the_old_key_is_a_strangers(alices_code: str) -> None:
    new = Ed25519PrivateKey.generate()

    async def before(door: Door) -> Computer:
        laptop = await joined(door, alices_code)
        await change(laptop, new)
        return laptop

    laptop = with_door(before)

    async def after(door: Door) -> tuple[Reply, Reply]:
        laptop.door = door
        return await laptop.ask_token(), await Computer(door, key=new).ask_token()

    with time_machine.travel(time.time() + 7 * 86400 + 1, tick=False):
        old_token, new_token = with_door(after)
    assert old_token.code == "unauthorized"
    assert new_token.status == 200


def test_a_stolen_old_key_cannot_choose_another_successor(alices_code: str) -> None:
    new, thiefs = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()

    async def act(door: Door) -> Reply:
        laptop = await joined(door, alices_code)
        await change(laptop, new)
        return await change(laptop, thiefs)

    assert with_door(act).code == "unauthorized"
    assert Device.objects.get().thumbprint == signing.thumbprint(signing.jwk_of(new.public_key()))


def test_nobody_is_given_a_key_that_did_not_agree(alices_code: str) -> None:
    new = Ed25519PrivateKey.generate()

    async def act(door: Door) -> list[Reply]:
        laptop, stranger = await joined(door, alices_code), Computer(door)
        wrong = asking(new, laptop, prover=stranger.key)
        for_another = asking(new, stranger)
        return [
            await laptop.signed("POST", f"{DOOR}/keys", wrong),
            await laptop.signed("POST", f"{DOOR}/keys", for_another),
            await laptop.signed("POST", f"{DOOR}/keys", asking(laptop.key, laptop)),
            await stranger.signed("POST", f"{DOOR}/keys", asking(new, stranger)),
        ]

    assert {reply.code for reply in with_door(act)} == {"unauthorized"}
    assert Event.objects.filter(tag="device.key.changed").count() == 0


def test_another_devices_key_is_not_taken(alices_code: str, alices_account: Account) -> None:
    another = code_for(alices_account)

    async def act(door: Door) -> Reply:
        laptop, phone = await joined(door, alices_code), await joined(door, another)
        return await change(laptop, phone.key)

    assert with_door(act).code == "key-in-use"


def test_a_removed_device_changes_no_key(alices_code: str) -> None:
    async def act(door: Door) -> list[Reply]:
        laptop = await joined(door, alices_code)
        new = Ed25519PrivateKey.generate()
        await change(laptop, new)
        await Computer(door, key=new).signed("DELETE", f"{DOOR}/self")
        renewed = Computer(door, key=new)
        return [await change(renewed, Ed25519PrivateKey.generate()), await laptop.ask_token()]

    changed, old_token = with_door(act)
    assert changed.code == "revoked"
    assert old_token.code == "unauthorized"


def test_half_a_request_is_refused(alices_code: str) -> None:
    async def act(door: Door) -> list[Reply]:
        laptop = await joined(door, alices_code)
        whole = asking(Ed25519PrivateKey.generate(), laptop)
        return [
            await laptop.signed("POST", f"{DOOR}/keys", message)
            for message in ({}, whole | {"proof": ""}, {"jwk": whole["jwk"]}, whole | {"jwk": 5})
        ]

    assert {reply.code for reply in with_door(act)} == {"invalid-message"}
