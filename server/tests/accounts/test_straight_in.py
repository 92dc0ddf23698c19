"""From a right password straight to a session: as the walk through the stages would have it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
from allauth.account.adapter import get_adapter
from allauth.account.models import EmailAddress
from allauth.account.stages import LoginStage
from django.contrib.sessions.models import Session
from django.db import transaction
from django.test import Client
from django.utils import timezone
from server.tests.accounts.second_steps import CHROME, add_app, is_signed_in, tab, type_password
from server.tests.conftest import PASSWORD

from doorward.accounts import credentials, lockout, second_step_stages, straight_in
from doorward.accounts.models import KnownBrowser, SecondStepChoice, Throttle, User
from doorward.audit.models import Event
from doorward.notices.models import Mail

# What may be true of somebody whose password is right, or of their browser.
FACTS = ("unconfirmed", "by_email", "by_app", "disabled", "known_browser", "next_page")


def _make(alice: User, facts: frozenset[str]) -> Client:
    """Have these facts be true, and return the browser in which Alice is about to sign in."""
    browser = tab()
    if "known_browser" in facts or "by_app" in facts:
        # Both take a sign-in first.
        assert type_password(browser, alice.email).status_code == 302
        if "by_app" in facts:
            add_app(browser)
        browser.post("/logout/")
        if "known_browser" not in facts:
            browser = tab()
    if "unconfirmed" in facts:
        EmailAddress.objects.filter(user=alice).update(verified=False)
    if "by_email" in facts:
        SecondStepChoice.objects.update_or_create(user=alice, defaults={"by_email": True})
    if "disabled" in facts:
        User.objects.filter(pk=alice.pk).update(is_active=False)
    return browser


def _sign_in(browser: Client, alice: User, facts: frozenset[str]) -> dict[str, Any]:
    """Type the right password; return all that can be seen of what came of it."""
    last = Event.objects.order_by("-pk").values_list("pk", flat=True).first() or 0
    mails = set(Mail.objects.values_list("pk", flat=True))
    sent = {"login": alice.email, "password": PASSWORD}
    if "next_page" in facts:
        sent["next"] = "/devices/?state=risk"
    answer = browser.post("/login/", sent)
    person = User.objects.get(pk=alice.pk)
    kept = dict(browser.session.items())
    methods = kept.pop("account_authentication_methods", None)
    return {
        "status": answer.status_code,
        "to": answer.headers.get("Location"),
        "cookies": {name: morsel["max-age"] for name, morsel in answer.cookies.items()},
        # Expires says to old caches what Cache-Control says to all.
        "headers": sorted(set(answer.headers) - {"Content-Length", "Expires"}),
        "kept": "no-store" in answer.headers["Cache-Control"],
        "session": sorted(kept),
        "user": kept.get("_auth_user_id"),
        "hash": kept.get("_auth_user_hash"),
        "ways": [{**method, "at": None} for method in methods or []],
        "events": list(
            Event.objects.filter(pk__gt=last)
            .order_by("pk")
            .values_list("tag", "actor_id", "ip", "agent", "detail")
        ),
        "mails": sorted(Mail.objects.exclude(pk__in=mails).values_list("subject", flat=True)),
        "sessions": Session.objects.count(),
        "listed": alice.usersession_set.count(),  # type: ignore[attr-defined]  # allauth's
        "browsers": KnownBrowser.objects.filter(user=alice, revoked_at=None).count(),
        "counted": sorted(
            Throttle.objects.exclude(key__startswith="w:newmail").values_list("key", "count")
        ),
        "noted": person.last_login is not None
        and abs((timezone.now() - person.last_login).total_seconds()) < 60,
    }


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    "facts",
    [
        frozenset(chosen)
        for count in range(len(FACTS) + 1)
        for chosen in itertools.combinations(FACTS, count)
    ],
    ids=lambda facts: "+".join(sorted(facts)) or "plain",
)
def test_v6_3_4_straight_or_by_the_stages_a_sign_in_comes_to_the_same(
    alice: User, facts: frozenset[str]
) -> None:
    browser = _make(alice, facts)
    began: list[bool] = []
    real = straight_in.begin

    def begin(*given: Any) -> bool:
        began.append(real(*given))
        return began[-1]

    # Both begin from the same rows; what the first left behind is undone.
    before = dict(browser.cookies)
    seen: list[dict[str, Any]] = []
    for walks in (False, True):
        browser.cookies.clear()
        browser.cookies.update(before)
        with (
            mock.patch.object(straight_in, "begin", begin),
            mock.patch.object(
                straight_in, "leads", straight_in.leads if not walks else lambda *_: False
            ),
            _undone(),
        ):
            seen.append(_sign_in(browser, alice, facts))
    straight, by_stages = seen
    assert straight == by_stages
    # The shorter way is taken by whom nothing is asked, and by nobody else.
    assert began == ([] if facts & {"unconfirmed", "by_email", "by_app", "disabled"} else [True])


class _Back(Exception):
    """Raised to undo what was stored."""


class _undone:  # noqa: N801 - reads as a word of the sentence
    """What is stored inside is undone at the end."""

    def __enter__(self) -> None:
        self._block = transaction.atomic()
        self._block.__enter__()

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self._block.__exit__(_Back, _Back(), None) if kind is None else self._block.__exit__(
            kind, error, trace
        )


@pytest.fixture
def straight(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """What came of each try to go straight in."""
    came: list[bool] = []
    real = straight_in.begin

    def begin(*given: Any) -> bool:
        came.append(real(*given))
        return came[-1]

    monkeypatch.setattr(straight_in, "begin", begin)
    return came


class NewStage(LoginStage):  # type: ignore[misc]  # allauth ships no types
    """A step that nobody thought of when the shorter way was made."""

    key = "new"
    handled = 0

    def handle(self) -> tuple[Any, bool]:
        type(self).handled += 1
        return None, True


def test_v6_3_4_every_stage_of_a_sign_in_is_known_to_the_shorter_way() -> None:
    assert set(get_adapter().get_login_stages()) == set(straight_in.NOTHING_TO_ASK)


def test_v6_3_4_a_stage_the_shorter_way_does_not_know_is_never_left_out(
    alice: User, straight: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = second_step_stages.SecondStepAnswers.get_login_stages

    def and_another(self: Any) -> list[type[LoginStage]]:
        return [*theirs(self), NewStage]

    monkeypatch.setattr(second_step_stages.SecondStepAnswers, "get_login_stages", and_another)
    NewStage.handled = 0
    browser = tab()
    type_password(browser, alice.email)
    assert is_signed_in(browser)
    assert (straight, NewStage.handled) == ([], 1)


def test_v6_3_4_a_browser_whose_session_holds_anything_walks_through_the_stages(
    alice: User, straight: list[bool]
) -> None:
    browser = tab()
    session = browser.session
    session["anything"] = 1
    session.save()
    browser.cookies["dw_session"] = session.session_key or ""
    type_password(browser, alice.email)
    assert is_signed_in(browser)
    assert straight == []


@pytest.mark.parametrize("change", ["password", "epoch", "is_active"])
def test_what_changes_while_the_password_is_hashed_ends_the_sign_in(
    alice: User, straight: list[bool], monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    real: Callable[..., Any] = credentials.check

    def check(*given: Any) -> Any:
        found = real(*given)
        other = {"password": "argon2$other", "epoch": alice.epoch + 1, "is_active": False}
        User.objects.filter(pk=alice.pk).update(**{change: other[change]})
        return found

    monkeypatch.setattr(credentials, "check", check)
    browser = tab()
    answer = type_password(browser, alice.email)
    assert straight == [False]
    assert (answer.status_code, answer.headers["Location"]) == (302, "/login/")
    assert "_auth_user_id" not in browser.session
    page = browser.get("/login/").content.decode()
    assert "Something changed meanwhile. Sign in again." in page
    assert not Event.objects.filter(tag="account.login.succeeded").exists()


@pytest.mark.parametrize("password", ["not the password", PASSWORD])
@pytest.mark.parametrize("second", [False, True], ids=["nothing else asked", "a code asked"])
def test_a_request_is_counted_once_and_hashed_once(
    alice: User, monkeypatch: pytest.MonkeyPatch, password: str, second: bool
) -> None:
    if second:
        SecondStepChoice.objects.create(user=alice, by_email=True)
    counted: list[str] = []
    real = lockout.begin

    def begin(login: str, **more: Any) -> Any:
        counted.append(login)
        return real(login, **more)

    hashed: list[str] = []
    really = credentials.check

    def check(looked: Any, typed: str) -> Any:
        hashed.append(typed)
        return really(looked, typed)

    monkeypatch.setattr(lockout, "begin", begin)
    monkeypatch.setattr(credentials, "check", check)
    type_password(tab(), alice.email, password)
    assert (counted, hashed) == ([alice.email], [password])


def test_signing_in_by_a_known_browser_takes_seven_statements(
    alice: User, django_assert_num_queries: Any
) -> None:
    browser = Client(HTTP_HOST="localhost", HTTP_USER_AGENT=CHROME)
    type_password(browser, alice.email)
    browser.post("/logout/")
    browser.cookies.pop("dw_session")
    # The person with their browser; the try counted; let in; session, its place in the list, event;
    # the count given back. Within a test's own transaction two savepoints begin and end besides.
    with django_assert_num_queries(7 + 4):
        type_password(browser, alice.email)
    assert is_signed_in(browser)
