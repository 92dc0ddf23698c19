"""Proving again who one is: right proofs cost nothing, wrong ones count together and end it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import time_machine
from django.utils import timezone
from server.tests.accounts.second_steps import (
    RIGHT_KEY,
    WRONG_KEY,
    App,
    add_app,
    add_passkey,
    code_at,
    finger,
    is_signed_in,
    signed_in_tab,
)
from server.tests.conftest import PASSWORD, signed_in

from doorward.accounts import credentials, hashing, lockout, operators, proving_again, unlock
from doorward.accounts.models import Throttle, User
from doorward.audit.models import Event

WAYS = ("password", "code", "passkey")
BY_PAGE = {
    "password": "/reauthenticate/",
    "code": "/account/security/reauthenticate/",
    "passkey": "/account/security/webauthn/reauthenticate/",
}
BY_APP = {
    "password": "auth/reauthenticate",
    "code": "auth/2fa/reauthenticate",
    "passkey": "auth/webauthn/reauthenticate",
}

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def clock() -> Iterator[time_machine.Traveller]:
    with time_machine.travel(timezone.now(), tick=False) as set_clock:
        yield set_clock


class Session:
    """A session of Alice's in a browser or an app, and what she proves herself by."""

    def __init__(self, where: str, alice: User) -> None:
        self.tab = signed_in_tab(alice.email)
        self.app = App()
        self.by_app = where == "app"
        if self.by_app:
            self.seed, _codes = add_app(self.tab)
            self.app.call("POST", "auth/login", email=alice.email, password=PASSWORD)
            code = code_at(self.seed)
            assert self.app.call("POST", "auth/2fa/authenticate", code=code).status_code == 200
        else:
            self.seed, _codes = add_app(self.tab)
        add_passkey(alice)

    def prove(self, way: str, *, right: bool) -> Any:
        key = RIGHT_KEY if right else WRONG_KEY
        told = {
            "password": {"password": PASSWORD if right else "wrong"},
            "code": {"code": code_at(self.seed) if right else "000000"},
            "passkey": {"credential": json.loads(key) if self.by_app else key},
        }[way]
        if self.by_app:
            return self.app.call("POST", BY_APP[way], **told)
        return self.tab.post(BY_PAGE[way], told)

    def goes_on(self) -> bool:
        return self.app.is_signed_in() if self.by_app else is_signed_in(self.tab)


@pytest.fixture(params=["page", "app"])
def session(
    request: pytest.FixtureRequest,
    alice: User,
    clock: time_machine.Traveller,
    monkeypatch: pytest.MonkeyPatch,
) -> Session:
    """One in which nobody has failed to prove anything."""
    finger(monkeypatch)
    made = Session(request.param, alice)
    clock.shift(timedelta(minutes=16))
    return made


@pytest.mark.parametrize("way", WAYS)
def test_twelve_right_proofs_in_a_day_all_count(
    session: Session, clock: time_machine.Traveller, way: str
) -> None:
    for _ in range(12):
        answer = session.prove(way, right=True)
        assert answer.status_code == (200 if session.by_app else 302)
        assert answer.headers.get("Location") != "/login/"
        assert session.goes_on()
        clock.shift(timedelta(minutes=40))


def test_twelve_changes_of_the_password_that_come_to_nothing_cost_nothing(
    alice: User, clock: time_machine.Traveller
) -> None:
    tab = signed_in_tab(alice.email)
    for _ in range(12):
        # The password is right; the new one is too short.
        fields = {"oldpassword": PASSWORD, "password1": "short", "password2": "short"}
        assert tab.post("/password/change/", fields).status_code == 200
        clock.shift(timedelta(minutes=40))
    assert is_signed_in(tab)


@pytest.mark.parametrize("ways", [*WAYS, "password code passkey"])
def test_v6_3_1_ten_wrong_proofs_in_a_day_end_the_session_by_whatever_way(
    session: Session, clock: time_machine.Traveller, ways: str
) -> None:
    tried = ways.split()
    for number in range(lockout.REAUTHENTICATION_DAY.most):
        # A right one in between takes none of the wrong ones back.
        session.prove(tried[number % len(tried)], right=True)
        session.prove(tried[number % len(tried)], right=False)
        assert session.goes_on()
        clock.shift(timedelta(minutes=6))
    answer = session.prove(tried[0], right=True)
    if session.by_app:
        assert answer.status_code == 429
        assert int(answer["Retry-After"]) > 3600
    else:
        assert answer["Location"] == "/login/"
        page = session.tab.get("/login/").content.decode()
        assert "Too many wrong tries. Begin again in a few minutes." in page
    assert not session.goes_on()
    assert Event.objects.filter(tag="account.reauthentication.locked").count() == 1


@pytest.mark.parametrize("way", WAYS)
def test_v6_3_1_the_sixth_wrong_proof_in_five_minutes_ends_the_session(
    session: Session, way: str
) -> None:
    for _ in range(lockout.REAUTHENTICATION.most):
        session.prove(way, right=False)
        assert session.goes_on()
    session.prove(way, right=False)
    assert not session.goes_on()


def test_n1_wrong_codes_of_a_stranger_at_the_second_step_end_no_session_of_hers(
    session: Session, alice: User
) -> None:
    thief = App()
    thief.call("POST", "auth/login", email=alice.email, password=PASSWORD)
    codes = [thief.call("POST", "auth/2fa/authenticate", code="000000") for _ in range(6)]
    assert [answer.status_code for answer in codes] == [400] * 5 + [429]
    session.prove("code", right=True)
    assert session.goes_on()


@pytest.mark.parametrize("way", WAYS)
def test_n1_wrong_proofs_in_a_stolen_session_take_none_from_her_others(
    session: Session, alice: User, clock: time_machine.Traveller, way: str
) -> None:
    stolen = signed_in(alice)
    clock.shift(timedelta(minutes=16))
    for _ in range(lockout.REAUTHENTICATION.most + 1):
        stolen.post("/reauthenticate/", {"password": "wrong"})
    assert not is_signed_in(stolen), "it ends, and it alone"
    answer = session.prove(way, right=True)
    assert answer.status_code == (200 if session.by_app else 302)
    assert session.goes_on()


def test_v6_3_1_all_wrong_proofs_of_one_person_are_few_and_end_no_other_session(
    session: Session, alice: User
) -> None:
    looked_at = lockout.REAUTHENTICATION_PERSON.most
    for number in range(looked_at):
        proving_again.begin(alice, f"session {number}")
    answer = session.prove("password", right=True)
    assert answer.status_code == 429
    assert int(answer["Retry-After"]) > 3600
    assert session.goes_on(), "it may be hers"
    # An operator, or a new password by the mailed link, lets her prove herself again.
    assert unlock.by_operator(alice.email)
    answer = session.prove("password", right=True)
    assert answer.status_code == (200 if session.by_app else 302)


def busy(*_given: Any) -> Any:
    raise hashing.Busy("no thread came to hash a password")


def test_v6_3_1_a_proof_that_could_not_be_looked_at_was_not_wrong(
    session: Session, alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    session.prove("password", right=False)
    before = sorted(Throttle.objects.values_list("key", "count"))
    with monkeypatch.context() as short_of_memory:
        short_of_memory.setattr(credentials, "check", busy)
        for _ in range(lockout.REAUTHENTICATION_DAY.most + 1):
            answer = session.prove("password", right=True)
            assert answer.status_code == 503
            assert answer["Retry-After"] == "10"
    assert sorted(Throttle.objects.values_list("key", "count")) == before
    assert not Event.objects.filter(tag="account.reauthentication.locked").exists()
    assert session.goes_on()
    answer = session.prove("password", right=True)
    assert answer.status_code == (200 if session.by_app else 302)


def operator_with_an_app(alice: User) -> str:
    seed, _codes = add_app(signed_in_tab(alice.email))
    User.objects.filter(pk=alice.pk).update(is_operator=True)
    return seed


def test_an_operator_who_is_right_twelve_times_a_day_is_let_act(
    alice: User, clock: time_machine.Traveller
) -> None:
    seed = operator_with_an_app(alice)
    for _ in range(12):
        clock.shift(timedelta(minutes=1))
        assert operators.prove(alice.email, PASSWORD, code_at(seed)).pk == alice.pk


def test_an_operators_wrong_codes_count_with_their_wrong_passwords(
    alice: User, clock: time_machine.Traveller
) -> None:
    seed = operator_with_an_app(alice)
    clock.shift(timedelta(minutes=1))
    for password, code in [("wrong", code_at(seed)), (PASSWORD, "000000")] * 3:
        with pytest.raises(operators.NotProven):
            operators.prove(alice.email, password, code)
    with pytest.raises(operators.NotProven):
        operators.prove(alice.email, PASSWORD, code_at(seed))
    # The last two were not looked at.
    assert Event.objects.filter(tag="account.second_step.failed").count() == 2
    clock.shift(timedelta(minutes=6))
    assert operators.prove(alice.email, PASSWORD, code_at(seed)).pk == alice.pk


def test_an_operators_password_that_could_not_be_looked_at_was_not_wrong(
    alice: User, clock: time_machine.Traveller, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed = operator_with_an_app(alice)
    clock.shift(timedelta(minutes=1))
    with monkeypatch.context() as short_of_memory:
        short_of_memory.setattr(User, "check_password", busy)
        for _ in range(lockout.REAUTHENTICATION_DAY.most + 1):
            with pytest.raises(hashing.Busy):
                operators.prove(alice.email, PASSWORD, code_at(seed))
    assert operators.prove(alice.email, PASSWORD, code_at(seed)).pk == alice.pk


def test_an_operator_with_nothing_to_type_a_code_from_has_failed_at_nothing(alice: User) -> None:
    User.objects.filter(pk=alice.pk).update(is_operator=True)
    for _ in range(12):
        with pytest.raises(operators.NoFactor):
            operators.prove(alice.email, PASSWORD, "000000")
