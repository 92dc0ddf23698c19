"""No test of the server sees a session get a person but past every stage of a sign-in.

Put around the whole run by conftest.py, so that a new way in fails wherever any test walks it. A
person may be put into a session by allauth's way through the stages once each of them was handled
in this sign-in, by straight_in.begin where each has nothing to ask, and by a test's own browser
(Client.force_login). Any other way is refused where it tries, and noted: an edge may turn what was
raised into a polite answer.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from allauth.account.adapter import get_adapter
from allauth.account.stages import LoginStageController
from django.contrib.auth import SESSION_KEY as USER_KEY
from django.test import Client

from doorward.accounts import straight_in
from doorward.accounts.second_step_stages import StampStage
from doorward.accounts.session_store import SessionStore

_LET_IN = "_let_in_past_the_stages"
_own_browser = threading.local()


class PastTheStages(AssertionError):
    """A session was to get a person by a way that does not pass every stage."""


@contextmanager
def put_by_the_test(user: str) -> Iterator[None]:
    """Let the test itself write a session of this person."""
    _own_browser.user = user
    try:
        yield
    finally:
        _own_browser.user = None


@contextmanager
def watched() -> Iterator[list[str]]:
    """Have each way into a session watched; yields what was refused, to be emptied by a test."""
    refused: list[str] = []
    # Which stages were handled in which sign-in, however its state is kept from page to page.
    handled: defaultdict[str, set[str]] = defaultdict(set)
    with pytest.MonkeyPatch.context() as patch:
        _watch_the_ways(patch, handled)
        _watch_the_sessions(patch, refused)
        yield refused


def _watch_the_ways(patch: pytest.MonkeyPatch, handled: defaultdict[str, set[str]]) -> None:
    walk, note = LoginStageController.handle, LoginStageController.set_handled
    begin, force = straight_in.begin, Client.force_login

    def set_handled(self: Any, key: str) -> None:
        note(self, key)
        handled[_nonce_of(self)].add(key)

    def handle(self: Any) -> Any:
        answer = walk(self)
        nonce = _nonce_of(self)
        every = {stage.key for stage in get_adapter().get_login_stages()}
        # What says of itself that it was handled, but was not seen to be, does not count.
        if answer is None and self.login.user and nonce and every <= handled[nonce]:
            setattr(self.request.session, _LET_IN, str(self.login.user.pk))
        return answer

    def begin_straight(request: Any, found: Any, answer: Any, adapter: Any) -> bool:
        asks_nothing = straight_in.NOTHING_TO_ASK
        stages = adapter.get_login_stages()
        if all(stage in asks_nothing and asks_nothing[stage](found.asked) for stage in stages):
            setattr(request.session, _LET_IN, str(found.user.pk))
        return begin(request, found, answer, adapter)

    def force_login(self: Client, user: Any, backend: str | None = None) -> None:
        with put_by_the_test(str(user.pk)):
            force(self, user, backend)

    patch.setattr(LoginStageController, "set_handled", set_handled)
    patch.setattr(LoginStageController, "handle", handle)
    patch.setattr(straight_in, "begin", begin_straight)
    patch.setattr(Client, "force_login", force_login)


def _nonce_of(controller: Any) -> str:
    return str(controller.state.get(StampStage.key, {}).get("data", {}).get("nonce", ""))


def _watch_the_sessions(patch: pytest.MonkeyPatch, refused: list[str]) -> None:
    put, save, load, encode = (
        SessionStore.__setitem__,
        SessionStore.save,
        SessionStore.load,
        SessionStore.encode,
    )

    def ask(store: Any, user: Any) -> None:
        may = {getattr(store, _LET_IN, None), getattr(_own_browser, "user", None)} - {None}
        if user is not None and user not in may:
            refused.append(f"{user} was put into a session past the stages of a sign-in")
            raise PastTheStages(refused[-1])

    def setitem(self: Any, key: str, value: Any) -> None:
        if key == USER_KEY:
            ask(self, value)
        put(self, key, value)

    # However else it came to hold a person: nothing is stored.
    def saved(self: Any, must_create: bool = False) -> None:
        ask(self, self._get_session(no_load=must_create).get(USER_KEY))
        save(self, must_create)

    def encoded(self: Any, session_dict: dict[str, Any]) -> str:
        ask(self, session_dict.get(USER_KEY))
        return encode(self, session_dict)

    # Who is in a session that was stored got in when it was.
    def loaded(self: Any) -> dict[str, Any]:
        data = load(self)
        if USER_KEY in data:
            setattr(self, _LET_IN, data[USER_KEY])
        return data

    patch.setattr(SessionStore, "__setitem__", setitem)
    patch.setattr(SessionStore, "save", saved)
    patch.setattr(SessionStore, "encode", encoded)
    patch.setattr(SessionStore, "load", loaded)
