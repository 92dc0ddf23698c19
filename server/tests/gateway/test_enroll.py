"""A device joins, gets its token, and leaves."""

from __future__ import annotations

import json
import time
from typing import Any
from uuid import UUID

import pytest
import time_machine
from django.conf import settings
from django.utils import timezone
from server.tests.gateway.computers import (
    DOOR,
    Computer,
    Reply,
    ask,
    code_for,
    joined,
    open_door,
    with_door,
)

from doorward.accounts.members import account_of
from doorward.accounts.models import Account, User
from doorward.audit.models import Event
from doorward.billing.models import Subscription
from doorward.devices import enrollment, removal
from doorward.devices.models import Device, EnrollmentCode
from doorward.gateway.door import Door
from doorward_protocol import signing


def test_a_device_joins_and_calls(alices_code: str, alices_account: Account) -> None:
    async def act(door: Door) -> tuple[Reply, Reply, Reply]:
        laptop = Computer(door)
        return await laptop.enroll(alices_code), await laptop.ask_token(), await laptop.check_in()

    enrolled, token, called = with_door(act)
    assert (enrolled.status, token.status, called.status) == (201, 200, 200)
    device = Device.objects.select_related("presence").get()
    assert enrolled.json["device_id"] == str(device.pk) == token.json["device_id"]
    assert enrolled.json["check_in"] == {"interval": 60, "wait": 50}
    assert called.json["next_check_in"] == 60
    assert called.json["entitlement"]["state"] == "active"
    assert abs(called.json["server_time"] / 1000 - time.time()) < 5
    assert device.account == alices_account
    assert (device.hostname, device.os_name, device.type) == ("laptop", "linux", "laptop")
    assert device.protection_state == "protected"
    assert device.presence.last_seen is not None
    assert Event.objects.filter(tag="device.enrolled", target=str(device.pk)).count() == 1


def test_the_enroll_reply_lost_means_the_same_device_and_one_seat(alices_code: str) -> None:
    async def act(door: Door) -> list[Reply]:
        laptop = Computer(door)
        return [await laptop.enroll(alices_code) for _ in range(12)]

    first, *later = with_door(act)
    assert first.status == 201
    assert {reply.status for reply in later} == {200}
    assert {reply.json["device_id"] for reply in later} == {first.json["device_id"]}
    assert Device.objects.count() == 1


def test_the_same_key_with_a_new_code_is_the_same_device(
    alices_code: str, alices_account: Account
) -> None:
    another = code_for(alices_account)

    async def act(door: Door) -> tuple[Reply, Reply, Reply, Reply]:
        laptop = await joined(door, alices_code)
        for _ in range(3):
            await laptop.check_in()
        old_token = laptop.token
        again = await laptop.enroll(another)
        stale = await laptop.check_in()
        await laptop.ask_token()
        assert laptop.token != old_token
        # A new installation counts from one again, and is no copy for that.
        fresh = Computer(door, key=laptop.key, token=laptop.token)
        return again, stale, await fresh.check_in(), await fresh.check_in()

    again, stale, first, second = with_door(act)
    assert again.status == 200
    assert stale.code == "unauthorized"
    assert (first.status, second.status) == (200, 200)
    device = Device.objects.select_related("presence").get()
    assert device.presence.seq == 2
    assert device.cloned_at is None


def _is_refused_alike(replies: list[Reply]) -> None:
    assert {reply.status for reply in replies} == {401}
    assert {reply.code for reply in replies} == {"enrollment-refused"}
    assert len({reply.body for reply in replies}) == 1
    assert len({tuple(sorted(reply.headers.items())) for reply in replies}) == 1


def test_a34_every_code_that_does_not_count_is_answered_alike(
    alices_code: str, alices_account: Account
) -> None:
    used, expired, exhausted = (code_for(alices_account) for _ in range(3))
    EnrollmentCode.objects.filter(selector=expired[:4]).update(expires_at=timezone.now())
    EnrollmentCode.objects.filter(selector=exhausted[:4]).update(tries=enrollment.CODE_TRIES)
    wrong_secret = alices_code[:5] + (
        "0000-0000" if alices_code[5:] != "0000-0000" else "1111-1111"
    )

    async def act(door: Door) -> list[Reply]:
        await joined(door, used)
        stranger = Computer(door)
        bad = ["", " ", "\t\n", "-", used, expired, exhausted, wrong_secret, "ZZZZ-ZZZZ-ZZZZ"]
        bad += ["A" * 64, "ÄÖÜß-ÄÖÜß-ÄÖÜß", alices_code + "0", alices_code[:-1], "😀" * 12]
        return [await stranger.enroll(code) for code in bad]

    replies = with_door(act)
    _is_refused_alike(replies)
    assert Device.objects.count() == 1


def test_a33_a_code_dies_after_five_tries(alices_code: str) -> None:
    wrong = alices_code[:-1] + ("0" if alices_code[-1] != "0" else "1")

    async def act(door: Door) -> list[Reply]:
        stranger = Computer(door)
        tries = [await stranger.enroll(wrong) for _ in range(enrollment.CODE_TRIES)]
        return [*tries, await stranger.enroll(alices_code)]

    _is_refused_alike(with_door(act))
    assert Device.objects.count() == 0


def test_a33_a_code_has_forty_secret_bits_and_ten_minutes(
    alices_code: str, alices_account: Account
) -> None:
    assert len(enrollment.ALPHABET) ** enrollment.SECRET_LENGTH == 2**40
    code = EnrollmentCode.objects.get(selector=alices_code[:4])
    assert alices_code.replace("-", "")[4:] not in code.secret_mac
    with time_machine.travel(code.expires_at.timestamp() + 1, tick=False):
        late = with_door(lambda door: Computer(door).enroll(alices_code))
    assert late.code == "enrollment-refused"
    with time_machine.travel(code.expires_at.timestamp() - 1, tick=False):
        in_time = with_door(lambda door: Computer(door).enroll(alices_code))
    assert in_time.status == 201


def test_a_code_counts_however_it_is_typed(alices_code: str) -> None:
    sloppy = f"  {alices_code.lower().replace('-', ' ').replace('0', 'o').replace('1', 'l')} "
    assert with_door(lambda door: Computer(door).enroll(sloppy)).status == 201


def test_a33_a_device_has_one_owner(alices_code: str, charlie: User) -> None:
    charlies_code = code_for(account_of(charlie))

    async def act(door: Door) -> Reply:
        laptop = await joined(door, alices_code)
        return await laptop.enroll(charlies_code)

    assert with_door(act).code == "key-in-use"
    assert Device.objects.get().account != account_of(charlie)


def test_a_removed_device_may_join_another_account_with_its_key(
    alices_code: str, alice: User, charlie: User
) -> None:
    charlies_code = code_for(account_of(charlie))

    async def sold(door: Door) -> Computer:
        return await joined(door, alices_code)

    laptop = with_door(sold)
    removal.remove(Device.objects.get(), actor=alice)
    reply = with_door(lambda door: Computer(door, key=laptop.key).enroll(charlies_code))
    assert reply.status == 201
    assert Device.objects.get(revoked_at=None).account == account_of(charlie)


def test_a_removed_device_that_joins_again_is_the_same_device(
    alices_code: str, alice: User, alices_account: Account
) -> None:
    laptop = with_door(lambda door: joined(door, alices_code))
    device = Device.objects.get()
    removal.remove(device, actor=alice)
    again = code_for(alices_account)
    reply = with_door(lambda door: Computer(door, key=laptop.key).enroll(again))
    assert reply.status == 201
    assert reply.json["device_id"] == str(device.pk)
    assert Device.objects.get().revoked_at is None


def test_without_a_seat_nothing_is_made_and_the_code_still_counts(
    alices_code: str, alices_account: Account
) -> None:
    Subscription.objects.filter(account=alices_account).update(seats=0)
    refused = with_door(lambda door: Computer(door).enroll(alices_code))
    assert refused.status == 409
    assert refused.code == "no-seat"
    assert Device.objects.count() == 0
    Subscription.objects.filter(account=alices_account).update(seats=1)
    assert with_door(lambda door: Computer(door).enroll(alices_code)).status == 201


@pytest.mark.parametrize("seconds", [-3600, 3600, -(10**9)])
def test_a_wrong_clock_is_told_the_time(alices_code: str, seconds: int) -> None:
    async def act(door: Door) -> tuple[Reply, Reply]:
        laptop = await joined(door, alices_code)
        wrong = int(time.time()) + seconds
        return await laptop.ask_token(created=wrong), await laptop.ask_token()

    wrong, right = with_door(act)
    assert wrong.status == 401
    assert wrong.code == "clock-skew"
    assert abs(wrong.json["server_time"] / 1000 - time.time()) < 5
    assert right.status == 200


def test_a_version_we_do_not_speak_is_told_which_we_do(alices_code: str) -> None:
    async def act(door: Door) -> list[Reply]:
        newer = {"min": 2, "max": 3}
        older = {"min": 0, "max": 0}
        laptop = Computer(door)
        first = [await laptop.enroll(alices_code, protocol=given) for given in (newer, older)]
        await laptop.enroll(alices_code)
        return [*first, await laptop.signed("POST", f"{DOOR}/token", {"protocol": newer})]

    replies = with_door(act)
    assert {reply.status for reply in replies} == {426}
    assert {reply.code for reply in replies} == {"upgrade-required"}
    assert replies[0].json["protocol"] == {"min": 1, "max": 1}


def test_a_device_that_leaves_frees_its_seat_and_is_refused(alices_code: str) -> None:
    async def act(door: Door) -> tuple[Reply, Reply, Reply, Reply]:
        laptop = await joined(door, alices_code)
        await laptop.check_in()
        left = await laptop.signed("DELETE", f"{DOOR}/self")
        again = await laptop.signed("DELETE", f"{DOOR}/self")
        return left, again, await laptop.check_in(), await laptop.ask_token()

    left, again, called, token = with_door(act)
    assert (left.status, again.status) == (204, 204)
    assert called.code == "revoked"
    assert token.code == "revoked"
    assert Device.objects.get().revoked_at is not None
    assert Event.objects.filter(tag="device.left").count() == 1


def test_a_stranger_cannot_ask_for_a_token_or_take_a_device_away(alices_code: str) -> None:
    async def act(door: Door) -> list[Reply]:
        laptop = await joined(door, alices_code)
        stranger = Computer(door)
        replies = [await stranger.ask_token(), await stranger.signed("DELETE", f"{DOOR}/self")]
        # With the laptop's name, but not its key.
        headers = signing.sign(stranger.key, method="POST", path=f"{DOOR}/token")
        headers["Signature-Input"] = headers["Signature-Input"].replace(
            stranger.thumbprint, laptop.thumbprint
        )
        replies.append(await ask(door, "POST", f"{DOOR}/token", headers=headers))
        replies.append(await ask(door, "POST", f"{DOOR}/token"))
        return replies

    replies = with_door(act)
    assert {reply.code for reply in replies} == {"unauthorized"}
    assert len({reply.body for reply in replies}) == 1
    assert Device.objects.get().revoked_at is None


def test_the_key_in_the_message_must_be_the_one_that_signs(alices_code: str) -> None:
    async def act(door: Door) -> Reply:
        laptop, thief = Computer(door), Computer(door)
        return await thief.signed("POST", f"{DOOR}/enroll", laptop.enrollment(alices_code))

    assert with_door(act).code == "unauthorized"
    assert EnrollmentCode.objects.get().tries == 0


def test_the_twenty_first_wrong_code_from_one_address_must_wait(alices_code: str) -> None:
    async def act(door: Door) -> tuple[list[Reply], Reply, Reply, Reply]:
        stranger = Computer(door)
        wrong = [await stranger.enroll("ZZZZ-ZZZZ-ZZZZ") for _ in range(20)]
        right_code_too_late = await stranger.enroll(alices_code)
        elsewhere = Computer(door, client="198.51.100.1")
        return (
            wrong,
            right_code_too_late,
            await elsewhere.enroll("ZZZZ"),
            await elsewhere.enroll(alices_code),
        )

    wrong, late, other_wrong, other_right = with_door(act)
    assert {reply.status for reply in wrong} == {401}
    assert late.status == 429
    assert late.code == "too-many-requests"
    assert 0 < int(late.headers["retry-after"]) <= 3600
    assert other_wrong.status == 401
    assert other_right.status == 201


def test_after_an_hour_an_address_may_try_again(alices_code: str, alices_account: Account) -> None:
    async def act(door: Door) -> Reply:
        stranger = Computer(door)
        for _ in range(20):
            await stranger.enroll("ZZZZ-ZZZZ-ZZZZ")
        return await stranger.enroll("ZZZZ-ZZZZ-ZZZZ")

    now = time.time()
    with time_machine.travel(now, tick=False):
        assert with_door(act).status == 429
    with time_machine.travel(now + 3601, tick=False):
        code = code_for(alices_account)
        assert with_door(lambda door: Computer(door).enroll(code)).status == 201


def test_forty_devices_from_one_school_are_no_attack(
    alices_code: str, alices_account: Account
) -> None:
    Subscription.objects.filter(account=alices_account).update(seats=40)
    codes = [code_for(alices_account) for _ in range(40)]

    async def act(door: Door) -> list[Reply]:
        return [await Computer(door).enroll(code) for code in codes]

    assert {reply.status for reply in with_door(act)} == {201}


@pytest.mark.parametrize("proxies", [0, 1])
def test_a02_a_made_up_forwarding_address_is_not_believed(
    alices_code: str, settings: Any, proxies: int
) -> None:
    settings.TRUSTED_PROXIES = proxies

    async def act(door: Door) -> list[Reply]:
        stranger = Computer(door)
        replies = []
        for number in range(21):
            body = json.dumps(stranger.enrollment("ZZZZ-ZZZZ-ZZZZ")).encode()
            headers = signing.sign(stranger.key, method="POST", path=f"{DOOR}/enroll", body=body)
            # The last entry is the proxy's own, where there is one.
            headers["X-Forwarded-For"] = f"10.0.0.{number}, 192.0.2.1"
            headers["X-Real-IP"] = headers["Forwarded"] = f"10.1.0.{number}"
            replies.append(await ask(door, "POST", f"{DOOR}/enroll", body, headers=headers))
        return replies

    replies = with_door(act)
    assert [reply.status for reply in replies] == [401] * 20 + [429]


def test_a37_a_token_is_made_with_a_key_of_its_own(alices_code: str) -> None:
    async def act(door: Door) -> list[Reply]:
        laptop = await joined(door, alices_code)
        device_id = UUID((await laptop.ask_token()).json["device_id"])
        replies = []
        for key in (settings.SECRET_KEY.encode()[:32], settings.FIELD_KEY, bytes(32)):
            laptop.token = signing.make_token(
                key, device_id=device_id, epoch=1, expires_at=int(time.time()) + 60
            )
            replies.append(await laptop.check_in())
        for text in ("", "x", "Bearer", "session-token", "a" * 5000):
            laptop.token = text
            replies.append(await laptop.check_in())
        return replies

    assert {reply.code for reply in with_door(act)} == {"unauthorized"}


async def _opened_twice(code: str) -> tuple[Reply, Reply]:
    async with open_door() as one, open_door() as other:
        laptop = await joined(one, code)
        first = await laptop.check_in()
        laptop.door = other
        return first, await laptop.check_in()


def test_a_token_counts_at_every_gateway(alices_code: str) -> None:
    first, second = with_door(lambda door: _opened_twice(alices_code))
    assert (first.status, second.status) == (200, 200)
