"""Whose address and password these are, and what is asked of that person besides: by one query."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from uuid import UUID

from django.db import connection

from doorward.accounts import rows
from doorward.accounts.models import User

BACKEND: Final = "allauth.account.auth_backends.AuthenticationBackend"

# What follows a right password, beside the person. It is as old as the hash takes; whether
# anything changed meanwhile is asked again before the session begins (UnchangedStage).
_FIND: Final = (
    "SELECT {columns},"
    " EXISTS (SELECT 1 FROM account_emailaddress e"
    " WHERE e.user_id = u.id AND e.email = u.email AND e.verified) AS is_confirmed,"
    " EXISTS (SELECT 1 FROM accounts_secondstepchoice c"
    " WHERE c.user_id = u.id AND c.by_email) AS is_by_email,"
    " EXISTS (SELECT 1 FROM mfa_authenticator a"
    " WHERE a.user_id = u.id AND a.type IN ('totp', 'webauthn')) AS has_lasting"
    " FROM accounts_user u WHERE u.email = %s"
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


def check(email: str, password: str) -> Found | None:
    """Return the person whose address and password these are; disabled people are nobody.

    Costs one hash whether or not there is such a person. ``email`` is canonical.
    """
    found = rows.first(User, "u", _FIND, [email])
    if found is None:
        # Making a hash takes as long as comparing with one.
        User().set_password(password)
        return None
    user, (is_confirmed, is_by_email, has_lasting) = found
    if not user.check_password(password) or not user.is_active:
        return None
    user.backend = BACKEND  # type: ignore[attr-defined]  # as Django's own check leaves it
    asked = Asked(
        is_confirmed=bool(is_confirmed),
        by_email=bool(is_by_email),
        by_lasting_way=bool(has_lasting),
    )
    return Found(user, asked)
