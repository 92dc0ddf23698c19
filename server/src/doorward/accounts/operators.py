"""An operator at the command line shows who they are: password and a code, both counted."""

from __future__ import annotations

from allauth.mfa.models import Authenticator
from django.contrib.auth.hashers import make_password

from doorward.accounts import lockout, two_factor
from doorward.accounts.models import User, canonical_email
from doorward.accounts.two_factor import Way
from doorward.audit import trail


class NotProven(Exception):
    """No operator of this address, a wrong password or code, or too many tries."""


class NoFactor(Exception):
    """This operator has neither an authenticator app nor recovery codes to type a code from."""


def prove(address: str, password: str, code: str) -> User:
    """Return the operator who typed the right password and a fresh code. Raises NotProven.

    The code is of their authenticator app, or a recovery code, which is used up: a mailed code
    makes no operator. Tries count as those on pages do; why it was refused is not told, but for
    NoFactor, which needs the right password.
    """
    operator = User.objects.filter(
        email=canonical_email(address), is_operator=True, is_active=True
    ).first()
    if operator is None:
        # As much work as for somebody who is one.
        make_password(password)
        raise NotProven
    asked = (
        (lockout.REAUTHENTICATION, str(operator.pk)),
        (lockout.REAUTHENTICATION_DAY, str(operator.pk)),
    )
    if not lockout.allow(*asked):
        trail.record("account.reauthentication.locked", actor=operator, target="command line")
        raise NotProven
    if not operator.check_password(password):
        trail.record("account.reauthentication.failed", actor=operator, target="command line")
        raise NotProven
    _prove_by_code(operator, code)
    lockout.reset(asked[0])
    lockout.give_back(asked[1])
    return operator


def _prove_by_code(operator: User, code: str) -> None:
    own = f"second step {operator.pk}"
    short = (lockout.CODE, own)
    longer = ((lockout.CODE_HOUR, own), (lockout.CODE_DAY, own))
    typed = [Way.APP.value, Way.RECOVERY.value]
    factors = Authenticator.objects.filter(user_id=operator.pk, type__in=typed).order_by("pk")
    if not factors:
        raise NoFactor
    if not lockout.allow(short, *longer):
        raise NotProven
    for factor in factors:
        if factor.wrap().validate_code(code):
            lockout.reset(short)
            lockout.give_back(*longer)
            two_factor.record_success(operator, Way(factor.type), stepping_up=True)
            return
    two_factor.record_failure(operator, Way.APP, stepping_up=True)
    raise NotProven
