"""A sign-in is approved in another session, by a number, at most three times in ten minutes."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import time_machine
from django.test import Client
from django.utils import timezone
from server.tests.accounts.second_steps import (
    App,
    add_app,
    at_once,
    code_at,
    is_signed_in,
    mails_to,
    second_step,
    signed_in_tab,
    tab,
    type_password,
)
from server.tests.conftest import PASSWORD, account_for

from doorward.accounts import approvals
from doorward.accounts.models import Approval, User
from doorward.audit.models import Event

LIMITS = Path(__file__).parents[3] / "docs" / "security" / "limits.md"


@pytest.fixture
def seed(alice: User) -> str:
    """Alice's authenticator app."""
    account_for(alice)
    return add_app(signed_in_tab(alice.email))[0]


@pytest.fixture
def phone(alice: User, seed: str) -> Client:
    """Alice's phone, on which she signed in with her app."""
    return with_app(alice, seed)


def with_app(alice: User, seed: str, *, remember: bool = False) -> Client:
    browser = tab("Phone/1.0")
    type_password(browser, alice.email)
    second_step(browser, code_at(seed), remember=remember)
    assert is_signed_in(browser)
    return browser


def asking(alice: User, agent: str = "Laptop/1.0") -> tuple[Client, str]:
    """Return a browser that waits to be approved, and the number that it shows."""
    laptop = tab(agent)
    assert type_password(laptop, alice.email)["Location"] == "/account/security/authenticate/"
    answer = laptop.post("/login/approval/", follow=True)
    return laptop, shown(answer.content.decode())


def shown(page: str) -> str:
    found = re.search(r"</span>(\d\d)</p>", page)
    assert found is not None, page
    return found[1]


def newest(alice: User) -> Approval:
    return Approval.objects.filter(user=alice).order_by("-asked_at")[0]


def answer(browser: Client, alice: User, number: str) -> Any:
    address = f"/account/approve/{newest(alice).pk}/"
    return browser.post(address, {"answer": "yes", "number": number}, follow=True)


def finish(laptop: Client) -> None:
    laptop.post("/login/approval/finish/")
    laptop.post("/account/security/trust/", {"action": "skip"})


def test_v6_6_4_a_sign_in_is_approved_by_its_number(alice: User, phone: Client) -> None:
    laptop, number = asking(alice)
    assert not is_signed_in(laptop)
    finish(laptop)
    assert not is_signed_in(laptop), "nobody has approved yet"
    page = phone.get(f"/account/approve/{newest(alice).pk}/").content.decode()
    assert "Laptop" in page or "browser" in page
    assert "127.0.0.1" in page
    assert f">{number}<" not in page, "who approves must look at the other browser"
    assert "/account/asks/" in page
    assert "Is this you, signing in?</b>" not in page, "the page that asks does not ask twice"
    here = {"HX-Current-URL": f"http://localhost/account/approve/{newest(alice).pk}/"}
    told = phone.get("/account/asks/", headers=here).content.decode()
    assert "Is this you" not in told
    answer(phone, alice, number)
    finish(laptop)
    assert is_signed_in(laptop)
    tags = set(Event.objects.filter(actor_id=alice.pk).values_list("tag", flat=True))
    assert {"account.approval.asked", "account.approval.approved"} <= tags
    again = tab()
    type_password(again, alice.email)
    page = again.get("/account/security/authenticate/").content.decode()
    first = page.index("Approve it where you are signed in")
    assert first < page.index("Authenticator app"), "the way used last is offered first"


def test_every_page_of_a_session_asks_at_once(alice: User, phone: Client) -> None:
    assert "Is this you" not in phone.get("/").content.decode()
    tag = re.search(r'\\"(\w+)\\"', phone.get("/account/asks/").content.decode())
    assert tag is not None
    quiet = phone.get("/account/asks/", headers={"If-None-Match": f'"{tag[1]}"'})
    assert quiet.status_code == 204
    asking(alice)
    told = phone.get("/account/asks/", headers={"If-None-Match": f'"{tag[1]}"'})
    assert f"/account/approve/{newest(alice).pk}/" in told.content.decode()
    for page in ("/", "/devices/", "/account/", "/help/"):
        assert "Is this you" in phone.get(page).content.decode(), page


OFFER = "Approve it where you are signed in"


def test_approving_is_offered_only_while_a_session_could_do_it(alice: User, seed: str) -> None:
    def offered() -> bool:
        laptop = tab("Laptop/1.0")
        type_password(laptop, alice.email)
        page = laptop.get("/account/security/authenticate/").content.decode()
        others = laptop.get("/login/recovery/").content.decode()
        assert (OFFER in page) == ("It asks whether it is you" in others)
        return OFFER in page

    # The session in which the app was set up showed nothing but the password.
    assert not offered()
    phone = with_app(alice, seed)
    assert offered()
    phone.post("/logout/")
    assert not offered()
    laptop = tab()
    type_password(laptop, alice.email)
    answer = laptop.post("/login/approval/", follow=True).content.decode()
    assert "No other browser of yours can approve it" in answer
    assert not Approval.objects.exists()


def test_a_session_that_came_without_a_second_step_is_not_taken_for_one_that_approves(
    alice: User, seed: str
) -> None:
    phone = with_app(alice, seed, remember=True)
    phone.post("/logout/")
    type_password(phone, alice.email)
    assert is_signed_in(phone), "remembered"
    laptop = tab()
    type_password(laptop, alice.email)
    assert OFFER not in laptop.get("/account/security/authenticate/").content.decode()


def test_while_nothing_is_asked_no_page_looks_for_it(
    alice: User, phone: Client, django_assert_num_queries: Any
) -> None:
    phone.get("/account/asks/")
    # The session and its person.
    with django_assert_num_queries(2):
        phone.get("/account/asks/")


def test_v6_6_4_a_wrong_number_refuses_and_the_right_one_no_longer_helps(
    alice: User, phone: Client
) -> None:
    laptop, number = asking(alice)
    wrong = "10" if number != "10" else "11"
    assert "not the number" in answer(phone, alice, wrong).content.decode()
    answer(phone, alice, number)
    finish(laptop)
    assert not is_signed_in(laptop)
    page = laptop.get("/login/approval/wait/").content.decode()
    assert "Another number was typed" in page


def test_a_refusal_is_told_over_there_and_by_mail(alice: User, phone: Client) -> None:
    laptop, number = asking(alice)
    phone.post(f"/account/approve/{newest(alice).pk}/", {"answer": "no"})
    answer(phone, alice, number)
    finish(laptop)
    assert not is_signed_in(laptop)
    assert "It was refused over there" in laptop.get("/login/approval/wait/").content.decode()
    assert mails_to(alice.email).count("You refused a sign-in") == 1


@pytest.mark.parametrize(("seconds", "opens"), [(119, True), (121, False)])
def test_v6_6_4_it_can_be_answered_for_two_minutes(
    alice: User, phone: Client, seconds: int, opens: bool
) -> None:
    with time_machine.travel(timezone.now(), tick=False) as clock:
        laptop, number = asking(alice)
        clock.shift(timedelta(seconds=seconds))
        answer(phone, alice, number)
        finish(laptop)
        assert is_signed_in(laptop) is opens
        if not opens:
            assert "Nobody answered" in laptop.get("/login/approval/wait/").content.decode()


def test_an_approval_that_is_not_fetched_in_time_is_over(alice: User, phone: Client) -> None:
    with time_machine.travel(timezone.now(), tick=False) as clock:
        laptop, number = asking(alice)
        answer(phone, alice, number)
        clock.shift(timedelta(seconds=121))
        finish(laptop)
        assert not is_signed_in(laptop)


def test_v6_6_4_at_most_three_prompts_in_any_ten_minutes(alice: User, phone: Client) -> None:
    start = timezone.now()
    asked = []
    with time_machine.travel(start, tick=False) as clock:
        for minute in range(25):
            clock.move_to(start + timedelta(minutes=minute, seconds=1))
            before = Approval.objects.count()
            laptop = tab()
            type_password(laptop, alice.email)
            laptop.post("/login/approval/")
            asked += [minute] * (Approval.objects.count() - before)
    assert len(asked) >= 6, asked
    for minute in asked:
        assert len([each for each in asked if minute <= each < minute + 10]) <= 3, asked


@pytest.mark.django_db(transaction=True)
def test_v6_6_4_ten_at_once_make_three_prompts(alice: User) -> None:
    def act(_number: int) -> bool:
        try:
            approvals.ask(alice, ip="192.0.2.1", agent="")
        except approvals.TooManyPrompts:
            return False
        return True

    assert at_once(10, act) == 3


@pytest.mark.django_db(transaction=True)
def test_v6_5_1_an_approval_opens_once(alice: User) -> None:
    approval = approvals.ask(alice, ip="192.0.2.1", agent="")
    approvals.approve(
        alice, approval.pk, str(approval.number), is_proven=True, ip="192.0.2.2", agent=""
    )
    assert at_once(8, lambda _n: approvals.use(alice, approval.pk, ip="192.0.2.1", agent="")) == 1


def test_a_remembered_browser_did_not_take_the_step_itself(alice: User, seed: str) -> None:
    at_home = with_app(alice, seed, remember=True)
    remembered = tab()
    remembered.cookies["dw_remembered"] = at_home.cookies["dw_remembered"].value
    type_password(remembered, alice.email)
    assert is_signed_in(remembered)
    laptop, number = asking(alice)
    page = remembered.get(f"/account/approve/{newest(alice).pk}/").content.decode()
    assert "Show your second step here first" in page
    assert 'name="number"' not in page
    answer(remembered, alice, number)
    finish(laptop)
    assert not is_signed_in(laptop)


def test_a_session_that_was_approved_approves_no_other(alice: User, phone: Client) -> None:
    laptop, number = asking(alice)
    answer(phone, alice, number)
    finish(laptop)
    tablet, number = asking(alice)
    answer(laptop, alice, number)
    finish(tablet)
    assert not is_signed_in(tablet)


def test_proving_it_here_lets_this_browser_approve(alice: User, seed: str) -> None:
    with time_machine.travel(timezone.now(), tick=False) as clock:
        at_home = with_app(alice, seed, remember=True)
        remembered = tab()
        remembered.cookies["dw_remembered"] = at_home.cookies["dw_remembered"].value
        type_password(remembered, alice.email)
        clock.shift(timedelta(seconds=60))
        laptop, number = asking(alice)
        remembered.post("/account/security/reauthenticate/", {"code": code_at(seed)})
        answer(remembered, alice, number)
        finish(laptop)
        assert is_signed_in(laptop)


def test_row45_charlie_can_neither_see_nor_answer_it(
    alice: User, phone: Client, charlie: User
) -> None:
    laptop, number = asking(alice)
    stranger = signed_in_tab(charlie.email)
    address = f"/account/approve/{newest(alice).pk}/"
    assert stranger.get(address).status_code == 404
    assert stranger.post(address, {"answer": "yes", "number": number}).status_code == 404
    finish(laptop)
    assert not is_signed_in(laptop)


def test_an_approval_is_good_only_in_the_sign_in_that_asked(alice: User, phone: Client) -> None:
    laptop, number = asking(alice)
    thief = tab("Thief/1.0")
    type_password(thief, alice.email)
    answer(phone, alice, number)
    finish(thief)
    assert not is_signed_in(thief)
    finish(laptop)
    assert is_signed_in(laptop)


def test_it_is_no_way_when_nobody_is_signed_in_elsewhere(alice: User) -> None:
    home = signed_in_tab(alice.email)
    add_app(home)
    home.post("/logout/")
    laptop = tab()
    type_password(laptop, alice.email)
    page = laptop.get("/account/security/authenticate/").content.decode()
    assert "Approve it where" not in page
    answered = laptop.post("/login/approval/", follow=True)
    assert "No other browser of yours can approve it" in answered.content.decode()
    assert not Approval.objects.exists()


# -- apps ------------------------------------------------------------------------------------------


def app_at_the_second_step(alice: User) -> App:
    app = App()
    answer = app.call("POST", "auth/login", email=alice.email, password=PASSWORD)
    assert answer.status_code == 401
    return app


@pytest.fixture
def other_app(alice: User, seed: str) -> App:
    """An app in which Alice signed in with her authenticator's code."""
    app = app_at_the_second_step(alice)
    assert app.call("POST", "auth/2fa/authenticate", code=code_at(seed)).status_code == 200
    return app


def test_v6_6_4_an_app_asks_and_an_app_approves_by_the_number(alice: User, other_app: App) -> None:
    app = app_at_the_second_step(alice)
    assert app.call("GET", "auth/2fa/approval").status_code == 404
    assert app.call("PUT", "auth/2fa/approval").status_code == 409
    asked = app.call("POST", "auth/2fa/approval")
    assert asked.status_code == 200
    number = asked.json()["data"]["number"]
    assert app.call("PUT", "auth/2fa/approval").status_code == 409, "nobody has approved yet"
    listed = other_app.call("GET", "account/approvals").json()["data"]
    assert listed["may_approve"] is True
    (waits,) = listed["waiting"]
    assert waits["network"] == "127.0.0.1"
    # The number itself is nowhere in it; ids, times and 127.0.0.1 have digits of their own.
    told = set(waits) - {"id", "asked_at", "expires_at", "network"}
    assert not any(str(number) in str(waits[key]) for key in told)
    assert number not in waits.values()
    answer = other_app.call(
        "POST", f"account/approvals/{waits['id']}", answer="yes", number=str(number)
    )
    assert answer.json()["data"] == {"state": "approved"}
    assert other_app.call("GET", "account/approvals").json()["data"]["waiting"] == []
    assert app.call("GET", "auth/2fa/approval").json()["data"] == {"state": "approved"}
    assert not app.is_signed_in()
    assert app.call("PUT", "auth/2fa/approval").status_code == 200
    assert app.is_signed_in()
    assert app.call("PUT", "auth/2fa/approval").status_code == 401, "once"


def test_v6_6_4_an_app_that_sends_a_wrong_number_lets_nobody_in(
    alice: User, other_app: App
) -> None:
    app = app_at_the_second_step(alice)
    number = app.call("POST", "auth/2fa/approval").json()["data"]["number"]
    address = f"account/approvals/{newest(alice).pk}"
    for body in ({}, {"answer": "maybe"}, {"answer": "yes", "number": ["1"]}):
        assert other_app.call("POST", address, **body).status_code == 400
    wrong = other_app.call("POST", address, answer="yes", number=99 if number != 99 else 98)
    assert (wrong.status_code, wrong.json()["errors"][0]["code"]) == (400, "wrong_number")
    late = other_app.call("POST", address, answer="yes", number=number)
    assert (late.status_code, late.json()["errors"][0]["code"]) == (409, "not_waiting")
    assert app.call("GET", "auth/2fa/approval").json()["data"] == {"state": "mismatched"}
    assert app.call("PUT", "auth/2fa/approval").status_code == 409
    assert not app.is_signed_in()


def test_an_app_refuses_and_the_owner_is_told(alice: User, other_app: App) -> None:
    app = app_at_the_second_step(alice)
    app.call("POST", "auth/2fa/approval")
    answer = other_app.call("POST", f"account/approvals/{newest(alice).pk}", answer="no")
    assert answer.json()["data"] == {"state": "denied"}
    assert app.call("GET", "auth/2fa/approval").json()["data"] == {"state": "denied"}
    assert "You refused a sign-in" in mails_to(alice.email)


def test_v6_6_4_an_app_prompts_three_times_in_ten_minutes_at_most(
    alice: User, other_app: App
) -> None:
    app = app_at_the_second_step(alice)
    for _prompt in range(approvals.MOST_PROMPTS):
        assert app.call("POST", "auth/2fa/approval").status_code == 200
    refused = app.call("POST", "auth/2fa/approval")
    assert refused.status_code == 429
    assert 0 < int(refused["Retry-After"]) <= 600


def test_an_app_without_a_second_step_of_its_own_approves_nothing(
    alice: User, seed: str, other_app: App
) -> None:
    app = app_at_the_second_step(alice)
    number = app.call("POST", "auth/2fa/approval").json()["data"]["number"]
    address = f"account/approvals/{newest(alice).pk}"
    other_app.call("POST", address, answer="yes", number=number)
    assert app.call("PUT", "auth/2fa/approval").status_code == 200
    third = app_at_the_second_step(alice)
    number = third.call("POST", "auth/2fa/approval").json()["data"]["number"]
    listed = app.call("GET", "account/approvals").json()["data"]
    assert listed["may_approve"] is False
    address = f"account/approvals/{newest(alice).pk}"
    refused = app.call("POST", address, answer="yes", number=number)
    assert refused.status_code == 401
    flows = [flow["id"] for flow in refused.json()["data"]["flows"]]
    assert "mfa_reauthenticate" in flows
    assert not third.is_signed_in()


def test_an_app_is_told_when_nobody_could_approve(alice: User, seed: str) -> None:
    app = app_at_the_second_step(alice)
    refused = app.call("POST", "auth/2fa/approval")
    assert (refused.status_code, refused.json()["errors"][0]["code"]) == (409, "nobody_to_ask")


def test_a13_apps_reach_no_approval_without_the_right_password_or_a_session(
    alice: User, other_app: App, charlie: User
) -> None:
    for method in ("GET", "POST", "PUT"):
        assert App().call(method, "auth/2fa/approval").status_code == 401
    assert App().call("GET", "account/approvals").status_code == 401
    app = app_at_the_second_step(alice)
    number = app.call("POST", "auth/2fa/approval").json()["data"]["number"]
    address = f"account/approvals/{newest(alice).pk}"
    assert App().call("POST", address, answer="yes", number=number).status_code == 401
    stranger = App()
    stranger.call("POST", "auth/login", email=charlie.email, password=PASSWORD)
    charlies = add_app(signed_in_tab(charlie.email))[0]
    stranger = App()
    stranger.call("POST", "auth/login", email=charlie.email, password=PASSWORD)
    at = timezone.now() + timedelta(minutes=1)
    with time_machine.travel(at, tick=False):
        stranger.call("POST", "auth/2fa/authenticate", code=code_at(charlies))
        assert stranger.call("GET", "account/approvals").json()["data"]["waiting"] == []
        answer = stranger.call("POST", address, answer="yes", number=number)
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (409, "not_waiting")
    assert app.call("PUT", "auth/2fa/approval").status_code == 409


def test_after_a_change_of_password_no_approval_opens(alice: User, phone: Client) -> None:
    laptop, number = asking(alice)
    answer(phone, alice, number)
    new = "nine ships in the quiet morning"
    change = {"oldpassword": PASSWORD, "password1": new, "password2": new}
    assert phone.post("/password/change/", change).status_code == 302
    finish(laptop)
    assert not is_signed_in(laptop)


def test_v6_1_1_the_figures_are_documented() -> None:
    text = re.sub(r"\s+", " ", LIMITS.read_text())
    minutes = int(approvals.PROMPTS_WITHIN.total_seconds() // 60)
    assert f"at most {approvals.MOST_PROMPTS} prompts in {minutes} min" in text
    assert f"answered within {int(approvals.LASTS.total_seconds() // 60)} min" in text
