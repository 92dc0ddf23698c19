"""Sign-ins by password take turns; whatever else is asked for does not wait for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from io import BytesIO
from threading import BoundedSemaphore, Event, Thread
from types import SimpleNamespace
from typing import Any

import pytest
from django.http import HttpRequest, HttpResponse  # noqa: TID251 - the middleware is an edge
from django.test import Client, RequestFactory
from server.tests.conftest import PASSWORD

from doorward.accounts import passwords
from doorward.accounts.models import User
from doorward.portal import turns
from doorward.portal.turns import sign_ins_take_turns

FORM = {"login": "alice@example.org", "password": PASSWORD}
Answer = Callable[[HttpRequest], HttpResponse]


@pytest.fixture
def one_core(monkeypatch: pytest.MonkeyPatch) -> BoundedSemaphore:
    """One place to hash in."""
    only = BoundedSemaphore(1)
    monkeypatch.setattr(passwords, "_slots", only)
    return only


@pytest.fixture
def on_sqlite(monkeypatch: pytest.MonkeyPatch) -> None:
    """The database is one that answers in this process."""
    monkeypatch.setattr(turns, "connection", SimpleNamespace(vendor="sqlite"))


@pytest.fixture
def somebody_has_the_turn(one_core: BoundedSemaphore) -> Iterator[Event]:
    """Another thread's sign-in is under way until this is set, or the test ends."""
    taken, ended = Event(), Event()

    def sign_in() -> None:
        with passwords.turn():
            taken.set()
            ended.wait(30)

    thread = Thread(target=sign_in)
    thread.start()
    assert taken.wait(30)
    yield ended
    ended.set()
    thread.join(30)


def told(_request: HttpRequest) -> HttpResponse:
    return HttpResponse("told")


def is_taken(slots: BoundedSemaphore) -> bool:
    free = slots.acquire(blocking=False)
    if free:
        slots.release()
    return not free


@pytest.mark.usefixtures("on_sqlite")
@pytest.mark.parametrize("path", ["/login/", "/_allauth/app/v1/auth/login"])
def test_a_sign_in_has_its_place_from_its_beginning_to_its_end(
    one_core: BoundedSemaphore, path: str
) -> None:
    def answer(_request: HttpRequest) -> HttpResponse:
        assert is_taken(one_core)
        return HttpResponse()

    sign_ins_take_turns(answer)(RequestFactory().post(path, FORM))
    assert not is_taken(one_core)


@pytest.mark.usefixtures("on_sqlite")
def test_its_hash_needs_no_second_place(one_core: BoundedSemaphore) -> None:
    hasher = passwords.SodiumArgon2Hasher()
    hasher.memory_kib = 64

    def answer(_request: HttpRequest) -> HttpResponse:
        right = hasher.verify("open", hasher.encode("open", ""))
        return HttpResponse(str(right))

    answered = sign_ins_take_turns(answer)(RequestFactory().post("/login/", FORM))
    assert answered.content == b"True"
    with passwords.hash_slot():
        assert is_taken(one_core), "outside of a turn a hash takes its place itself"


@pytest.mark.usefixtures("on_sqlite")
def test_a_second_sign_in_waits_until_the_first_is_answered(somebody_has_the_turn: Event) -> None:
    answered = Event()

    def answer(_request: HttpRequest) -> HttpResponse:
        answered.set()
        return HttpResponse()

    request = RequestFactory().post("/login/", FORM)
    second = Thread(target=sign_ins_take_turns(answer), args=(request,))
    second.start()
    assert not answered.wait(0.2)
    somebody_has_the_turn.set()
    assert answered.wait(30)
    second.join(30)


@pytest.mark.usefixtures("on_sqlite", "somebody_has_the_turn")
@pytest.mark.parametrize(
    ("method", "path"), [("get", "/login/"), ("get", "/devices/"), ("post", "/login/approval/")]
)
def test_no_other_page_waits_for_a_turn(method: str, path: str) -> None:
    request = getattr(RequestFactory(), method)(path)
    assert sign_ins_take_turns(told)(request).content == b"told"


@pytest.mark.usefixtures("on_sqlite")
def test_who_sends_slowly_has_no_turn_meanwhile(one_core: BoundedSemaphore) -> None:
    class Slow(BytesIO):
        def read(self, *most: Any) -> bytes:
            assert not is_taken(one_core)
            return super().read(*most)

    body = b"login=alice%40example.org&password=x"
    request = RequestFactory().post(
        "/login/", body, content_type="application/x-www-form-urlencoded"
    )
    request._stream = Slow(body)  # as the server hands it over
    seen = sign_ins_take_turns(lambda asked: HttpResponse(asked.POST["login"]))(request)
    assert seen.content == b"alice@example.org"


@pytest.mark.usefixtures("on_sqlite", "somebody_has_the_turn")
def test_what_is_too_long_to_be_read_waits_for_no_turn() -> None:
    request = RequestFactory().post(
        "/login/", b"x" * 300_000, content_type="application/x-www-form-urlencoded"
    )
    assert sign_ins_take_turns(told)(request).content == b"told"


@pytest.mark.usefixtures("on_sqlite")
def test_a_fault_in_a_turn_gives_it_back(one_core: BoundedSemaphore) -> None:
    def fail(_request: HttpRequest) -> HttpResponse:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        sign_ins_take_turns(fail)(RequestFactory().post("/login/", FORM))
    assert not is_taken(one_core)
    with passwords.hash_slot():
        assert is_taken(one_core)


@pytest.mark.usefixtures("somebody_has_the_turn")
def test_where_a_database_server_is_waited_for_nobody_takes_a_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(turns, "connection", SimpleNamespace(vendor="postgresql"))
    assert sign_ins_take_turns(told)(RequestFactory().post("/login/", FORM)).content == b"told"


@pytest.mark.django_db
def test_alice_signs_in_in_her_turn(one_core: BoundedSemaphore, alice: User) -> None:
    answer = Client(HTTP_HOST="localhost").post("/login/", {**FORM, "login": alice.email})
    assert answer.status_code == 302
    assert not is_taken(one_core)
