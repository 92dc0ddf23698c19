"""Who calls: a person's app by its session, or their script by a personal access token."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal, cast
from uuid import UUID

from allauth.account.internal.flows.reauthentication import did_recently_reauthenticate
from allauth.headless.contrib.ninja.security import XSessionTokenAuth
from allauth.headless.internal.sessionkit import authenticate_by_x_session_token
from django.contrib.sessions.backends.base import SessionBase
from django.http import HttpRequest
from ninja.security import HttpBearer

from doorward.accounts import members, permissions, sessions, tokens
from doorward.accounts.models import Account, Membership, PersonalToken, User
from doorward.accounts.permissions import Act
from doorward.accounts.tokens import Scope
from doorward.api.problems import Refused
from doorward.devices import sharing
from doorward.devices.sharing import Sight

_SESSION: Final = re.compile(r"[a-z0-9]{32}")
ACCOUNT_HEADER: Final = "X-Account"
NEEDED: Final[dict[Act, Scope]] = {
    Act.DEVICES_LOOK: Scope.DEVICES_READ,
    Act.DEVICES_CHANGE: Scope.DEVICES_WRITE,
    Act.DEVICES_COMMAND: Scope.COMMANDS_WRITE,
    # A token proves nothing anew, so it can't have devices protect less.
    Act.PROTECTION_CHANGE: Scope.SETTINGS_WRITE,
    Act.REPORTS_LOOK: Scope.REPORTS_READ,
    Act.MEMBERS_LOOK: Scope.MEMBERS_READ,
}
"""Which scope a token needs for an act; for Act.LOOK none. Any other needs the person's session."""


@dataclass(frozen=True)
class Caller:
    """A person, the account they look at, and what this call may do."""

    user: User
    membership: Membership
    scopes: frozenset[Scope]
    by: Literal["session", "token"]
    session: SessionBase | None = None

    @property
    def account(self) -> Account:
        """The account every answer is about."""
        return self.membership.account

    @cached_property
    def sight(self) -> Sight:
        """The account as this person may see it: what every read of devices' reports begins with.

        Takes one query, once.
        """
        return sharing.of(self.account, self.user)

    @property
    def is_fresh(self) -> bool:
        """Whether the person proved again, within the last 15 minutes, that it is them."""
        return self.session is not None and _is_fresh(self.user, self.session)

    def must(self, act: Act) -> None:
        """Raise Refused unless token and role allow this."""
        if self.by == "token" and act != Act.LOOK:
            scope = NEEDED.get(act)
            if scope is None:
                raise Refused("forbidden", "No token may do this: it needs the person's session.")
            if scope not in self.scopes:
                raise Refused("forbidden", f"The token lacks the scope {scope}.")
        if not permissions.may(self.membership.role, act):
            raise Refused("forbidden", f"Your role in this account does not allow {act}.")

    def must_be_fresh(self) -> None:
        """Raise Refused unless the person has just proved again that it is them."""
        if not self.is_fresh:
            raise Refused(
                "reauthentication-required",
                "Prove again that it is you, at /_allauth/app/v1/auth/reauthenticate.",
            )


def of(request: HttpRequest, act: Act) -> Caller:
    """Return who calls, if this call may do this act. Raises Refused."""
    caller = cast(Caller, request.auth)  # type: ignore[attr-defined]  # set by ninja
    caller.must(act)
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
        found = authenticate_by_x_session_token(request.headers["X-Session-Token"])
        user, session = found or (None, None)
        if not isinstance(user, User) or session is None:
            return None
        sessions.came_by(request, user, sessions.in_session(session.session_key or ""))
        return _caller(user, frozenset(Scope), "session", _wanted(request), session)


class TokenAuth(HttpBearer):
    """A personal access token, made on the account page."""

    def authenticate(self, request: HttpRequest, token: str) -> Caller | None:
        """Return the caller behind the token, or nobody."""
        found = tokens.find(token)
        if found is None:
            return None
        wanted = _wanted(request)
        if found.account_id is not None and wanted not in {None, found.account_id}:
            raise Refused("forbidden", "The token is for another account.")
        good = PersonalToken.objects.filter(pk=found.pk, revoked_at__isnull=True)
        sessions.came_by(request, found.user, good)
        scopes = frozenset(map(Scope, found.scope_list))
        return _caller(found.user, scopes, "token", found.account_id or wanted)


def _wanted(request: HttpRequest) -> UUID | None:
    text = request.headers.get(ACCOUNT_HEADER, "")
    try:
        return UUID(text) if text else None
    except ValueError:
        raise Refused("forbidden", f"{ACCOUNT_HEADER} names no account of yours.") from None


def _caller(
    user: User,
    scopes: frozenset[Scope],
    by: Literal["session", "token"],
    account: UUID | None,
    session: SessionBase | None = None,
) -> Caller:
    try:
        return Caller(user, members.place_of(user, account), scopes, by, session)
    except members.NoAccount:
        why = "You belong to no account."
        if account is not None:
            why = f"{ACCOUNT_HEADER} names no account of yours."
        raise Refused("forbidden", why) from None


def _is_fresh(user: User, session: SessionBase) -> bool:
    # allauth asks the request; an app's session stands beside it, and was checked by its token.
    request = HttpRequest()
    request.session, request.user = session, user
    return bool(did_recently_reauthenticate(request))
