"""Whose address and password these are, by which browser, and what is asked besides: one query."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Final
from uuid import UUID

from django.db import connection

from doorward.accounts import lockout, rows
from doorward.accounts.models import KnownBrowser, User

BACKEND: Final = "allauth.account.auth_backends.AuthenticationBackend"

# What follows a right password, beside the person, and the browser they are known by. It is as old
# as the hash takes; whether anything changed meanwhile is asked again before the session begins
# (sessions.let_in).
_FIND: Final = (
    "SELECT {person},"
    " EXISTS (SELECT 1 FROM account_emailaddress e"
    " WHERE e.user_id = u.id AND e.email = u.email AND e.verified) AS is_confirmed,"
    " EXISTS (SELECT 1 FROM accounts_secondstepchoice c"
    " WHERE c.user_id = u.id AND c.by_email) AS is_by_email,"
    " EXISTS (SELECT 1 FROM mfa_authenticator a"
    " WHERE a.user_id = u.id AND a.type IN ('totp', 'webauthn')) AS has_lasting,"
    " EXISTS (SELECT 1 FROM accounts_throttle WHERE {episode}) AS is_after_lock,"
    " {browser} FROM accounts_user u LEFT JOIN accounts_knownbrowser b"
    " ON b.id = (SELECT k.id FROM accounts_knownbrowser k WHERE k.digest IN ({digests})"
    " AND k.user_id = u.id AND k.revoked_at IS NULL ORDER BY k.seen_at DESC LIMIT 1)"
    " WHERE u.email = %s"
)


@dataclass(frozen=True)
class Asked:
    """What is asked of a person beside the password."""

    is_confirmed: bool
    by_email: bool
    by_lasting_way: bool


@dataclass(frozen=True)
class Found:
    """The person whose address and password these are."""

    user: User
    asked: Asked


def id_in_sql(person: UUID) -> UUID | str:
    """Return a person's id as the database keeps it, for a statement written by hand."""
    return person if connection.features.has_native_uuid_field else person.hex


@dataclass(frozen=True)
class Looked:
    """What there is at an address, before any password is looked at; for most: nothing."""

    user: User | None
    # By which browser the person is known, of those whose proofs were shown.
    browser: KnownBrowser | None = None
    asked: Asked | None = None
    # Whether strangers' browsers were locked out and the person has to be told of a sign-in.
    is_after_lock: bool = False


def look_up(email: str, proofs: list[str]) -> Looked:
    """Return who has this canonical address; ``proofs`` as browsers.proofs_in has them."""
    row = rows.one(
        _find(connection.vendor, len(proofs)), [*lockout.of_episode(email), *proofs, email]
    )
    if row is None:
        return Looked(None)
    width = rows.width_of(User)
    is_confirmed, is_by_email, has_lasting, is_after_lock = row[width : width + 4]
    browser = row[width + 4 :]
    return Looked(
        user=rows.made(User, row[:width]),
        browser=rows.made(KnownBrowser, browser) if browser[0] is not None else None,
        asked=Asked(
            is_confirmed=bool(is_confirmed),
            by_email=bool(is_by_email),
            by_lasting_way=bool(has_lasting),
        ),
        is_after_lock=bool(is_after_lock),
    )


@cache
def _find(vendor: str, proofs: int) -> str:
    return _FIND.format(
        person=rows.columns_of(User, "u", vendor),
        episode=lockout.UNTOLD_EPISODE,
        browser=rows.columns_of(KnownBrowser, "b", vendor),
        # Without any there is nothing to look for.
        digests=", ".join(["%s"] * proofs) or "NULL",
    )


def check(looked: Looked, password: str) -> Found | None:
    """Return the person whose password this is; disabled people are nobody.

    Costs one hash whether or not there is such a person.
    """
    user = looked.user
    if user is None or looked.asked is None:
        # Making a hash takes as long as comparing with one.
        User().set_password(password)
        return None
    if not user.check_password(password) or not user.is_active:
        return None
    user.backend = BACKEND  # type: ignore[attr-defined]  # as Django's own check leaves it
    return Found(user, looked.asked)
