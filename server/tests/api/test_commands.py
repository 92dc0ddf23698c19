"""Commands over the API."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any, get_args
from uuid import uuid4

import pytest
import time_machine
from django.utils import timezone
from server.tests.accounts.test_signing_in import App
from server.tests.api.test_api import Script, a_device, a_threat, is_problem, script_of
from server.tests.conftest import PASSWORD

from doorward.accounts.models import Account, Membership, Role, Shares, User
from doorward.api.commands import Kind
from doorward.devices import commands
from doorward.devices.models import Command, Device
from doorward_protocol.messages import COMMAND_KINDS

pytestmark = pytest.mark.django_db
QUICK = {"kind": "scan.run", "args": {"scope": "quick"}}


@pytest.fixture
def laptop(alices_account: Account) -> Device:
    return a_device(alices_account, capabilities=list(COMMAND_KINDS), os_name="linux")


@pytest.fixture
def script(alice: User, alices_account: Account) -> Script:
    return script_of(alice)


def answered(answer: Any, status: int = 202) -> Any:
    assert answer.status_code == status, answer.content
    return json.loads(answer.content)


class SignedIn(Script):
    """An app of this person's, which may have them prove again who they are."""

    def __init__(self, user: User, *, fresh: bool = True) -> None:
        super().__init__("")
        self.app = App()
        self.app.call("POST", "auth/login", email=user.email, password=PASSWORD)
        if fresh:
            self.prove()

    def prove(self) -> None:
        assert self.app.call("POST", "auth/reauthenticate", password=PASSWORD).status_code == 200
        self.headers = {"X-Session-Token": self.app.token}


def test_the_documented_kinds_are_the_protocols() -> None:
    assert get_args(Kind) == COMMAND_KINDS


def test_a_command_is_asked_watched_and_taken_back(script: Script, laptop: Device) -> None:
    asked = answered(script.call("POST", f"/devices/{laptop.pk}/commands", QUICK))
    assert (asked["state"], asked["kind"], asked["device"]) == (
        "queued",
        "scan.run",
        str(laptop.pk),
    )
    uid = asked["command_uid"]
    assert answered(script.get(f"/commands/{uid}"), 200)["state"] == "queued"
    assert answered(script.call("DELETE", f"/commands/{uid}"), 200)["state"] == "canceled"
    assert answered(script.call("DELETE", f"/commands/{uid}"), 200)["state"] == "canceled"


def test_asked_again_with_the_same_uid_it_is_one_command(script: Script, laptop: Device) -> None:
    wanted = {**QUICK, "command_uid": str(uuid4())}
    for _ in range(3):
        asked = answered(script.call("POST", f"/devices/{laptop.pk}/commands", wanted))
        assert asked["command_uid"] == wanted["command_uid"]
    assert Command.objects.count() == 1
    other = {**wanted, "args": {"scope": "full"}}
    assert is_problem(script.call("POST", f"/devices/{laptop.pk}/commands", other), 409)


@pytest.mark.parametrize(
    "wanted",
    [
        {"kind": "exec", "args": {}},
        {"kind": "scan.run"},
        {"kind": "scan.run", "args": {"scope": "quick", "paths": ["/"]}},
        {"kind": "scan.run", "args": {"paths": ["relative"]}},
        {"kind": "scan.run", "args": {"paths": ["/home/../etc"]}},
        {"kind": "scan.run", "args": {"paths": ["/home/\u0000x"]}},
        {"kind": "scan.run", "args": {"paths": ["/home/\n"]}},
        {"kind": "scan.run", "args": {"paths": ["/x"] * 33}},
        {"kind": "scan.run", "args": {"paths": ["/" + "x" * 4096]}},
        {"kind": "scan.run", "args": {"scope": "quick", "program": "sh"}},
        {"kind": "key.rotate", "args": {"scope": "quick"}},
        {"kind": "diagnostics.collect", "args": {"paths": ["/etc/shadow"]}},
    ],
)
def test_a51_what_is_not_in_the_schema_is_refused(
    script: Script, laptop: Device, wanted: Any
) -> None:
    assert is_problem(script.call("POST", f"/devices/{laptop.pk}/commands", wanted), 422)
    assert not Command.objects.exists()


@pytest.mark.parametrize("path", ["\\\\evil\\share", "C:x", "c:\\a\\..\\b", "C:\\a:stream", "/x"])
def test_a51_a_path_of_another_kind_is_refused_on_windows(
    script: Script, laptop: Device, path: str
) -> None:
    Device.objects.update(os_name="windows")
    wanted = {"kind": "scan.run", "args": {"paths": [path]}}
    assert is_problem(script.call("POST", f"/devices/{laptop.pk}/commands", wanted), 422)
    wanted["args"] = {"paths": ["C:\\Users\\alice"]}
    answered(script.call("POST", f"/devices/{laptop.pk}/commands", wanted))


def test_a_kind_the_device_did_not_declare_is_a_conflict(script: Script, laptop: Device) -> None:
    Device.objects.update(capabilities=["scan.run"])
    wanted = {"kind": "definitions.update"}
    assert is_problem(script.call("POST", f"/devices/{laptop.pk}/commands", wanted), 409)


def test_a51_a_token_lets_no_file_out_and_a_session_only_after_a_fresh_proof(
    script: Script, alice: User, laptop: Device
) -> None:
    held = a_threat(laptop, quarantine_id=uuid4())
    for kind in ("quarantine.restore", "quarantine.delete"):
        wanted = {"kind": kind, "args": {"quarantine_id": str(held.quarantine_id)}}
        path = f"/devices/{laptop.pk}/commands"
        assert is_problem(script.call("POST", path, wanted), 403)
        app = SignedIn(alice, fresh=False)
        app.headers = {"X-Session-Token": app.app.token}
        refused = app.call("POST", path, wanted)
        assert json.loads(refused.content)["code"] == "reauthentication-required"
        assert not Command.objects.filter(kind=kind).exists()
        app.prove()
        answered(app.call("POST", path, wanted))


def test_a51_letting_many_files_out_takes_a_quarter_of_an_hour(alice: User, laptop: Device) -> None:
    app = SignedIn(alice)
    delays = []
    for _ in range(commands.RESTORES_AT_ONCE + 2):
        held = a_threat(laptop, quarantine_id=uuid4())
        wanted = {
            "kind": "quarantine.restore",
            "args": {"quarantine_id": str(held.quarantine_id)},
        }
        asked = answered(app.call("POST", f"/devices/{laptop.pk}/commands", wanted))
        delays.append(asked["not_before"] > asked["created_at"])
    assert delays == [False, False, False, True, True]
    with time_machine.travel(timezone.now() + timedelta(minutes=14)):
        assert len(commands.send(laptop.pk, timezone.now()).commands) == 3
    with time_machine.travel(timezone.now() + timedelta(minutes=16)):
        before = Device.objects.get().commanded_at
        assert commands.settle_due(timezone.now()) == 1
        assert Device.objects.get().commanded_at != before
        assert len(commands.send(laptop.pk, timezone.now()).commands) == 5


def test_what_is_not_in_quarantine_on_the_device_cant_be_let_out(
    alice: User, laptop: Device, charlies_held: str
) -> None:
    for found in (charlies_held, str(uuid4())):
        wanted = {"kind": "quarantine.restore", "args": {"quarantine_id": found}}
        answer = SignedIn(alice).call("POST", f"/devices/{laptop.pk}/commands", wanted)
        assert is_problem(answer, 409)


@pytest.fixture
def charlies_held(charlie: User) -> str:
    device = a_device(Account.objects.get(memberships__user=charlie), "charlies")
    return str(a_threat(device, quarantine_id=uuid4()).quarantine_id)


def test_a31_charlie_sees_and_stops_nothing_of_alices(
    script: Script, charlie: User, laptop: Device
) -> None:
    uid = answered(script.call("POST", f"/devices/{laptop.pk}/commands", QUICK))["command_uid"]
    other = script_of(charlie)
    assert is_problem(other.get(f"/commands/{uid}"), 404)
    assert is_problem(other.call("DELETE", f"/commands/{uid}"), 404)
    assert is_problem(other.call("POST", f"/devices/{laptop.pk}/commands", QUICK), 404)
    assert Command.objects.get().state == "queued"


def test_of_a_members_device_files_are_neither_shown_nor_chosen(
    alices_account: Account, script: Script, laptop: Device, bob: User
) -> None:
    Device.objects.update(member=bob)
    Membership.objects.filter(user=bob).update(role=Role.VIEWER, shares=Shares.FINDINGS)
    held = a_threat(laptop, quarantine_id=uuid4())
    wanted = {"kind": "scan.run", "args": {"paths": ["/home/bob"]}}
    assert is_problem(script.call("POST", f"/devices/{laptop.pk}/commands", wanted), 403)
    (item,) = answered(script.get("/quarantine"), 200)["items"]
    assert (item["path"], item["quarantine_id"]) == ("", str(held.quarantine_id))
    Membership.objects.filter(user=bob).update(shares=Shares.STATE)
    assert answered(script.get("/quarantine"), 200)["items"] == []
    uid = answered(script.call("POST", f"/devices/{laptop.pk}/commands", QUICK))["command_uid"]
    assert answered(script.get(f"/commands/{uid}"), 200)["progress"] is None


def test_quarantine_is_read_by_pages(script: Script, laptop: Device) -> None:
    for number in range(5):
        a_threat(laptop, quarantine_id=uuid4(), path=f"/home/{number}")
    a_threat(laptop, quarantine_id=uuid4(), disposition=9)
    first = answered(script.get("/quarantine?limit=3"), 200)
    rest = answered(script.get(f"/quarantine?limit=3&cursor={first['next']}"), 200)
    paths = [item["path"] for page in (first, rest) for item in page["items"]]
    assert sorted(paths) == [f"/home/{number}" for number in range(5)]
    assert rest["next"] is None
