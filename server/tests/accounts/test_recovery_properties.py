"""N2: whatever is done in whatever order, nobody without a factor gets in before the wait is over.

The thief has the password and the mailbox, but neither app nor a session of Alice's. What the
machine knows is only what was announced to Alice and when, and what she did about it.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine
from django.db import transaction
from django.test import Client
from django.utils import timezone
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from server.tests.accounts.second_steps import (
    add_app,
    code_at,
    is_signed_in,
    mails_to,
    second_step,
    signed_in_tab,
    tab,
    type_password,
)
from server.tests.conftest import PASSWORD, account_for, person

from doorward.accounts import recovery
from doorward.accounts.models import Approval, Recovery, User

WAIT = timedelta(hours=72)
OPEN_FOR = timedelta(days=7)
ANNOUNCED = "Someone asks to get in without your second step"
LENGTHS = st.sampled_from(
    [
        timedelta(seconds=90),
        timedelta(minutes=16),
        timedelta(hours=13),
        timedelta(hours=24),
        WAIT - timedelta(seconds=1),
        WAIT,
        OPEN_FOR,
    ]
)


class LostSecondStep(RuleBasedStateMachine):
    """Alice, a thief, two operators and the worker, over days."""

    def __init__(self) -> None:
        super().__init__()
        self.rolled_back = transaction.atomic()
        self.rolled_back.__enter__()
        self.clock = time_machine.travel(datetime(2026, 11, 2, 8, tzinfo=UTC), tick=False)
        self.now: Any = self.clock.start()
        self.alice = person("alice@example.org", "Alice")
        account_for(self.alice)
        self.operators = [person(f"{name}@example.org", name) for name in ("olga", "otto")]
        self.password = PASSWORD
        self.seed = add_app(signed_in_tab(self.alice.email))[0]
        self.home = self.with_app()
        self.thief = tab("Thief/1.0")
        # When Alice was told that somebody waits, of each kind of recovery; and when all of that
        # came to an end.
        self.announced: list[datetime] = []
        self.ended = timezone.now()
        self.is_over = False

    def teardown(self) -> None:
        self.clock.stop()
        transaction.set_rollback(True)
        self.rolled_back.__exit__(None, None, None)

    # -- what the machine knows --------------------------------------------------------------------

    def listen(self) -> None:
        """Note when an announcement was made."""
        told = mails_to(self.alice.email).count(ANNOUNCED)
        self.announced += [timezone.now()] * (told - len(self.announced))

    def may_get_in(self) -> bool:
        now = timezone.now()
        lasting = [at for at in self.announced if at >= self.ended]
        return any(at + WAIT <= now < at + WAIT + OPEN_FOR for at in lasting)

    def all_ended(self) -> None:
        self.now.shift(timedelta(seconds=1))
        self.ended = timezone.now()

    def with_app(self) -> Client:
        self.now.shift(timedelta(seconds=61))
        browser = tab("Home/1.0")
        type_password(browser, self.alice.email, self.password)
        second_step(browser, code_at(self.seed))
        return browser

    def link(self, which: int) -> str:
        found = list(Recovery.objects.filter(user=self.alice).order_by("asked_at"))
        if not found:
            return "/login/"
        return "/" + recovery.open_link(found[which % len(found)]).split("/", 3)[3]

    @invariant()
    def nobody_is_in_too_early(self) -> None:
        self.listen()
        if self.is_over:
            return
        if is_signed_in(self.thief):
            assert self.may_get_in(), "a session without a factor, before the wait was over"
            self.is_over = True
        # A signed-in page noted nothing that would let them in later.
        assert User.objects.get(pk=self.alice.pk).is_active

    # -- time and the worker -----------------------------------------------------------------------

    @rule(length=LENGTHS)
    def time_passes(self, length: timedelta) -> None:
        self.now.shift(length)

    @rule()
    def the_worker_sweeps(self) -> None:
        recovery.sweep(timezone.now())

    # -- the thief ---------------------------------------------------------------------------------

    @precondition(lambda self: not self.is_over)
    @rule(anew=st.booleans())
    def thief_types_the_password(self, anew: bool) -> None:
        if anew:
            self.thief = tab("Thief/1.0")
        type_password(self.thief, self.alice.email, self.password)

    @precondition(lambda self: not self.is_over)
    @rule()
    def thief_begins_the_wait(self) -> None:
        type_password(self.thief, self.alice.email, self.password)
        self.thief.post("/login/recovery/begin/")

    @precondition(lambda self: not self.is_over)
    @rule(which=st.integers(0, 5))
    def thief_opens_a_link(self, which: int) -> None:
        self.thief.post(self.link(which))

    @precondition(lambda self: not self.is_over)
    @rule(
        step=st.sampled_from(
            [
                ("/login/recovery/enter/", {}),
                ("/login/recovery/enter/", {"instead": "1"}),
                ("/login/recovery/again/", {}),
                ("/login/approval/", {}),
                ("/login/approval/finish/", {}),
                ("/account/security/trust/", {"action": "trust"}),
                ("/account/security/authenticate/", {"code": "000000"}),
                ("/account/security/another-way/", {}),
                ("/account/security/by-mail/", {}),
                ("/account/security/totp/deactivate/", {}),
            ]
        )
    )
    def thief_tries_a_step(self, step: tuple[str, dict[str, str]]) -> None:
        self.thief.post(*step)

    @precondition(lambda self: not self.is_over)
    @rule(which=st.integers(0, 5))
    def thief_goes_all_the_way(self, which: int) -> None:
        self.thief = tab("Thief/1.0")
        self.thief.post(self.link(which))
        type_password(self.thief, self.alice.email, self.password)
        self.thief.post("/login/recovery/enter/")

    # -- Alice -------------------------------------------------------------------------------------

    @precondition(lambda self: not self.is_over)
    @rule(by_mail=st.booleans())
    def alice_stops_it(self, by_mail: bool) -> None:
        if by_mail:
            for each in Recovery.objects.filter(user=self.alice, starts_at__isnull=False):
                Client(HTTP_HOST="localhost").post("/" + recovery.stop_link(each).split("/", 3)[3])
        elif is_signed_in(self.home):
            self.home.post("/account/recovery/stop/")
        else:
            return
        self.listen()
        self.all_ended()

    @precondition(lambda self: not self.is_over)
    @rule()
    def alice_signs_in_with_her_app(self) -> None:
        browser = self.with_app()
        if is_signed_in(browser):
            self.home = browser
            self.listen()
            self.all_ended()

    @precondition(lambda self: not self.is_over and is_signed_in(self.home))
    @rule()
    def alice_changes_her_password_and_the_thief_learns_it(self) -> None:
        new = f"{PASSWORD} {timezone.now().timestamp()}"
        answer = self.home.post(
            "/password/change/",
            {"oldpassword": self.password, "password1": new, "password2": new},
        )
        if answer.status_code == 302:
            self.password = new
            self.listen()
            self.all_ended()

    @precondition(lambda self: not self.is_over)
    @rule(says=st.sampled_from(["no", "wrong"]))
    def alice_is_asked_and_does_not_approve(self, says: str) -> None:
        for each in Approval.objects.filter(user=self.alice):
            number = str(10 + (each.number - 9) % 90)
            answer = {"answer": "no"} if says == "no" else {"answer": "yes", "number": number}
            self.home.post(f"/account/approve/{each.pk}/", answer)

    # -- operators ---------------------------------------------------------------------------------

    @precondition(lambda self: not self.is_over)
    @rule(who=st.integers(0, 1), act=st.sampled_from(["ask", "confirm", "confirm", "refuse"]))
    def an_operator_acts(self, who: int, act: str) -> None:
        operator = self.operators[who]
        try:
            if act == "ask":
                recovery.ask_as_operator(self.alice, operator, "Met her at the desk.")
            elif act == "confirm":
                recovery.confirm_as_operator(self.alice, operator)
            else:
                recovery.refuse_as_operator(self.alice, operator)
        except (
            recovery.AskedAlready,
            recovery.NotOpen,
            recovery.SameOperator,
            recovery.NoSecondStep,
        ):
            pass


class Patience(LostSecondStep):
    """The same days, with a person who in the end gets in when nothing speaks against it."""

    @precondition(lambda self: not self.is_over and len(self.announced) < 3)
    @rule()
    def whoever_waits_long_enough_gets_in(self) -> None:
        self.all_ended_by_nobody()
        type_password(self.thief, self.alice.email, self.password)
        self.thief.post("/login/recovery/begin/")
        self.listen()
        waiting = Recovery.objects.filter(user=self.alice, ended_at__isnull=True, kind="mailbox")
        if not waiting or is_signed_in(self.thief):
            return
        self.now.move_to(max(timezone.now(), waiting[0].ready_at or timezone.now()))
        browser = tab("Patient/1.0")
        browser.post("/" + recovery.open_link(waiting[0]).split("/", 3)[3])
        type_password(browser, self.alice.email, self.password)
        browser.post("/login/recovery/enter/")
        self.thief = browser
        assert is_signed_in(browser)

    def all_ended_by_nobody(self) -> None:
        recovery.sweep(timezone.now())
        self.listen()


@pytest.mark.django_db
@pytest.mark.parametrize("machine", [LostSecondStep, Patience])
def test_n2_no_path_to_a_session_is_shorter_than_the_delay(
    machine: type[RuleBasedStateMachine],
) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=25,
            stateful_step_count=20,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
