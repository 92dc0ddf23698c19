"""Reading changes nothing, at any address: the whole database before and after (row 68)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from typing import Any, Final

import pytest
from django.core.signals import request_finished
from django.db import close_old_connections, connection
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver, resolve
from server.tests.access.test_access import Things
from server.tests.accounts.second_steps import App, prove_again, signed_in_tab
from server.tests.conftest import PASSWORD
from uuid_utils.compat import uuid7

from doorward.accounts import exports, members, tokens
from doorward.accounts.models import Account, Role, User
from doorward.accounts.origin import Origin

pytestmark = pytest.mark.django_db

MOVING: Final = {
    # When a session was last used, and what was begun in it.
    "django_session": {"session_data", "expire_date"},
    "usersessions_usersession": {"last_seen_at"},
}
USUAL: Final = {"slug": "states", "section": "quick-scan", "kind": "check-in", "client": "app"}
# What reading may note, each with its reason.
NOTES: Final = {
    "privacy_download": "that somebody fetched a copy of everything is written down",
    "headless:app:mfa:login_webauthn": "a passkey's challenge is asked for, and kept in a session",
}
# Tries are counted before they are looked at, also one by a method that is not answered then.
COUNTS: Final[set[str]] = {"accounts_throttle", "accounts_cache"}
# What is the same for everybody, and may be kept for a while.
PUBLIC: Final = {"manifest", "service_worker", "offline", "theme_css"}
# Where Alice finds nothing, each with its reason; a new address is no such one by itself.
ABSENT: Final = {
    "api:api-root": "nothing is at the API's root, nor where no call is",
    "api:api/v1/": "the same",
    "approval": "no sign-in waits to be approved",
    "demo_mailbox": "this is no demo",
    "device_sends_file": "her device has not called yet",
    "headless:app:account:manage_phone": "allauth's, and not used here",
    "headless:app:account:resend_phone_verification_code": "the same",
    "headless:app:account:verify_phone": "the same",
    "mfa_deactivate_totp": "she has no second step",
    "mfa_download_recovery_codes": "the same",
    "mfa_edit_webauthn": "the same",
    "mfa_remove_webauthn": "the same",
    "mfa_view_recovery_codes": "the same",
    "number": "nobody texts codes here",
    "number_confirm": "the same",
    "protection_version": "nothing was changed yet",
    "receipt": "nothing was deleted",
    "receipt_file": "the same",
}


class Route:
    """One address of the people's door."""

    def __init__(self, route: str, pattern: URLPattern, space: str) -> None:
        self.route, self.pattern, self.space = route, pattern, space

    @property
    def name(self) -> str:
        return f"{self.space}{self.pattern.name or self.route}"

    def address(self, ids: dict[str, Any]) -> str:
        """Return it with the id of each thing in it; one that is not known is a random one."""

        def fill(match: re.Match[str]) -> str:
            kind, key = match[1], match[2]
            named = ids.get(str(self.pattern.name))
            usual = USUAL.get(key) or {"int": 1, "str": "x" * 32}.get(kind, uuid7())
            return str(named if named is not None and key == "uid" else ids.get(key, usual))

        text = re.sub(r"\(\?P<(\w+)>[^)]*\)", r"<str:\1>", self.route)
        text = re.sub(r"<(\w+)>", r"<str:\1>", text)
        text = re.sub(r"<(\w+):(\w+)>", fill, text)
        return "/" + text.replace("^", "").replace("$", "").replace("\\", "")


def routes() -> list[Route]:
    """Return every address there is, by asking Django."""

    def walk(patterns: Any, before: str, space: str) -> Iterator[Route]:
        for pattern in patterns:
            route = before + str(pattern.pattern)
            if isinstance(pattern, URLResolver):
                inner = f"{space}{pattern.namespace}:" if pattern.namespace else space
                yield from walk(pattern.url_patterns, route, inner)
            elif isinstance(pattern, URLPattern):
                yield Route(route, pattern, space)

    return list(walk(get_resolver().url_patterns, "", ""))


def everything() -> dict[str, str]:
    """Return of each table how many rows it has and a digest of them, whatever their order."""
    found = {}
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f'SELECT * FROM "{table}"')  # noqa: S608 - Django's own list of tables
            columns = [column[0] for column in cursor.description]
            kept = [at for at, name in enumerate(columns) if name not in MOVING.get(table, ())]
            rows = sorted(repr([row[at] for at in kept]) for row in cursor.fetchall())
            digest = hashlib.blake2b("\n".join(rows).encode(), digest_size=12).hexdigest()
            found[table] = f"{len(rows)} {digest}"
    return found


@pytest.fixture
def own(alice: User, alices_account: Account) -> Things:
    """One of everything that an address can name, all of it Alice's."""
    things = Things(alices_account, alice)
    export = exports.ask(alice, Origin("203.0.113.5", ""))
    exports.pack_due(export.asked_at)
    token, _text = tokens.create(alice, name="x", scopes=["devices:read"], days=1)
    members.offer_ownership(alices_account, things.ids["person_id"], Role.VIEWER, actor=alice)
    things.ids |= {
        "export_id": export.pk,
        "token_id": token.pk,
        "command_uid": things.ids["device_command"],
        "scan_id": things.ids["scan"],
        "threat_id": things.ids["threat"],
    }
    return things


@pytest.fixture
def home(alice: User, own: Things) -> Client:
    """Alice's, in which she has just proved that it is her; she is an operator, too."""
    User.objects.filter(pk=alice.pk).update(is_operator=True)
    client = signed_in_tab(alice.email)
    prove_again(client, "/account/security/webauthn/add/")
    return client


@pytest.fixture
def app(alice: User, own: Things) -> dict[str, str]:
    """The key of her app, by which she has just proved it as well."""
    one = App()
    one.call("POST", "auth/login", email=alice.email, password=PASSWORD)
    assert one.call("POST", "auth/reauthenticate", password=PASSWORD).status_code == 200
    return {"X-Session-Token": one.token}


def let_go(answer: Any) -> None:
    """Close the file an answer sends; the database stays open, as the test client has it."""
    if answer.streaming:
        request_finished.disconnect(close_old_connections)
        answer.close()
        request_finished.connect(close_old_connections)


def differing(before: dict[str, str]) -> list[str]:
    after = everything()
    return [name for name in after if after[name] != before.get(name)]


def test_row68_v3_5_3_reading_any_address_changes_nothing(
    own: Things, home: Client, app: dict[str, str]
) -> None:
    keys: dict[str, list[dict[str, str]]] = {"headless:": [{}, app], "api:": [{}, app]}
    changed, absent = [], set()
    before = everything()
    for route in routes():
        address = route.address(own.ids)
        # What is filled in wrongly is another address, or none.
        assert resolve(address).route == route.route, (route.name, address)
        answers = []
        for key in keys.get(route.space[: route.space.find(":") + 1], [{}]):
            for method in ("GET", "HEAD"):
                answer = home.generic(method, address, headers=key)
                answers.append(answer.status_code)
                let_go(answer)
        if set(answers) == {404}:
            absent.add(route.name)
        found = differing(before)
        if set(found) - COUNTS and route.name not in NOTES:
            changed.append((route.name, found))
        if found:
            before = everything()
    assert changed == []
    assert absent == set(ABSENT)
    # There is no page for operators by now; one would be among these.
    assert not [route for route in routes() if route.space.startswith("console")]


def test_row68_v3_5_1_nothing_is_changed_without_the_token_or_from_elsewhere(
    alice: User, own: Things
) -> None:
    browser = Client(HTTP_HOST="localhost", enforce_csrf_checks=True)
    browser.force_login(alice, "allauth.account.auth_backends.AuthenticationBackend")
    token = browser.get("/zone/").json()["token"]
    foreign = {"Origin": "https://evil.example", "X-CSRFToken": token}
    # It is known to the door: what is refused below is refused for where it comes from.
    assert browser.post("/account/theme/", headers={"X-CSRFToken": token}).status_code == 302
    changed, taken = [], []
    before = everything()
    for route in routes():
        address = route.address(own.ids)
        for headers in ({}, foreign):
            # Pages answer to POST alone.
            for method in ("POST", "PUT", "PATCH", "DELETE") if route.space else ("POST",):
                answer = browser.generic(method, address, headers=headers)
                if answer.status_code < 400 and route.name != "policy_reports":
                    taken.append((route.name, method, answer.status_code))
        found = differing(before)
        if set(found) - COUNTS:
            changed.append((route.name, found))
        if found:
            before = everything()
    assert taken == []
    assert changed == []


def test_row60_v14_3_2_no_answer_to_somebody_signed_in_may_be_stored(
    own: Things, home: Client, app: dict[str, str]
) -> None:
    stored, walked = set(), 0
    for route in routes():
        for key in ({}, app) if ":" in route.space else ({},):
            answer = home.get(route.address(own.ids), headers=key)
            if "no-store" not in answer.headers.get("Cache-Control", ""):
                stored.add(route.name)
            let_go(answer)
            walked += 1
    assert stored == PUBLIC
    assert walked > 200
