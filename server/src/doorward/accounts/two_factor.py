"""The second step: who is asked for it, by which ways, and what follows when a way changes.

The ways themselves are in factors/. Each change of a way ends the person's other sessions and
remembered browsers, is written down and is told by mail.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from types import SimpleNamespace
from typing import Any, Final

from allauth.account.authentication import get_authentication_records
from allauth.mfa.models import Authenticator
from django.db.models import Q
from django.utils import timezone

from doorward.accounts import sessions, two_factor_letters
from doorward.accounts.factors import recovery_codes, text_messages
from doorward.accounts.models import SecondStepChoice, User
from doorward.audit import trail
from doorward.notices import letter as post_office

WARNED_EVERY: Final = timedelta(hours=1)


class Way(StrEnum):
    """A way to take the second step."""

    APP = "totp"
    PASSKEY = "webauthn"
    RECOVERY = "recovery_codes"
    EMAIL = "email"
    TEXT = "sms"
    APPROVAL = "approval"


LASTING: Final = frozenset({Way.APP, Way.PASSKEY})
"""The ways that make a second step by themselves; recovery codes only stand in for one."""


@dataclass(frozen=True)
class Passkey:
    """A passkey or security key as its owner sees it."""

    pk: int
    name: str
    signs_in_alone: bool
    created_at: datetime
    last_used_at: datetime | None


@dataclass(frozen=True)
class Standing:
    """How a person's second step stands."""

    app: Authenticator | None
    passkeys: list[Passkey]
    recovery_left: int
    has_recovery: bool
    by_email: bool
    last_way: str
    can_be_approved: bool = False
    number: str = ""

    @property
    def is_strong(self) -> bool:
        """Whether somebody with the password and the mailbox would still not get in."""
        return self.app is not None or bool(self.passkeys)

    @property
    def ways(self) -> list[Way]:
        """The ways there are, the one used last first."""
        there = [
            way
            for way, is_there in (
                (Way.PASSKEY, bool(self.passkeys)),
                (Way.APP, self.app is not None),
                (Way.APPROVAL, self.can_be_approved),
                (Way.EMAIL, self.by_email),
                # Never alone: a number can be taken over.
                (Way.TEXT, bool(self.number) and self.is_strong),
                (Way.RECOVERY, self.has_recovery and self.recovery_left > 0),
            )
            if is_there
        ]
        return sorted(there, key=lambda way: way != self.last_way)


def standing(user: User) -> Standing:
    """Return how this person's second step stands."""
    found = list(Authenticator.objects.filter(user_id=user.pk).order_by("pk"))
    recovery = next((each for each in found if each.type == Way.RECOVERY), None)
    choice = SecondStepChoice.objects.filter(user=user).first()
    lasting = any(each.type in LASTING for each in found)
    return Standing(
        app=next((each for each in found if each.type == Way.APP), None),
        passkeys=[_passkey(each) for each in found if each.type == Way.PASSKEY],
        recovery_left=recovery_codes.left(recovery) if recovery else 0,
        has_recovery=recovery is not None,
        by_email=choice is not None and choice.by_email,
        last_way=choice.last_way if choice is not None else "",
        can_be_approved=lasting and _may_approve(user),
        number=text_messages.masked_number_of(user) if lasting else "",
    )


def took_second_step(held: Any, user: User) -> bool:
    """Tell whether this person showed an app, a passkey or a recovery code in a session.

    ``held`` is what it holds. A remembered browser, a mailed code and a session that was itself
    approved do not count.
    """
    session = SimpleNamespace(session=held)
    return any(each.get("method") == "mfa" for each in get_authentication_records(session, user))


def _may_approve(user: User) -> bool:
    return any(took_second_step(held, user) for held in sessions.stored_of(user))


def is_mailed_a_code(user: User) -> bool:
    """Tell whether signing in asks this person for a code from their mail, and nothing better."""
    if not SecondStepChoice.objects.filter(user=user, by_email=True).exists():
        return False
    return not Authenticator.objects.filter(
        user_id=user.pk, type__in=[way.value for way in LASTING]
    ).exists()


def choose_email(user: User, wanted: bool, *, ip: str = "", agent: str = "") -> bool:
    """Turn the code by email on or off; tells whether anything changed.

    The caller ends what was open (changed_elsewhere), then tells the person (tell_of_email).
    """
    choice, _new = SecondStepChoice.objects.get_or_create(user=user)
    if choice.by_email == wanted:
        return False
    SecondStepChoice.objects.filter(pk=user.pk).update(by_email=wanted)
    trail.record(
        "account.second_step.added" if wanted else "account.second_step.removed",
        actor=user,
        ip=ip,
        agent=agent,
        way=Way.EMAIL,
    )
    return True


def tell_of_email(user: User, wanted: bool, ended: str, *, ip: str, agent: str) -> None:
    """Mail that the code by email was turned on or off, and what ended by it, in words."""
    letter = two_factor_letters.email_code(wanted, ended, ip=ip, agent=agent)
    post_office.post(letter, to=user.email)


def record_success(
    user: User, way: Way, *, ip: str = "", agent: str = "", stepping_up: bool = False
) -> None:
    """Write down that this way was used, and offer it first the next time."""
    trail.record(
        "account.second_step.used",
        actor=user,
        ip=ip,
        agent=agent,
        way=way,
        stepping_up=stepping_up,
    )
    if way is Way.RECOVERY:
        # Whoever had to use one may have lost the app or the key: the count is worth a mail.
        letter = two_factor_letters.recovery_code_used(
            standing(user).recovery_left, ip=ip, agent=agent
        )
        post_office.post(letter, to=user.email)
        return
    SecondStepChoice.objects.update_or_create(user=user, defaults={"last_way": way.value})


def record_failure(
    user: User, way: str, *, ip: str = "", agent: str = "", stepping_up: bool = False
) -> None:
    """Write down a wrong code; tell the person, who may not be the one with their password.

    Counting and locking is lockout.py's.
    """
    trail.record(
        "account.second_step.failed",
        actor=user,
        ip=ip,
        agent=agent,
        way=way,
        stepping_up=stepping_up,
    )
    if stepping_up:
        return
    now = timezone.now()
    choice, _new = SecondStepChoice.objects.get_or_create(user=user)
    due = Q(warned_at__isnull=True) | Q(warned_at__lte=now - WARNED_EVERY)
    if SecondStepChoice.objects.filter(due, pk=choice.pk).update(warned_at=now):
        post_office.post(two_factor_letters.failed(ip=ip, agent=agent), to=user.email)


def _passkey(stored: Authenticator) -> Passkey:
    kept = stored.wrap()
    return Passkey(
        pk=stored.pk,
        name=kept.name,
        signs_in_alone=bool(kept.is_passwordless),
        created_at=stored.created_at,
        last_used_at=stored.last_used_at,
    )
