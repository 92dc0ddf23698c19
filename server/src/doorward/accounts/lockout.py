"""Stops guessing without being a weapon: a lock shuts out strangers' browsers, not the owner's.

Every try is counted by one atomic statement before the password is checked, in the database, so
that neither parallel tries nor several processes nor a restart give any away. A try that is refused
is not checked, not counted and makes no lock longer. Addresses without an account are counted the
same way.

The figures are those of docs/security/limits.md; a test compares them.
"""

from __future__ import annotations

import hashlib
import ipaddress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Final

from django.conf import settings
from django.db import connection, transaction
from django.utils import timezone

from doorward.accounts.models import KnownBrowser, SpreadMark, Throttle, User, canonical_email
from doorward.audit import trail

# -- the ladder of one account, for browsers it does not know ------------------------------------

# Minutes of lock after the 5th, 6th, 7th, 8th and every further failure.
STEPS_MINUTES: Final = (1, 5, 15, 30, 60)
FREE_FAILURES: Final = 4
# Between the free ones: a person does not type faster.
PAUSE: Final = timedelta(seconds=1)
# After so long without a failure the ladder begins anew.
FORGIVEN_AFTER: Final = timedelta(hours=12)
# NIST SP 800-63B-4, 3.2.2: after so many in all, only a known browser gets a password checked.
MOST_EVER: Final = 100


@dataclass(frozen=True)
class Window:
    """So many within so long; then nothing for ``lock``."""

    name: str
    most: int
    within: timedelta
    lock: timedelta


KNOWN_BROWSER: Final = Window("browser", 10, timedelta(minutes=15), timedelta(0))
NETWORK: Final = Window("net", 20, timedelta(minutes=5), timedelta(minutes=5))
NETWORK_DAY: Final = Window("netday", 100, timedelta(hours=24), timedelta(hours=24))
EVERYBODY: Final = Window("all", 1000, timedelta(minutes=5), timedelta(minutes=5))
REAUTHENTICATION: Final = Window("re", 5, timedelta(minutes=5), timedelta(minutes=5))
REAUTHENTICATION_DAY: Final = Window("reday", 10, timedelta(hours=24), timedelta(hours=24))
REAUTHENTICATION_PERSON: Final = Window("reall", 20, timedelta(hours=24), timedelta(hours=24))
CODE: Final = Window("code", 5, timedelta(minutes=5), timedelta(minutes=5))
CODE_HOUR: Final = Window("codehour", 20, timedelta(hours=1), timedelta(hours=1))
CODE_DAY: Final = Window("codeday", 50, timedelta(hours=24), timedelta(hours=24))
KNOWN_CODES: Final = Window("codeknown", 100, timedelta(hours=24), timedelta(hours=24))
SENT_CODE: Final = Window("sent", 3, timedelta(minutes=10), timedelta(minutes=10))
CODE_NETWORK: Final = Window("codenet", 10, timedelta(minutes=5), timedelta(minutes=5))
MAIL_HOUR: Final = Window("mail", 3, timedelta(hours=1), timedelta(hours=1))
MAIL_DAY: Final = Window("mailday", 5, timedelta(hours=24), timedelta(hours=24))
MAIL_PAIR: Final = Window("mailpair", 2, timedelta(hours=1), timedelta(hours=1))
MAIL_PAIR_DAY: Final = Window("mailpairday", 4, timedelta(hours=24), timedelta(hours=24))
# As long as the mailed link works: there is always one that works, or one is mailed.
MAIL_KEPT: Final = Window("mailkept", 1, timedelta(minutes=30), timedelta(minutes=30))
MAIL_NETWORK: Final = Window("mailnet", 20, timedelta(hours=1), timedelta(hours=1))
SIGNUP_NETWORK: Final = Window("upnet", 20, timedelta(hours=1), timedelta(hours=1))
SIGNUP_ADDRESS: Final = Window("up", 3, timedelta(hours=24), timedelta(hours=24))
LOCK_MAIL: Final = Window("lockmail", 1, timedelta(hours=6), timedelta(hours=6))
LOCK_MAIL_DAY: Final = Window("lockmailday", 3, timedelta(hours=24), timedelta(hours=24))
QUESTION: Final = Window("question", 3, timedelta(hours=24), timedelta(hours=24))
QUESTION_NETWORK: Final = Window("questionnet", 5, timedelta(hours=1), timedelta(hours=1))
QUESTION_ALL: Final = Window("questionall", 100, timedelta(hours=1), timedelta(hours=1))
WRONG_FINDS: Final = Window("wrongfind", 10, timedelta(hours=24), timedelta(hours=24))
ALERT: Final = Window("alert", 1, timedelta(minutes=30), timedelta(minutes=30))
INVITATIONS: Final = Window("invite", 20, timedelta(hours=24), timedelta(hours=24))
INVITATION_MAIL: Final = Window("invitemail", 3, timedelta(hours=24), timedelta(hours=24))
FOUNDINGS: Final = Window("found", 5, timedelta(hours=24), timedelta(hours=24))
PASSKEY_NETWORK: Final = Window("passkeynet", 30, timedelta(minutes=5), timedelta(minutes=5))
OFFERS: Final = Window("offer", 5, timedelta(hours=24), timedelta(hours=24))
NEW_BROWSER_MAIL: Final = Window("newmail", 5, timedelta(hours=24), timedelta(hours=24))
REMOVALS: Final = Window("remove", 5, timedelta(hours=1), timedelta(0))

# One network may fail for so many different addresses within so long; then it is spraying.
SPREAD_MOST: Final = 10
SPREAD_WITHIN: Final = timedelta(minutes=10)
SPREAD_LOCK: Final = timedelta(minutes=30)

KEPT: Final = timedelta(days=2)
LADDERS_KEPT: Final = timedelta(days=400)


class Locked(Exception):
    """The try was refused unchecked. ``wait`` until the next one counts; None: not by waiting.

    ``quietly``: it only came too fast after the one before, and is answered like a wrong password.
    ``everybody``: it is the network that is locked, whatever the address.
    """

    def __init__(
        self, wait: timedelta | None, *, quietly: bool = False, everybody: bool = False
    ) -> None:
        super().__init__("locked")
        self.wait = wait
        self.quietly = quietly
        self.everybody = everybody

    @property
    def seconds(self) -> int:
        """How long to wait, for Retry-After."""
        return max(1, round(self.wait.total_seconds())) if self.wait else 24 * 3600

    @property
    def minutes(self) -> int:
        """How long to wait, for people: rounded up."""
        return max(1, -(-self.seconds // 60))


@dataclass
class Try:
    """A password try that was counted and may be checked."""

    login: str
    network: str
    browser: KnownBrowser | None
    failures: int = 0
    taken: list[tuple[Window, str]] = field(default_factory=list)
    # Whether its network had not failed with this address before.
    unmarked: bool = False


# -- one password try ----------------------------------------------------------------------------


def begin(login: str, *, ip: str, browser: KnownBrowser | None) -> Try:
    """Count the try as a failure, before anything is checked. Raises Locked when it may not be.

    ``browser`` is one this account knows, or nothing.
    """
    attempt = Try(_login_key(login), network_of(ip), browser)
    with transaction.atomic():
        if browser is not None and _take(KNOWN_BROWSER, str(browser.pk)) is None:
            attempt.taken.append((KNOWN_BROWSER, str(browser.pk)))
            return attempt
        if browser is not None:
            # Ten failures: whoever holds this cookie is no longer believed. Others are.
            forget(browser)
            attempt.browser = None
        refusal = _begin_as_stranger(attempt)
        if refusal is None:
            return attempt
        # What this try took before it was refused is given back: it was not checked.
        _give_back(attempt)
    raise refusal


def _begin_as_stranger(attempt: Try) -> Locked | None:
    for window, key in (
        (EVERYBODY, ""),
        (NETWORK_DAY, attempt.network),
        (NETWORK, attempt.network),
    ):
        until = _take(window, key)
        if until is not None:
            if window is EVERYBODY:
                # Shields up: strangers' browsers go by the mailed link, known ones as always.
                alert("operator.alert.flood")
                return Locked(None, everybody=True)
            wait = until - timezone.now()
            return Locked(None if window is NETWORK_DAY else wait, everybody=True)
        attempt.taken.append((window, key))
    refusal = _spraying(attempt) or _climb(attempt)
    if refusal is None:
        # Only now: a try that is refused neither makes a mark nor takes an older one away.
        _mark(attempt)
    return refusal


def _climb(attempt: Try) -> Locked | None:
    now = _ms(timezone.now())
    pause = _span(PAUSE)
    quiet = now - _span(FORGIVEN_AFTER)
    first, second, third, fourth, most = (minutes * 60_000 for minutes in STEPS_MINUTES)
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO accounts_throttle AS t (key, count, total, since, locked_until, updated)"
            " VALUES (%s, 1, 1, %s, %s, %s) ON CONFLICT (key) DO UPDATE SET"
            " count = CASE WHEN t.updated <= %s THEN 1 ELSE t.count + 1 END,"
            " total = t.total + 1,"
            " since = CASE WHEN t.updated <= %s THEN excluded.since ELSE t.since END,"
            " locked_until = excluded.updated + CASE"
            " WHEN t.updated <= %s OR t.count < %s THEN %s"
            " WHEN t.count = %s THEN %s WHEN t.count = %s THEN %s"
            " WHEN t.count = %s THEN %s WHEN t.count = %s THEN %s ELSE %s END,"
            " updated = excluded.updated"
            " WHERE t.locked_until <= excluded.updated AND t.total < %s"
            " RETURNING count",
            [
                *(f"a:{attempt.login}", now, now + pause, now, quiet, quiet),
                *(quiet, FREE_FAILURES, pause),
                *(FREE_FAILURES, first, FREE_FAILURES + 1, second),
                *(FREE_FAILURES + 2, third, FREE_FAILURES + 3, fourth, most),
                MOST_EVER,
            ],
        )
        row = cursor.fetchone()
    if row is not None:
        attempt.failures = int(row[0])
        return None
    ladder = Throttle.objects.get(pk=f"a:{attempt.login}")
    if ladder.total >= MOST_EVER:
        return Locked(None)
    wait = timedelta(milliseconds=max(1, ladder.locked_until - now))
    return Locked(wait, quietly=ladder.count <= FREE_FAILURES)


def right(attempt: Try) -> None:
    """Give back what the try took: the password was right. The failures before it stay counted.

    Clearing them would let a burglar who also owns an account wipe what counts against his network.
    """
    with transaction.atomic(savepoint=False):
        # In the order a try takes them: two at once must not wait for each other.
        _give_back(attempt)
        if attempt.browser is None:
            _run(
                "UPDATE accounts_throttle SET count = count - 1, total = total - 1,"
                " locked_until = 0 WHERE key = %s AND count > 0",
                [f"a:{attempt.login}"],
            )
        if attempt.unmarked:
            _run(
                "DELETE FROM accounts_spreadmark WHERE network = %s AND login = %s",
                [_key("network", attempt.network), attempt.login],
            )


def clear(login: str) -> bool:
    """Forget every failure counted for this address; tells whether there were any."""
    proofs = _window_key(REAUTHENTICATION_PERSON, canonical_email(login))
    statement = "DELETE FROM accounts_throttle WHERE key IN (%s, %s)"
    return _run(statement, [f"a:{_login_key(login)}", proofs]) > 0


def _give_back(attempt: Try) -> None:
    for window, key in attempt.taken:
        _uncount(window, key)
    attempt.taken.clear()


def _uncount(window: Window, key: str) -> None:
    _run(
        "UPDATE accounts_throttle SET count = count - 1, locked_until = 0"
        " WHERE key = %s AND count > 0",
        [_window_key(window, key)],
    )


# -- what its owner is told of a lock episode ----------------------------------------------------

# A ladder on which strangers' browsers were locked out, until twelve hours have passed or, after
# too many failures in all, for good. A ladder's "since" is when it began, and 0 once its owner was
# told of a sign-in. To be asked inside another statement (credentials.look_up).
UNTOLD_EPISODE: Final = "key = %s AND since > 0 AND (total >= %s OR (count > %s AND updated > %s))"


def of_episode(login: str) -> list[Any]:
    """Return the values that UNTOLD_EPISODE takes for this address."""
    quiet = _ms(timezone.now()) - _span(FORGIVEN_AFTER)
    return [f"a:{_login_key(login)}", MOST_EVER, FREE_FAILURES, quiet]


def tell_once(login: str) -> bool:
    """Note that the owner is told of a sign-in; False when there is no episode to tell of."""
    told = f"UPDATE accounts_throttle SET since = 0 WHERE {UNTOLD_EPISODE}"  # nosec B608 # noqa: S608 - ours
    return _run(told, of_episode(login)) > 0


# -- spraying ------------------------------------------------------------------------------------


def _spraying(attempt: Try) -> Locked | None:
    now = timezone.now()
    network = _key("network", attempt.network)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT (SELECT locked_until FROM accounts_throttle"
            " WHERE key = %s AND locked_until > %s),"
            " (SELECT count(*) FROM accounts_spreadmark"
            " WHERE network = %s AND at > %s AND login <> %s),"
            " (SELECT count(*) FROM accounts_spreadmark WHERE network = %s AND login = %s)",
            [
                *(f"s:{network}", _ms(now)),
                *(network, _stamp(now - SPREAD_WITHIN), attempt.login),
                *(network, attempt.login),
            ],
        )
        locked_until, others, own = cursor.fetchone()
    if locked_until is not None:
        return Locked(timedelta(milliseconds=locked_until - _ms(now)), everybody=True)
    if others < SPREAD_MOST:
        attempt.unmarked = not own
        return None
    until = _ms(now + SPREAD_LOCK)
    lock = {"count": 0, "since": _ms(now), "locked_until": until, "updated": until}
    Throttle.objects.update_or_create(pk=f"s:{network}", defaults=lock)
    alert("operator.alert.spraying", network=attempt.network)
    return Locked(SPREAD_LOCK, everybody=True)


def _mark(attempt: Try) -> None:
    _run(
        "INSERT INTO accounts_spreadmark (network, login, at) VALUES (%s, %s, %s)"
        " ON CONFLICT (network, login) DO UPDATE SET at = excluded.at",
        [_key("network", attempt.network), attempt.login, _stamp(timezone.now())],
    )


def alert(tag: str, *, network: str = "") -> None:
    """Have operators see that something is going on: one event in half an hour of each kind."""
    # One event for each lock, not one for each try that meets it.
    if _take(ALERT, f"{tag} {network}") is None:
        trail.record(tag, network=network)


# -- counting within windows ---------------------------------------------------------------------


def allow(*wanted: tuple[Window, str]) -> bool:
    """Count one in each of these windows; False, and none counted, when one of them is full."""
    return full(*wanted) is None


def full(*wanted: tuple[Window, str]) -> timedelta | None:
    """Count one in each window; when one of them is full, none, and return how long it stays so."""
    with transaction.atomic(savepoint=False):
        taken: list[tuple[Window, str]] = []
        for window, key in wanted:
            until = _take(window, key)
            if until is not None:
                for earlier, held in taken:
                    _uncount(earlier, held)
                return max(until - timezone.now(), timedelta(seconds=1))
            taken.append((window, key))
    return None


def give_back(*taken: tuple[Window, str]) -> None:
    """Uncount one in each of these windows: it was no failure. What failed before stays counted."""
    for window, key in taken:
        _uncount(window, key)


def reset(*wanted: tuple[Window, str]) -> None:
    """Empty these windows: what they guard against did not happen."""
    Throttle.objects.filter(pk__in=[_window_key(window, key) for window, key in wanted]).delete()


def _take(window: Window, key: str) -> datetime | None:
    """Count one; when the window is full, count nothing and return until when it is."""
    moment = timezone.now()
    now, start = _ms(moment), _ms(moment - window.within)
    lock = _span(window.lock)
    pk = _window_key(window, key)
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO accounts_throttle AS t (key, count, total, since, locked_until, updated)"
            " VALUES (%s, 1, 0, %s, 0, %s) ON CONFLICT (key) DO UPDATE SET"
            " count = CASE WHEN t.since <= %s THEN 1 ELSE t.count + 1 END,"
            " since = CASE WHEN t.since <= %s THEN excluded.since ELSE t.since END,"
            " locked_until = CASE WHEN t.since > %s AND t.count + 1 >= %s"
            " THEN excluded.updated + %s ELSE t.locked_until END,"
            " updated = excluded.updated"
            " WHERE t.locked_until <= excluded.updated AND (t.since <= %s OR t.count < %s)"
            " RETURNING count",
            [pk, now, now, start, start, start, window.most, lock, start, window.most],
        )
        if cursor.fetchone() is not None:
            return None
        cursor.execute("SELECT locked_until, since FROM accounts_throttle WHERE key = %s", [pk])
        locked_until, since = cursor.fetchone()
    ends = max(locked_until, since + _span(window.within))
    return moment + timedelta(milliseconds=max(1, ends - now))


def forget_old(now: datetime) -> int:
    """Delete counts that are over; returns how many."""
    windows = Throttle.objects.filter(updated__lt=_ms(now - KEPT)).exclude(pk__startswith="a:")
    ladders = Throttle.objects.filter(updated__lt=_ms(now - LADDERS_KEPT))
    marks = SpreadMark.objects.filter(at__lt=now - KEPT)
    return windows.delete()[0] + ladders.delete()[0] + marks.delete()[0]


# -- keys ----------------------------------------------------------------------------------------


@lru_cache(maxsize=4096)
def network_of(ip: str) -> str:
    """Return what one person is given: an IPv4 address, or the /64 of an IPv6 one."""
    try:
        address = ipaddress.ip_address(ip)
    except ValueError:
        return "unknown"
    if isinstance(address, ipaddress.IPv6Address):
        mapped = address.ipv4_mapped
        if mapped is None:
            return str(ipaddress.ip_network((address, 64), strict=False).network_address)
        return str(mapped)
    return str(address)


def forget(browser: KnownBrowser) -> None:
    """Make this browser a stranger to its account."""
    KnownBrowser.objects.filter(pk=browser.pk, revoked_at__isnull=True).update(
        revoked_at=timezone.now()
    )


def forget_all(user: User) -> int:
    """Make every browser a stranger to this person's account; returns how many there were."""
    known = KnownBrowser.objects.filter(user=user, revoked_at__isnull=True)
    return known.update(revoked_at=timezone.now())


def _login_key(login: str) -> str:
    return _key("login", canonical_email(login))


def _key(purpose: str, text: str) -> str:
    # Keyed: a copy of the table tells neither which addresses were tried nor from where.
    return hashlib.blake2b(
        f"{purpose}\0{text}".encode("utf-8", "surrogatepass"),
        key=settings.FIELD_KEY,
        person=b"doorward-lock",
        digest_size=20,
    ).hexdigest()


def _window_key(window: Window, key: str) -> str:
    return f"w:{window.name}:{_key(window.name, key)}"


def _run(statement: str, values: list[Any]) -> int:
    # By hand, as everything a sign-in waits for: to make the SQL of a query set costs five to ten
    # times what running it does (bench/README.md).
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        return int(cursor.rowcount)


def _stamp(moment: datetime) -> Any:
    return connection.ops.adapt_datetimefield_value(moment)


def _ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


def _span(length: timedelta) -> int:
    return int(length.total_seconds() * 1000)
