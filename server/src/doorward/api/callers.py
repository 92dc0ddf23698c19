"""Who calls: a person's app by its session, or their script by a personal access token."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal, cast

from allauth.headless.contrib.ninja.security import XSessionTokenAuth
from django.http import HttpRequest
from ninja.security import HttpBearer

from doorward.accounts import members, tokens
from doorward.accounts.models import Account, Membership, User
from doorward.accounts.tokens import Scope
from doorward.api.problems import Refused

_SESSION: Final = re.compile(r"[a-z0-9]{32}")


@dataclass(frozen=True)
class Caller:
    """A person, the account they look at, and what this call may do."""

    user: User
    membership: Membership
    scopes: frozenset[Scope]
    by: Literal["session", "token"]

    @property
    def account(self) -> Account:
        """The account every answer is about."""
        return self.membership.account

    def must_have(self, scope: Scope) -> None:
        """Raise Refused unless token and role allow this."""
        if scope not in self.scopes:
            raise Refused("forbidden", f"The token lacks the scope {scope}.")
        if scope == Scope.DEVICES_WRITE and self.membership.role not in members.MAY_CHANGE_DEVICES:
            raise Refused("forbidden", "Your role in this account only allows to look.")


def of(request: HttpRequest, scope: Scope | None = None) -> Caller:
    """Return who calls, if this call may do what ``scope`` names. Raises Refused."""
    caller = cast(Caller, request.auth)  # type: ignore[attr-defined]  # set by ninja
    if scope is not None:
        caller.must_have(scope)
    return caller


class SessionAuth(XSessionTokenAuth):  # type: ignore[misc]  # allauth ships no types
    """The session token that an app got by signing in through /_allauth/."""

    openapi_type: str = "apiKey"
    openapi_in: str = "header"
    openapi_name: str = "X-Session-Token"

    def __call__(self, request: HttpRequest) -> Caller | None:
        """Return the caller behind the session, or nobody."""
        # Anything else is no session of ours; the database must not see a NUL or a novel.
        if not _SESSION.fullmatch(request.headers.get("X-Session-Token", "")):
            return None
        user = super().__call__(request)
        return _caller(user, frozenset(Scope), "session") if isinstance(user, User) else None


class TokenAuth(HttpBearer):
    """A personal access token, made on the account page."""

    def authenticate(self, request: HttpRequest, token: str) -> Caller | None:
        """Return the caller behind the token, or nobody."""
        found = tokens.find(token)
        if found is None:
            return None
        return _caller(found.user, frozenset(map(Scope, found.scope_list)), "token")


def _caller(user: User, scopes: frozenset[Scope], by: Literal["session", "token"]) -> Caller:
    try:
        return Caller(user, members.place_of(user), scopes, by)
    except members.NoAccount:
        raise Refused("forbidden", "You belong to no account.") from None
