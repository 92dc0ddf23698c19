"""An operator at the command line shows who they are: password and a code, both counted."""

from __future__ import annotations

from allauth.mfa.models import Authenticator
from django.contrib.auth.hashers import make_password

from doorward.accounts import proving_again, two_factor
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
    try:
        counted = proving_again.begin(operator, "command line", target="command line")
    except proving_again.TooMany:
        raise NotProven from None
    try:
        is_theirs = operator.check_password(password)
    except Exception:
        counted.not_looked_at()
        raise
    if not is_theirs:
        trail.record("account.reauthentication.failed", actor=operator, target="command line")
        raise NotProven
    typed = [Way.APP.value, Way.RECOVERY.value]
    factors = Authenticator.objects.filter(user_id=operator.pk, type__in=typed).order_by("pk")
    if not factors:
        # Nothing failed: there was no code to be wrong.
        counted.right()
        raise NoFactor
    for factor in factors:
        if factor.wrap().validate_code(code):
            counted.right()
            two_factor.record_success(operator, Way(factor.type), stepping_up=True)
            return operator
    two_factor.record_failure(operator, Way.APP, stepping_up=True)
    raise NotProven
