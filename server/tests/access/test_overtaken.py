"""A change has the last word over every request under way when it was made (A17, A25, A26).

A thief holds Alice's session, fresh, and sends a request as slowly as the server lets them. When it
is known who sends it, and before it acts, Alice changes her password, ends that session, or is
disabled. Each page and call that changes anything must then do nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

import pytest
from allauth.headless.base.views import APIView
from allauth.mfa.models import Authenticator
from allauth.mfa.webauthn.internal import auth as webauthn
from allauth.usersessions.internal.flows import sessions as session_flows
from allauth.usersessions.models import UserSession
from django.apps import apps
from django.contrib.sessions.backends.base import UpdateError
from django.contrib.sessions.models import Session
from django.core.handlers.base import BaseHandler
from django.db import connection, transaction
from django.test import Client
from django.urls import URLPattern, get_resolver
from django.utils import timezone
from server.tests.access import test_meanwhile
from server.tests.access.places import CALLS, PAGES, PERSON
from server.tests.access.test_access import Things, address_of, member_with
from server.tests.access.test_meanwhile import HARMLESS, ONLY_LOOKS, call_and_keep, forms, proved
from server.tests.accounts.second_steps import App, code_at, newest_code, signed_in_tab
from server.tests.api.test_api import BODIES
from server.tests.conftest import PASSWORD, signed_in

from doorward.accounts import (
    browsers,
    invitations,
    leaving,
    members,
    recovery,
    remembered,
    sent_codes,
    sessions,
    tokens,
)
from doorward.accounts.adapter import AccountAdapter
from doorward.accounts.factors import ceremonies, recovery_codes, sealed_text, totp
from doorward.accounts.models import (
    Account,
    Approval,
    Membership,
    OwnershipTransfer,
    PersonalToken,
    PhoneNumber,
    Role,
    User,
)
from doorward.accounts.origin import Origin
from doorward.accounts.permissions import Act
from doorward.api.callers import Caller
from doorward.audit.models import Event

NEW: Final = "nine ships in the quiet morning"
SEED: Final = "JBSWY3DPEHPK3PXP"
HERE: Final = Origin("127.0.0.1", "Home/1.0")
own = test_meanwhile.own

pytestmark = pytest.mark.django_db


# -- what Alice does meanwhile ---------------------------------------------------------------------


def changes_her_password(alice: User) -> None:
    today = User.objects.get(pk=alice.pk)
    today.set_password(NEW)
    today.save(update_fields=["password"])
    sessions.end_others(today, keep=None)


def signs_out_elsewhere(alice: User) -> None:
    sessions.end_others(User.objects.get(pk=alice.pk), keep=None)


def ends_that_session(alice: User) -> None:
    UserSession.objects.filter(user=alice).delete()
    Session.objects.all().delete()


def is_disabled(alice: User) -> None:
    User.objects.filter(pk=alice.pk).update(is_active=False)


MEANWHILE: Final = (changes_her_password, signs_out_elsewhere, ends_that_session, is_disabled)


def everything() -> dict[str, Any]:
    """Return all that is stored, but what only counts, and sessions of nobody."""
    found: dict[str, Any] = {"events": Event.objects.count()}
    rooms = {"accounts", "devices", "protection", "notices", "support"}
    rooms |= {"mfa", "account", "usersessions"}
    for model in apps.get_models():
        if model._meta.app_label in rooms and model.__name__ not in {"Throttle", "CacheEntry"}:
            found[model.__name__] = list(model._default_manager.order_by("pk").values())
    return found


@dataclass
class Held:
    """What is known of the request that was held."""

    is_held: bool = False
    then: dict[str, Any] = field(default_factory=dict)


@contextmanager
def held(place: Any, name: str, change: Callable[[], object]) -> Iterator[Held]:
    """Have the change made right before the next request gets to this place."""
    real, known = getattr(place, name), Held()

    def slowly(*args: Any, **more: Any) -> Any:
        if not known.is_held:
            known.is_held = True
            change()
            known.then = everything()
        return real(*args, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(place, name, slowly)
        yield known


@contextmanager
def looked_at_within_its_transaction() -> Iterator[list[bool]]:
    """Note of each look whether it holds: outside of the act's transaction it would not last."""
    real, base, found = sessions.must_still_be_in, len(connection.savepoint_ids), []

    def must_still_be_in(user: User) -> None:
        found.append(len(connection.savepoint_ids) > base)
        real(user)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sessions, "must_still_be_in", must_still_be_in)
        yield found


# -- pages -----------------------------------------------------------------------------------------


@dataclass
class Stage:
    """Alice with everything there is to change about her, and a fresh session in other hands."""

    whose: User
    account: Account
    things: Things
    thief: Client
    settings: Any
    app: Authenticator
    key: Authenticator
    elsewhere: UserSession
    codes: list[str]

    @property
    def alice(self) -> User:
        """Alice as she is now: what was tried before was undone in the database alone."""
        return User.objects.get(pk=self.whose.pk)

    def posts(self, name: str) -> tuple[str, dict[str, str]]:
        """Make ready what this page needs; return its address and what to send."""
        made: tuple[str, dict[str, str]] | dict[str, str] = getattr(self, f"_{name}", dict)()
        return made if isinstance(made, tuple) else (address_of(name, self.things, {}), made)

    # What each page needs that changes something of a person.

    def _account_change_password(self) -> tuple[str, dict[str, str]]:
        typed = {"oldpassword": PASSWORD, "password1": NEW, "password2": NEW}
        return "/password/change/", typed

    def _account_set_password(self) -> dict[str, str]:
        # Their session goes on: it is of the password as it is.
        alice = self.alice
        alice.set_unusable_password()
        alice.save(update_fields=["password"])
        session = self.thief.session
        session["_auth_user_hash"] = alice.get_session_auth_hash()
        session.save()
        return {"password1": NEW, "password2": NEW}

    def _account_email(self) -> dict[str, str]:
        return {"email": "evil@example.net", "action_add": ""}

    def _account_email_verification_sent(self) -> dict[str, str]:
        self.thief.post("/email/", {"email": "evil@example.net", "action_add": ""})
        return {"code": newest_code("evil@example.net", self.settings)}

    def _email_code_switch(self) -> dict[str, str]:
        return {"wanted": "on"}

    def _mfa_activate_totp(self) -> tuple[str, dict[str, str]]:
        self.app.delete()
        session = self.thief.session
        session[totp.SEED_KEY] = sealed_text.seal(SEED)
        session.save()
        return "/account/security/totp/activate/", {"code": code_at(SEED)}

    def _mfa_deactivate_totp(self) -> tuple[str, dict[str, str]]:
        return "/account/security/totp/deactivate/", {}

    def _mfa_generate_recovery_codes(self) -> tuple[str, dict[str, str]]:
        return "/account/security/recovery-codes/generate/", {}

    def _mfa_add_webauthn(self) -> tuple[str, dict[str, str]]:
        return "/account/security/webauthn/add/", {"name": "evil", "credential": '{"id": "x"}'}

    def _mfa_edit_webauthn(self) -> tuple[str, dict[str, str]]:
        return f"/account/security/webauthn/keys/{self.key.pk}/edit/", {"name": "evil"}

    def _mfa_remove_webauthn(self) -> tuple[str, dict[str, str]]:
        return f"/account/security/webauthn/keys/{self.key.pk}/remove/", {}

    def _number_confirm(self) -> dict[str, str]:
        session = self.thief.session
        pending: dict[str, Any] = {"sealed": sealed_text.seal("+4915123456789")}
        pending["at"] = timezone.now().timestamp()
        pending["code"] = sent_codes.keep(pending, f"second step {self.alice.pk}", "123456")
        session["number_to_confirm"] = pending
        session.save()
        return {"code": "123456"}

    def _number_forget(self) -> dict[str, str]:
        number = sealed_text.seal("+4915123456789")
        PhoneNumber.objects.create(user=self.alice, sealed=number, confirmed_at=timezone.now())
        return {}

    def _browser_forget(self) -> tuple[str, dict[str, str]]:
        browser = remembered.remember(self.alice, "x" * 43, ip="127.0.0.1", agent="Home/1.0")
        return f"/account/security/browsers/{browser.pk}/forget/", {}

    def _browsers_forget(self) -> dict[str, str]:
        remembered.remember(self.alice, "x" * 43, ip="127.0.0.1", agent="Home/1.0")
        return {}

    def _known_forget(self) -> tuple[str, dict[str, str]]:
        browsers.add(self.alice, "", ip="127.0.0.1", agent="Home/1.0")
        known = browsers.of(self.alice)[0]
        return f"/account/sessions/browsers/{known.pk}/forget/", {}

    def _known_forget_others(self) -> dict[str, str]:
        browsers.add(self.alice, "", ip="127.0.0.1", agent="Home/1.0")
        return {}

    def _session_end(self) -> tuple[str, dict[str, str]]:
        return f"/account/sessions/{self.elsewhere.pk}/end/", {}

    def _privacy_delete(self) -> dict[str, str]:
        return {"understood": "yes"}

    def _privacy_keep(self) -> dict[str, str]:
        leaving.ask(self.alice, keep_session=None, origin=HERE)
        self.thief = proved(self.alice)
        return {}

    def _recovery_stop_here(self) -> dict[str, str]:
        recovery.begin(self.alice, ip="127.0.0.1", agent="Home/1.0")
        return {}

    def _approval(self) -> tuple[str, dict[str, str]]:
        now = timezone.now()
        asks = Approval.objects.create(
            user=self.alice,
            number=42,
            asked_at=now,
            expires_at=now + timedelta(minutes=2),
            ip="127.0.0.1",
            agent="Home/1.0",
        )
        session = self.thief.session
        records = session["account_authentication_methods"]
        session["account_authentication_methods"] = [
            *records,
            {"method": "mfa", "at": timezone.now().timestamp(), "type": "totp"},
        ]
        session.save()
        return f"/account/approve/{asks.pk}/", {"answer": "yes", "number": "42"}

    # And of an account.

    def _invitation_answer(self) -> dict[str, str]:
        charlie = member_with(Role.BILLING, Account.objects.create())
        Membership.objects.filter(user=charlie).update(role=Role.OWNER)
        theirs = Membership.objects.get(user=charlie).account
        made = invitations.invite(theirs, email=self.alice.email, role=Role.VIEWER, actor=charlie)
        session = self.thief.session
        session["invitation"] = [str(made.pk), made.digest]
        session.save()
        return {"shares": "state"}

    def _member_leave(self) -> dict[str, str]:
        self.another_owner()
        return {"devices": "stay"}

    def _member_sharing(self) -> dict[str, str]:
        return {"shares": "paths"}

    def _offer_end(self) -> dict[str, str]:
        person = self.things.ids["person_id"]
        members.offer_ownership(self.account, person, Role.VIEWER, actor=self.alice)
        return {}

    def _offer_take(self) -> dict[str, str]:
        now = timezone.now()
        OwnershipTransfer.objects.create(
            account=self.account,
            giver=self.another_owner(),
            taker=self.alice,
            role_after=Role.VIEWER,
            created_at=now,
            expires_at=now + members.OFFER_LASTS,
        )
        Membership.objects.filter(user=self.alice).update(role=Role.VIEWER)
        return {}

    def _token_revoke(self) -> tuple[str, dict[str, str]]:
        token, _text = tokens.create(
            self.alice,
            account=self.account,
            name="x",
            scopes=["devices:read"],
            days=1,
        )
        return f"/account/tokens/{token.pk}/revoke/", {}

    def another_owner(self) -> User:
        return member_with(Role.OWNER, self.account)


PERSONS: Final = sorted(name[1:] for name in vars(Stage) if name.startswith("_") and name[1] != "_")
# Each of these changes something by an empty form.
BARE: Final = ["usersessions_list", "privacy_export"]
# These look at the password first, or at the sessions there are: held when they have.
LATER: Final[dict[str, tuple[Any, str]]] = {
    "account_change_password": (AccountAdapter, "set_password"),
    "account_set_password": (AccountAdapter, "set_password"),
    "account/password/change": (AccountAdapter, "set_password"),
    "auth/sessions": (session_flows, "end_sessions"),
}
NOT_TRIED: Final = {
    "account": "how one is called and which zone one reads in: no door",
    "accounts": "which account one looks at: kept in the session itself",
    "account_found": "an account of one's own, empty",
    "asks": "what this session is not asked any more",
    "number": "texts a code that only the session knows; what counts is to confirm it",
}


@pytest.fixture
def stage(
    alice: User,
    alices_account: Account,
    own: Things,
    settings: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> Stage:
    # The computer's own key is the outside world here; tests/browser has a real one.
    monkeypatch.setattr(webauthn, "parse_registration_response", lambda credential: credential)
    monkeypatch.setattr(webauthn, "complete_registration", lambda credential: credential)
    # What a challenge was for is tried in server/tests/abuse/test_passkey_ceremonies.py.
    monkeypatch.setattr(ceremonies, "_must_be_meant", lambda *_: None)
    monkeypatch.setattr(webauthn, "get_credentials", lambda user: [])
    settings.SMS_URL = "file:"
    thief, _other = signed_in_tab(alice.email), signed_in_tab(alice.email)
    thief.post("/reauthenticate/", {"password": PASSWORD})
    elsewhere = UserSession.objects.filter(user=alice).latest("pk")
    app = totp.Totp.activate(alice, SEED).instance
    codes = recovery_codes.RecoveryCodes.activate(alice).get_unused_codes()
    key = Authenticator.objects.create(
        user=alice, type="webauthn", data={"name": "key", "credential": {}}
    )
    return Stage(alice, alices_account, own, thief, settings, app, key, elsewhere, codes)


def test_a17_every_page_that_changes_something_is_tried_below(stage: Stage) -> None:
    changing = set()
    for name, place in PAGES.items():
        if place == PERSON or (isinstance(place, Act) and place not in HARMLESS):
            with transaction.atomic():
                answer = stage.thief.post(address_of(name, stage.things, {}), {})
                transaction.set_rollback(True)
            if answer.status_code != 405:
                changing.add(name)
    tried = {*forms(stage.account, stage.things), *PERSONS, *BARE}
    # Of allauth's own pages, and where the way there begins with a link from a mail.
    more = {name for name in PERSONS if name not in PAGES or PAGES[name] == "signing in"}
    looks = {"mfa_list_webauthn", "security"} & changing
    assert changing - looks == tried - more | ONLY_LOOKS | set(NOT_TRIED)


def test_a17_every_page_of_allauths_that_asks_for_proof_is_tried_below(stage: Stage) -> None:
    cookie = signed_in(stage.alice).cookies["dw_session"].value
    asking = set()
    for pattern in _all(get_resolver().url_patterns):
        route = "/" + str(pattern[0])
        if "<" in route.replace("<int:pk>", "") or "(" in route or not pattern[1]:
            continue
        address = route.replace("<int:pk>", str(stage.key.pk))
        with transaction.atomic():
            answer = _again(cookie).post(address, {})
            transaction.set_rollback(True)
        if "reauthenticate/" in answer.headers.get("Location", ""):
            asking.add(pattern[1])
    assert {"mfa_activate_totp", "account_set_password", "mfa_edit_webauthn"} & asking
    assert asking - {*PERSONS, *BARE, *forms(stage.account, stage.things)} <= {
        # They only show; the codes are taken out of the session, which is over.
        "mfa_view_recovery_codes",
        "mfa_download_recovery_codes",
        "number",
    }


def _all(patterns: list[Any], start: str = "") -> Iterator[tuple[str, str]]:
    for each in patterns:
        route = start + str(each.pattern)
        if isinstance(each, URLPattern):
            yield route, str(each.name or "")
        elif "_allauth" not in route and "api/" not in route:
            yield from _all(each.url_patterns, route)


def _tries(stage: Stage) -> Iterator[tuple[str, Callable[[], tuple[str, dict[str, str]]]]]:
    for name in (*PERSONS, *BARE):
        yield name, lambda name=name: stage.posts(name)  # type: ignore[misc]  # bound at once
    for name, sent in forms(stage.account, stage.things).items():
        for form in sent:
            address = address_of(name, stage.things, {})
            yield f"{name} {form}"[:60], lambda at=address, form=form: (at, form)  # type: ignore[misc]


def test_a17_what_is_tried_below_does_something_and_looks_within_its_transaction(
    stage: Stage,
) -> None:
    cookie = stage.thief.cookies["dw_session"].value
    for name, ready in _tries(stage):
        with transaction.atomic():
            address, form = ready()
            before = everything()
            with looked_at_within_its_transaction() as looks:
                answer = stage.thief.post(address, form)
            after = everything()
            transaction.set_rollback(True)
        stage.thief = _again(cookie)
        assert answer.status_code in {200, 302}, (name, answer.status_code)
        assert "reauthenticate/" not in answer.headers.get("Location", ""), name
        assert [kind for kind in before if before[kind] != after[kind]], name
        if name != "account_change_password":
            assert looks or name == "account_set_password", name
        assert all(looks), name


@pytest.mark.parametrize("change", MEANWHILE)
def test_a17_a25_a26_n3_a_page_does_nothing_once_its_person_has_moved_on(
    stage: Stage, change: Callable[[User], None]
) -> None:
    cookie = stage.thief.cookies["dw_session"].value
    for name, ready in _tries(stage):
        with transaction.atomic():
            address, form = ready()
            place = LATER.get(name, (BaseHandler, "resolve_request"))
            with held(*place, lambda: change(stage.alice)) as known:
                answer = stage.thief.post(address, form)
            after, session = everything(), dict(stage.thief.session)
            transaction.set_rollback(True)
        stage.thief = _again(cookie)
        where = (name, change.__name__)
        assert known.then, where
        assert [kind for kind in after if known.then[kind] != after[kind]] == [], where
        assert answer.status_code == 302, (where, answer.status_code)
        assert answer["Location"] == "/login/", where
        # Nor does the answer bring a session: it is anybody's who may want to sign in.
        assert "_auth_user_id" not in session, where
        assert not set(form) & set(session), where


def _again(cookie: str) -> Client:
    """Return a browser with the cookie that the thief's began with."""
    fresh = Client(HTTP_HOST="localhost")
    fresh.cookies["dw_session"] = cookie
    return fresh


# -- apps and the API ------------------------------------------------------------------------------


def fresh_app(stage: Stage) -> App:
    app = App()
    app.call("POST", "auth/login", email=stage.alice.email, password=PASSWORD)
    app.call("POST", "auth/2fa/authenticate", code=stage.codes[0])
    assert app.call("POST", "auth/reauthenticate", password=PASSWORD).status_code == 200
    return app


def _apps_tries(stage: Stage) -> list[tuple[str, str, dict[str, Any]]]:
    ways = "account/authenticators"
    return [
        ("DELETE", f"{ways}/totp", {}),
        ("POST", f"{ways}/recovery-codes", {}),
        ("POST", f"{ways}/webauthn", {"name": "evil", "credential": {"id": "x"}}),
        ("PUT", f"{ways}/webauthn", {"id": stage.key.pk, "name": "evil"}),
        ("DELETE", f"{ways}/webauthn", {"authenticators": [stage.key.pk]}),
        ("POST", "account/password/change", {"current_password": PASSWORD, "new_password": NEW}),
        ("POST", "account/email", {"email": "evil@example.net"}),
        ("DELETE", "auth/sessions", {"sessions": [stage.elsewhere.pk]}),
    ]


def test_a17_what_apps_try_below_does_something(stage: Stage) -> None:
    app = fresh_app(stage)
    token = app.token
    for method, path, body in _apps_tries(stage):
        app.token = token
        with transaction.atomic():
            before = everything()
            answer = app.call(method, path, **body)
            after = everything()
            transaction.set_rollback(True)
        assert answer.status_code == 200, (method, path, answer.content)
        assert before != after, (method, path)


@pytest.mark.parametrize("change", MEANWHILE)
def test_a17_a25_a26_n3_an_app_changes_nothing_once_its_person_has_moved_on(
    stage: Stage, change: Callable[[User], None]
) -> None:
    app = fresh_app(stage)
    token = app.token
    for method, path, body in _apps_tries(stage):
        app.token, where = token, (method, path, change.__name__)
        with transaction.atomic():
            place = LATER.get(path, (APIView, "dispatch"))
            with held(*place, lambda: change(stage.alice)) as known:
                answer = app.call(method, path, **body)
            after = everything()
            transaction.set_rollback(True)
        assert [kind for kind in after if known.then[kind] != after[kind]] == [], where
        assert answer.status_code == 401, (where, answer.content)
        assert answer.json()["meta"] == {"is_authenticated": False}, where


def _calls(monkeypatch: pytest.MonkeyPatch, things: Things) -> list[tuple[str, str]]:
    for where, body in {
        ("PUT", "/me/sharing"): {"shares": "paths"},
        ("PATCH", "/settings"): {"values": {"quick_scan": {"window": 60}}},
        ("PATCH", "/devices/{id}/settings"): {"values": {"quick_scan": {"window": 60}}},
        ("POST", "/devices/{id}/commands"): {"kind": "scan.run", "args": {"scope": "full"}},
        ("PATCH", "/members/{id}"): {"role": "helper"},
        ("POST", "/ownership-offer"): {
            "member": str(things.ids["person_id"]),
            "role_after": "viewer",
        },
    }.items():
        monkeypatch.setitem(BODIES, where, body)
    # Of one's own acts, those that need an offer or an invitation are tried by their pages.
    one_by_one = {act for act in CALLS if "/accept" in act[1] or "/decline" in act[1]}
    one_by_one.add(("DELETE", "/ownership-offer"))
    return [
        where
        for where, act in CALLS.items()
        if where[0] != "GET" and act not in HARMLESS and where not in one_by_one
    ]


@pytest.mark.parametrize("change", MEANWHILE)
def test_a17_a25_a26_n3_a_call_changes_nothing_once_its_person_has_moved_on(
    stage: Stage, change: Callable[[User], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.another_owner()
    key = {"X-Session-Token": fresh_app(stage).token}
    calls = _calls(monkeypatch, stage.things)
    assert len(calls) == 15
    for method, path in calls:
        where = (method, path, change.__name__)
        with transaction.atomic():
            before = everything()
            allowed = call_and_keep(key, method, path, stage.things)
            assert allowed.status_code < 300, (where, allowed.content)
            assert before != everything(), where
            transaction.set_rollback(True)
        with transaction.atomic():
            with held(Caller, "must", lambda: change(stage.alice)) as known:
                answer = call_and_keep(key, method, path, stage.things)
            after = everything()
            transaction.set_rollback(True)
        assert [kind for kind in after if known.then[kind] != after[kind]] == [], where
        assert answer.status_code == 401, (where, answer.content)
        assert json.loads(answer.content)["code"] == "unauthorized", where


def test_a25_a_token_revoked_meanwhile_does_nothing(stage: Stage) -> None:
    token, text = tokens.create(
        stage.alice, account=stage.account, name="x", scopes=["devices:write"], days=1
    )
    good = {"Authorization": f"Bearer {text}"}

    def revoke() -> None:
        PersonalToken.objects.filter(pk=token.pk).update(revoked_at=timezone.now())

    with held(Caller, "must", revoke) as known:
        answer = call_and_keep(good, "PATCH", "/devices/{id}", stage.things)
    assert answer.status_code == 401
    assert known.then["Device"] == everything()["Device"]


# -- sessions --------------------------------------------------------------------------------------


def test_v7_2_4_an_ended_session_takes_no_new_id(alice: User) -> None:
    session = signed_in_tab(alice.email).session
    assert session["_auth_user_id"]
    sessions.end_others(alice, keep=None)
    with pytest.raises(UpdateError):
        session.cycle_key()
    assert not Session.objects.exists()
    assert not UserSession.objects.exists()


def test_v7_4_3_of_two_who_sign_out_everywhere_else_the_first_has_the_last_word(
    alice: User,
) -> None:
    owner, thief = proved(alice), proved(alice)
    with held(BaseHandler, "resolve_request", lambda: owner.post("/account/sessions/")):
        answer = thief.post("/account/sessions/")
    assert answer["Location"] == "/login/"
    assert owner.get("/account/security/").status_code == 200
    assert thief.get("/account/security/").status_code == 302


def test_a_page_says_why_it_asks_to_sign_in_again(alice: User) -> None:
    thief = proved(alice)
    with held(BaseHandler, "resolve_request", lambda: changes_her_password(alice)):
        answer = thief.post("/account/security/email/", {"wanted": "on"}, follow=True)
    assert "Something changed meanwhile. Sign in again." in answer.content.decode()
