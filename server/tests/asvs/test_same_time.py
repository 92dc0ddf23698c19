"""Row 18: an answer's time does not tell whether an address has an account (A08)."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import pytest
from django.core.cache import cache
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from doorward.accounts.models import SpreadMark, Throttle, User

# "Median time difference < 5 % or < 3 ms over 200 alternated tries": the shared list A1, row 18.
TRIES = 200
SHARE = 0.05
MILLISECONDS = 3.0

HASHERS = ["doorward.accounts.passwords.SodiumArgon2Hasher"]
PASSWORD = "nine ships in the quiet morning"


def fresh() -> Client:
    """Return a browser nobody knows, with every count forgotten: each try is a first one."""
    Throttle.objects.all().delete()
    SpreadMark.objects.all().delete()
    cache.clear()
    return Client(HTTP_HOST="localhost")


def login(address: str) -> Any:
    return fresh().post("/login/", {"login": address, "password": "wrong"})


def login_by_json(address: str) -> Any:
    return fresh().post(
        "/_allauth/app/v1/auth/login",
        {"email": address, "password": "wrong"},
        content_type="application/json",
    )


def reset(address: str) -> Any:
    return fresh().post("/password/reset/", {"email": address})


def reset_by_json(address: str) -> Any:
    return fresh().post(
        "/_allauth/app/v1/auth/password/request",
        {"email": address},
        content_type="application/json",
    )


def link(address: str) -> Any:
    return fresh().post("/login/link/", {"email": address})


def signup(address: str) -> Any:
    return fresh().post("/signup/", {"email": address, "password1": PASSWORD})


def signup_by_json(address: str) -> Any:
    return fresh().post(
        "/_allauth/app/v1/auth/signup",
        {"email": address, "password": PASSWORD},
        content_type="application/json",
    )


FLOWS = (login, login_by_json, reset, reset_by_json, link, signup, signup_by_json)


def strangers() -> Callable[[], str]:
    """Return what gives a new address, as long as Alice's, at each call."""
    number = iter(range(10_000, 99_999))
    return lambda: f"{next(number)}@example.org"


@pytest.mark.slow
@pytest.mark.django_db
@pytest.mark.parametrize("flow", FLOWS, ids=lambda flow: flow.__name__)
def test_v6_3_8_a08_known_and_unknown_addresses_take_the_same_time(
    flow: Callable[[str], Any], alice: User, settings: Any
) -> None:
    settings.PASSWORD_HASHERS = HASHERS
    alice.set_password("a door that opens for Alice")
    alice.save()
    stranger = strangers()
    spent: dict[bool, list[float]] = {True: [], False: []}
    for turn in range(TRIES + 10):
        # Who comes first changes: what the one leaves warm must not be the other's gain.
        for known in (True, False) if turn % 2 else (False, True):
            address = alice.email if known else stranger()
            # The thread's own processor time: the machine's other work is not in it.
            began = time.thread_time()
            answer = flow(address)
            took = (time.thread_time() - began) * 1e3
            assert answer.status_code in {200, 302, 400, 401}, answer.content
            if turn >= 10:
                spent[known].append(took)
    known_ms, unknown_ms = statistics.median(spent[True]), statistics.median(spent[False])
    apart = abs(known_ms - unknown_ms)
    told = f"known {known_ms:.2f} ms, unknown {unknown_ms:.2f} ms"
    print(f"\n{flow.__name__}: {told}")  # noqa: T201 - the figures of docs/security/tried.md
    assert apart < MILLISECONDS or apart / max(known_ms, unknown_ms) < SHARE, told


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("flow", FLOWS, ids=lambda flow: flow.__name__)
def test_v6_3_8_a08_known_and_unknown_addresses_wait_for_the_disk_equally_often(
    flow: Callable[[str], Any], alice: User
) -> None:
    stranger = strangers()
    commits: dict[bool, int] = {}
    said: dict[bool, str] = {}
    for known in (True, False):
        flow(alice.email if known else stranger())
        with CaptureQueriesContext(connection) as captured:
            flow(alice.email if known else stranger())
        statements = [query["sql"] for query in captured]
        commits[known] = sum(statement == "COMMIT" for statement in statements)
        # Outside a transaction every change is a commit of its own.
        depth = 0
        for statement in statements:
            if statement.startswith("BEGIN"):
                depth += 1
            elif statement in {"COMMIT", "ROLLBACK"}:
                depth -= 1
            elif not depth and statement.split(" ", 1)[0] in {"INSERT", "UPDATE", "DELETE"}:
                commits[known] += 1
        said[known] = "\n".join(statement[:90] for statement in statements)
    assert commits[True] == commits[False], said
