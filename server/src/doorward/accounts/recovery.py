"""A lost second step: the person waits, announced on every channel, and sets a new one.

Who has neither app, passkey, recovery code nor a session that could approve, waits: the delay
begins with the right password (or when two operators vouch), is told by mail and on every page of
every session, and ends at once when anybody stops it there. When it is over the right password and
a link open once. The states are drawn in docs/security/recovery.md; nothing here makes a session:
second_step_stages.py does.
"""

from __future__ import annotations

import hashlib
import hmac
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from allauth.mfa.models import Authenticator
from django.conf import settings
from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from doorward.accounts import lockout, recovery_letters
from doorward.accounts.models import PhoneNumber, Recovery, SecondStepChoice, User
from doorward.audit import card_numbers, trail
from doorward.notices import letter as post_office

# How long the way in stays open after the wait; then it has to begin anew.
OPEN_FOR: Final = timedelta(days=7)
# Within so long a second operator has to confirm what a first one asked for.
CONFIRM_WITHIN: Final = timedelta(hours=72)
# Between the first announcement and the wait's end there are two more.
REMIND_AFTER: Final = timedelta(hours=24)
REMIND_BEFORE: Final = timedelta(hours=12)
# One person's recoveries begun, and links sent again.
STARTS: Final = lockout.Window("recover", 3, timedelta(hours=24), timedelta(hours=24))
RESENDS: Final = lockout.Window("recoverlink", 3, timedelta(hours=24), timedelta(hours=24))
# After its end; so long every page asks for a new second step, if none is set.
KEPT: Final = timedelta(days=365)
LEAST_REASON: Final = 10
MOST_PER_TURN: Final = 200

Ending = Recovery.Ending
Kind = Recovery.Kind


class TooMany(Exception):
    """This person's second step was given up too often today."""


class NotOpen(Exception):
    """The wait is not over, was stopped, was used already, or never was."""


class NoSecondStep(Exception):
    """There is nothing to recover: only the password is asked."""


class SameOperator(Exception):
    """Two different operators have to vouch, and neither for themselves."""


class AskedAlready(Exception):
    """An operator's request for this person waits for a second operator, or was confirmed."""


def delay() -> timedelta:
    """Return how long the wait is: the operator's setting, 24 h at least."""
    return timedelta(hours=settings.RECOVERY_DELAY_HOURS)


# -- beginning -------------------------------------------------------------------------------------


def begin(user: User, *, ip: str, agent: str) -> Recovery:
    """Begin the wait and announce it; while one lasts, that one, unchanged.

    To be called only for somebody whose password was right in this sign-in. Raises TooMany and
    NoSecondStep.
    """
    now = timezone.now()
    with transaction.atomic():
        person = _locked(user)
        running = _open(person, Kind.MAILBOX)
        if running is not None and not _has_ended(running, person, now):
            return running
        if not has_second_step(person):
            raise NoSecondStep
        if not lockout.allow((STARTS, str(person.pk))):
            raise TooMany
        recovery = Recovery.objects.create(
            user=person,
            kind=Kind.MAILBOX,
            asked_at=now,
            starts_at=now,
            ready_at=now + delay(),
            ends_at=now + delay() + OPEN_FOR,
            as_of=_stamp(person),
            agent=agent[:300],
            ip=ip,
        )
        _announce(recovery, person, now)
        _show_until(person, recovery.ends_at)
        trail.record(
            "account.recovery.started", actor=person, target=str(recovery.pk), ip=ip, agent=agent
        )
    return recovery


def ask_as_operator(user: User, operator: User, reason: str) -> Recovery:
    """Note that an operator vouches for this person; nothing begins before a second one does.

    Raises SameOperator, AskedAlready and NoSecondStep; ValueError for a reason that says nothing.
    """
    words = card_numbers.hide(" ".join(reason.split()))[:500]
    if len(words) < LEAST_REASON:
        raise ValueError(reason)
    now = timezone.now()
    with transaction.atomic():
        person = _locked(user)
        if operator.pk == person.pk:
            raise SameOperator
        running = _open(person, Kind.OPERATORS)
        if running is not None and not _has_ended(running, person, now):
            raise AskedAlready
        if not has_second_step(person):
            raise NoSecondStep
        recovery = Recovery.objects.create(
            user=person,
            kind=Kind.OPERATORS,
            asked_at=now,
            ends_at=now + CONFIRM_WITHIN,
            due_at=now + CONFIRM_WITHIN,
            as_of=_stamp(person),
            reason=words,
            first_operator=operator,
        )
        trail.record("operator.reset.asked", actor=operator, target=person.email, reason=words)
    return recovery


def asked_by_operator(user: User) -> Recovery | None:
    """Return the request for this person that waits for a second operator."""
    found = Recovery.objects.filter(
        user=user, kind=Kind.OPERATORS, ended_at__isnull=True, starts_at__isnull=True
    ).select_related("first_operator")
    return found.filter(ends_at__gt=timezone.now()).first()


def confirm_as_operator(user: User, operator: User) -> tuple[Recovery, str]:
    """Begin the announced wait that a first operator asked for; returns it and the way in.

    The address returned is given to the person by the operators: it opens when the wait is over,
    with the right password. Raises NotOpen and SameOperator.
    """
    now = timezone.now()
    with transaction.atomic():
        person = _locked(user)
        recovery = _open(person, Kind.OPERATORS)
        if recovery is None or recovery.starts_at is not None:
            raise NotOpen
        if _has_ended(recovery, person, now):
            raise NotOpen
        if operator.pk in {person.pk, recovery.first_operator_id}:
            raise SameOperator
        recovery.second_operator = operator
        recovery.starts_at = now
        recovery.ready_at = now + delay()
        recovery.ends_at = recovery.ready_at + OPEN_FOR
        recovery.save()
        _announce(recovery, person, now)
        _show_until(person, recovery.ends_at)
        trail.record(
            "operator.reset.confirmed",
            actor=operator,
            target=person.email,
            reason=recovery.reason,
            first=str(recovery.first_operator_id),
        )
        trail.record(
            "account.recovery.started", actor=person, target=str(recovery.pk), by="operators"
        )
    return recovery, open_link(recovery)


def refuse_as_operator(user: User, operator: User) -> None:
    """End a request of operators, confirmed or not. Raises NotOpen."""
    with transaction.atomic():
        person = _locked(user)
        recovery = _open(person, Kind.OPERATORS)
        if recovery is None:
            raise NotOpen
        _end(recovery, person, Ending.REFUSED, timezone.now())
        trail.record("operator.reset.refused", actor=operator, target=person.email)


# -- looking ---------------------------------------------------------------------------------------


def has_second_step(user: User) -> bool:
    """Tell whether signing in asks this person for more than the password."""
    if Authenticator.objects.filter(user_id=user.pk).exists():
        return True
    return SecondStepChoice.objects.filter(user=user, by_email=True).exists()


def running_for(user: User) -> list[Recovery]:
    """Return what waits or is open for this person now, the one asked for first first."""
    found = Recovery.objects.filter(
        user=user, ended_at__isnull=True, starts_at__isnull=False, ends_at__gt=timezone.now()
    )
    return [each for each in found.order_by("asked_at") if each.as_of == _stamp(user)]


def is_open(recovery: Recovery, now: datetime) -> bool:
    """Tell whether the wait is over and the way in not yet."""
    if recovery.ended_at is not None or recovery.ready_at is None:
        return False
    return recovery.ready_at <= now < recovery.ends_at


def lost_their_second_step(user: User) -> bool:
    """Tell whether a recovery took this person's second step away, and none is set since."""
    used = Recovery.objects.filter(user=user, ending=Ending.USED)
    return used.exists() and not has_second_step(user)


# -- the two addresses: one stops it, one opens ----------------------------------------------------


def stop_link(recovery: Recovery) -> str:
    """Return the address at which the wait is stopped by one click, for the announcements."""
    return f"{settings.SITE_URL}/login/recovery/stop/{recovery.pk}/{_proof('stop', recovery.pk)}/"


def open_link(recovery: Recovery) -> str:
    """Return the address that, after the wait and with the right password, opens once."""
    return f"{settings.SITE_URL}/login/recovery/open/{recovery.pk}/{_proof('open', recovery.pk)}/"


def by_stop_link(recovery_id: UUID, proof: str) -> Recovery | None:
    """Return what this address would stop now, if it is one of ours."""
    return _by_link("stop", recovery_id, proof)


def by_open_link(recovery_id: UUID, proof: str) -> Recovery | None:
    """Return what this address would open, now or when its wait is over."""
    return _by_link("open", recovery_id, proof)


def _by_link(purpose: str, recovery_id: UUID, proof: str) -> Recovery | None:
    given = proof.encode("utf-8", "surrogatepass")
    if not hmac.compare_digest(given, _proof(purpose, recovery_id).encode()):
        return None
    found = Recovery.objects.filter(
        pk=recovery_id,
        ended_at__isnull=True,
        starts_at__isnull=False,
        ends_at__gt=timezone.now(),
        user__is_active=True,
    )
    return found.select_related("user").first()


def _proof(purpose: str, recovery_id: UUID) -> str:
    # Computed, not stored: a copy of the database neither stops nor opens anything. 192 bits.
    return hashlib.blake2b(
        f"{purpose} {recovery_id}".encode(),
        key=settings.FIELD_KEY,
        person=b"doorward-regain",
        digest_size=24,
    ).hexdigest()


# -- ending ----------------------------------------------------------------------------------------


def stop(recovery: Recovery, *, by: str, ip: str, agent: str) -> bool:
    """End the wait at once and tell the person; False when it had ended already.

    ``by``: ``mail`` or ``session``. Nobody is asked to prove anything: stopping opens nothing.
    """
    with transaction.atomic():
        person = _locked(recovery.user)
        if not _end(recovery, person, Ending.STOPPED, timezone.now(), ip=ip, agent=agent, by=by):
            return False
    return True


def end_because(user: User, ending: Recovery.Ending) -> None:
    """End whatever waits for this person: a way or password changed, or a second step was taken.

    Costs nothing while nothing waits.
    """
    if user.asked_until is None or user.asked_until <= timezone.now():
        return
    with transaction.atomic():
        person = _locked(user)
        for recovery in Recovery.objects.filter(user=person, ended_at__isnull=True):
            _end(recovery, person, ending, timezone.now())


def enter(user: User, recovery_id: UUID, *, ip: str, agent: str) -> None:
    """Use the recovery up: the lost second step is gone. Raises NotOpen.

    The caller, who has seen the link (by_open_link) and the right password in this sign-in, ends
    the person's other sessions and lets them in, once.
    """
    now = timezone.now()
    with transaction.atomic():
        person = _locked(user)
        recovery = Recovery.objects.filter(pk=recovery_id, user=person).first()
        if recovery is None or not is_open(recovery, now) or not person.is_active:
            raise NotOpen
        if recovery.as_of != _stamp(person):
            raise NotOpen
        # One statement decides who is first; the rest undoes itself if it fails.
        if not _end(recovery, person, Ending.USED, now, ip=ip, agent=agent):
            raise NotOpen
        for other in Recovery.objects.filter(user=person, ended_at__isnull=True):
            _end(other, person, Ending.UNNEEDED, now)
        lost = Authenticator.objects.filter(user_id=person.pk)
        gone = list(lost.order_by("pk").values_list("type", flat=True))
        lost.delete()
        PhoneNumber.objects.filter(user=person).delete()
        SecondStepChoice.objects.filter(user=person).update(by_email=False, last_way="")
        _show_until(person, now + KEPT)
        for way in gone:
            trail.record(
                "account.second_step.removed",
                actor=person,
                ip=ip,
                agent=agent,
                way=way,
                by="recovery",
            )


def send_link_again(user: User) -> bool:
    """Mail the way in once more to somebody whose wait is over; False when it was too often."""
    now = timezone.now()
    for recovery in running_for(user):
        if recovery.kind == Kind.MAILBOX and is_open(recovery, now):
            if not lockout.allow((RESENDS, str(user.pk))):
                return False
            letter = recovery_letters.ready(open_link(recovery), recovery.ends_at)
            post_office.post(letter, to=user.email)
            return True
    return False


# -- what is due -----------------------------------------------------------------------------------


def sweep(now: datetime) -> int:
    """Announce what is to be announced and end what has lapsed; returns how many it did."""
    due = Recovery.objects.filter(ended_at__isnull=True, due_at__lte=now).order_by("due_at")
    done = 0
    for recovery_id in list(due.values_list("pk", flat=True)[:MOST_PER_TURN]):
        with transaction.atomic():
            recovery = (
                Recovery.objects.select_for_update()
                .filter(pk=recovery_id, ended_at__isnull=True, due_at__lte=now)
                .first()
            )
            if recovery is None:
                continue
            person = User.objects.get(pk=recovery.user_id)
            if not _has_ended(recovery, person, now):
                _announce(recovery, person, now)
            done += 1
    return done


def forget_old(now: datetime) -> int:
    """Delete recoveries that ended a year ago; the audit trail keeps what happened."""
    return Recovery.objects.filter(ended_at__lt=now - KEPT).delete()[0]


def _announcements(recovery: Recovery) -> list[datetime]:
    """Return when the person is told: at the start, a day later, before the end, and at it."""
    starts, ready = recovery.starts_at, recovery.ready_at
    if starts is None or ready is None:
        return []
    moments = {starts, ready - REMIND_BEFORE, ready}
    if starts + REMIND_AFTER < ready - REMIND_BEFORE:
        moments.add(starts + REMIND_AFTER)
    return sorted(moments)


def _announce(recovery: Recovery, person: User, now: datetime) -> None:
    moments = _announcements(recovery)
    past = [moment for moment in moments if moment <= now]
    # A worker that was away tells once, of how things are, not all that it missed.
    if recovery.announced < len(past):
        if recovery.ready_at is not None and now >= recovery.ready_at:
            # Where operators vouch, they hand the way in over: the mailbox may be lost too.
            link = open_link(recovery) if recovery.kind == Kind.MAILBOX else ""
            letter = recovery_letters.ready(link, recovery.ends_at)
        else:
            letter = recovery_letters.waiting(
                first=not recovery.announced,
                by_operators=recovery.kind == Kind.OPERATORS,
                ready_at=recovery.ready_at or now,
                stop=stop_link(recovery),
                ip=recovery.ip,
                agent=recovery.agent,
            )
        post_office.post(letter, to=person.email)
        if recovery.announced:
            trail.record(
                "account.recovery.announced",
                actor=person,
                target=str(recovery.pk),
                number=len(past),
            )
    ahead = [moment for moment in moments if moment > now]
    due = ahead[0] if ahead else recovery.ends_at
    recovery.announced, recovery.due_at = len(past), due
    Recovery.objects.filter(pk=recovery.pk).update(announced=len(past), due_at=due)


def _has_ended(recovery: Recovery, person: User, now: datetime) -> bool:
    """End it if it is over, or if anything changed since it began; tells whether it is."""
    if recovery.ended_at is not None:
        return True
    if recovery.as_of != _stamp(person) or not person.is_active:
        return _end(recovery, person, Ending.CHANGED, now) or True
    if recovery.ends_at <= now:
        return _end(recovery, person, Ending.LAPSED, now) or True
    return False


def _end(
    recovery: Recovery,
    person: User,
    ending: Recovery.Ending,
    now: datetime,
    *,
    ip: str = "",
    agent: str = "",
    by: str = "",
) -> bool:
    """End it, write it down and tell the person; False when somebody else was first."""
    ended = Recovery.objects.filter(pk=recovery.pk, ended_at__isnull=True).update(
        ended_at=now, ending=ending, due_at=None
    )
    if not ended:
        return False
    recovery.ended_at, recovery.ending = now, ending
    if recovery.starts_at is None:
        # Only operators know of it: it never began.
        return True
    trail.record(
        f"account.recovery.{ending.value}",
        actor=person,
        target=str(recovery.pk),
        ip=ip,
        agent=agent,
        by=by,
    )
    post_office.post(recovery_letters.ended(ending.value, ip=ip, agent=agent), to=person.email)
    return True


def _locked(user: User) -> User:
    return User.objects.select_for_update().get(pk=user.pk)


def _open(user: User, kind: Recovery.Kind) -> Recovery | None:
    return Recovery.objects.filter(user=user, kind=kind, ended_at__isnull=True).first()


def _show_until(user: User, until: datetime) -> None:
    later = Q(asked_until__isnull=True) | Q(asked_until__lt=until)
    User.objects.filter(later, pk=user.pk).update(asked_until=until)


def _stamp(user: User) -> str:
    """Return what must not change meanwhile: password, ways (by the epoch), address."""
    return hashlib.blake2b(
        f"{user.epoch}\0{user.password}\0{user.email}".encode(),
        key=settings.FIELD_KEY,
        person=b"doorward-as-of",
        digest_size=32,
    ).hexdigest()
