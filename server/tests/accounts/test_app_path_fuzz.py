"""Whatever an app sends to /_allauth/ is answered, and never by a failure of ours."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.test import Client
from django.urls import get_resolver
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from server.tests.accounts.test_signing_in import App
from server.tests.api.test_fuzz import METHODS, texts, values
from server.tests.conftest import PASSWORD

from doorward.accounts.models import Account, Throttle, User

FIELDS = ["email", "password", "key", "code", "current_password", "new_password", "phone", "x"]
bodies = st.one_of(
    st.none(),
    st.binary(max_size=100),
    st.sampled_from([b"[" * 100_000, b'{"email":' * 20_000, b"{}", b"[]", b"null"]),
    st.dictionaries(st.sampled_from(FIELDS), texts, max_size=4).map(
        lambda fields: json.dumps(fields).encode()
    ),
    st.dictionaries(st.sampled_from(FIELDS), values, max_size=4).map(
        lambda fields: json.dumps(fields).encode()
    ),
)


@pytest.fixture(autouse=True)
def real_hasher(settings: Any, ground: None) -> None:
    """The suite's cheap hash can't take every text; ours can."""
    settings.PASSWORD_HASHERS = ["doorward.accounts.passwords.Argon2idHasher"]


def paths() -> list[str]:
    """Return every address of the app path."""
    found: list[str] = []

    def walk(patterns: Any, prefix: str) -> None:
        for pattern in patterns:
            path = prefix + str(pattern.pattern)
            if hasattr(pattern, "url_patterns"):
                walk(pattern.url_patterns, path)
            elif path.startswith("_allauth/") and "<" not in path and "(" not in path:
                found.append("/" + path)

    walk(get_resolver().url_patterns, "")
    return sorted(found)


@pytest.mark.django_db
@pytest.mark.parametrize("signed_in", [False, True])
def test_a40_mutated_requests_to_the_app_path_are_answered_without_a_failure(
    signed_in: bool, alice: User, alices_account: Account
) -> None:
    client = Client(HTTP_HOST="localhost", raise_request_exception=False)
    app, known = App(), paths()
    assert len(known) > 10

    @hypothesis_settings(
        max_examples=400,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(
        method=st.sampled_from(METHODS),
        path=st.sampled_from(known),
        body=bodies,
        token=st.one_of(st.just(""), st.text(st.characters(max_codepoint=255), max_size=40)),
    )
    def each(method: str, path: str, body: bytes | None, token: str) -> None:
        Throttle.objects.all().delete()
        if signed_in and app.call("GET", "auth/session").status_code != 200:
            app.token = ""
            app.call("POST", "auth/login", email=alice.email, password=PASSWORD)
        answer = client.generic(
            method,
            path,
            data=body or b"",
            content_type="application/json",
            headers={"X-Session-Token": app.token if signed_in else token},
        )
        assert answer.status_code < 500, (method, path, body and body[:200], answer.content[:500])

    each()


@pytest.mark.django_db
@pytest.mark.parametrize("key", ['"\\000aaaaaaaaaaaaaaa"', "x" * 4000, "\u00e9" * 32, "' OR 1=1--"])
def test_a40_a_cookie_that_is_no_session_of_ours_is_no_session(key: str) -> None:
    client = Client(HTTP_HOST="localhost", raise_request_exception=False)
    client.cookies.load("dw_session=x")
    answer = client.get("/devices/", headers={"Cookie": f"dw_session={key}; dw_dev={key}"})
    assert answer.status_code == 302
    body = {"login": "alice@example.org", "password": "wrong"}
    answer = client.post("/login/", body, headers={"Cookie": f"dw_session={key}; dw_dev={key}"})
    assert answer.status_code < 500
