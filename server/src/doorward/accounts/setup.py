"""How an operator is made: by a link that works once, at which they choose their own password.

No password is typed on a command line, where the shell would remember it, and none is sent.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from allauth.account.models import EmailAddress
from allauth.account.utils import user_pk_to_url_str
from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import transaction
from django.utils import timezone

from doorward.accounts import link_tokens
from doorward.accounts.models import SetupLink, User, canonical_email
from doorward.audit import trail

LINK_LASTS: Final = timedelta(hours=72)
SECRET_BYTES: Final = 24  # 192 bits


class NotAnAddress(ValueError):
    """This is no email address."""


@dataclass(frozen=True)
class Made:
    """An operator; ``link`` is "" for one who has a password already."""

    user: User
    is_new: bool
    link: str


@transaction.atomic
def make_operator(address: str) -> Made:
    """Make this person an operator, and a link to choose a password if they have none.

    A newer link ends the one before. Raises NotAnAddress.
    """
    email = canonical_email(address)
    try:
        validate_email(email)
    except ValidationError:
        raise NotAnAddress(address) from None
    user = User.objects.select_for_update().filter(email=email).first()
    is_new = user is None
    if user is None:
        user = User.objects.create_user(email)
        # Whoever runs this command vouches for the address.
        EmailAddress.objects.create(user=user, email=email, verified=True, primary=True)
    if not user.is_operator:
        user.is_operator = True
        user.save(update_fields=["is_operator"])
        trail.record("operator.made", actor=user, target=email)
    return Made(user, is_new, "" if user.has_usable_password() else _new_link(user))


def _new_link(user: User) -> str:
    secret = link_tokens.PREFIX + secrets.token_urlsafe(SECRET_BYTES)
    SetupLink.objects.update_or_create(
        user=user,
        defaults={"digest": link_tokens.digest(secret), "expires_at": timezone.now() + LINK_LASTS},
    )
    trail.record("operator.link.made", actor=user)
    return f"{settings.SITE_URL}/password/reset/key/{user_pk_to_url_str(user)}-{secret}/"


def end_link(*, user: User, **_signal: Any) -> None:
    """End the setup link of somebody who has chosen a password."""
    SetupLink.objects.filter(user=user).delete()
