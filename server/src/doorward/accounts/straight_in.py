"""Straight from a right password to a session, for whom nothing else is asked.

No second way in: the try was counted and the password checked where every way has it done
(adapter.authenticate), and the session begins by the same calls. Left out is the walk through the
stages of a sign-in, each of which would have found that it has nothing to ask: half of what a
sign-in costs above the hash (bench/README.md, ADR 14). Who is asked for anything, whose session
holds anything but words, or a stage that is not listed here: all of these take the walk.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Final

from allauth.account.internal.flows.login import record_authentication
from allauth.account.signals import user_logged_in
from allauth.account.stages import LoginByCodeStage, LoginStage, PhoneVerificationStage
from allauth.mfa.stages import TrustStage
from allauth.mfa.webauthn.stages import PasskeySignupStage
from django.contrib.messages.storage.session import SessionStorage
from django.db import transaction

from doorward.accounts import letting_in, sessions
from doorward.accounts.credentials import Asked, Found
from doorward.accounts.recovery_stage import RecoveryStage
from doorward.accounts.second_step_stages import (
    ConfirmedStage,
    SecondStepStage,
    StampStage,
    UnchangedStage,
)

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponse  # noqa: TID251 - signatures are allauth's

    from doorward.accounts.adapter import AccountAdapter


def _nothing(_asked: Asked) -> bool:
    return True


# When each stage has nothing to ask of somebody in whose session nothing is under way. Recovery:
# its link was opened in that session. Phone: no number is asked for at signing up. Trust: only
# after a second step. Passkey: only while signing up. Stamp and unchanged: see begin.
NOTHING_TO_ASK: Final[dict[type[LoginStage], Callable[[Asked], bool]]] = {
    StampStage: _nothing,
    RecoveryStage: _nothing,
    LoginByCodeStage: lambda asked: not asked.by_email,
    PhoneVerificationStage: _nothing,
    ConfirmedStage: lambda asked: asked.is_confirmed,
    SecondStepStage: lambda asked: not asked.by_lasting_way,
    TrustStage: _nothing,
    PasskeySignupStage: _nothing,
    UnchangedStage: _nothing,
}


# What a session may hold and still nothing is under way in it: words to be shown on the next page.
HARMLESS: Final = frozenset({SessionStorage.session_key})


def leads(request: HttpRequest, found: Found, adapter: AccountAdapter) -> bool:
    """Tell whether nothing stands between this right password and a session."""
    if not HARMLESS.issuperset(request.session.keys()):
        return False
    return _asks_nothing(tuple(adapter.get_login_stages()), found.asked)


@cache
def _asks_nothing(stages: tuple[type[LoginStage], ...], asked: Asked) -> bool:
    # A stage nobody thought of here may ask for anything.
    return all(stage in NOTHING_TO_ASK and NOTHING_TO_ASK[stage](asked) for stage in stages)


def begin(
    request: HttpRequest, found: Found, answer: HttpResponse, adapter: AccountAdapter
) -> bool:
    """Begin the session, all or nothing; False, and nothing stored, where something has changed.

    ``answer`` is what the person is sent, as those who are told of a sign-in may add to it.
    """
    user = found.user
    with transaction.atomic():
        # The password was read before the hash: it may be another one by now.
        if not sessions.let_in(user, user.get_session_auth_hash()):
            return False
        record_authentication(request, user, method="password", email=user.email)
        adapter.login(request, user)
        adapter.make_browser_known(request, user)
        user_logged_in.send(sender=type(user), request=request, response=answer, user=user)
        request.session.save()
        letting_in.settle(request)
    return True
