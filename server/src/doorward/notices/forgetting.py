"""Forgets mail: of one address or account, what was written, sent and lies in a folder."""

from __future__ import annotations

import email
import email.policy
import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit
from uuid import UUID

from django.conf import settings
from django.db.models import Q

from doorward.notices.models import Mail

SHORTEST_NAME: Final = 3
"""A name shorter than this is in too many subjects by chance."""


def forget(
    *, addresses: Collection[str], accounts: Collection[UUID], names: Collection[str]
) -> int:
    """Delete every mail to these addresses or of these accounts; returns how many.

    Where mail lies in a folder, every file goes that holds an address or name. Of other people's
    mails, a subject that holds one is emptied.
    """
    to = Q(account_id__in=list(accounts))
    for address in addresses:
        to |= Q(to__iexact=address)
    doomed = Mail.objects.filter(to)
    delete_files([str(mail) for mail in doomed.values_list("id", flat=True)])
    gone, _kinds = doomed.delete()
    words = [*addresses, *(name for name in names if len(name) >= SHORTEST_NAME)]
    _delete_files_about(words)
    for word in words:
        Mail.objects.filter(subject__icontains=word).update(subject="")
    return gone


def delete_files(mails: Iterable[str]) -> int:
    """Delete the files of these mails, where mail lies in a folder; returns how many there were."""
    folder = _folder()
    if folder is None:
        return 0
    gone = 0
    for mail in mails:
        path = folder / f"{UUID(mail)}.eml"
        if path.exists():
            path.unlink(missing_ok=True)
            gone += 1
    return gone


def _delete_files_about(words: Collection[str]) -> None:
    folder = _folder()
    if folder is None or not words:
        return
    any_of = "|".join(re.escape(word.casefold()) for word in words)
    named = re.compile(rf"(?<!\w)(?:{any_of})(?!\w)")
    for path in folder.glob("*.eml"):
        if named.search(_all_of(path)):
            path.unlink(missing_ok=True)


def _all_of(path: Path) -> str:
    message = email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
    parts = [str(value) for value in message.values()]
    parts += [str(part.get_content()) for part in message.walk() if not part.is_multipart()]
    return "\n".join(parts).casefold()


def _folder() -> Path | None:
    way = urlsplit(settings.EMAIL_URL)
    if way.scheme != "file":
        return None
    return Path(unquote(way.path)) if way.path else Path(settings.DATA) / "mail"
