"""Where a person is signed in, and ending it.

Apps' session tokens are sessions too: what ends one ends the other.
"""

from __future__ import annotations

from typing import Any, Final

from allauth.usersessions.models import UserSession
from django.contrib.sessions.models import Session
from django.db import transaction
from django.db.models import F, QuerySet
from django.utils import timezone

from doorward.accounts.models import User
from doorward.accounts.session_store import BEGAN, SEEN
from doorward.audit import trail

# More at once are no person's; the ones used longest ago end.
MOST: Final = 50


def of(user: User) -> list[UserSession]:
    """Return the person's sessions that still last, the one used last first, by one query."""
    return list(_alive(user).order_by("-last_seen_at", "-pk"))


def begin(session: Any, user: User) -> None:
    """Start the clock of a session somebody has just signed in to."""
    now = timezone.now()
    session[BEGAN] = session[SEEN] = now.timestamp()
    over = _alive(user).order_by("-last_seen_at", "-pk").values_list("session_key", flat=True)
    _end(user, list(over[MOST - 1 :]))


@transaction.atomic
def end(user: User, session: int, *, ip: str = "", agent: str = "") -> bool:
    """End one of the person's sessions, everywhere at once; tells whether there was one."""
    keys = list(
        UserSession.objects.filter(user=user, pk=session).values_list("session_key", flat=True)
    )
    if not _end(user, keys):
        return False
    trail.record("account.session.ended", actor=user, target=str(session), ip=ip, agent=agent)
    return True


@transaction.atomic
def end_others(user: User, *, keep: str | None, ip: str = "", agent: str = "") -> int:
    """End every session of this person but the one with this id; returns how many."""
    # The epoch ends also a session that is being made this moment and is in no list yet.
    User.objects.filter(pk=user.pk).update(epoch=F("epoch") + 1)
    user.epoch = User.objects.values_list("epoch", flat=True).get(pk=user.pk)
    others = UserSession.objects.filter(user=user)
    keys = [key for key in others.values_list("session_key", flat=True) if key != keep]
    ended = _end(user, keys)
    if ended:
        trail.record("account.sessions.ended", actor=user, ip=ip, agent=agent, count=ended)
    return ended


def purge_and_list(_manager: Any, user: User) -> list[UserSession]:
    """Return the person's sessions and forget the ended ones: two queries, however many."""
    alive = of(user)
    UserSession.objects.filter(user=user).exclude(pk__in=[each.pk for each in alive]).delete()
    return alive


def forget_ended(_now: Any) -> int:
    """Delete the rows of sessions that are over; returns how many."""
    gone, _rows = Session.objects.filter(expire_date__lt=timezone.now()).delete()
    if gone:
        UserSession.objects.exclude(session_key__in=Session.objects.values("session_key")).delete()
    return gone


def _alive(user: User) -> QuerySet[UserSession]:
    lasting = Session.objects.filter(expire_date__gt=timezone.now()).values("session_key")
    found: QuerySet[UserSession] = UserSession.objects.filter(user=user, session_key__in=lasting)
    return found


def _end(user: User, keys: list[str]) -> int:
    if not keys:
        return 0
    Session.objects.filter(session_key__in=keys).delete()
    gone: int = UserSession.objects.filter(user=user, session_key__in=keys).delete()[0]
    return gone
