"""What ends a recovery that waits: a second step taken after all, or a change of a way to sign in.

Told by signals, so that the person learns of it at once. Should a change come by another way,
recovery.py finds it out by itself before it opens anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from allauth.account import signals as account_signals
from allauth.mfa import signals as mfa_signals

from doorward.accounts import recovery
from doorward.accounts.two_factor import Way

if TYPE_CHECKING:
    from doorward.accounts.models import User


def watch() -> None:
    """Have recoveries end from now on."""
    for signal in (
        mfa_signals.authenticator_added,
        mfa_signals.authenticator_removed,
        mfa_signals.authenticator_reset,
        account_signals.password_changed,
        account_signals.password_set,
        account_signals.password_reset,
        account_signals.email_changed,
    ):
        signal.connect(_changed, dispatch_uid=f"doorward recovery changed {id(signal)}")
    mfa_signals.authenticator_used.connect(_taken, dispatch_uid="doorward recovery taken")
    account_signals.authentication_step_completed.connect(
        _passed, dispatch_uid="doorward recovery passed"
    )


def _changed(*, user: User, **_more: Any) -> None:
    recovery.end_because(user, recovery.Ending.CHANGED)


def _taken(*, user: User, **_more: Any) -> None:
    recovery.end_because(user, recovery.Ending.UNNEEDED)


def _passed(*, user: User, method: str, **_more: Any) -> None:
    if method in {"code", Way.APPROVAL}:
        recovery.end_because(user, recovery.Ending.UNNEEDED)
