"""Every address, every role, one's own and somebody else's things: who may do what (V8)."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from django.db import transaction
from django.test import Client
from django.urls import URLPattern
from django.utils import timezone
from server.tests.access.places import CALLS, OPEN, PAGES, PERSON, SIGNING_IN, WHOLE
from server.tests.accounts.test_signing_in import App
from server.tests.api.test_api import CALLS as API_CALLS
from server.tests.api.test_api import well_formed
from server.tests.conftest import PASSWORD, account_for, person, signed_in
from server.tests.portal.stock import device_of, scan_of, threat_of
from uuid_utils.compat import uuid7

import doorward.urls
from doorward.accounts import invitations, permissions, tokens
from doorward.accounts.models import Account, Membership, PersonalToken, Role, User
from doorward.accounts.permissions import Act
from doorward.devices import commands, enrollment
from doorward.portal import urls as portal_urls
from doorward.protection.models import Group
from doorward_protocol.messages import CommandArgs

ROOT = Path(__file__).parents[3]
DOCUMENT = (ROOT / "docs" / "security" / "permissions.md").read_text()


# -- every address has a place ---------------------------------------------------------------------


def test_v8_1_1_every_page_has_a_place_and_every_place_a_page() -> None:
    named = {pattern.name for pattern in portal_urls.urlpatterns if isinstance(pattern, URLPattern)}
    assert named == set(PAGES)
    whole = {
        pattern.urlconf_name.__name__
        for pattern in [*portal_urls.urlpatterns, *doorward.urls.urlpatterns]
        if not isinstance(pattern, URLPattern)
    }
    assert whole - {"doorward.api.urls", "doorward.portal.urls"} == set(WHOLE)


def test_v8_1_1_every_page_asks_for_the_act_of_its_place() -> None:
    for pattern in portal_urls.urlpatterns:
        if isinstance(pattern, URLPattern):
            place = PAGES.get(str(pattern.name))
            asked = getattr(pattern.callback, "act", None)
            assert asked == (place if isinstance(place, Act) else None), pattern.name


def test_v8_1_1_every_call_of_the_api_has_a_place() -> None:
    # Held against the OpenAPI document in test_api.py.
    assert {(method, path) for method, path, _scope in API_CALLS} == set(CALLS)


def test_v8_1_1_the_document_shows_the_matrix_of_the_code() -> None:
    rows = re.findall(
        r"^\| [^|]+ \| `([a-z.-]+)` \| (.) \| (.) \| (.) \| (.) \|$", DOCUMENT, re.MULTILINE
    )
    roles = (Role.OWNER, Role.BILLING, Role.HELPER, Role.VIEWER)
    written = {
        act: {role for role, mark in zip(roles, marks, strict=True) if mark == "✓"}
        for act, *marks in rows
    }
    assert written == {act.value: set(may) for act, may in permissions.MAY.items()}


def test_an_unknown_role_may_nothing() -> None:
    assert not any(permissions.may(role, act) for role in ("", "admin", "OWNER") for act in Act)
    assert set(permissions.MAY) == set(Act)


def test_pages_and_api_read_reports_only_as_their_person_may_see_them() -> None:
    """No edge gives a bare account to a read of reports, which would answer with all of it."""
    bare, seen = [], 0
    for room in ("portal", "api", "console"):
        for file in (ROOT / "server/src/doorward" / room).rglob("*.py"):
            tree = ast.parse(file.read_text())
            names = {
                (found.asname or found.name)
                for node in ast.walk(tree)
                if isinstance(node, ast.ImportFrom) and node.module == "doorward.reports"
                for found in node.names
                if found.name == "queries"
            }
            for node in ast.walk(tree):
                if (
                    isinstance(node, ast.Call)
                    and isinstance(node.func, ast.Attribute)
                    and isinstance(node.func.value, ast.Name)
                    and node.func.value.id in names
                    and node.func.attr
                    in {"scans", "threats", "scan", "threat", "threat_detail"}
                    | {"open_threats", "lately", "of_devices", "summary"}
                ):
                    seen += 1
                    if not ast.unparse(node.args[0]).endswith("sight"):
                        bare.append(f"{file.name}:{node.lineno} {ast.unparse(node)[:60]}")
    assert bare == []
    assert seen >= 12


# -- things of two accounts ------------------------------------------------------------------------


class Things:
    """One of everything an address can name, in one account."""

    def __init__(self, account: Account, owner: User) -> None:
        device = device_of(account)
        other = person(f"other-{owner.email}", "Other")
        Membership.objects.create(account=account, user=other, role=Role.VIEWER)
        code, _text = enrollment.new_code(account, owner)
        device.capabilities = ["scan.run"]
        device.save(update_fields=["capabilities"])
        command = commands.ask(device, "scan.run", CommandArgs(scope="quick"), actor=owner)
        invitation = invitations.invite(
            account, email=f"new-{owner.email}", role=Role.VIEWER, actor=owner
        )
        threat = threat_of(device, sha256="0" * 64)
        group = Group.objects.create(account=account, name="Laptops", values={}, locked=[])
        self.ids: dict[str, UUID] = {
            "device_id": device.pk,
            "code_id": code.pk,
            "scan": scan_of(device).uid,
            "threat": threat.uid,
            "threat_wrong": threat.uid,
            "threat_wrong_save": threat.uid,
            "threat_wrong_back": threat.uid,
            "group_id": group.pk,
            "device_command": command.uid,
            "device_command_cancel": command.uid,
            "person_id": other.pk,
            "invitation_id": invitation.pk,
        }


@pytest.fixture
def own(alice: User, alices_account: Account) -> Things:
    return Things(alices_account, alice)


@pytest.fixture
def foreign(charlie: User) -> Things:
    return Things(charlie.memberships.get().account, charlie)


def member_with(role: Role, account: Account) -> User:
    user = person(f"{role}@example.org", str(role.label))
    Membership.objects.create(account=account, user=user, role=role)
    return user


def address_of(name: str, things: Things | None, more: dict[str, UUID]) -> str:
    """Return the page's address with ids of these things, or ids that nobody has."""
    pattern = next(each for each in portal_urls.urlpatterns if getattr(each, "name", "") == name)
    ids = {**(things.ids if things else {}), **(more if things else {})}

    def fill(match: re.Match[str]) -> str:
        key = match[1]
        return str(ids.get(name if key == "uid" else key, uuid7()))

    route = str(pattern.pattern).replace("<slug:section>", "quick-scan")
    route = route.replace("<slug:kind>", "check-in")
    route = re.sub(r"<int:\w+>", "1", route)
    return "/" + re.sub(r"<uuid:(\w+)>", fill, route)


def ask(browser: Client, method: str, address: str) -> Any:
    """Ask, and undo whatever it did."""
    with transaction.atomic():
        answer = browser.generic(method, address)
        transaction.set_rollback(True)
    return answer


def stable(answer: Any) -> bytes:
    return re.sub(rb'value="[A-Za-z0-9]{64}"', b"", answer.content)


@pytest.mark.django_db
@pytest.mark.parametrize("role", list(Role))
def test_v8_2_1_each_page_answers_each_role_as_the_matrix_says(
    role: Role, alices_account: Account, own: Things, foreign: Things
) -> None:
    user = member_with(role, alices_account)
    browser = signed_in(user)
    token, _text = tokens.create(user, name="x", scopes=["devices:read"], days=1)
    mine = {"token_id": token.pk}
    for name, place in PAGES.items():
        if not isinstance(place, Act):
            continue
        for method in ("GET", "POST"):
            answer = ask(browser, method, address_of(name, own, mine))
            where = (role, method, name, answer.status_code)
            if answer.status_code == 405:
                continue
            assert (answer.status_code == 403) == (not permissions.may(role, place)), where
            assert answer.status_code < 500, where
            if answer.status_code == 403:
                assert b"<form" not in answer.content.partition(b"<main")[2], where
                # Nobody learns by the answer what there is.
                for other in (foreign, None):
                    assert ask(browser, method, address_of(name, other, {})).status_code == 403


@pytest.mark.django_db
def test_v8_2_2_whatever_an_address_names_is_among_the_things(own: Things) -> None:
    """Otherwise the tests below would ask for what nobody has, and be content with 404."""
    for name, place in PAGES.items():
        route = str(
            next(
                each for each in portal_urls.urlpatterns if getattr(each, "name", "") == name
            ).pattern
        )
        for key in re.findall(r"<uuid:(\w+)>", route) if isinstance(place, Act) else ():
            named = name if key == "uid" else key
            assert named in own.ids or named == "token_id", name


@pytest.mark.django_db
@pytest.mark.parametrize("role", list(Role))
def test_v8_2_2_a31_another_accounts_things_are_not_there_on_any_page(
    role: Role, alices_account: Account, own: Things, foreign: Things
) -> None:
    browser = signed_in(member_with(role, alices_account))
    charlies, _text = tokens.create(
        User.objects.get(email="charlie@example.org"), name="x", scopes=["devices:read"], days=1
    )
    walked = 0
    for name, place in PAGES.items():
        route = str(
            next(
                each for each in portal_urls.urlpatterns if getattr(each, "name", "") == name
            ).pattern
        )
        # The name of a section of settings is nobody's own.
        by_id = "<uuid:" in route or "<int:" in route
        if not isinstance(place, Act) or not by_id or not permissions.may(role, place):
            continue
        for method in ("GET", "POST"):
            theirs = ask(browser, method, address_of(name, foreign, {"token_id": charlies.pk}))
            nobodys = ask(browser, method, address_of(name, None, {}))
            assert theirs.status_code == nobodys.status_code, (role, method, name)
            if theirs.status_code == 302:
                # The live part of the page that shows a code leads the browser to the page.
                assert name == "device_code"
                asked = {"HX-Request": "true"}
                found = browser.get(address_of(name, foreign, {}), headers=asked)
                assert found.status_code == 404
            elif theirs.status_code != 405:
                assert theirs.status_code == 404, (role, method, name)
                assert stable(theirs) == stable(nobodys), (role, method, name)
            walked += 1
    assert walked >= (24 if role == Role.OWNER else 6)
    assert PersonalToken.objects.get(pk=charlies.pk).revoked_at is None


@pytest.mark.django_db
def test_v8_2_1_a_page_of_ones_own_answers_every_role_and_no_stranger(
    alices_account: Account,
) -> None:
    stranger = Client(HTTP_HOST="localhost")
    for name, place in PAGES.items():
        if place != PERSON or "<" in str(
            next(
                each for each in portal_urls.urlpatterns if getattr(each, "name", "") == name
            ).pattern
        ):
            continue
        for method in ("GET", "POST"):
            answer = ask(stranger, method, address_of(name, None, {}))
            assert answer.status_code in {302, 405}, name
            if answer.status_code == 302:
                assert answer["Location"].startswith("/login/"), name
    assert {OPEN, SIGNING_IN, PERSON} >= {place for place in PAGES.values() if type(place) is str}


# -- the API ---------------------------------------------------------------------------------------


def session_of(user: User) -> dict[str, str]:
    """Return the header of an app in which this person is signed in."""
    app = App()
    app.call("POST", "auth/login", email=user.email, password=PASSWORD)
    return {"X-Session-Token": app.token}


def id_for(path: str, things: Things | None) -> str:
    kind = {
        "/devices/codes/": "code_id",
        "/devices/": "device_id",
        "/scans/": "scan",
        "/threats/": "threat",
        "/members/": "person_id",
        "/invitations/": "invitation_id",
        "/commands/": "device_command",
    }
    known = next((key for start, key in kind.items() if path.startswith(start)), "")
    return str(things.ids[known] if things is not None and known else uuid7())


def call(key: dict[str, str], method: str, path: str, things: Things | None) -> Any:
    """Make the call with these things' id, and undo whatever it did."""
    address, body = well_formed(method, path)
    if "{id}" in path:
        start = path.partition("{id}")[0]
        nobodys = address.removeprefix(start)[:36]
        address = address.replace(nobodys, id_for(path, things))
    client = Client(HTTP_HOST="localhost", raise_request_exception=False)
    with transaction.atomic():
        answer = client.generic(
            method,
            f"/api/v1{address}",
            data="" if body is None else json.dumps(body),
            content_type="application/json",
            headers=key,
        )
        transaction.set_rollback(True)
    return answer


@pytest.mark.django_db
@pytest.mark.parametrize("role", list(Role))
def test_v8_2_1_each_call_answers_each_role_as_the_matrix_says(
    role: Role, alices_account: Account, own: Things, foreign: Things
) -> None:
    key = session_of(member_with(role, alices_account))
    for (method, path), act in CALLS.items():
        for things in (own, foreign, None):
            answer = call(key, method, path, things)
            where = (role, method, path, answer.status_code, answer.content[:200])
            code = answer.json().get("code") if answer.status_code >= 400 else ""
            assert (code == "forbidden") == (not permissions.may(role, act)), where
            assert answer.status_code < 500, where
            if permissions.may(role, act) and "{id}" in path and things is not own:
                assert answer.status_code == 404, where
            if permissions.may(role, act) and "{id}" in path and things is own:
                assert answer.status_code != 404, where


@pytest.mark.django_db
def test_a31_the_header_opens_no_account_but_ones_own(
    alice: User, alices_account: Account, charlie: User
) -> None:
    key = session_of(alice)
    charlies = str(charlie.memberships.get().account_id)
    client = Client(HTTP_HOST="localhost")
    for text in (charlies, str(uuid7()), "x", "' OR 1=1--"):
        answer = client.get("/api/v1/devices", headers={**key, "X-Account": text})
        assert answer.status_code == 403
        assert answer.json()["detail"] == "X-Account names no account of yours."
    answer = client.get("/api/v1/me", headers={**key, "X-Account": str(alices_account.pk)})
    assert answer.json()["account"]["id"] == str(alices_account.pk)


@pytest.mark.django_db
def test_v8_3_2_a_role_taken_away_counts_from_the_next_request_on(
    alice: User, alices_account: Account
) -> None:
    from doorward.accounts import members

    helper = member_with(Role.HELPER, alices_account)
    device = device_of(alices_account)
    browser, key = signed_in(helper), session_of(helper)
    client = Client(HTTP_HOST="localhost")
    _token, text = tokens.create(
        helper, account=alices_account, name="x", scopes=["devices:write"], days=1
    )
    script = {"Authorization": f"Bearer {text}"}

    def answers() -> list[int]:
        rename = {"name": "mine"}
        return [
            browser.post(f"/devices/{device.pk}/rename/", rename).status_code,
            client.patch(
                f"/api/v1/devices/{device.pk}", rename, "application/json", headers=key
            ).status_code,
            client.patch(
                f"/api/v1/devices/{device.pk}", rename, "application/json", headers=script
            ).status_code,
        ]

    assert answers() == [302, 200, 200]
    members.change_role(alices_account, helper.pk, Role.VIEWER, actor=alice)
    assert answers() == [403, 403, 403]
    assert browser.get("/devices/").status_code == 200
    members.remove(alices_account, helper.pk, devices_stay=True, actor=alice)
    assert answers() == [403, 403, 401]
    answer = browser.get("/devices/")
    assert answer.status_code == 403
    assert "You belong to no account" in answer.content.decode()


@pytest.mark.django_db
def test_v8_3_2_a_code_made_by_somebody_who_may_no_more_adds_nothing(
    alice: User, alices_account: Account
) -> None:
    from server.tests.devices.test_seats import KEYS, enroll

    from doorward.accounts import members

    helper = member_with(Role.HELPER, alices_account)
    _first, good = enrollment.new_code(alices_account, helper)
    assert enroll(good, KEYS[0]).member_id == helper.pk
    _second, late = enrollment.new_code(alices_account, helper)
    members.change_role(alices_account, helper.pk, Role.VIEWER, actor=alice)
    with pytest.raises(enrollment.CodeRefused):
        enroll(late, KEYS[1])
    members.remove(alices_account, helper.pk, devices_stay=True, actor=alice)
    with pytest.raises(enrollment.CodeRefused):
        enroll(late, KEYS[1])


@pytest.mark.django_db
def test_buttons_a_role_cannot_use_are_not_shown(alices_account: Account, own: Things) -> None:
    device = own.ids["device_id"]
    for role in Role:
        browser = signed_in(member_with(role, alices_account))
        shown = "".join(
            browser.get(address).content.decode()
            for address in ("/", "/devices/", f"/devices/{device}/", "/account/members/")
        )
        changes = role in {Role.OWNER, Role.HELPER}
        assert ("/devices/add/" in shown) == changes, role
        assert (f"/devices/{device}/remove/" in shown) == changes, role
        assert ("/account/members/invite/" in shown) == (role == Role.OWNER), role
        assert ("/resend/" in shown) == (role == Role.OWNER), role
        assert (f"/account/members/{own.ids['person_id']}/" in shown) == (role == Role.OWNER)


@pytest.mark.django_db
def test_15_3_3_extra_fields_change_nothing(
    alice: User, alices_account: Account, charlie: User
) -> None:
    key = session_of(alice)
    client = Client(HTTP_HOST="localhost")
    for body in (
        {"email": "x@example.org", "role": "viewer", "account": str(uuid7())},
        {"email": "x@example.org", "role": "owner"},
        {"email": "x@example.org", "role": "viewer", "is_operator": True},
    ):
        answer = client.post("/api/v1/invitations", body, "application/json", headers=key)
        assert answer.status_code == 422, answer.content
    assert not invitations.waiting(alices_account)
    charlies = account_for(charlie)
    browser = signed_in(alice)
    browser.post(
        "/account/members/sharing/", {"shares": "paths", "role": "owner", "user": str(charlie.pk)}
    )
    assert charlies.memberships.get().shares == "state"
    assert timezone.now() > alices_account.created_at


@pytest.mark.django_db
def test_v7_5_1_over_the_api_what_weighs_most_takes_a_fresh_proof(
    alice: User, alices_account: Account
) -> None:
    helper = member_with(Role.HELPER, alices_account)
    app = App()
    app.call("POST", "auth/login", email=alice.email, password=PASSWORD)
    client = Client(HTTP_HOST="localhost")
    calls = (
        ("PATCH", f"/members/{helper.pk}", {"role": "billing"}, 200),
        ("PATCH", f"/members/{helper.pk}", {"role": "owner"}, 200),
        ("PATCH", f"/members/{helper.pk}", {"role": "viewer"}, 409),
        ("POST", "/ownership-offer", {"member": str(helper.pk), "role_after": "viewer"}, 409),
        ("DELETE", f"/members/{helper.pk}?devices=stay", None, 409),
    )

    def ask(method: str, path: str, body: dict[str, str] | None) -> Any:
        return client.generic(
            method,
            f"/api/v1{path}",
            data="" if body is None else json.dumps(body),
            content_type="application/json",
            headers={"X-Session-Token": app.token},
        )

    for method, path, body, _status in calls:
        if body != {"role": "viewer"}:
            answer = ask(method, path, body)
            assert answer.json()["code"] == "reauthentication-required", (path, answer.content)
    assert Membership.objects.get(user=helper).role == Role.HELPER
    again = app.call("POST", "auth/reauthenticate", password=PASSWORD)
    assert again.status_code == 200, again.content
    for method, path, body, status in calls:
        assert ask(method, path, body).status_code == status, (path, body)
    assert Membership.objects.get(user=helper).role == Role.OWNER


@pytest.mark.django_db
def test_members_invite_answer_and_hand_over_by_the_api(
    alice: User, alices_account: Account, charlie: User
) -> None:
    from server.tests.accounts.test_members import link_in, mails

    apps: dict[User, App] = {}
    for user in (alice, charlie):
        apps[user] = App()
        apps[user].call("POST", "auth/login", email=user.email, password=PASSWORD)
        apps[user].call("POST", "auth/reauthenticate", password=PASSWORD)
    client = Client(HTTP_HOST="localhost")

    def ask(who: User, method: str, path: str, body: Any = None, **headers: str) -> Any:
        return client.generic(
            method,
            f"/api/v1{path}",
            data="" if body is None else json.dumps(body),
            content_type="application/json",
            headers={"X-Session-Token": apps[who].token, **headers},
        )

    invited = ask(alice, "POST", "/invitations", {"email": charlie.email, "role": "helper"})
    assert invited.status_code == 201
    again = ask(alice, "POST", "/invitations", {"email": charlie.email, "role": "helper"})
    assert (again.status_code, again.json()["reason"]) == (409, "already-invited")
    assert ask(alice, "POST", f"/invitations/{invited.json()['id']}/resend").status_code == 204
    invitation_mails = [text for text in mails(charlie.email) if "/invitation/" in text]
    first, second = (link_in(text).split("/")[-2] for text in invitation_mails)
    assert second not in again.content.decode() + invited.content.decode()
    assert ask(charlie, "POST", "/invitations/accept", {"secret": first}).status_code == 404
    assert ask(alice, "POST", "/invitations/accept", {"secret": second}).status_code == 404
    joined = ask(charlie, "POST", "/invitations/accept", {"secret": second, "shares": "paths"})
    assert joined.json()["account"] == str(alices_account.pk)
    accounts = ask(charlie, "GET", "/accounts").json()
    assert {place["role"] for place in accounts} == {"owner", "helper"}
    here = {"X-Account": str(alices_account.pk)}
    listed = ask(charlie, "GET", "/members", **here).json()
    assert [(place["email"], place["role"], place["is_you"]) for place in listed] == [
        (alice.email, "owner", False),
        (charlie.email, "helper", True),
    ]
    assert listed[1]["shares"] == "paths"
    assert ask(charlie, "PUT", "/me/sharing", {"shares": "state"}, **here).status_code == 200
    offer = {"member": str(charlie.pk), "role_after": "viewer"}
    assert ask(alice, "POST", "/ownership-offer", offer).status_code == 201
    assert ask(charlie, "GET", "/ownership-offer").status_code == 404
    assert ask(charlie, "GET", "/ownership-offer", **here).json()["taker"] == str(charlie.pk)
    taken = ask(charlie, "POST", "/ownership-offer/accept", **here)
    assert taken.json()["role"] == "owner"
    assert ask(alice, "GET", "/me").json()["role"] == "viewer"
    assert ask(alice, "POST", "/me/leave", {"devices": "stay"}).status_code == 204
    assert ask(alice, "GET", "/me").status_code == 403
