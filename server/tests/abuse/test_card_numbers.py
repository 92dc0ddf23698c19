"""Card numbers written to support as people write them: none is kept (row A3)."""

from __future__ import annotations

import re
import time
from datetime import timedelta

import pytest
import time_machine
from allauth.mfa.models import Authenticator
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st
from server.tests.accounts.second_steps import signed_in_tab, tab
from server.tests.accounts.test_privacy import residue
from server.tests.conftest import PASSWORD
from server.tests.portal.stock import device_of
from uuid_utils.compat import uuid7

from doorward.accounts import invitations, lockout, person, recovery, tokens
from doorward.accounts.models import Account, Role, SecondStepChoice, User
from doorward.accounts.origin import Origin
from doorward.audit import card_numbers, trail
from doorward.audit.models import Event
from doorward.devices import removal
from doorward.protection import policy
from doorward.support.models import Ticket

HERE = Origin("203.0.113.9", "Firefox")
CARD = "4242424242424242"


@pytest.mark.parametrize(
    "written",
    [
        "4242 4242 4242 4242 12/27",
        "4242 4242 4242 4242 123",
        "12/27 4242424242424242",
        "4242424242424242 123 12/2027",
        "4242  4242  4242  4242",
        "4242–4242–4242–4242",
        "4242/4242/4242/4242",
        "4242_4242_4242_4242",
        "4242, 4242, 4242, 4242",
        "4242\n4242\n4242\n4242",
        "4242\u200b4242\u200b4242\u200b4242",
        "2 paid 4242 4242 4242 4242",
        "on 22.11. 4242 4242 4242 4242",
    ],
)
@pytest.mark.django_db
def test_row_a3_a_card_number_beside_other_numbers_is_not_stored(written: str) -> None:
    answer = tab().post(
        "/help/ask/", {"reply_to": "dora@example.org", "about": "other", "words": written}
    )
    assert answer.status_code == 200
    kept = Ticket.objects.get().words
    assert CARD not in re.sub(r"\D", "", kept)
    assert "••••4242" in kept


@given(
    st.lists(st.integers(0, 9), min_size=12, max_size=18),
    st.sampled_from(["", " ", "-", " - ", "\n"]),
    st.integers(2, 6),
)
def test_row_a3_no_valid_number_is_left_however_it_is_grouped(
    begun: list[int], between: str, size: int
) -> None:
    check = next(last for last in range(10) if card_numbers.is_card_number([*begun, last]))
    number = "".join(map(str, [*begun, check]))
    if number.startswith(("19", "20")):
        # Taken for a date where it is written in fours; no card is numbered so.
        between = ""
    written = between.join(number[at : at + size] for at in range(0, len(number), size))
    assert number not in re.sub(r"\D", "", card_numbers.hide(f"it is {written}, twice"))


@pytest.mark.parametrize("sign", ["4 ", "42-", "1", "4242 ", "4\n"])
def test_row_79_a_long_text_of_digits_takes_no_time(sign: str) -> None:
    def cost(times: int) -> float:
        """The least processor time of three tries: what else runs only adds."""
        tries = []
        for _try in range(3):
            began = time.thread_time()
            card_numbers.hide(sign * times)
            tries.append(time.thread_time() - began)
        return min(tries)

    # Sixteen times as long: sixteen times as much where each digit is looked at once, 256 times
    # where each is looked at together with each.
    assert cost(40_000) < 64 * cost(2_500)


@pytest.mark.django_db
def test_row_a3_no_field_that_people_type_into_keeps_a_card_number(
    alice: User, alices_account: Account, charlie: User
) -> None:
    written = "my card 4242 4242 4242 4242"
    home = signed_in_tab(alice.email)
    home.post("/reauthenticate/", {"password": PASSWORD})
    home.post("/account/", {"name": written, "zone": ""})
    laptop = device_of(alices_account, hostname="laptop", member=alice)
    home.post(f"/devices/{laptop.pk}/", {"name": written})
    removal.rename(laptop, written, actor=alice)
    home.post("/account/tokens/", {"name": written, "scopes": "devices:read", "days": "7"})
    key = Authenticator.objects.create(
        user=alice, type="webauthn", data={"name": written, "credential": {}}
    )
    home.post(f"/account/security/webauthn/keys/{key.pk}/edit/", {"name": written})
    group = policy.Delta("group", uuid7(), {"name": written, "values": {}, "locked": []})
    policy.save(alices_account, [group], actor=alice, proven=True, why=written)
    invited = invitations.invite(
        alices_account, email="dora@example.org", role=Role.VIEWER, actor=alice, origin=HERE
    )
    assert invited is not None
    SecondStepChoice.objects.update_or_create(user=charlie, defaults={"by_email": True})
    User.objects.filter(pk=alice.pk).update(is_operator=True)
    recovery.ask_as_operator(charlie, alice, f"Met at the desk, {written}")
    trail.seal()
    alice.refresh_from_db()
    laptop.refresh_from_db()
    key.refresh_from_db()
    kept = [alice.name, laptop.name, key.data["name"], *(each.name for each in tokens.of(alice))]
    assert len(kept) == 4
    for name in kept:
        assert "••••4242" in name
    assert residue(["4242 4242", "42424242"]) == []


def test_row_a3_a_newcomer_has_no_card_number_for_a_name() -> None:
    assert person.plain_name("Dora 4242-4242-4242-4242\n") == "Dora ••••4242"


@pytest.mark.django_db
def test_everybody_together_writes_a_hundred_questions_an_hour_and_is_told() -> None:
    def ask(number: int) -> tuple[int, str]:
        answer = tab().post(
            "/help/ask/",
            {"reply_to": f"p{number}@example.org", "about": "other", "words": "It is slow here"},
            REMOTE_ADDR=f"10.1.{number // 200}.{number % 200 + 1}",
        )
        return answer.status_code, answer.content.decode()

    for number in range(lockout.QUESTION_ALL.most):
        assert ask(number)[0] == 200
    for number in (300, 301):
        status, page = ask(number)
        assert status == 429
        assert "nothing more is taken in" in page
        assert "It is slow here" in page, "what was written is still there"
    assert Ticket.objects.count() == lockout.QUESTION_ALL.most
    assert Event.objects.filter(tag="operator.alert.questions").count() == 1
    with time_machine.travel(timezone.now() + timedelta(hours=1, seconds=5)):
        assert ask(302)[0] == 200
