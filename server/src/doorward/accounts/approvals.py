"""A second step taken in another session: it shows who asks, and its person types two digits.

The browser that signs in shows a number, the other session asks for it: nobody lets a stranger in
by tapping "yes" once too often. Only a session that took a second step itself may answer.
"""

from __future__ import annotations

import secrets
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from doorward.accounts import lockout, recovery_letters, second_step_tries, sessions, two_factor
from doorward.accounts.models import Approval, KnownBrowser, User
from doorward.accounts.two_factor import Way
from doorward.audit import trail
from doorward.notices import letter as post_office

LASTS: Final = timedelta(minutes=2)
MOST_PROMPTS: Final = 3
PROMPTS_WITHIN: Final = timedelta(minutes=10)
KEPT: Final = timedelta(days=1)

State = Approval.State


class TooManyPrompts(Exception):
    """This person was asked, or tried codes, too often lately. ``wait`` until it may be again."""

    def __init__(self, wait: timedelta) -> None:
        super().__init__("too many prompts")
        self.wait = wait

    @property
    def minutes(self) -> int:
        """How long to wait, rounded up."""
        return max(1, -(-int(self.wait.total_seconds()) // 60))


class NotWaiting(Exception):
    """Nothing is asked any more: answered, too old, or never was."""


class NotProven(Exception):
    """The session that answers took no second step itself."""


class WrongNumber(Exception):
    """Not the number that the other browser shows; the sign-in is refused."""


# -- in the browser that signs in ------------------------------------------------------------------


def ask(user: User, *, ip: str, agent: str, browser: KnownBrowser | None = None) -> Approval:
    """Ask the person's other sessions, at most three times in ten minutes. Raises TooManyPrompts.

    A prompt counts as a try of a second step until it is approved; ``browser`` is one the person's
    account knows.
    """
    with transaction.atomic():
        # Held until the row is there, so that no two at once both find room.
        User.objects.select_for_update().get(pk=user.pk)
        now = timezone.now()
        lately = list(
            Approval.objects.filter(user=user, asked_at__gt=now - PROMPTS_WITHIN)
            .order_by("asked_at")
            .values_list("asked_at", flat=True)
        )
        if len(lately) >= MOST_PROMPTS:
            raise TooManyPrompts(lately[-MOST_PROMPTS] + PROMPTS_WITHIN - now)
        wait = lockout.full(*second_step_tries.codes(user.pk, browser=browser, ip=ip))
        if wait is not None:
            raise TooManyPrompts(wait)
        approval = Approval.objects.create(
            user=user,
            number=10 + secrets.randbelow(90),
            asked_at=now,
            expires_at=now + LASTS,
            ip=ip,
            agent=agent[:300],
        )
        later = Q(asked_until__isnull=True) | Q(asked_until__lt=approval.expires_at)
        User.objects.filter(later, pk=user.pk).update(asked_until=approval.expires_at)
        trail.record(
            "account.approval.asked", actor=user, target=str(approval.pk), ip=ip, agent=agent
        )
    return approval


def find(user: User, approval_id: UUID) -> Approval | None:
    """Return one of this person's, whatever became of it."""
    return Approval.objects.filter(user=user, pk=approval_id).first()


def is_waiting(approval: Approval, now: datetime) -> bool:
    """Tell whether it can still be answered."""
    return approval.state == State.WAITING and now < approval.expires_at


def use(
    user: User, approval_id: UUID, *, ip: str, agent: str, browser: KnownBrowser | None = None
) -> bool:
    """Use an approval up; of several at once one is told True, and none when it is too old."""
    with transaction.atomic():
        used = Approval.objects.filter(
            user=user, pk=approval_id, state=State.APPROVED, expires_at__gt=timezone.now()
        ).update(state=State.USED)
        if used != 1:
            return False
        second_step_tries.right(second_step_tries.codes(user.pk, browser=browser, ip=ip))
        two_factor.record_success(user, Way.APPROVAL, ip=ip, agent=agent)
    return True


# -- in the session that is asked ------------------------------------------------------------------


def took_second_step(request: Any, user: User) -> bool:
    """Tell whether this session may let another one in: it took a second step itself."""
    return two_factor.took_second_step(request.session, user)


def waiting_for(user: User, now: datetime) -> list[Approval]:
    """Return what asks this person now, the newest first; no query while nothing can."""
    if user.asked_until is None or user.asked_until <= now:
        return []
    found = Approval.objects.filter(user=user, state=State.WAITING, expires_at__gt=now)
    return list(found.order_by("-asked_at")[:MOST_PROMPTS])


def approve(
    user: User, approval_id: UUID, number: str, *, is_proven: bool, ip: str, agent: str
) -> None:
    """Let the sign-in go on, if the number is the one it shows; a wrong one refuses it.

    ``is_proven``: took_second_step of the session that answers. Raises NotProven, NotWaiting, and
    WrongNumber.
    """
    if not is_proven:
        raise NotProven
    digits = "".join(number.split())
    with transaction.atomic():
        sessions.must_still_be_in(user)
        approval = find(user, approval_id)
        if approval is None:
            raise NotWaiting
        right = digits == f"{approval.number}"
        _settle(approval, State.APPROVED if right else State.MISMATCHED)
        trail.record(
            "account.approval.approved" if right else "account.approval.mismatched",
            actor=user,
            target=str(approval.pk),
            ip=ip,
            agent=agent,
            asked_from=approval.ip,
        )
    if not right:
        two_factor.record_failure(user, Way.APPROVAL, ip=approval.ip, agent=approval.agent)
        raise WrongNumber


def deny(user: User, approval_id: UUID, *, ip: str, agent: str) -> None:
    """Refuse the sign-in, and say by mail what to do. Any session may. Raises NotWaiting."""
    with transaction.atomic():
        sessions.must_still_be_in(user)
        approval = find(user, approval_id)
        if approval is None:
            raise NotWaiting
        _settle(approval, State.DENIED)
        trail.record(
            "account.approval.denied",
            actor=user,
            target=str(approval.pk),
            ip=ip,
            agent=agent,
            asked_from=approval.ip,
        )
        letter = recovery_letters.refused_sign_in(ip=approval.ip, agent=approval.agent)
        post_office.post(letter, to=user.email)


def _settle(approval: Approval, state: Approval.State) -> None:
    settled = Approval.objects.filter(
        pk=approval.pk, state=State.WAITING, expires_at__gt=timezone.now()
    ).update(state=state)
    if settled != 1:
        raise NotWaiting


def forget_old(now: datetime) -> int:
    """Delete what was asked a day ago; returns how many."""
    return Approval.objects.filter(asked_at__lt=now - KEPT).delete()[0]
