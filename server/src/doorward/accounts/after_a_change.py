"""What ends when somebody changes how they sign in: everything that was opened before.

Who changes a password, a way or an address may do so because somebody else knew the old one. What
that somebody opened with it, or had mailed, must not outlive it. docs/security/two-step.md has the
table of what ends by which change.
"""

from __future__ import annotations

from dataclasses import dataclass

from django.db import transaction
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from doorward.accounts import remembered, sessions, tokens
from doorward.accounts.models import UnlockLink, User
from doorward.audit import trail


@dataclass(frozen=True)
class Ended:
    """How much there was to end."""

    sessions: int
    tokens: int
    browsers: int = 0

    def and_then(self, more: Ended) -> Ended:
        """Return what ended by both together."""
        return Ended(
            sessions=self.sessions + more.sessions,
            tokens=self.tokens + more.tokens,
            browsers=self.browsers + more.browsers,
        )

    @property
    def words(self) -> str:
        """What ended, for the mail about the change."""
        counted = [
            (
                self.sessions,
                ngettext("%(n)d other session", "%(n)d other sessions", self.sessions),
            ),
            (
                self.browsers,
                ngettext("%(n)d remembered browser", "%(n)d remembered browsers", self.browsers),
            ),
            (
                self.tokens,
                ngettext("%(n)d token for programs", "%(n)d tokens for programs", self.tokens),
            ),
        ]
        what = [words % {"n": count} for count, words in counted if count]
        if not what:
            return _("Nothing else had to end: no other session, remembered browser or token.")
        return _("With it ended: %(what)s.") % {"what": ", ".join(what)}


@transaction.atomic
def end_what_was_open(user: User, *, keep: str | None, ip: str = "", agent: str = "") -> Ended:
    """End the person's sessions but ``keep``, tokens, remembered browsers and links, everywhere.

    Raising the epoch, which ending sessions does, also ends sign-ins half done, with the codes
    mailed for them, and links to choose a password (link_tokens.py).
    """
    ended = sessions.end_others(user, keep=keep, ip=ip, agent=agent)
    browsers = remembered.forget_all(user)
    UnlockLink.objects.filter(user=user, used_at__isnull=True).delete()
    count = tokens.revoke_all(user)
    if count:
        trail.record("account.tokens.ended", actor=user, ip=ip, agent=agent, count=count)
    return Ended(sessions=ended, tokens=count, browsers=browsers)
