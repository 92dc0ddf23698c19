"""The API: who may call, what it answers, and how it refuses."""

from __future__ import annotations

import json
from datetime import timedelta
from importlib import import_module
from typing import Any
from uuid import UUID

import pytest
import time_machine
from django.apps import apps
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from server.tests.accounts.second_steps import App
from server.tests.conftest import PASSWORD
from uuid_utils.compat import uuid7

from doorward.accounts import tokens
from doorward.accounts.models import Account, PersonalToken, User
from doorward.accounts.tokens import Scope
from doorward.audit.models import Event
from doorward.devices.models import Device, Presence
from doorward.reports.models import Detection, Disposition, Scan, ScanKind, ScanState, Severity

ALL = [scope.value for scope in Scope]


class Script:
    """A script of somebody's that calls the API with their token."""

    def __init__(self, text: str) -> None:
        self.headers = {"Authorization": f"Bearer {text}"}
        self.client = Client(HTTP_HOST="localhost", raise_request_exception=False)

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        return self.client.generic(
            method,
            f"/api/v1{path}",
            data=b"" if body is None else body if isinstance(body, bytes) else json.dumps(body),
            content_type="application/json",
            headers={**self.headers, **headers},
        )

    def get(self, path: str) -> Any:
        return self.call("GET", path)


def script_of(user: User, *scopes: str) -> Script:
    _token, text = tokens.create(user, name="script", scopes=scopes or ALL, days=30)
    return Script(text)


def a_device(account: Account, name: str = "laptop", **more: Any) -> Device:
    now = timezone.now()
    device = Device.objects.create(
        account=account,
        name=name,
        hostname=name,
        public_key="x" * 43,
        thumbprint=str(uuid7()),
        enrolled_at=now,
        changed_at=now,
        **more,
    )
    Presence.objects.create(device=device, last_seen=now)
    return device


def a_scan(device: Device, **more: Any) -> Scan:
    now = timezone.now()
    facts: dict[str, Any] = {
        "state": ScanState.COMPLETED,
        "kind": ScanKind.MANUAL,
        "files": 12,
        "detections": 1,
    }
    return Scan.objects.create(
        account=device.account,
        device=device,
        uid=uuid7(),
        time=now,
        device_time=0,
        received_at=now,
        **{**facts, **more},
    )


def a_threat(device: Device, **more: Any) -> Detection:
    now = timezone.now()
    facts: dict[str, Any] = {
        "severity": Severity.HIGH,
        "disposition": Disposition.QUARANTINED,
        "reported_disposition": Disposition.QUARANTINED,
        "is_open": False,
        "title": "EICAR test file",
        "rule": "eicar",
        "path": "/home/alice/eicar.com",
    }
    return Detection.objects.create(
        account=device.account,
        device=device,
        uid=uuid7(),
        finding_uid=uuid7(),
        time=now,
        device_time=0,
        received_at=now,
        **{**facts, **more},
    )


@pytest.fixture
def script(alice: User, alices_account: Account) -> Script:
    return script_of(alice)


@pytest.fixture
def laptop(alices_account: Account) -> Device:
    return a_device(alices_account)


@pytest.fixture
def charlies_device(charlie: User) -> Device:
    return a_device(Account.objects.get(memberships__user=charlie), "charlies")


def is_problem(answer: Any, status: int) -> bool:
    content = json.loads(answer.content)
    return bool(
        answer.status_code == status
        and answer.headers["Content-Type"] == "application/problem+json"
        and content["status"] == status
        and content["type"].startswith("urn:doorward:problem:")
        and answer.headers["Cache-Control"] == "no-store"
    )


# -- tokens ----------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_v6_5_2_a_token_is_not_in_the_database(alice: User) -> None:
    token, text = tokens.create(alice, name="backup", scopes=ALL, days=30)
    assert text.startswith("dwp_")
    assert len(text) == 4 + 32
    stored = " ".join(str(value) for value in PersonalToken.objects.values_list()[0])
    assert text not in stored
    assert text[4:] not in stored
    assert text[4:] not in " ".join(Event.objects.values_list("detail", flat=True))
    assert tokens.find(text) == token


@pytest.mark.django_db
@pytest.mark.parametrize(
    "change",
    [
        {"scopes": []},
        {"scopes": ["everything"]},
        {"scopes": ["devices:read", "everything"]},
        {"days": 0},
        {"days": 367},
        {"name": " "},
        {"name": "x" * 81},
        {"name": "x\ny"},
    ],
    ids=str,
)
def test_a_token_that_makes_no_sense_is_not_made(change: dict[str, Any], alice: User) -> None:
    wanted: dict[str, Any] = {"name": "backup", "scopes": ALL, "days": 30, **change}
    with pytest.raises(tokens.TokenRefused):
        tokens.create(alice, **wanted)
    assert not PersonalToken.objects.exists()


@pytest.mark.django_db
def test_a_token_ends_by_time(script: Script) -> None:
    assert script.get("/me").status_code == 200
    with time_machine.travel(timezone.now() + timedelta(days=31), tick=False):
        assert is_problem(script.get("/me"), 401)


@pytest.mark.django_db
def test_v6_5_6_a_revoked_token_is_refused_at_once(alice: User, script: Script) -> None:
    assert script.get("/me").status_code == 200
    (token,) = tokens.of(alice)
    tokens.revoke(token, actor=alice)
    assert is_problem(script.get("/me"), 401)
    assert tokens.of(alice) == []


@pytest.mark.django_db
def test_a26_the_token_of_somebody_shut_out_is_refused(alice: User, script: Script) -> None:
    User.objects.filter(pk=alice.pk).update(is_active=False)
    assert is_problem(script.get("/me"), 401)


@pytest.mark.django_db
def test_a25_a_new_password_ends_every_token(
    alice: User, script: Script, alices_browser: Client
) -> None:
    from server.tests.conftest import PASSWORD

    alices_browser.post("/login/", {"login": alice.email, "password": PASSWORD})
    alices_browser.post(
        "/password/change/",
        {
            "oldpassword": PASSWORD,
            "password1": "nine ships in the morning",
            "password2": "nine ships in the morning",
        },
    )
    alice.refresh_from_db()
    assert alice.check_password("nine ships in the morning")
    assert is_problem(script.get("/me"), 401)


@pytest.mark.django_db
def test_last_used_is_written_at_most_every_five_minutes(alice: User, script: Script) -> None:
    begun = timezone.now()
    with time_machine.travel(begun, tick=False) as clock:
        script.get("/me")
        clock.shift(timedelta(minutes=4))
        script.get("/me")
        assert tokens.of(alice)[0].last_used_at == begun
        clock.shift(timedelta(minutes=2))
        script.get("/me")
        assert tokens.of(alice)[0].last_used_at == begun + timedelta(minutes=6)


# -- who may call ----------------------------------------------------------------------------------

CALLS = [
    ("GET", "/me", None),
    ("POST", "/devices/codes", "devices:write"),
    ("GET", "/devices/codes/{id}", "devices:read"),
    ("GET", "/devices", "devices:read"),
    ("GET", "/devices/{id}", "devices:read"),
    ("PATCH", "/devices/{id}", "devices:write"),
    ("DELETE", "/devices/{id}", "devices:write"),
    ("GET", "/settings", "devices:read"),
    ("PATCH", "/settings", "settings:write"),
    ("GET", "/settings/versions", "devices:read"),
    ("GET", "/devices/{id}/settings", "devices:read"),
    ("PATCH", "/devices/{id}/settings", "settings:write"),
    ("POST", "/devices/{id}/commands", "commands:write"),
    ("GET", "/commands/{id}", "devices:read"),
    ("DELETE", "/commands/{id}", "commands:write"),
    ("GET", "/quarantine", "reports:read"),
    ("GET", "/scans", "reports:read"),
    ("GET", "/scans/{id}", "reports:read"),
    ("GET", "/threats", "reports:read"),
    ("GET", "/threats/{id}", "reports:read"),
    ("GET", "/members", "members:read"),
    # No token may do these: SESSION is no scope.
    ("GET", "/accounts", "SESSION"),
    ("PUT", "/me/sharing", "SESSION"),
    ("POST", "/me/leave", "SESSION"),
    ("PATCH", "/members/{id}", "SESSION"),
    ("DELETE", "/members/{id}", "SESSION"),
    ("GET", "/invitations", "SESSION"),
    ("POST", "/invitations", "SESSION"),
    ("POST", "/invitations/accept", "SESSION"),
    ("POST", "/invitations/decline", "SESSION"),
    ("POST", "/invitations/{id}/resend", "SESSION"),
    ("DELETE", "/invitations/{id}", "SESSION"),
    ("GET", "/ownership-offer", "SESSION"),
    ("POST", "/ownership-offer", "SESSION"),
    ("POST", "/ownership-offer/accept", "SESSION"),
    ("DELETE", "/ownership-offer", "SESSION"),
]
# What must be right about a call for the question who calls to be asked.
QUERIES = {("DELETE", "/members/{id}"): "?devices=stay"}
BODIES: dict[tuple[str, str], dict[str, str]] = {
    ("POST", "/devices/{id}/commands"): {"kind": "key.rotate"},
    ("PATCH", "/devices/{id}"): {"name": "x"},
    ("PATCH", "/settings"): {},
    ("PATCH", "/devices/{id}/settings"): {},
    ("PUT", "/me/sharing"): {"shares": "state"},
    ("POST", "/me/leave"): {"devices": "stay"},
    ("PATCH", "/members/{id}"): {"role": "viewer"},
    ("POST", "/invitations"): {"email": "dora@example.org", "role": "viewer"},
    ("POST", "/invitations/accept"): {"secret": "x" * 32},
    ("POST", "/invitations/decline"): {"secret": "x" * 32},
    ("POST", "/ownership-offer"): {
        "member": "0193d3a4-0000-7000-8000-000000000000",
        "role_after": "viewer",
    },
}


def well_formed(method: str, path: str) -> tuple[str, dict[str, str] | None]:
    """Return the call's address, for an id that nobody has, and a body that is as documented."""
    address = path.replace("{id}", str(uuid7())) + QUERIES.get((method, path), "")
    return address, BODIES.get((method, path))


def test_v8_1_1_every_call_is_in_the_list_above() -> None:
    from doorward.api.urls import api

    prefix = "/api/v1"
    documented = {
        (method.upper(), path.removeprefix(prefix))
        for path, methods in api.get_openapi_schema()["paths"].items()
        for method in methods
    }
    known = {
        (method, path.replace("{id}", f"{{{_id_name(path)}}}")) for method, path, _scope in CALLS
    }
    assert documented == known


def _id_name(path: str) -> str:
    return {
        "codes": "code_id",
        "devices": "device_id",
        "scans": "scan_id",
        "commands": "command_uid",
        "members": "person_id",
        "invitations": "invitation_id",
    }.get(path.partition("/{")[0].split("/")[-1], "threat_id")


@pytest.mark.django_db
@pytest.mark.parametrize(("method", "path", "scope"), CALLS)
def test_a_call_without_a_key_is_refused(method: str, path: str, scope: str | None) -> None:
    address, body = well_formed(method, path)
    for headers in (
        {},
        {"Authorization": "Bearer dwp_nonsense"},
        {"Authorization": "Bearer "},
        {"Authorization": "Bearer dwp_\u00e9"},
        {"X-Session-Token": "nonsense"},
        {"X-Session-Token": "a" * 32},
    ):
        answer = Script("x").call(method, address, body, **{"Authorization": "", **headers})
        assert is_problem(answer, 401), headers


@pytest.mark.django_db
def test_a_cookie_alone_does_not_open_the_api(alices_browser: Client) -> None:
    assert is_problem(alices_browser.get("/api/v1/me"), 401)


@pytest.mark.django_db
@pytest.mark.parametrize(("method", "path", "scope"), CALLS)
def test_a_token_does_only_what_it_was_made_for(
    method: str, path: str, scope: str | None, alice: User, alices_account: Account
) -> None:
    address, body = well_formed(method, path)
    for held in ALL:
        answer = script_of(alice, held).call(method, address, body)
        assert is_problem(answer, 403) == (scope is not None and scope != held)


@pytest.mark.django_db
def test_tokens_from_before_the_finer_scopes_keep_what_they_could_do(
    alice: User, alices_account: Account, laptop: Device
) -> None:
    moved = import_module("doorward.accounts.migrations.0012_scopes_of_their_own")
    old, reader = (
        tokens.create(alice, name="x", scopes=scopes, days=30)
        for scopes in (["devices:read", "devices:write", "members:read"], ["devices:read"])
    )
    moved.keep_what_they_could(apps, None)
    moved.keep_what_they_could(apps, None)
    held = {token.pk: token.scopes for token in PersonalToken.objects.all()}
    assert held == {
        old[0].pk: "devices:read devices:write commands:write settings:write members:read",
        reader[0].pk: "devices:read",
    }
    script = Script(old[1])
    changed = script.call("PATCH", "/settings", {"values": {"quick_scan": {"window": 60}}})
    assert changed.status_code == 200
    laptop.capabilities = ["scan.run"]
    laptop.save()
    scan = {"kind": "scan.run", "args": {"scope": "quick"}}
    assert script.call("POST", f"/devices/{laptop.pk}/commands", scan).status_code == 202
    moved.forget_them(apps, None)
    assert (
        PersonalToken.objects.get(pk=old[0].pk).scopes == "devices:read devices:write members:read"
    )


@pytest.mark.django_db
def test_a_viewer_may_look_and_not_touch(bob: User, laptop: Device) -> None:
    script = script_of(bob)
    assert script.get(f"/devices/{laptop.pk}").status_code == 200
    assert is_problem(script.call("PATCH", f"/devices/{laptop.pk}", {"name": "mine"}), 403)
    assert is_problem(script.call("DELETE", f"/devices/{laptop.pk}"), 403)
    assert is_problem(script.call("POST", "/devices/codes"), 403)


@pytest.mark.django_db
def test_a31_charlies_things_are_not_there_for_alice(
    script: Script, charlies_device: Device
) -> None:
    scan, threat = a_scan(charlies_device), a_threat(charlies_device)
    for method, path, body in (
        ("GET", f"/devices/{charlies_device.pk}", None),
        ("PATCH", f"/devices/{charlies_device.pk}", {"name": "mine"}),
        ("DELETE", f"/devices/{charlies_device.pk}", None),
        ("GET", f"/scans/{scan.uid}", None),
        ("GET", f"/threats/{threat.uid}", None),
    ):
        foreign = script.call(method, path, body)
        nowhere = script.call(method, path.rpartition("/")[0] + f"/{uuid7()}", body)
        assert is_problem(foreign, 404)
        assert foreign.content == nowhere.content
        assert foreign.headers == nowhere.headers
    charlies_device.refresh_from_db()
    assert (charlies_device.name, charlies_device.revoked_at) == ("charlies", None)
    for path in ("/devices", "/scans", "/threats"):
        assert script.get(path).json()["items"] == []
        assert script.get(f"{path}?device={charlies_device.pk}").json()["items"] == []


# -- what it answers -------------------------------------------------------------------------------


@pytest.mark.django_db
def test_me_says_who_and_what_is_covered(
    script: Script, alice: User, laptop: Device, settings: Any
) -> None:
    answer = script.get("/me").json()
    assert answer["user"]["email"] == alice.email
    assert answer["role"] == "owner"
    assert answer["scopes"] == sorted(ALL)
    assert answer["cover"] == {
        "plan": "free",
        "state": "active",
        "until": None,
        "seats": settings.FREE_SEATS,
        "used": 1,
    }


@pytest.mark.django_db
def test_a_code_is_made_and_watched(script: Script) -> None:
    answer = script.call("POST", "/devices/codes")
    assert answer.status_code == 201
    made = answer.json()
    assert len(made["code"]) == 14
    state = script.get(f"/devices/codes/{made['id']}").json()
    assert (state["state"], state["device"]) == ("waiting", None)
    assert "code" not in state


@pytest.mark.django_db
def test_devices_are_listed_part_by_part(script: Script, alices_account: Account) -> None:
    names = [f"laptop {number}" for number in range(5)]
    for name in names:
        a_device(alices_account, name)
    found: list[str] = []
    cursor = ""
    while True:
        part = script.get(f"/devices?limit=2{cursor}").json()
        found += [device["name"] for device in part["items"]]
        if part["next"] is None:
            break
        cursor = f"&cursor={part['next']}"
    assert found == names


@pytest.mark.django_db
@pytest.mark.parametrize("kind", ["scans", "threats"])
def test_reports_are_listed_part_by_part(kind: str, script: Script, laptop: Device) -> None:
    make = a_scan if kind == "scans" else a_threat
    uids = [str(make(laptop).uid) for _number in range(5)]
    found: list[str] = []
    cursor = ""
    while True:
        part = script.get(f"/{kind}?limit=2{cursor}").json()
        found += [row["id"] for row in part["items"]]
        if part["next"] is None:
            break
        cursor = f"&cursor={part['next']}"
    assert found == uids[::-1]


@pytest.mark.django_db
def test_a_threat_says_what_where_when_and_what_was_done(script: Script, laptop: Device) -> None:
    threat = a_threat(laptop)
    (row,) = script.get("/threats?is_open=false&text=EICAR").json()["items"]
    assert row == script.get(f"/threats/{threat.uid}").json()
    assert (row["rule"], row["path"], row["action"], row["device"]["name"]) == (
        "eicar",
        "/home/alice/eicar.com",
        "quarantined",
        "laptop",
    )
    assert script.get("/threats?is_open=true").json()["items"] == []


@pytest.mark.django_db
def test_a_device_is_renamed_and_removed(script: Script, laptop: Device, alice: User) -> None:
    answer = script.call("PATCH", f"/devices/{laptop.pk}", {"name": "kitchen"})
    assert answer.json()["name"] == "kitchen"
    assert script.call("DELETE", f"/devices/{laptop.pk}").status_code == 204
    assert is_problem(script.get(f"/devices/{laptop.pk}"), 404)
    event = Event.objects.get(tag="device.removed")
    assert event.actor_id == alice.pk


@pytest.mark.django_db
def test_v7_5_3_no_token_takes_out_a_sixth_device_in_an_hour(
    script: Script, alice: User, alices_account: Account
) -> None:
    devices = [a_device(alices_account, f"laptop {number}") for number in range(8)]
    another = script_of(alice)
    with time_machine.travel(timezone.now(), tick=False) as clock:
        for device in devices[:5]:
            assert script.call("DELETE", f"/devices/{device.pk}").status_code == 204
        for caller in (script, another):
            refused = caller.call("DELETE", f"/devices/{devices[5].pk}")
            assert is_problem(refused, 403)
            assert refused.json()["code"] == "forbidden"
            assert "use the page" in refused.json()["detail"]
        assert Device.objects.filter(revoked_at=None).count() == 3
        clock.shift(timedelta(hours=1))
        assert script.call("DELETE", f"/devices/{devices[5].pk}").status_code == 204


@pytest.mark.django_db
def test_v7_5_3_an_app_proves_again_before_it_takes_out_a_sixth_device_in_an_hour(
    alice: User, alices_account: Account
) -> None:
    app = App()
    app.call("POST", "auth/login", email=alice.email, password=PASSWORD)
    devices = [a_device(alices_account, f"laptop {number}") for number in range(7)]

    def remove(device: Device) -> Any:
        return Client(HTTP_HOST="localhost").delete(
            f"/api/v1/devices/{device.pk}", headers={"X-Session-Token": app.token}
        )

    for device in devices[:5]:
        assert remove(device).status_code == 204
    refused = remove(devices[5])
    assert is_problem(refused, 403)
    assert refused.json()["code"] == "reauthentication-required"
    assert Device.objects.filter(revoked_at=None).count() == 2
    assert app.call("POST", "auth/reauthenticate", password=PASSWORD).status_code == 200
    for device in devices[5:]:
        assert remove(device).status_code == 204


@pytest.mark.django_db
@pytest.mark.parametrize("path", ["/devices", "/scans", "/threats"])
def test_the_number_of_queries_does_not_grow_with_the_list(
    path: str, script: Script, alices_account: Account
) -> None:
    counts = []
    for _round in range(2):
        for number in range(5):
            device = a_device(alices_account, f"laptop {number}")
            a_scan(device)
            a_threat(device)
        script.get("/me")
        with CaptureQueriesContext(
            connection,
        ) as queries:
            script.get(path)
        counts.append(len(queries))
    assert counts[0] == counts[1] <= 4


# -- how it refuses --------------------------------------------------------------------------------


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/nothing", None, 404),
        ("GET", "/", None, 404),
        ("GET", "/devices/7", None, 404),
        ("GET", "/devices/../../console", None, 404),
        ("PUT", "/devices", {}, 405),
        ("TRACE", "/me", None, 405),
        ("POST", "/threats", {}, 405),
        ("PATCH", "/devices/{id}", {"name": ""}, 422),
        ("PATCH", "/devices/{id}", {"name": "x" * 201}, 422),
        ("PATCH", "/devices/{id}", {"name": 7}, 422),
        ("PATCH", "/devices/{id}", {"name": "a\x00b"}, 422),
        ("PATCH", "/devices/{id}", {"name": "a\u202eb"}, 422),
        ("PATCH", "/devices/{id}", {"name": "x", "account_id": "y"}, 422),
        ("PATCH", "/devices/{id}", {"name": "x", "seats": 100}, 422),
        ("PATCH", "/devices/{id}", {}, 422),
        ("PATCH", "/devices/{id}", b'{"name": "\\ud800"}', 422),
        ("PATCH", "/devices/{id}", b"[" * 200_000, 400),
        ("PATCH", "/devices/{id}", b"\xff\xfe", 400),
        ("PATCH", "/devices/{id}", b'{"name": NaN}', 422),
        ("PATCH", "/devices/{id}", b'{"name": "' + b"x" * 3_000_000 + b'"}', 413),
        ("GET", "/devices?limit=0", None, 422),
        ("GET", "/devices?limit=201", None, 422),
        ("GET", "/devices?limit=99999999999999999999", None, 422),
        ("GET", "/devices?cursor=x", None, 422),
        ("GET", "/scans?cursor=x", None, 422),
        ("GET", "/scans?cursor=%00", None, 422),
        ("GET", "/scans?since=yesterday", None, 422),
        ("GET", "/scans?since=0001-01-01T00:00:00%2B14:00", None, 422),
        ("GET", "/scans?until=9999-12-31T23:59:59-14:00", None, 422),
        ("GET", "/threats?text=%00", None, 422),
        ("GET", "/threats?is_open=perhaps", None, 422),
        ("GET", "/threats?device=7", None, 422),
    ],
)
def test_v15_3_3_what_is_wrong_is_refused_in_words(
    method: str, path: str, body: Any, status: int, script: Script, laptop: Device
) -> None:
    answer = script.call(method, path.replace("{id}", str(laptop.pk)), body)
    assert is_problem(answer, status), answer.content
    laptop.refresh_from_db()
    assert laptop.name == "laptop"


@pytest.mark.django_db
def test_v16_5_1_a_failure_of_ours_is_a_problem_without_its_insides(
    script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    from doorward.devices import queries

    def fail(*_args: object, **_more: object) -> None:
        raise ZeroDivisionError("the secret inside")

    monkeypatch.setattr(queries, "page", fail)
    answer = script.get("/devices")
    assert is_problem(answer, 500)
    assert b"secret" not in answer.content


@pytest.mark.django_db
@pytest.mark.parametrize(
    "evil",
    [
        "<img src=x onerror=alert(1)>",
        '"><svg onload=alert(1)>',
        "{{7*7}}",
        "=HYPERLINK(1)",
        "%27%20OR%201=1--",
        "🐙" * 100,
    ],
)
def test_a43_hostile_text_is_text(evil: str, script: Script, laptop: Device) -> None:
    answer = script.call("PATCH", f"/devices/{laptop.pk}", {"name": evil})
    assert answer.headers["Content-Type"].startswith("application/json")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.json()["name"] == evil
    assert script.get("/devices").json()["items"][0]["name"] == evil


@pytest.mark.django_db
def test_an_app_that_signed_in_calls_by_its_session(alice: User, alices_account: Account) -> None:
    from server.tests.accounts.test_signing_in import App
    from server.tests.conftest import PASSWORD

    app = App()
    app.call("POST", "auth/login", email=alice.email, password=PASSWORD)
    client = Client(HTTP_HOST="localhost")
    answer = client.get("/api/v1/me", headers={"X-Session-Token": app.token})
    assert answer.status_code == 200
    assert UUID(answer.json()["account"]["id"]) == alices_account.pk
    assert "Set-Cookie" not in answer.headers
    app.call("DELETE", "auth/session")
    answer = client.get("/api/v1/me", headers={"X-Session-Token": app.token})
    assert is_problem(answer, 401)


def test_the_openapi_document_is_served_and_names_the_problems() -> None:
    answer = Client(HTTP_HOST="localhost").get("/api/v1/openapi.json")
    assert answer.status_code == 200
    document = answer.json()
    responses = document["paths"]["/api/v1/devices/{device_id}"]["get"]["responses"]
    assert "application/problem+json" in responses["404"]["content"]
    assert set(document["components"]["securitySchemes"]) == {"SessionAuth", "TokenAuth"}
