"""What a role allowed when a request began, it must still allow when the request acts (V8.3).

Between the look at somebody's role and what they asked for, their role is taken away, at every page
and call that changes something of an account. Each must be refused and leave everything as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import pytest
from django.apps import apps
from django.core import signing
from django.db import connection, transaction
from django.test import Client
from django.utils import timezone
from server.tests.access.places import CALLS, PAGES
from server.tests.access.test_access import (
    Things,
    address_of,
    call,
    member_with,
    session_of,
)
from server.tests.accounts.test_signing_in import App
from server.tests.api.test_api import BODIES
from server.tests.conftest import PASSWORD, signed_in

from doorward.accounts import members, permissions, tokens
from doorward.accounts.models import Account, Membership, PersonalToken, Role, User
from doorward.accounts.permissions import Act
from doorward.api.callers import Caller
from doorward.devices import commands
from doorward.devices.models import Device
from doorward.portal import before_saving
from doorward.portal.visits import Visit
from doorward.protection import policy
from doorward.protection.policy import Delta

HARMLESS: Final = frozenset({Act.LOOK, Act.DEVICES_LOOK, Act.REPORTS_LOOK, Act.MEMBERS_LOOK})
ONLY_LOOKS: Final = {
    # By POST they show what a change would do, or make ready what is one's own to see.
    "protection_section",
    "protection_group_new",
    "protection_group_edit",
    "protection_group_remove",
    "protection_group_section",
    "protection_undo",
    "protection_go_back",
    "device_settings_group",
    "device_settings_section",
    "threat_wrong",
    "threat_wrong_back",
}
OWN: Final = {
    # What is one's own needs no role but a place; these are tried by taking the place away.
    "account",
    "offer_take",
    "offer_end",
    "member_leave",
    "member_sharing",
    "token_revoke",
}
"""Each of these looks for the place or the offer under the lock (test_members.py)."""


def looked_at(account: Account, **more: Any) -> str:
    """Return a change as the page that shows it puts it into its form."""
    standing = policy.state_of(account)
    change = {
        "account": str(account.pk),
        "deltas": [
            {
                "kind": "account",
                "subject": None,
                "after": {"values": {"quick_scan": {"window": 60}}, "locked": []},
            }
        ],
        "base": standing.newest,
        "undoes": None,
        "beside": None,
        "back": "/protection/",
        "after": "/protection/",
        **more,
    }
    return signing.dumps(change, salt=before_saving.SALT, compress=True)


def forms(account: Account, things: Things) -> dict[str, list[dict[str, str]]]:
    """Return for each page what is to be sent so that it changes something."""
    device, threat = things.ids["device_id"], things.ids["threat"]
    until = int((timezone.now().timestamp() + 86_400) * 1000)
    return {
        "device_add": [{"whose": "account"}],
        "device_rename": [{"name": "another"}],
        "device_remove": [{}],
        "device_settle": [{}],
        "device_copies": [{"keep": "current"}],
        "device_replace": [{"what": "code"}, {"what": "here", "new": str(things.ids["new"])}],
        "device_command_ask": [{"what": "full"}, {"what": "key"}],
        "device_command_cancel": [{}],
        "devices_act": [
            {"what": "full", "item": str(device)},
            {"what": "remove", "sure": "1", "item": str(device)},
        ],
        "device_sends_switch": [{"pointer": "/sharing/scanned_folders", "on": "0"}],
        "protection_save": [{"change": looked_at(account)}],
        "quarantine_act": [
            {"what": "restore", "sure": "1", "item": str(threat)},
            {"what": "delete", "sure": "1", "item": str(threat)},
        ],
        "threat_wrong_save": [
            {
                "change": looked_at(
                    account,
                    beside={"carries": {"threat": str(threat), "words": "", "until": until}},
                )
            }
        ],
        "member_invite": [{"email": "dora@example.org", "role": "helper"}],
        "member_role": [{"role": "helper"}],
        "member_remove": [{"devices": "stay"}],
        "member_hand_over": [{"role_after": "viewer"}],
        "invitation_resend": [{}],
        "invitation_withdraw": [{}],
        "tokens": [{"name": "x", "scopes": "devices:read", "days": "30"}],
    }


def rows(but: User) -> dict[str, list[Any]]:
    """Return all that is stored of accounts, but the place whose role is taken away."""
    found: dict[str, list[Any]] = {}
    for model in apps.get_models():
        if model._meta.app_label in {"accounts", "devices", "protection", "notices", "support"}:
            every = model._default_manager.order_by("pk")
            if model is Membership:
                every = every.exclude(user=but)
            values = [dict(row) for row in every.values()]
            for row in values:
                for moving in ("last_login", "last_seen", "expires", "session_data"):
                    row.pop(moving, None)
            found[model.__name__] = values
    return {name: values for name, values in found.items() if name != "CacheEntry"}


def differing(before: dict[str, list[Any]], after: dict[str, list[Any]]) -> list[str]:
    return [name for name in before if before[name] != after[name]]


@contextmanager
def taken_away_meanwhile(guard: type, user: User, *, whole: bool) -> Iterator[list[int]]:
    """Have the person lose their role right after an edge has looked at it, at its first look."""
    real: Callable[[Any, Act], None] = guard.must  # type: ignore[attr-defined]  # both guards have it
    lost: list[int] = []

    def must(self: Any, act: Act) -> None:
        real(self, act)
        if not lost:
            place = Membership.objects.filter(user=user)
            lost.append(place.delete()[0] if whole else place.update(role=Role.VIEWER))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(guard, "must", must)
        yield lost


@pytest.fixture
def own(alice: User, alices_account: Account) -> Things:
    things = Things(alices_account, alice)
    device = Device.objects.get(pk=things.ids["device_id"])
    device.capabilities = sorted(
        {"scan.run", "key.rotate", "quarantine.restore", "quarantine.delete", "settings"}
    )
    device.cloned_at = timezone.now()
    device.member = None
    device.save()
    from server.tests.portal.stock import device_of

    things.ids["new"] = device_of(alices_account).pk
    return things


def proved(user: User) -> Client:
    browser = signed_in(user)
    browser.post("/reauthenticate/", {"password": PASSWORD})
    return browser


@pytest.mark.django_db
def test_v8_3_1_every_page_that_changes_something_is_tried_below(
    alice: User, alices_account: Account, own: Things
) -> None:
    browser = signed_in(alice)
    changing = {
        name
        for name, place in PAGES.items()
        if isinstance(place, Act)
        and place not in HARMLESS
        and ask(browser, address_of(name, own, {}), {}).status_code != 405
    }
    assert changing == set(forms(alices_account, own)) | ONLY_LOOKS | OWN


def ask(browser: Client, address: str, form: dict[str, str]) -> Any:
    """Send the form, and undo whatever it did."""
    with transaction.atomic():
        answer = browser.post(address, form)
        transaction.set_rollback(True)
    return answer


@pytest.mark.django_db
@pytest.mark.parametrize("whole", [False, True], ids=["role", "place"])
def test_v8_3_1_a_page_does_nothing_for_a_role_that_is_taken_away_meanwhile(
    alices_account: Account, own: Things, *, whole: bool
) -> None:
    user = member_with(Role.OWNER, alices_account)
    browser = proved(user)
    for name, sent in forms(alices_account, own).items():
        if PAGES[name] == Act.OWN and not whole:
            continue  # A viewer may do what is one's own.
        for form in sent:
            address, where = address_of(name, own, {}), (name, form)
            before = rows(user)
            with transaction.atomic():
                allowed = browser.post(address, form)
                changed = differing(before, rows(user))
                transaction.set_rollback(True)
            assert allowed.status_code in {200, 302}, (where, allowed.status_code)
            assert "/reauthenticate/" not in allowed.headers.get("Location", ""), where
            assert changed, where
            with transaction.atomic():
                with taken_away_meanwhile(Visit, user, whole=whole) as lost:
                    answer = browser.post(address, form)
                changed = differing(before, rows(user))
                transaction.set_rollback(True)
            assert lost, where
            assert answer.status_code == 403, (where, answer.status_code)
            assert changed == [], where


@pytest.mark.django_db
@pytest.mark.parametrize("whole", [False, True], ids=["role", "place"])
def test_v8_3_1_a_call_does_nothing_for_a_role_that_is_taken_away_meanwhile(
    alices_account: Account, own: Things, *, whole: bool
) -> None:
    user = member_with(Role.OWNER, alices_account)
    app = App()
    app.call("POST", "auth/login", email=user.email, password=PASSWORD)
    app.call("POST", "auth/reauthenticate", password=PASSWORD)
    key = {"X-Session-Token": app.token}
    bodies: dict[tuple[str, str], Any] = {
        ("PATCH", "/settings"): {"values": {"quick_scan": {"window": 60}}},
        ("PATCH", "/devices/{id}/settings"): {"values": {"quick_scan": {"window": 60}}},
        ("POST", "/devices/{id}/commands"): {"kind": "scan.run", "args": {"scope": "full"}},
        ("PATCH", "/members/{id}"): {"role": "helper"},
        ("POST", "/ownership-offer"): {
            "member": str(own.ids["person_id"]),
            "role_after": "viewer",
        },
    }
    tried = 0
    with pytest.MonkeyPatch.context() as patch:
        for where, body in bodies.items():
            patch.setitem(BODIES, where, body)
        for (method, path), act in CALLS.items():
            if method == "GET" or act in HARMLESS | {Act.OWN}:
                continue
            where = (method, path)
            before = rows(user)
            allowed = call(key, method, path, own)
            assert allowed.status_code < 300, (where, allowed.content)
            with transaction.atomic():
                with taken_away_meanwhile(Caller, user, whole=whole) as lost:
                    answer = call_and_keep(key, method, path, own)
                changed = differing(before, rows(user))
                transaction.set_rollback(True)
            assert lost, where
            assert answer.json()["code"] == "forbidden", (where, answer.content)
            assert changed == [], where
            tried += 1
    assert tried == 13


def call_and_keep(key: dict[str, str], method: str, path: str, things: Things) -> Any:
    """Make the call; what it does stays done for the caller to see."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transaction, "set_rollback", lambda _rollback: None)
        return call(key, method, path, things)


@pytest.mark.django_db
def test_v8_3_1_nobody_who_was_locked_out_meanwhile_changes_anything(
    alice: User, alices_account: Account, own: Things
) -> None:
    device = Device.objects.get(pk=own.ids["device_id"])
    User.objects.filter(pk=alice.pk).update(is_active=False)
    with pytest.raises(members.NotAllowed):
        commands.ask(device, "key.rotate", actor=alice)


@pytest.mark.django_db
def test_a_token_made_while_its_person_is_taken_out_opens_nothing_when_they_come_back(
    alices_account: Account, bob: User
) -> None:
    Membership.objects.filter(user=bob).delete()
    with pytest.raises(members.NotAllowed):
        tokens.create(bob, name="x", scopes=["devices:read"], days=1, account=alices_account)
    assert not PersonalToken.objects.exists()


@pytest.mark.django_db
def test_each_kind_of_command_asks_for_a_right_of_its_own(alices_account: Account) -> None:
    assert commands.act_of("quarantine.restore") == Act.QUARANTINE_CHANGE
    assert commands.act_of("quarantine.delete") == Act.QUARANTINE_CHANGE
    assert commands.act_of("scan.run") == Act.DEVICES_COMMAND
    assert permissions.MAY[Act.QUARANTINE_CHANGE] >= {Role.OWNER}


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif("connection.vendor != 'postgresql'", reason="SQLite has one writer")
def test_a_device_reports_while_somebody_changes_its_account(
    alices_account: Account,
) -> None:
    """A row that refers to the account does not wait for the account's lock, nor it for the row."""
    import threading

    from server.tests.portal.stock import device_of, scan_of

    device, stored = device_of(alices_account), threading.Event()

    def report() -> None:
        scan_of(device)
        stored.set()
        connection.close()

    with transaction.atomic():
        members.lock(alices_account)
        reporting = threading.Thread(target=report)
        reporting.start()
        assert stored.wait(10)
    reporting.join()


@contextmanager
def changed_meanwhile(account: Account, device: Device, by: User) -> Iterator[None]:
    """Have somebody change the device's settings right after they were first read."""
    real = policy.state_of
    done: list[bool] = []

    def state_of(of: Account) -> Any:
        found = real(of)
        if not done:
            done.append(True)
            values = {"quick_scan": {"window": 90}}
            policy.save(
                account, [Delta("device", device.pk, {"values": values})], actor=by, proven=True
            )
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(policy, "state_of", state_of)
        yield


@pytest.mark.django_db
def test_what_somebody_else_has_just_set_on_a_device_is_not_lost(
    alice: User, alices_account: Account, own: Things
) -> None:
    """Both read, then both write: the second would put back what the first had changed."""
    device = Device.objects.get(pk=own.ids["device_id"])
    browser, key = proved(alice), session_of(alice)
    with changed_meanwhile(alices_account, device, alice):
        answer = browser.post(
            f"/devices/{device.pk}/sends/switch/",
            {"pointer": "/sharing/scanned_folders", "on": "0"},
            follow=True,
        )
    assert "Nothing was changed" in answer.content.decode()
    assert policy.state_of(alices_account).own[device.pk] == {"quick_scan": {"window": 90}}
    policy.save(alices_account, [Delta("device", device.pk, None)], actor=alice, proven=True)
    with changed_meanwhile(alices_account, device, alice):
        answer = Client(HTTP_HOST="localhost").patch(
            f"/api/v1/devices/{device.pk}/settings",
            {"values": {"quick_scan": {"start": "20:00"}}},
            "application/json",
            headers=key,
        )
    assert answer.json()["code"] == "conflict"
    assert policy.state_of(alices_account).own[device.pk] == {"quick_scan": {"window": 90}}
