"""Card numbers written to support as people write them: none is kept (row A3)."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from server.tests.accounts.second_steps import tab

from doorward.audit import card_numbers
from doorward.support.models import Ticket

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
    began = time.perf_counter()
    card_numbers.hide(sign * 25_000)
    assert time.perf_counter() - began < 1
