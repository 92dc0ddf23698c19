"""Codes that we send, by mail or text message: counted before they are compared, and kept hashed.

allauth counts wrong codes in the session, where two tries at once are counted as one, and keeps the
code there as it is. Here the session holds only a keyed hash, with the name of the flow that asked
for the code: it is good there and nowhere else. The tries are in the database, three for a flow
however often a new code is sent in it, and those of one person over all their flows.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import Any, Final

from allauth.account.adapter import get_adapter
from allauth.account.internal.flows.email_verification_by_code import EmailVerificationProcess
from allauth.account.internal.flows.login_by_code import LoginCodeVerificationProcess
from allauth.core import context
from allauth.core.internal.cryptokit import normalize_user_code
from django.conf import settings
from django.db import IntegrityError, transaction

from doorward.accounts import counted_tries, letting_in, lockout, second_step_tries
from doorward.accounts.models import User, canonical_email
from doorward.accounts.origin import origin_of

SECOND_STEP: Final = "second step "
FLOW: Final = "flow"
_FLOW_BYTES: Final = 16
_finish: Final = EmailVerificationProcess.finish
_sign_in_code: Final = LoginCodeVerificationProcess.generate_code


def draw_to_sign_in(process: Any) -> str:
    """Return a new code to sign in with; only what proves it stays in the session."""
    code: str = _sign_in_code(process)
    process.state["code"] = keep(process.state, f"{SECOND_STEP}{process.user.pk}", code)
    return code


def draw_for_address(process: Any) -> None:
    """Make a new code that proves an address; the text is at hand only until it is mailed."""
    code = get_adapter().generate_email_verification_code()
    process.text_to_send = code
    address = canonical_email(process.state["email"])
    process.state["code"] = keep(process.state, f"address {address}", code)


def text_for_address(process: Any) -> str:
    """Return the code that was just made, for its mail."""
    return str(getattr(process, "text_to_send", ""))


def finish_all_or_nothing(process: Any) -> Any:
    """Make the proved address count, and whatever follows from it, in one commit.

    Nothing happens when it was confirmed for somebody else in this very moment.
    """
    try:
        with transaction.atomic():
            return _finish(process)
    except IntegrityError:
        return None


def is_right(*, actual: str, expected: str) -> bool:
    """Tell whether this is the code of the flow that asks; the try is counted before that.

    Raises ValidationError (pages) or ImmediateHttpResponse (apps) when the person tried too many. A
    flow that had its three compares no more and answers as for a wrong code.
    """
    flow, _dot, rest = expected.partition(".")
    owner, _dot, digest = rest.rpartition(".")
    if not flow or not owner or not digest:
        return False
    if not lockout.allow((lockout.SENT_CODE, flow)):
        return False
    was_right = counted_tries.begin(_windows(owner))
    if not hmac.compare_digest(digest, _digest(flow, actual)):
        return False
    was_right()
    return True


def _windows(owner: str) -> second_step_tries.Windows:
    if not owner.startswith(SECOND_STEP):
        return ((lockout.CODE, owner), (lockout.CODE_HOUR, owner), (lockout.CODE_DAY, owner))
    person = User.objects.get(pk=owner.removeprefix(SECOND_STEP))
    browser = letting_in.known_browser(context.request, person.email)
    return second_step_tries.codes(person.pk, browser=browser, ip=origin_of(context.request).ip)


def keep(state: dict[str, Any], owner: str, code: str) -> str:
    """Return what is kept of a code: good in the flow of this state, by its owner."""
    # Once for the flow: a new code sent in it has the tries that are left of it.
    flow = state.setdefault(FLOW, secrets.token_hex(_FLOW_BYTES))
    return f"{flow}.{owner}.{_digest(flow, code)}"


def _digest(flow: str, code: str) -> str:
    # A code has few bits: without the key, which is not in the database, it can't be tried out.
    return hashlib.blake2b(
        f"{flow} {normalize_user_code(code)}".encode("utf-8", "surrogatepass"),
        key=settings.FIELD_KEY,
        person=b"doorward-sent",
        digest_size=32,
    ).hexdigest()


def install() -> list[tuple[Any, str, Any]]:
    """Return where these stand instead of allauth's: place, name, ours."""
    from allauth.account import forms
    from allauth.headless.account import inputs

    return [
        (LoginCodeVerificationProcess, "generate_code", draw_to_sign_in),
        (EmailVerificationProcess, "generate_code", draw_for_address),
        (EmailVerificationProcess, "key", property(text_for_address)),
        (EmailVerificationProcess, "finish", finish_all_or_nothing),
        (forms, "compare_user_code", is_right),
        (inputs, "compare_user_code", is_right),
    ]
