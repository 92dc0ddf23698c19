"""Where a person is signed in, and ending it.

Apps' session tokens are sessions too: what ends one ends the other.
"""

from __future__ import annotations

import hmac
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, Final, ParamSpec, TypeVar

from allauth.core import context
from allauth.usersessions.models import UserSession
from django.contrib.sessions.models import Session
from django.db import connection, transaction
from django.db.models import F, QuerySet
from django.utils import timezone

from doorward.accounts import browsers
from doorward.accounts.credentials import id_in_sql
from doorward.accounts.models import User
from doorward.accounts.origin import origin_of
from doorward.accounts.session_store import BEGAN, SEEN, SessionStore, kept_as
from doorward.audit import trail

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from django.db.models import Model
    from django.http import HttpRequest  # noqa: TID251 - the signature is allauth's

P = ParamSpec("P")
R = TypeVar("R")

# More at once are no person's; the ones used longest ago end.
MOST: Final = 50
_CAME_BY_AT: Final = "came_by"


class Overtaken(Exception):
    """What this request began with is over by now. Edges answer it like a session that ended."""


def of(user: User) -> list[UserSession]:
    """Return the person's sessions that still last, the one used last first, by one query."""
    return list(_alive(user).order_by("-last_seen_at", "-pk"))


def stored_of(user: User) -> list[dict[str, Any]]:
    """Return what each of the person's sessions that still last holds, by one query."""
    listed = UserSession.objects.filter(user=user).values("session_key")
    lasting = Session.objects.filter(session_key__in=listed, expire_date__gt=timezone.now())
    store = SessionStore()
    return [store.decode(data) for data in lasting.values_list("session_data", flat=True)]


def let_in(user: User, as_of: str) -> bool:
    """Note that the person signs in now and make room for one more session of theirs.

    False, and nothing noted, when password or ways are no longer those of this
    ``get_session_auth_hash``, or the person was disabled: asked of the database in one statement.
    """
    if not hmac.compare_digest(user.get_session_auth_hash(), as_of):
        return False
    now = timezone.now()
    # By hand: these are part of every sign-in (bench/README.md).
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE accounts_user SET last_login = %s"
            " WHERE id = %s AND is_active AND password = %s AND epoch = %s"
            " RETURNING (SELECT count(*) FROM usersessions_usersession s"
            " WHERE s.user_id = accounts_user.id)",
            [_stamp(now), id_in_sql(user.pk), user.password, user.epoch],
        )
        noted = cursor.fetchone()
    if noted is None:
        return False
    user.last_login = now
    if noted[0] >= MOST:
        _end(user, _too_many(user, now))
    return True


def _too_many(user: User, now: datetime) -> list[str]:
    # Of the list some may have run out, which take no room.
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT u.session_key FROM usersessions_usersession u"
            " JOIN django_session s ON s.session_key = u.session_key AND s.expire_date > %s"
            " WHERE u.user_id = %s ORDER BY u.last_seen_at DESC, u.id DESC"
            " LIMIT 1000 OFFSET %s",
            [_stamp(now), id_in_sql(user.pk), MOST - 1],
        )
        return [key for (key,) in cursor.fetchall()]


def begin(session: Any) -> None:
    """Start the clock of a session somebody has just signed in to."""
    session[BEGAN] = session[SEEN] = timezone.now().timestamp()


def listed(*, request: HttpRequest, **_more: Any) -> None:
    """Put a session that has just begun into its person's list."""
    note(None, request)


def last_login_is_noted(**_more: Any) -> None:
    """Do nothing, in Django's place: ``let_in`` has noted it."""


def note(_manager: Any, request: HttpRequest) -> None:
    """Put the session of this request into its person's list, or bring its line up to date."""
    if not isinstance(request.user, User):
        raise ValueError("only somebody signed in has a session to list")
    if not request.session.session_key:
        request.session.save()
    origin, now = origin_of(request), timezone.now()
    stamp = _stamp(now)
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO usersessions_usersession"
            " (user_id, created_at, ip, last_seen_at, session_key, user_agent, data)"
            " VALUES (%s, %s, %s, %s, %s, %s, '{}')"
            " ON CONFLICT (session_key) DO UPDATE SET user_id = excluded.user_id,"
            " ip = excluded.ip, user_agent = excluded.user_agent,"
            " last_seen_at = excluded.last_seen_at",
            [
                *(id_in_sql(request.user.pk), stamp, origin.ip, stamp),
                *(kept_as(request.session.session_key or ""), origin.agent[:200]),
            ],
        )


def is_current(listed: UserSession) -> bool:
    """Tell whether the request being answered is made in this session."""
    return is_in(context.request, listed)


def is_in(request: HttpRequest, listed: UserSession) -> bool:
    """Tell whether the request is made in this session."""
    key = request.session.session_key
    return bool(key) and bool(listed.session_key == kept_as(key or ""))


def end_listed(listed: UserSession) -> None:
    """End a session of the list: what allauth calls for apps."""
    _end(listed.user, [listed.session_key])


def is_there(listed: UserSession) -> bool:
    """Tell whether a session of the list still lasts."""
    return Session.objects.filter(
        session_key=listed.session_key, expire_date__gt=timezone.now()
    ).exists()


# -- a request that takes its time -----------------------------------------------------------------


def came_by(request: HttpRequest, user: User, rows: QuerySet[Model]) -> None:
    """Note who sends this request, as they were read then, and by which row they were let in.

    For who comes by no cookie: a session or token named in a header.
    """
    setattr(request, _CAME_BY_AT, (user, rows))


def in_session(session_id: str) -> QuerySet[Session]:
    """Return the row of the session with this id, while it lasts, for ``came_by``."""
    return Session.objects.filter(session_key=kept_as(session_id), expire_date__gt=timezone.now())


def must_still_be_in(user: User) -> None:
    """Let nobody else change how this person signs in until the caller's transaction ends.

    A request may wait between its first byte and its last for as long as its sender likes. Raises
    Overtaken unless password and ways are still those it was let in by, the person was not disabled
    and the session still lasts. After the lock on the account, before all others.
    """
    here = User.objects.select_for_update(no_key=True).filter(pk=user.pk)
    came = _as_they_came(user)
    if came is not None:
        person, _rows = came
        here = here.filter(password=person.password, epoch=person.epoch, is_active=True)
    if not here.values_list("pk"):
        raise Overtaken
    must_last(user)


def must_last(user: User) -> None:
    """Raise Overtaken unless the session lasts by which this person sends the request, if any."""
    came = _as_they_came(user)
    # Locked too: who ends it waits until this is done, or this waits and finds it gone.
    if came is not None and not came[1].select_for_update(no_key=True).values_list("pk"):
        raise Overtaken


def while_in(
    act: Callable[Concatenate[HttpRequest, P], R],
) -> Callable[Concatenate[HttpRequest, P], R]:
    """Return what is done for the request's person, all or nothing, while they are still in.

    Raises Overtaken, and nothing is stored.
    """

    @wraps(act)
    def done(request: HttpRequest, /, *args: P.args, **more: P.kwargs) -> R:
        with transaction.atomic():
            if isinstance(request.user, User):
                must_still_be_in(request.user)
            return act(request, *args, **more)

    return done


def _as_they_came(user: User) -> tuple[User, QuerySet[Model]] | None:
    request = context.request
    noted: tuple[User, QuerySet[Model]] | None = getattr(request, _CAME_BY_AT, None)
    if noted is None:
        person = getattr(request, "user", None)
        if not isinstance(person, User):
            # A worker, a command, a link from a mail: nobody came by a session.
            return None
        noted = person, in_session(request.session.session_key or "")
    return noted if noted[0].pk == user.pk else None


# -- ending ----------------------------------------------------------------------------------------


@transaction.atomic
def end(user: User, session: int, *, ip: str = "", agent: str = "") -> bool:
    """End one of the person's sessions, everywhere at once; tells whether there was one."""
    must_still_be_in(user)
    keys = list(
        UserSession.objects.filter(user=user, pk=session).values_list("session_key", flat=True)
    )
    if not _end(user, keys):
        return False
    trail.record("account.session.ended", actor=user, target=str(session), ip=ip, agent=agent)
    return True


@transaction.atomic
def end_others(user: User, *, keep: str | None, ip: str = "", agent: str = "") -> int:
    """End every session of this person but the one with this id; returns how many.

    ``keep`` is the id as the session itself knows it (``request.session.session_key``). Raises
    Overtaken when somebody else did so since ``user`` was read: theirs is the last word.
    """
    # The epoch ends also a session that is being made this moment and is in no list yet.
    if not User.objects.filter(pk=user.pk, epoch=user.epoch).update(epoch=F("epoch") + 1):
        raise Overtaken
    user.epoch += 1
    others = UserSession.objects.filter(user=user)
    kept = kept_as(keep) if keep else ""
    keys = [key for key in others.values_list("session_key", flat=True) if key != kept]
    ended = _end(user, keys)
    if ended:
        trail.record("account.sessions.ended", actor=user, ip=ip, agent=agent, count=ended)
    return ended


@transaction.atomic
def end_elsewhere(
    user: User, *, keep: str | None, cookie: str, ip: str = "", agent: str = ""
) -> None:
    """End every session but ``keep``, and have the account know only the browser of ``cookie``.

    Who ends them all may have left one where others are: that browser is to be a stranger, too.
    """
    end_others(user, keep=keep, ip=ip, agent=agent)
    browsers.forget_others(user, cookie, ip=ip, agent=agent)


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
    # Some of the list may have run out already: they are not counted.
    there = Session.objects.filter(session_key__in=keys)
    alive = there.filter(expire_date__gt=timezone.now()).count()
    there.delete()
    UserSession.objects.filter(user=user, session_key__in=keys).delete()
    return alive


def _stamp(moment: datetime) -> Any:
    return connection.ops.adapt_datetimefield_value(moment)
