"""What the ladder's counts of a whole day hold back, where those of minutes are kept to."""

from __future__ import annotations

import contextlib
from datetime import timedelta

import pytest
from django.test import Client
from server.tests.accounts.test_lockout import (
    Clock,
    alices_known,  # noqa: F401 - a fixture
    clock,  # noqa: F401 - a fixture
    is_in,
    sign_in,
)
from server.tests.conftest import PASSWORD

from doorward.accounts import lockout
from doorward.accounts.models import Account, User

HERE = "198.51.100.9"


@pytest.mark.django_db
def test_c4_after_a_hundred_failures_of_a_day_a_network_has_known_browsers_and_the_link(
    alice: User,
    alices_known: Client,  # noqa: F811 - the fixture
    clock: Clock,  # noqa: F811 - as above
) -> None:
    compared = 0
    # Nine at a time, eleven minutes apart: neither too many at once nor too many addresses.
    for number in range(117):
        with contextlib.suppress(lockout.Locked):
            lockout.begin(f"person{number}@example.org", ip=HERE, browser=None)
            compared += 1
        if number % 9 == 8:
            clock.shift(timedelta(minutes=11))
    assert compared == 100
    assert "We can e-mail you a link" in sign_in(alice.email, PASSWORD, ip=HERE).content.decode()
    assert is_in(sign_in(alice.email, PASSWORD, tab=alices_known, ip=HERE))
    assert is_in(sign_in(alice.email, PASSWORD, ip="198.51.100.10"))
    clock.shift(timedelta(hours=24))
    assert is_in(sign_in(alice.email, PASSWORD, ip=HERE))


@pytest.mark.django_db
def test_c8_after_ten_failures_of_a_day_proving_again_ends_the_session(
    alice: User,
    alices_account: Account,
    clock: Clock,  # noqa: F811 - as above
) -> None:
    browser = Client(HTTP_HOST="localhost")
    sign_in(alice.email, PASSWORD, tab=browser)
    for _try in range(10):
        browser.post("/reauthenticate/", {"password": "wrong"})
        assert "_auth_user_id" in browser.session
        clock.shift(timedelta(minutes=6))
    browser.post("/reauthenticate/", {"password": PASSWORD})
    assert "_auth_user_id" not in browser.session
