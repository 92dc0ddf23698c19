"""Where sessions are kept (SESSION_ENGINE), and how long they last at most.

Both limits are written into the row when it is saved and asked for with it when it is loaded: an
ended session costs no query of its own, and no cookie's date is believed.

The cookie (or an app's token) is the session's id. The table holds only a keyed hash of it, and
sealed what belongs to it: a copy of the database opens no session, and tells neither a reset link's
key nor anything else that is under way.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import logging
import re
import secrets
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from django.conf import settings
from django.contrib.auth import SESSION_KEY as USER_KEY
from django.contrib.sessions.backends.base import CreateError, SessionBase, UpdateError
from django.db import IntegrityError, connection, transaction
from django.utils import timezone

from doorward.notices import envelope

security_log = logging.getLogger("django.security.SuspiciousSession")

IDLE: Final = timedelta(days=14)
ABSOLUTE: Final = timedelta(days=30)
# Of somebody who has not signed in: a sign-in begun, a message to be shown.
ANONYMOUS: Final = timedelta(days=1)
TOUCHED_EVERY: Final = timedelta(minutes=5)
_ID: Final = re.compile(r"[a-z0-9]{32}")
BEGAN: Final = "began"
SEEN: Final = "seen"
PURPOSE: Final = "session"
SEALED: Final = "*"
"""What a sealed row begins with; no signed one does."""


def kept_as(session_id: str) -> str:
    """Return what the tables of sessions hold in place of this id: 40 characters, not invertible.

    160 bits of BLAKE2b, keyed by the field key: without the key folder nobody can even check a
    guess. Ids are 160 random bits, so that nothing slower is needed.
    """
    return hashlib.blake2b(
        session_id.encode("utf-8", "surrogatepass"),
        key=settings.FIELD_KEY,
        person=b"doorward-session",
        digest_size=20,
    ).hexdigest()


class SessionStore(SessionBase):
    """A session in the database that knows since when it lasts and when it was last used."""

    def __init__(self, session_key: str | None = None) -> None:
        super().__init__(session_key)
        # A new id has no row until the first save; what a save wrote, the next need not write.
        self._has_row = session_key is not None
        self._written: bytes | None = None
        self.was_not_there = False
        """Whether it was looked for and is none, or none any more: nothing that was done here."""

    def exists(self, session_key: str) -> bool:
        """Tell whether there is such a session; what can't be an id of ours is not looked for."""
        if not self._validate_session_key(session_key):
            return False
        return _row("SELECT 1 FROM django_session WHERE session_key = %s", [kept_as(session_key)])

    def _validate_session_key(self, key: str | None) -> bool:
        # A cookie can carry a NUL, at which PostgreSQL would fail instead of finding nothing.
        return key is not None and _ID.fullmatch(key) is not None

    def _get_new_session_key(self) -> str:
        # Not asked whether it is taken: of 160 random bits none is, and the insert would refuse it.
        # 20 random bytes in base32: 32 characters.
        return base64.b32encode(secrets.token_bytes(20)).decode().lower()

    def load(self) -> dict[str, Any]:
        """Return what the session holds; one in use is noted so at most every five minutes."""
        session_id = self.session_key
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT session_data FROM django_session"
                " WHERE session_key = %s AND expire_date > %s",
                [kept_as(session_id or ""), _stamp(timezone.now())],
            )
            found = cursor.fetchone()
        if found is None:
            self._session_key = None
            self._has_row = False
            self.was_not_there = True
            return {}
        data: dict[str, Any] = self.decode(found[0])
        now = timezone.now().timestamp()
        if USER_KEY in data and now - data.get(SEEN, 0) >= TOUCHED_EVERY.total_seconds():
            data[SEEN] = now
            data.setdefault(BEGAN, now)
            # Saved with the answer, which also moves the idle limit.
            self.modified = True
            self._note_use()
        return data

    def create(self) -> None:
        """Take a new id; its row is written by the first save."""
        self._session_key = self._get_new_session_key()
        self._has_row = False
        self._written = None
        self._get_session(no_load=True)  # type: ignore[attr-defined]  # Django's own; stubs lack it
        self.modified = True

    def save(self, must_create: bool = False) -> None:
        """Write the session down, unless that has just been done.

        Raises CreateError when a session of this id is there already, UpdateError when it has been
        ended meanwhile: nothing brings it back.
        """
        if self.session_key is None:
            self.create()
        data = self._get_session(no_load=must_create)  # type: ignore[attr-defined]  # as above
        content = self.serializer().dumps(data)
        if content == self._written:
            return
        row = [
            _sealed(content),
            _stamp(self.get_expiry_date()),
            kept_as(self.session_key or ""),
        ]
        if must_create or not self._has_row:
            try:
                with transaction.atomic(savepoint=False):
                    _changed(
                        "INSERT INTO django_session (session_data, expire_date, session_key)"
                        " VALUES (%s, %s, %s)",
                        row,
                    )
            except IntegrityError as taken:
                raise CreateError from taken
        elif not _changed(
            "UPDATE django_session SET session_data = %s, expire_date = %s WHERE session_key = %s",
            row,
        ):
            raise UpdateError
        self._has_row = True
        self._written = content

    def encode(self, session_dict: dict[str, Any]) -> str:
        """Return what the table holds for this: sealed, as ``decode`` reads it."""
        return _sealed(self.serializer().dumps(session_dict))

    def decode(self, session_data: bytes | str) -> dict[str, Any]:
        """Return what the table holds; nothing, where it was not sealed here."""
        if isinstance(session_data, bytes):
            session_data = session_data.decode("ascii", "replace")
        if not session_data.startswith(SEALED):
            # Only signed: written before sessions were sealed. The next save seals it.
            signed: dict[str, Any] = super().decode(session_data)
            return signed
        try:
            content = envelope.unseal(_bytes(session_data), purpose=PURPOSE)
        except (envelope.Unreadable, binascii.Error, UnicodeEncodeError):
            security_log.warning("Session data corrupted")
            return {}
        held: dict[str, Any] = self.serializer().loads(content)
        return held

    def delete(self, session_key: str | None = None) -> None:
        """End the session of this id, or this one; there may be none."""
        ended = session_key or self.session_key
        if ended is not None:
            _changed("DELETE FROM django_session WHERE session_key = %s", [kept_as(ended)])
        if ended == self.session_key:
            self._written = None

    def flush(self) -> None:
        """End the session and forget what it held."""
        super().flush()
        self._has_row = False
        self.was_not_there = False

    def cycle_key(self) -> None:
        """Go on under a new id; the old one is dead, and the list of sessions follows.

        Raises UpdateError when somebody's session has been ended meanwhile.
        """
        # Read first: it may turn out to be no session at all.
        is_somebodys = USER_KEY in self
        if not (is_somebodys and self._has_row):
            super().cycle_key()
            return
        before, after = kept_as(self.session_key or ""), self._get_new_session_key()
        # The row itself goes on. A new one beside it would bring back a session that was ended.
        moved = [kept_as(after), before]
        if not _changed("UPDATE django_session SET session_key = %s WHERE session_key = %s", moved):
            raise UpdateError
        _changed(
            "UPDATE usersessions_usersession SET session_key = %s WHERE session_key = %s", moved
        )
        self._session_key = after
        self._written = None
        self.modified = True

    def set_expiry(self, _value: object) -> None:
        """Do nothing: how long a session lasts is decided here alone."""

    def get_expiry_date(self, **known: Any) -> datetime:
        """Return when the session ends: unused, or however much used."""
        now: datetime = known.get("modification") or timezone.now()
        if USER_KEY not in self:
            return now + ANONYMOUS
        began = datetime.fromtimestamp(self.get(BEGAN, now.timestamp()), UTC)
        return min(now + IDLE, began + ABSOLUTE)

    def get_expiry_age(self, **known: Any) -> int:
        """Return for how many more seconds the session lasts."""
        now: datetime = known.get("modification") or timezone.now()
        return max(0, int((self.get_expiry_date(**known) - now).total_seconds()))

    def _note_use(self) -> None:
        _changed(
            "UPDATE usersessions_usersession SET last_seen_at = %s WHERE session_key = %s",
            [_stamp(timezone.now()), kept_as(self.session_key or "")],
        )

    @classmethod
    def clear_expired(cls) -> None:
        """Delete the rows of sessions that are over."""
        _changed("DELETE FROM django_session WHERE expire_date < %s", [_stamp(timezone.now())])

    @classmethod
    def get_model_class(cls) -> type[Any]:
        """Return Django's own table of sessions."""
        from django.contrib.sessions.models import Session

        return Session


def _sealed(content: bytes) -> str:
    # The session's id is no part of it: the row moves to another one whenever the id changes.
    return SEALED + binascii.b2a_base64(
        envelope.seal(content, purpose=PURPOSE), newline=False
    ).decode("ascii")


def _bytes(sealed: str) -> bytes:
    return binascii.a2b_base64(sealed.removeprefix(SEALED).encode("ascii"), strict_mode=True)


# By hand: every request of a signed-in person begins here, and making the SQL of a query set costs
# five to ten times what running it does.


def _changed(statement: str, values: list[Any]) -> int:
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        return int(cursor.rowcount)


def _row(statement: str, values: list[Any]) -> bool:
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        return cursor.fetchone() is not None


def _stamp(moment: datetime) -> Any:
    return connection.ops.adapt_datetimefield_value(moment)
