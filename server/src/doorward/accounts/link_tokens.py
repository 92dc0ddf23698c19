"""What makes a link to choose a password good: a reset's signature, or a setup link's secret.

Kept apart from setup.py: allauth imports this while its own forms are being made.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Any, Final

from django.conf import settings
from django.contrib.auth.tokens import PasswordResetTokenGenerator
from django.utils import timezone
from django.utils.http import base36_to_int

from doorward.accounts.models import SetupLink, User

PREFIX: Final = "setup-"


class LinkTokens(PasswordResetTokenGenerator):
    """Django's reset tokens, of which only the newest is good, and ours.

    One hour, ended by signing in and by a change of password, way to sign in or address.
    """

    def _make_hash_value(self, user: Any, timestamp: int) -> str:
        # Django's has whole seconds of the last sign-in: a second one in the same second would not
        # end the link.
        signed_in = user.last_login.timestamp() if user.last_login is not None else ""
        return f"{super()._make_hash_value(user, timestamp)}{user.epoch} {signed_in}"

    def make_token(self, user: User) -> str:
        """Return a new token; the ones before it are no good any more."""
        token = str(super().make_token(user))
        User.objects.filter(pk=user.pk).update(newest_link=_made_at(token))
        return token

    def check_token(self, user: User | None, token: str | None) -> bool:
        """Tell whether the link is good for this person now; for who is disabled none is."""
        if user is not None and not user.is_active:
            return False
        if user is None or not token or not token.startswith(PREFIX):
            good = super().check_token(user, token)
            return good and user is not None and _made_at(token or "") >= user.newest_link
        link = SetupLink.objects.filter(user_id=user.pk, expires_at__gt=timezone.now()).first()
        return link is not None and hmac.compare_digest(link.digest, digest(token))


def _made_at(token: str) -> int:
    return base36_to_int(token.partition("-")[0])


def digest(secret: str) -> str:
    """Return what is stored of a setup link's secret."""
    return hashlib.blake2b(
        secret.encode("utf-8", "surrogatepass"),
        key=settings.FIELD_KEY,
        person=b"doorward-setup",
        digest_size=32,
    ).hexdigest()
