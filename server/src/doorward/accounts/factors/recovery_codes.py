"""Recovery codes: ten, of 80 bits each, kept as keyed hashes, shown once, each good once."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from typing import TYPE_CHECKING, Any, Final

from allauth.core import context
from allauth.mfa.models import Authenticator
from allauth.mfa.recovery_codes.internal import auth
from django.conf import settings
from django.db import transaction
from django.utils import timezone

from doorward.accounts.factors import sealed_text
from doorward.accounts.models import RecoveryCode
from doorward.notices.envelope import Unreadable

if TYPE_CHECKING:
    from doorward.accounts.models import User

COUNT: Final = 10
CODE_BYTES: Final = 10  # 80 bits: 16 characters of base32
SESSION_KEY: Final = "fresh_recovery_codes"
HIDDEN: Final = "•••• •••• •••• ••••"
# What people read for the letters base32 has instead.
_MISREAD: Final = str.maketrans({"0": "O", "1": "I", "8": "B"})


class RecoveryCodes(auth.RecoveryCodes):  # type: ignore[misc]  # allauth ships no types
    """A person's recovery codes."""

    instance: Any

    @classmethod
    def activate(cls, user: User) -> RecoveryCodes:
        """Store new codes unless there are some; the text is left for the one page to show."""
        held = Authenticator.objects.filter(
            user_id=user.pk, type=Authenticator.Type.RECOVERY_CODES
        ).first()
        if held is not None:
            return cls(held)
        codes = [draw() for _ in range(COUNT)]
        with transaction.atomic():
            instance = Authenticator.objects.create(
                user=user, type=Authenticator.Type.RECOVERY_CODES, data={}
            )
            RecoveryCode.objects.bulk_create(
                RecoveryCode(authenticator=instance, digest=digest(code)) for code in codes
            )
        instance.fresh_codes = codes
        if context.request is not None:
            kept = {"of": instance.pk, "codes": codes}
            context.request.session[SESSION_KEY] = sealed_text.seal(json.dumps(kept))
        return cls(instance)

    def validate_code(self, code: str) -> bool:
        """Tell whether this is one of the codes, unused until now, and use it up."""
        unused = RecoveryCode.objects.filter(
            authenticator_id=self.instance.pk, digest=digest(code), used_at__isnull=True
        )
        return unused.update(used_at=timezone.now()) == 1

    def get_unused_codes(self) -> list[str]:
        """Return the codes while they may be shown; afterwards one mask for each unused one."""
        fresh = getattr(self.instance, "fresh_codes", None)
        if fresh is not None:
            return list(fresh)
        return [HIDDEN] * left(self.instance)

    def mark_as_viewed(self) -> None:
        """Take the codes out of the session for this one answer."""
        if not hasattr(self.instance, "fresh_codes"):
            self.instance.fresh_codes = _take(self.instance)
        elif context.request is not None:
            context.request.session.pop(SESSION_KEY, None)
        super().mark_as_viewed()

    def generate_codes(self) -> list[str]:
        """Return what get_unused_codes does: no code can be computed again."""
        return self.get_unused_codes()


def _take(instance: Any) -> list[str] | None:
    sealed = context.request.session.pop(SESSION_KEY, None) if context.request else None
    if sealed is None:
        return None
    try:
        kept = json.loads(sealed_text.unseal(sealed))
    except Unreadable:
        return None
    return list(kept["codes"]) if kept["of"] == instance.pk else None


def left(instance: Any) -> int:
    """Return how many of these codes were not used yet."""
    return RecoveryCode.objects.filter(authenticator_id=instance.pk, used_at__isnull=True).count()


def draw() -> str:
    """Return a new code, in fours."""
    letters = base64.b32encode(secrets.token_bytes(CODE_BYTES)).decode("ascii")
    return "-".join(letters[place : place + 4] for place in range(0, len(letters), 4))


def digest(code: str) -> str:
    """Return what is stored of a code, however it was typed."""
    letters = "".join(code.replace("-", "").split()).upper().translate(_MISREAD)
    # Keyed by a key that is not in the database; 80 bits can't be guessed anyway.
    return hashlib.blake2b(
        letters.encode("utf-8", "surrogatepass"),
        key=settings.FIELD_KEY,
        person=b"doorward-recover",
        digest_size=32,
    ).hexdigest()
