"""Where sessions are kept (SESSION_ENGINE), and how long they last at most.

Both limits are written into the row when it is saved and asked for with it when it is loaded: an
ended session costs no query of its own, and no cookie's date is believed.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from django.contrib.auth import SESSION_KEY as USER_KEY
from django.contrib.sessions.backends import db
from django.utils import timezone

IDLE: Final = timedelta(days=14)
ABSOLUTE: Final = timedelta(days=30)
# Of somebody who has not signed in: a sign-in begun, a message to be shown.
ANONYMOUS: Final = timedelta(days=1)
TOUCHED_EVERY: Final = timedelta(minutes=5)
_ID: Final = re.compile(r"[a-z0-9]{32}")
BEGAN: Final = "began"
SEEN: Final = "seen"


class SessionStore(db.SessionStore):
    """A session in the database that knows since when it lasts and when it was last used."""

    def exists(self, session_key: str) -> bool:
        """Tell whether there is such a session; what can't be an id of ours is not looked for."""
        return self._validate_session_key(session_key) and bool(super().exists(session_key))

    def _validate_session_key(self, key: str | None) -> bool:
        # A cookie can carry a NUL, at which PostgreSQL would fail instead of finding nothing.
        return key is not None and _ID.fullmatch(key) is not None

    def load(self) -> dict[str, Any]:
        """Return what the session holds; one in use is noted so at most every five minutes."""
        data: dict[str, Any] = super().load()
        now = timezone.now().timestamp()
        if USER_KEY in data and now - data.get(SEEN, 0) >= TOUCHED_EVERY.total_seconds():
            data[SEEN] = now
            data.setdefault(BEGAN, now)
            # Saved with the answer, which also moves the idle limit.
            self.modified = True
            self._note_use()
        return data

    def cycle_key(self) -> None:
        """Go on under a new id; the old one is dead, and the list of sessions follows."""
        from allauth.usersessions.models import UserSession

        before = self.session_key
        super().cycle_key()
        if before and USER_KEY in self:
            UserSession.objects.filter(session_key=before).update(session_key=self.session_key)

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
        from allauth.usersessions.models import UserSession

        UserSession.objects.filter(session_key=self.session_key).update(last_seen_at=timezone.now())

    @classmethod
    def get_model_class(cls) -> type[Any]:
        """Return Django's own table of sessions."""
        from django.contrib.sessions.models import Session

        return Session
