"""Counts a code or a passkey before it is looked at, wherever allauth asks or we do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from allauth.account.adapter import get_adapter as account_adapter
from allauth.core import context
from allauth.core.exceptions import ImmediateHttpResponse

from doorward.accounts import adapter, letting_in, lockout, second_step_tries
from doorward.accounts.origin import origin_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from doorward.accounts.models import User


def count_try(user: User) -> Callable[[], None]:
    """Count a code before it is compared; returns what to call when it was right.

    Raises ValidationError (pages) or ImmediateHttpResponse (apps) when there were too many.
    """
    if _proves_again(user):
        return _proving_again(user)
    browser = letting_in.known_browser(context.request, user.email)
    ip = origin_of(context.request).ip
    return begin(second_step_tries.codes(user.pk, browser=browser, ip=ip))


def count_passkey(user: User) -> Callable[[], None]:
    """Count a passkey before it is looked at: beside the codes, whose wrong tries don't matter."""
    if _proves_again(user):
        return _proving_again(user)
    browser = letting_in.known_browser(context.request, user.email)
    return begin(second_step_tries.passkeys(browser=browser, ip=origin_of(context.request).ip))


def count_new_app(user: User, error_key: str) -> Callable[[], None]:
    """Count the code of an app that is being added: no stranger's code has a part in it."""
    own = f"new app {user.pk}"
    return begin(
        ((lockout.CODE, own), (lockout.CODE_HOUR, own), (lockout.CODE_DAY, own)), error_key
    )


def begin(
    windows: second_step_tries.Windows, error_key: str = "too_many_login_attempts"
) -> Callable[[], None]:
    """Count a try; returns what to call when it was right.

    Raises ValidationError (pages) or ImmediateHttpResponse (apps) when there were too many.
    """
    try:
        return second_step_tries.begin(windows)
    except lockout.Locked as locked:
        refusal = account_adapter().validation_error(error_key)
        if not adapter.is_headless_path(context.request):
            raise refusal from None
        answer = adapter.too_many(context.request, locked, refusal.message)
        raise ImmediateHttpResponse(answer) from None


def _proves_again(user: User) -> bool:
    # Who is signed in already: no second step is under way in that session.
    return bool(context.request.user.pk == user.pk)


def _proving_again(user: User) -> Callable[[], None]:
    was_right: Callable[[], None] = account_adapter().begin_proving_again(user)
    return was_right
