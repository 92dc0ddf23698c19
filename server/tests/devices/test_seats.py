"""A seat is a lease: never one too many, free at once, the same again for the same device."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.db import connection, connections
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from doorward.accounts.models import Account, User
from doorward.audit.models import Event
from doorward.billing.models import Subscription
from doorward.devices import enrollment, removal, seats
from doorward.devices.models import Device, Ended, EnrollmentCode
from doorward_protocol import signing
from doorward_protocol.messages import DeviceFacts, EnrollRequest, OperatingSystem

KEYS = [Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32) for number in range(60)]


def enroll(code: str, key: Ed25519PrivateKey, *, address: str = "203.0.113.7") -> Device:
    jwk = signing.jwk_of(key.public_key())
    facts = DeviceFacts(hostname="laptop", os=OperatingSystem(name="linux"))
    request = EnrollRequest(jwk=jwk, device=facts, code=code)
    return enrollment.enroll(request, thumbprint=signing.thumbprint(jwk), address=address).device


def at_once(acts: list[Callable[[], Any]]) -> list[Any]:
    """What each act gave or raised, all begun at the same moment, each with its own connection."""
    start = threading.Barrier(len(acts))
    results: list[Any] = [None] * len(acts)

    def run(place: int, act: Callable[[], Any]) -> None:
        start.wait()
        try:
            results[place] = act()
        except Exception as error:  # noqa: BLE001 - it is what the test looks at
            results[place] = error
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run, args=(place, act)) for place, act in enumerate(acts)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


@pytest.mark.django_db(transaction=True)
def test_a35_a55_fifty_devices_at_once_for_the_last_seat_are_exactly_one(
    alices_account: Account,
) -> None:
    Subscription.objects.filter(account=alices_account).update(seats=1)
    codes = [enrollment.new_code(alices_account, None)[1] for _ in range(50)]
    results = at_once(
        [
            lambda code=code, key=key, number=number: enroll(  # type: ignore[misc]  # bound now
                code, key, address=f"203.0.113.{number}"
            )
            for number, (code, key) in enumerate(zip(codes, KEYS, strict=False))
        ]
    )
    joined = [result for result in results if isinstance(result, Device)]
    others = {type(result) for result in results if not isinstance(result, Device)}
    assert len(joined) == 1
    assert others == {seats.SeatsExhausted}
    assert Device.objects.filter(revoked_at=None).count() == 1


@pytest.mark.django_db(transaction=True)
def test_one_code_fifty_times_at_once_adds_one_device(alices_account: Account) -> None:
    Subscription.objects.filter(account=alices_account).update(seats=50)
    _, code = enrollment.new_code(alices_account, None)
    results = at_once(
        [lambda key=key: enroll(code, key) for key in KEYS[:50]]  # type: ignore[misc]  # bound now
    )
    joined = [result for result in results if isinstance(result, Device)]
    assert len(joined) == 1
    assert {type(result) for result in results} <= {
        Device,
        enrollment.CodeRefused,
        enrollment.TooManyTries,
    }
    assert EnrollmentCode.objects.get().tries <= enrollment.CODE_TRIES


@pytest.mark.django_db(transaction=True)
def test_the_same_device_many_times_at_once_is_one_device(alices_account: Account) -> None:
    _, code = enrollment.new_code(alices_account, None)
    results = at_once([lambda: enroll(code, KEYS[0]) for _ in range(5)])
    assert {getattr(result, "pk", result) for result in results} == {Device.objects.get().pk}


@pytest.mark.django_db(transaction=True)
def test_a33_sixty_guesses_at_once_are_five_tries(alices_account: Account) -> None:
    _, code = enrollment.new_code(alices_account, None)
    wrong = code[:-1] + ("0" if code[-1] != "0" else "1")
    results = at_once(
        [
            lambda number=number: enroll(  # type: ignore[misc]  # bound now
                wrong, KEYS[0], address=f"203.0.113.{number}"
            )
            for number in range(60)
        ]
    )
    assert {type(result) for result in results} == {enrollment.CodeRefused}
    assert EnrollmentCode.objects.get().tries == enrollment.CODE_TRIES


@pytest.mark.django_db(transaction=True)
def test_twenty_at_once_from_one_address_are_the_most(alices_account: Account) -> None:
    results = at_once([lambda: enroll("ZZZZ-ZZZZ-ZZZZ", KEYS[0]) for _ in range(60)])
    kinds = [type(result) for result in results]
    assert kinds.count(enrollment.CodeRefused) == enrollment.ADDRESS_FAILURES
    assert kinds.count(enrollment.TooManyTries) == 60 - enrollment.ADDRESS_FAILURES


@pytest.mark.django_db
def test_removing_a_device_frees_its_seat_at_once(alice: User, alices_account: Account) -> None:
    Subscription.objects.filter(account=alices_account).update(seats=1)
    codes = [enrollment.new_code(alices_account, alice)[1] for _ in range(3)]
    first = enroll(codes[0], KEYS[0])
    with pytest.raises(seats.SeatsExhausted):
        enroll(codes[1], KEYS[1])
    removal.remove(first, actor=alice)
    assert seats.of(alices_account) == seats.Seats(used=0, total=1)
    second = enroll(codes[1], KEYS[1])
    # The seat is taken: the removed one cannot come back until one is free.
    with pytest.raises(seats.SeatsExhausted):
        enroll(codes[2], KEYS[0])
    removal.remove(second, actor=alice)
    assert enroll(codes[2], KEYS[0]).pk == first.pk


@pytest.mark.django_db
def test_removing_a_device_ends_its_tokens_and_is_done_once(
    alice: User, alices_account: Account
) -> None:
    device = enroll(enrollment.new_code(alices_account, alice)[1], KEYS[0])
    removal.remove(device, actor=alice)
    removal.remove(device, actor=alice)
    assert device.epoch == 2
    assert device.revoked_at is not None
    assert Event.objects.filter(tag="device.removed").count() == 1


@pytest.mark.django_db
@pytest.mark.parametrize("name", ["", "  ", "x" * 201, "a\nb", "a\u202eb", "a\0b"])
def test_a_name_that_would_mislead_is_refused(
    alice: User, alices_account: Account, name: str
) -> None:
    device = enroll(enrollment.new_code(alices_account, alice)[1], KEYS[0])
    with pytest.raises(removal.NameRefused):
        removal.rename(device, name, actor=alice)
    removal.rename(device, " Alice's laptop ", actor=alice)
    assert Device.objects.get().label == "Alice's laptop"


@pytest.mark.django_db
def test_an_account_that_is_not_covered_has_no_seat_to_give(
    alice: User, alices_account: Account
) -> None:
    _, code = enrollment.new_code(alices_account, alice)
    Subscription.objects.filter(account=alices_account).update(state="suspended")
    with pytest.raises(seats.SeatsExhausted):
        enroll(code, KEYS[0])
    assert seats.of(alices_account).left == 0


class Leases(RuleBasedStateMachine):
    """Two accounts, a few keys, and everything that can happen to a device, in any order."""

    codes: Bundle[str] = Bundle("codes")
    accounts: list[Account]

    def __init__(self) -> None:
        super().__init__()
        Device.objects.all().delete()
        EnrollmentCode.objects.all().delete()
        self.owner: dict[int, tuple[int, UUID]] = {}
        self.seats = [2, 2]
        for account, total in zip(self.accounts, self.seats, strict=True):
            Subscription.objects.filter(account=account).update(seats=total)
        self.used: set[str] = set()
        self.made: dict[str, int] = {}
        self.joined_by: dict[str, int] = {}

    @rule(target=codes, which=st.integers(0, 1))
    def make_code(self, which: int) -> str:
        _, text = enrollment.new_code(self.accounts[which], None)
        self.made[text] = which
        return text

    @rule(which=st.integers(0, 1), total=st.integers(0, 3))
    def change_plan(self, which: int, total: int) -> None:
        self.seats[which] = total
        Subscription.objects.filter(account=self.accounts[which]).update(seats=total)

    @rule(code=codes, number=st.integers(0, 4))
    def join(self, code: str, number: int) -> None:
        which = self.made[code]
        here = self.owner.get(number)
        taken = sum(1 for owner, _ in self.owner.values() if owner == which)
        try:
            device = enroll(code, KEYS[number])
        except enrollment.CodeRefused:
            assert code in self.used
            assert self.joined_by.get(code) != number or here is None
            return
        except enrollment.KeyInUse:
            assert here is not None
            assert here[0] != which
            return
        except seats.SeatsExhausted:
            assert here is None
            assert taken >= self.seats[which]
            return
        if here is not None:
            assert here == (which, device.pk)
        else:
            assert taken < self.seats[which]
        self.used.add(code)
        self.joined_by[code] = number
        self.owner[number] = (which, device.pk)

    @precondition(lambda self: self.owner)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.owner)))
        _, pk = self.owner.pop(number)
        removal.take_out(Device.objects.get(pk=pk), actor=None, why=Ended.REMOVED)

    @invariant()
    def each_key_has_one_device_and_each_device_one_seat(self) -> None:
        live = Device.objects.filter(revoked_at=None)
        assert {(device.account_id, device.pk) for device in live} == {
            (self.accounts[which].pk, pk) for which, pk in self.owner.values()
        }
        for which, account in enumerate(self.accounts):
            used = sum(1 for owner, _ in self.owner.values() if owner == which)
            assert seats.of(account).used == used


@pytest.mark.django_db
def test_whatever_happens_a_key_is_one_device_and_a_device_one_seat(
    alices_account: Account, charlie: User
) -> None:
    from doorward.accounts.members import account_of

    enrollment_failures = "DELETE FROM devices_enrollmentthrottle"

    class Here(Leases):
        accounts = [alices_account, account_of(charlie)]

        def teardown(self) -> None:
            with connection.cursor() as cursor:
                cursor.execute(enrollment_failures)

    run_state_machine_as_test(
        Here,
        settings=settings(
            max_examples=30,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
