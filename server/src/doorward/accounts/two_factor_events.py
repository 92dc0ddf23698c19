"""What follows when a way to sign in was added, removed, used or failed: told by signals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from allauth.account import signals as account_signals
from allauth.mfa import signals as mfa_signals
from allauth.mfa.models import Authenticator
from django.contrib import messages
from django.contrib.auth import update_session_auth_hash
from django.contrib.auth.signals import user_logged_in
from django.db import transaction
from django.db.models.signals import pre_save
from django.utils.translation import ngettext

from doorward.accounts import after_a_change, email_change, sessions, signup, two_factor
from doorward.accounts.after_a_change import Ended
from doorward.accounts.origin import origin_of
from doorward.accounts.two_factor import Way
from doorward.audit import card_numbers, trail

if TYPE_CHECKING:
    from django.http import HttpRequest  # noqa: TID251 - signatures are the signals'

    from doorward.accounts.models import User


def watch() -> None:
    """Have the consequences follow from now on."""
    for signal, act in (
        (mfa_signals.authenticator_added, _added),
        (mfa_signals.authenticator_removed, _removed),
        (mfa_signals.authenticator_reset, _reset),
        (mfa_signals.authenticator_used, _used),
        (mfa_signals.authentication_failed, _failed),
        (account_signals.login_code_rejected, _code_rejected),
        (account_signals.email_verification_code_rejected, _address_code_rejected),
        (account_signals.email_changed, _moved),
        (user_logged_in, _signed_in),
        (account_signals.authentication_step_completed, _stepped_up),
        (account_signals.password_changed, _password_changed),
        (account_signals.password_set, _password_changed),
        (account_signals.password_reset, _password_changed),
    ):
        signal.connect(act, dispatch_uid=f"doorward two-step {act.__name__} {id(signal)}")
    # However it is named: when it is added or later, on a page or by an app.
    pre_save.connect(_named, sender=Authenticator, dispatch_uid="doorward passkeys' names")


def _named(*, instance: Authenticator, **_more: Any) -> None:
    if isinstance(instance.data, dict) and "name" in instance.data:
        instance.data["name"] = card_numbers.hide(str(instance.data["name"]))


@transaction.atomic
def changed_elsewhere(request: HttpRequest, user: User) -> Ended:
    """End what was opened by the ways as they were: sessions, tokens, remembered browsers, links.

    This session goes on, under a new id. Returns what ended in this request so far. Raises
    sessions.Overtaken when another change was made since the request began.
    """
    origin = origin_of(request)
    here = request.user.is_authenticated and request.user.pk == user.pk
    keep = request.session.session_key if here else None
    if here:
        # allauth may have read the person anew, after the change that must be noticed.
        user.epoch = request.user.epoch  # type: ignore[union-attr]  # told apart just above
    ended = after_a_change.end_what_was_open(user, keep=keep, ip=origin.ip, agent=origin.agent)
    so_far = what_ended(request)
    request.what_ended = so_far.and_then(ended) if so_far else ended  # type: ignore[attr-defined]  # for the mails
    if ended.tokens and here:
        words = ngettext(
            "Your token for programs ended with it. Make a new one for what still needs it.",
            "Your %(count)d tokens for programs ended with it. Make new ones where needed.",
            ended.tokens,
        )
        messages.warning(request, words % {"count": ended.tokens})
    if here:
        sessions.must_last(user)
        # By the session's own person: the hash of the new epoch is written, the id is changed.
        request.user.epoch = user.epoch  # type: ignore[union-attr]  # told apart just above
        update_session_auth_hash(request, request.user)  # type: ignore[arg-type]  # likewise
    total = what_ended(request)
    return ended if total is None else total


def password_is_another(request: HttpRequest, user: User) -> None:
    """End what was opened by the old password, before allauth says that it is another one."""
    changed_elsewhere(request, user)
    request.password_is_another = True  # type: ignore[attr-defined]  # read when it says so


def what_ended(request: HttpRequest) -> Ended | None:
    """Return what a change made in this request has ended; nothing when there was none."""
    return getattr(request, "what_ended", None)


def _added(*, request: HttpRequest, user: User, authenticator: Authenticator, **_more: Any) -> None:
    _record("account.second_step.added", request, user, authenticator)
    # Who signs up with a passkey has nothing open yet, least of all elsewhere.
    if authenticator.type != Way.RECOVERY and request.user.is_authenticated:
        changed_elsewhere(request, user)


def _removed(
    *, request: HttpRequest, user: User, authenticator: Authenticator, **_more: Any
) -> None:
    _record("account.second_step.removed", request, user, authenticator)
    if authenticator.type != Way.RECOVERY:
        changed_elsewhere(request, user)


def _reset(*, request: HttpRequest, user: User, authenticator: Authenticator, **_more: Any) -> None:
    _record("account.recovery_codes.made", request, user, authenticator)
    changed_elsewhere(request, user)


def _used(
    *,
    request: HttpRequest,
    user: User,
    authenticator: Authenticator,
    reauthenticated: bool = False,
    **_more: Any,
) -> None:
    origin = origin_of(request)
    two_factor.record_success(
        user,
        Way(authenticator.type),
        ip=origin.ip,
        agent=origin.agent,
        stepping_up=reauthenticated,
    )


def _failed(
    *,
    request: HttpRequest,
    user: User,
    authenticator: Authenticator,
    reauthentication: bool = False,
    **_more: Any,
) -> None:
    origin = origin_of(request)
    two_factor.record_failure(
        user,
        authenticator.type,
        ip=origin.ip,
        agent=origin.agent,
        stepping_up=reauthentication,
    )


def _code_rejected(*, request: HttpRequest, user: User, **_more: Any) -> None:
    origin = origin_of(request)
    two_factor.record_failure(user, Way.EMAIL, ip=origin.ip, agent=origin.agent)


def _address_code_rejected(*, user: User, last_attempt: bool, **_more: Any) -> None:
    if last_attempt:
        # Else who mistyped it three times would be told that the address is taken, by themselves.
        signup.give_up(user)


def _signed_in(*, request: HttpRequest, user: User, **_more: Any) -> None:
    sessions.begin(request.session)
    # Read where a browser is to be remembered (allauth_ways).
    request.signed_in_now = user.pk  # type: ignore[attr-defined]  # ours


def _stepped_up(
    *,
    request: HttpRequest,
    user: User,
    method: str,
    reauthenticated: bool = False,
    **more: Any,
) -> None:
    if reauthenticated:
        # Who held the id before is not the one who has just proved who they are.
        request.session.cycle_key()
    elif method == "code":
        origin = origin_of(request)
        way = Way.TEXT if more.get("phone") else Way.EMAIL
        two_factor.record_success(user, way, ip=origin.ip, agent=origin.agent)


def _moved(
    *,
    request: HttpRequest,
    user: User,
    from_email_address: Any,
    to_email_address: Any,
    **_more: Any,
) -> None:
    # At sign-up the first address is no change of one.
    if from_email_address is None or not from_email_address.verified:
        return
    origin = origin_of(request)
    ended = changed_elsewhere(request, user)
    email_change.changed(
        user,
        before=from_email_address.email,
        after=to_email_address.email,
        ended=ended.words,
        ip=origin.ip,
        agent=origin.agent,
    )


def _password_changed(*, request: HttpRequest, user: User, **_more: Any) -> None:
    # Done already where the mail about it was written first.
    if not getattr(request, "password_is_another", False):
        changed_elsewhere(request, user)


def _record(tag: str, request: HttpRequest, user: User, authenticator: Authenticator) -> None:
    origin = origin_of(request)
    trail.record(
        tag,
        actor=user,
        target=str(authenticator.pk),
        ip=origin.ip,
        agent=origin.agent,
        way=authenticator.type,
    )
