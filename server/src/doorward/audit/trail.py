"""Remembers what happened, so that nobody can later pretend otherwise.

An event is written in the transaction of the act it tells of, with a digest of its own content.
Within a second ``seal`` gives it a place in one chain: each link is the hash of the link before and
of the event. Linking at once would make every signing-in wait for every other; linking afterwards
costs the acts nothing, and a row changed, removed or slipped in after its sealing breaks the chain.
How far the chain goes is sealed with a key (audit/head.py): its end can't be cut off either.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Protocol
from uuid import UUID

from django.db import IntegrityError, connection, transaction
from django.utils import timezone

from doorward.audit import head
from doorward.audit.models import Event

if TYPE_CHECKING:
    from django.db.backends.utils import CursorWrapper

GENESIS: Final = head.GENESIS
SEAL_BATCH: Final = 1000
ERASURE: Final = "audit.erased"
"""Tells how many events' content was taken away, with a sum over them."""


class _Overtaken(Exception):
    """Another sealer has given this event its place."""


class HasId(Protocol):
    """Anything whose id is remembered: a person, an account."""

    @property
    def pk(self) -> Any:
        """The id."""


@dataclass(frozen=True)
class Verdict:
    """What a check of the whole chain found; ``fault`` is empty when nothing was tampered with."""

    events: int
    unsealed: int
    last: str
    fault: str = ""

    @property
    def intact(self) -> bool:
        """Tell whether nothing was changed, removed or slipped in."""
        return not self.fault


def record(
    tag: str,
    *,
    account: HasId | UUID | None = None,
    actor: HasId | UUID | None = None,
    target: str = "",
    ip: str = "",
    agent: str = "",
    **detail: Any,
) -> Event:
    """Write down that something happened, in the caller's transaction: remembered if it happened.

    ``tag`` is dotted (``account.login.failed``), ``detail`` what else a reader needs: plain values,
    never a secret. Control and direction characters are stored as escapes, so that no name can
    forge or hide a line.
    """
    event = Event(
        at=timezone.now(),
        tag=tag,
        account_id=_id_of(account),
        actor_id=_id_of(actor),
        target=plain(target, 200),
        ip=plain(ip, 45),
        agent=plain(agent, 300),
        detail=json.dumps(
            _plain_values(detail),
            sort_keys=True,
            separators=(",", ":"),
            ensure_ascii=True,
            allow_nan=False,
        ),
    )
    event.who_salt, event.what_salt = secrets.token_hex(16), secrets.token_hex(16)
    event.who_mark, event.what_mark = who_mark_of(event), what_mark_of(event)
    event.digest = digest_of(event)
    _insert(event)
    return event


def _insert(event: Event) -> None:
    # By hand: nearly every act of a person writes an event, and the model's own insert costs four
    # times as much. (A sign-in writes two: bench/sign_in.py.)
    native = connection.features.has_native_uuid_field
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO audit_event (at, tag, account_id, actor_id, target, ip, agent, detail,"
            " digest, who_salt, what_salt, who_mark, what_mark, chain)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, '') RETURNING id",
            [
                connection.ops.adapt_datetimefield_value(event.at),
                event.tag,
                event.account_id if native or event.account_id is None else event.account_id.hex,
                event.actor_id if native or event.actor_id is None else event.actor_id.hex,
                *(event.target, event.ip, event.agent, event.detail, event.digest),
                *(event.who_salt, event.what_salt, event.who_mark, event.what_mark),
            ],
        )
        event.pk = cursor.fetchone()[0]


def seal() -> int:
    """Give every event still without a place its place in the chain; returns how many.

    Two sealers at once: the one that comes second meets the taken place, undoes its work and
    leaves it to its next turn.
    """
    done = 0
    while True:
        try:
            batch = _seal_batch()
        except (IntegrityError, _Overtaken):
            return done
        done += batch
        if batch < SEAL_BATCH:
            return done


def verify() -> Verdict:
    """Walk the whole chain and tell whether every event is as it was written, and all are there."""
    seq, link = 0, GENESIS
    try:
        # Before the walk: what is sealed meanwhile makes the chain longer, never shorter.
        heads = [found for found in (head.read(), head.kept_apart()) if found is not None]
    except head.HeadBroken as broken:
        return Verdict(0, _unsealed(), link, str(broken))
    passed = {found for found in heads if found.events == 0 and found.chain == GENESIS}
    erased: dict[UUID, Erased] = {}
    told: set[tuple[UUID, int, str]] = set()
    for event in Event.objects.filter(seq__isnull=False).order_by("seq").iterator(chunk_size=2000):
        seq += 1
        if event.seq != seq:
            return Verdict(
                seq - 1,
                _unsealed(),
                link,
                f"event {seq} is missing (the next one found is {event.seq})",
            )
        if not is_as_written(event):
            return Verdict(seq - 1, _unsealed(), link, f"event {seq} (row {event.pk}) was changed")
        link = _link(link, event.digest)
        if event.chain != link:
            return Verdict(
                seq - 1, _unsealed(), link, f"event {seq} (row {event.pk}) was replaced or moved"
            )
        passed |= {found for found in heads if (found.events, found.chain) == (seq, link)}
        for by, half in ((event.who_erased_by, "who"), (event.what_erased_by, "what")):
            if by is not None:
                erased.setdefault(by, Erased()).add(event, half)
        if event.tag == ERASURE:
            told.add(_told(event))
    fault = _fault_at_the_end(seq, link, [found for found in heads if found not in passed])
    if fault:
        return Verdict(seq, _unsealed(), link, fault)
    if told != {(by, sums.count, sums.digest()) for by, sums in erased.items()}:
        return Verdict(seq, _unsealed(), link, "content was taken away that no erasure tells of")
    for event in Event.objects.filter(seq__isnull=True).iterator():
        if event.tag == ERASURE or _is_erased(event) or not is_as_written(event):
            return Verdict(
                seq, _unsealed(), link, f"an event not yet sealed (row {event.pk}) was changed"
            )
    return Verdict(seq, _unsealed(), link)


def _fault_at_the_end(seq: int, link: str, missed: list[head.Mark]) -> str:
    for found in missed:
        if found.events > seq:
            return f"{found.events} events were sealed, and the last {found.events - seq} are gone"
        return f"event {found.events} and those before it are not the ones that were sealed"
    try:
        sealed = head.read()
    except head.HeadBroken as broken:
        return str(broken)
    if sealed.events < seq or (sealed.events == seq and sealed.chain != link):
        return f"event {sealed.events + 1} and those after it were never sealed"
    return ""


def is_as_written(event: Event) -> bool:
    """Tell whether the event says what it said when it was written, as far as it still says it."""
    if not event.who_mark:
        # From before the marks: once emptied, only the chain still speaks for it.
        return _is_erased(event) or digest_of(event) == event.digest
    return (
        digest_of(event) == event.digest
        and (event.who_erased_by is not None or who_mark_of(event) == event.who_mark)
        and (event.what_erased_by is not None or what_mark_of(event) == event.what_mark)
    )


def _is_erased(event: Event) -> bool:
    return event.who_erased_by is not None or event.what_erased_by is not None


def digest_of(event: Event) -> str:
    """Return the SHA-256 over when, which and the two marks; over all of an event without marks."""
    moment = event.at.astimezone(UTC).isoformat(timespec="microseconds")
    if event.who_mark:
        return _sha256([2, moment, event.tag, event.who_mark, event.what_mark])
    return _sha256([moment, event.tag, *_who(event), *_what(event)])


def who_mark_of(event: Event) -> str:
    """Return the mark of whose event it is."""
    return _sha256([event.who_salt, *_who(event)])


def what_mark_of(event: Event) -> str:
    """Return the mark of what else the event says."""
    return _sha256([event.what_salt, *_what(event)])


class Erased:
    """Adds up what one erasure took away: halves of events, in the order of the chain."""

    def __init__(self) -> None:
        self.count = 0
        self._sum = hashlib.sha256()

    def add(self, event: Event, half: str) -> None:
        """Count one more half of an event."""
        self._sum.update(f"{event.digest} {half}\n".encode())
        self.count += 1

    def digest(self) -> str:
        """Return the sum as it stands in the event that tells of the erasure."""
        return self._sum.hexdigest()


def _told(event: Event) -> tuple[UUID, int, str]:
    try:
        said = json.loads(event.detail)
        return UUID(said["erasure"]), int(said["halves"]), str(said["sum"])
    except (ValueError, KeyError, TypeError):
        return UUID(int=0), 0, ""


def _who(event: Event) -> list[str]:
    return [str(event.account_id or ""), str(event.actor_id or "")]


def _what(event: Event) -> list[str]:
    return [event.target, event.ip, event.agent, event.detail]


def _sha256(content: list[str | int]) -> str:
    text = json.dumps(content, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def plain(text: str, most: int) -> str:
    """Return the text in ``most`` characters, control and direction characters as escapes."""
    if text.isascii() and text.isprintable():
        return text[:most]
    shown = "".join(_escaped(character) for character in text[:most])
    return shown[:most]


def _escaped(character: str) -> str:
    if unicodedata.category(character) in {"Cc", "Cf", "Cs", "Zl", "Zp"}:
        return f"\\u{ord(character):04x}"
    return character


def _plain_values(value: Any) -> Any:
    match value:
        case bool() | int() | None:
            return value
        case float():
            return value if value == value and abs(value) != float("inf") else str(value)
        case dict():
            return {plain(str(key), 64): _plain_values(entry) for key, entry in value.items()}
        case list() | tuple():
            return [_plain_values(entry) for entry in value]
        case datetime():
            return value.isoformat()
        case _:
            return plain(str(value), 1000)


def _id_of(thing: HasId | UUID | None) -> UUID | None:
    if thing is None or isinstance(thing, UUID):
        return thing
    pk = thing.pk
    return pk if isinstance(pk, UUID) else None


def _link(before: str, digest: str) -> str:
    return hashlib.sha256(f"{before}{digest}".encode()).hexdigest()


def _unsealed() -> int:
    return Event.objects.filter(seq__isnull=True).count()


@transaction.atomic
def _seal_batch() -> int:
    waiting = list(
        Event.objects.filter(seq__isnull=True)
        .order_by("id")
        .values_list("id", "digest")[:SEAL_BATCH]
    )
    if not waiting:
        return 0
    last = Event.objects.filter(seq__isnull=False).order_by("-seq").first()
    seq, link = (last.seq or 0, last.chain) if last is not None else (0, GENESIS)
    with connection.cursor() as cursor:
        for place, linked, row in _places(seq, link, waiting):
            _place(cursor, place, linked, row)
    head.move(head.Mark(seq, link), head.Mark(place, linked))
    return len(waiting)


def _places(seq: int, link: str, waiting: list[tuple[int, str]]) -> Iterator[tuple[int, str, int]]:
    for row, digest in waiting:
        seq += 1
        link = _link(link, digest)
        yield seq, link, row


def _place(cursor: CursorWrapper, seq: int, link: str, row: int) -> None:
    # By hand, since the model refuses updates; a trigger lets a place be given only once.
    cursor.execute(
        "UPDATE audit_event SET seq = %s, chain = %s WHERE id = %s AND seq IS NULL",
        [seq, link, row],
    )
    if cursor.rowcount != 1:
        raise _Overtaken
