"""Codes of an authenticator app (RFC 6238), each good once.

allauth keeps used codes in a cache, which other processes don't see and which forgets after
30 seconds. Here the step of the newest accepted code is kept with the authenticator, and a code is
accepted only by moving it forward in one statement: the same code a moment later, in another
process or sixteen times at once opens once.
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, Any, Final

from allauth.core import context
from allauth.mfa.totp.internal import auth
from django.db import transaction

from doorward.accounts.factors import sealed_text
from doorward.accounts.models import TotpUse

if TYPE_CHECKING:
    from allauth.mfa.models import Authenticator

    from doorward.accounts.models import User

SEED_KEY: Final = "mfa.totp.secret"
_draw_seed: Final = auth.generate_totp_secret


class Totp(auth.TOTP):  # type: ignore[misc]  # allauth ships no types
    """An authenticator app."""

    instance: Authenticator

    @classmethod
    def activate(cls, user: User, secret: str) -> Totp:
        """Store the app; the code that proved it can't be used again."""
        proved = getattr(context.request, "totp_step_proved", None)
        with transaction.atomic():
            app: Totp = super().activate(user, secret)
            TotpUse.objects.create(
                authenticator=app.instance,
                counter=max(auth.yield_hotp_counters_from_time()) if proved is None else proved,
            )
        return app

    def validate_code(self, code: str) -> bool:
        """Tell whether this is a code of now that was not used yet, and use it up."""
        step = step_of(sealed_text.unseal(self.instance.data["secret"]), code)
        if step is None:
            return False
        used = TotpUse.objects.filter(authenticator_id=self.instance.pk, counter__lt=step)
        return used.update(counter=step) == 1


def step_of(seed: str, code: str) -> int | None:
    """Return the 30-second step this is the code of, of those that count as now; else nothing."""
    digits = "".join(code.split())
    found = None
    for step in auth.yield_hotp_counters_from_time():
        expected = auth.format_hotp_value(auth.hotp_value(seed, step))
        # All are compared, whichever matches.
        if hmac.compare_digest(expected.encode(), digits.encode("utf-8", "surrogatepass")):
            found = step
    return found


def proves(seed: str, code: str) -> bool:
    """Tell whether the code is of this seed, for an app that is about to be added."""
    step = step_of(seed, code)
    if step is None:
        return False
    context.request.totp_step_proved = step
    return True


def pending_seed(regenerate: bool = False) -> str:
    """Return the seed of the app that is being added: kept in the session, sealed."""
    session: Any = context.request.session
    kept = session.get(SEED_KEY)
    if kept and not regenerate:
        return sealed_text.unseal(kept)
    seed: str = _draw_seed()
    session[SEED_KEY] = sealed_text.seal(seed)
    return seed
