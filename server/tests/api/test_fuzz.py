"""Whatever is sent to the API is answered, and never by a failure of ours."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import pytest
import schemathesis
from django.test import Client
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.core.result import Ok
from server.tests.api.test_api import CALLS, a_device, a_scan, a_threat, script_of

from doorward.accounts.models import Account, User
from doorward.api.urls import api
from doorward.devices.models import Device

METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE"]
NASTY = [
    "",
    "\x00",
    "\ud800",
    "\u202e",
    "🐙" * 70_000,
    "' OR 1=1--",
    "<script>alert(1)</script>",
    "{{7*7}}",
    "%00",
    "\n",
    "..",
    "-1",
    "9223372036854775808",
    "1e999",
    "NaN",
    "null",
    "0001-01-01T00:00:00+23:59",
    "9999-12-31T23:59:59-23:59",
    "00000000-0000-0000-0000-000000000000",
    "ffffffff-ffff-ffff-ffff-ffffffffffff",
]
texts = st.one_of(st.sampled_from(NASTY), st.text(max_size=80), st.uuids().map(str))
values: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), texts),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=12), inner, max_size=4)
    ),
    max_leaves=8,
)
bodies = st.one_of(
    st.none(),
    st.binary(max_size=200),
    values.map(lambda value: json.dumps(value).encode()),
    texts.map(lambda text: json.dumps({"name": text}).encode()),
    st.sampled_from([b"[" * 100_000, b'{"name":' * 50_000, b'{"name": "a", "name": "b"}']),
)
names = st.sampled_from(
    ["cursor", "limit", "device", "since", "until", "text", "is_open", "with_threats", "x"]
)
queries = st.lists(st.tuples(names, texts), max_size=3)
headers = st.dictionaries(
    st.sampled_from(
        [
            "Authorization",
            "X-Session-Token",
            "Content-Type",
            "Accept",
            "Prefer",
            "X-HTTP-Method-Override",
        ]
    ),
    st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=60),
    max_size=2,
)


@pytest.fixture
def everything(alice: User, alices_account: Account) -> dict[str, Any]:
    device = a_device(alices_account)
    return {
        "script": script_of(alice),
        "ids": [str(device.pk), str(a_scan(device).uid), str(a_threat(device).uid)],
    }


def hold_against_nonsense(everything: dict[str, Any], examples: int) -> None:
    script = everything["script"]
    ids = st.one_of(st.sampled_from(everything["ids"]), texts)
    seen: dict[int, int] = {}

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(
        method=st.sampled_from(METHODS),
        call=st.sampled_from(CALLS),
        right_method=st.booleans(),
        thing=ids,
        query=queries,
        more=headers,
        body=bodies,
    )
    def each(
        method: str,
        call: tuple[str, str, str | None],
        right_method: bool,
        thing: str,
        query: list[tuple[str, str]],
        more: dict[str, str],
        body: bytes | None,
    ) -> None:
        path = call[1].replace("{id}", quote(thing.encode("utf-8", "surrogatepass"), safe=""))
        if query:
            path += "?" + "&".join(
                f"{name}={quote(value.encode('utf-8', 'surrogatepass'))}" for name, value in query
            )
        answer = script.call(call[0] if right_method else method, path, body, **more)
        seen[answer.status_code] = seen.get(answer.status_code, 0) + 1
        assert answer.status_code < 500, (method, path[:200], body and body[:200], answer.content)
        if answer.status_code >= 400 and method != "HEAD":
            assert answer.headers["Content-Type"] == "application/problem+json"

    each()
    # It was not all refused at the door: the nonsense got inside.
    assert {200, 401, 404, 405, 422} <= set(seen), seen


@pytest.mark.django_db
def test_a40_mutated_requests_are_answered_without_a_failure(everything: dict[str, Any]) -> None:
    hold_against_nonsense(everything, 300)


@pytest.mark.slow
@pytest.mark.django_db
def test_a40_ten_thousand_mutated_requests_are_answered_without_a_failure(
    everything: dict[str, Any],
) -> None:
    hold_against_nonsense(everything, 10_000)


@pytest.mark.django_db
def test_the_api_keeps_to_its_own_document(everything: dict[str, Any]) -> None:
    """Requests made from the OpenAPI document, right and wrong, get what the document promises."""
    document = json.loads(json.dumps(api.get_openapi_schema(), default=str))
    schema = schemathesis.openapi.from_dict(document)
    called = 0
    for found in schema.get_all_operations():
        assert isinstance(found, Ok)
        called += keep_to_the_document(found.ok(), everything["script"].headers)
    assert called > 100
    assert Device.objects.exists()


def keep_to_the_document(operation: Any, key: dict[str, str]) -> int:
    client = Client(HTTP_HOST="localhost", raise_request_exception=False)
    documented = {int(status) for status in operation.definition.raw["responses"]}
    called = 0

    @settings(
        max_examples=20, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(case=operation.as_strategy())
    def each(case: Any) -> None:
        nonlocal called
        wanted = case.as_transport_kwargs(base_url="http://localhost")
        answer = client.generic(
            wanted["method"],
            case.formatted_path,
            data=json.dumps(wanted["json"]) if wanted.get("json") is not None else "",
            content_type="application/json",
            query_params=wanted.get("params") or {},
            headers=key,
        )
        called += 1
        assert answer.status_code in documented | {404, 405}, answer.content

    each()
    return called
