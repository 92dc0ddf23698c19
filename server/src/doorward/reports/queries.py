"""What people and programs read of the reports; the portal and the API ask the same questions here.

Every function takes the account first and answers about that account only: the whole of it, or as
one person may see it (devices/sharing.py); pages and the API give the latter. Lists are read by
cursor, never by number: the thousandth page costs what the first does.
"""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final, Generic, TypeVar
from uuid import UUID

from django.db.models import Count, F, Func, OuterRef, Q, QuerySet, Subquery, Window
from django.db.models.functions import Coalesce, RowNumber, TruncHour
from django.utils import timezone

from doorward.accounts.models import Account, Shares
from doorward.devices import sharing
from doorward.devices.models import Device
from doorward.devices.sharing import Seen, Sight
from doorward.reports.models import Detection, Disposition, Remediation, Scan, ScanState, Tally

DEFAULT_LIMIT: Final = 20
MAX_LIMIT: Final = 200
"""The most rows of one page of a list."""
COUNT_LIMIT: Final = 1000
"""Counting stops here: "1,000+" says enough, and costs the same for every account."""
LATELY_COUNTED: Final = 200
"""So many of the newest rows are looked at to tell happenings that come in numbers as one."""
RECENT: Final = timedelta(days=7)
UNFINISHED_AFTER: Final = timedelta(hours=24)
"""A scan without an end for so long was cut short: the device was switched off, say."""

Row = TypeVar("Row", Scan, Detection)
AnyRow = TypeVar("AnyRow", Scan, Detection, Remediation)


class InvalidCursor(ValueError):
    """The cursor was not made by this server for this kind of list."""


@dataclass(frozen=True)
class Bounded:
    """A number counted up to a limit; `more` when there are more than that."""

    value: int
    more: bool = False

    def __str__(self) -> str:
        return f"{self.value:,}+" if self.more else f"{self.value:,}"

    def __bool__(self) -> bool:
        return self.value > 0


@dataclass(frozen=True)
class Page(Generic[Row]):
    """Rows of a list, newest first, and the cursors of its neighbors ("" where there is none)."""

    rows: Sequence[Row]
    older: str
    newer: str


@dataclass(frozen=True)
class ScanFilter:
    """Which scans; what is left out does not filter. `since` is included, `until` is not."""

    device: UUID | None = None
    states: frozenset[int] = frozenset()
    kinds: frozenset[int] = frozenset()
    with_detections: bool | None = None
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True)
class ThreatFilter:
    """Which threats; what is left out does not filter. `since` is included, `until` is not.

    `text` is looked for in path, title and rule, whatever its case.
    """

    device: UUID | None = None
    scan: Scan | None = None
    dispositions: frozenset[int] = frozenset()
    severities: frozenset[int] = frozenset()
    is_open: bool | None = None
    text: str = ""
    since: datetime | None = None
    until: datetime | None = None


ALL_SCANS: Final = ScanFilter()
ALL_THREATS: Final = ThreatFilter()


@dataclass(frozen=True)
class Summary:
    """What the dashboard says about an account's reports; `version` rises with each change."""

    version: int
    scans: int
    """Ever."""
    threats: int
    """Ever."""
    open_threats: Bounded
    recent_scans: Bounded
    """Within RECENT."""
    recent_threats: Bounded
    """Within RECENT."""
    last_scan: Scan | None


@dataclass(frozen=True)
class Happening:
    """Something that happened lately: one of `scan`, `threat` and `remediation` is there.

    It may stand for `count` of its kind: the threats of one scan, or what was done about several
    at about the same time; `more` when that is only as far as was counted.
    """

    time: datetime
    device: Device
    scan: Scan | None = None
    threat: Detection | None = None
    remediation: Remediation | None = None
    count: int = 1
    still_there: int = 0
    """How many of `count` threats still need somebody."""
    more: bool = False


@dataclass(frozen=True)
class DeviceReports:
    """What a list of devices shows of each one's reports."""

    last_scan: Scan | None = None
    open_threats: int = 0


@dataclass(frozen=True)
class ThreatDetail:
    """A threat, what was done about it since (oldest first), and the scan that found it."""

    threat: Detection
    remediations: Sequence[Remediation] = field(default_factory=tuple)
    scan: Scan | None = None


# ---------------------------------------------------------------------------------------- lists


def scans(
    seen: Seen,
    wanted: ScanFilter = ALL_SCANS,
    *,
    cursor: str = "",
    limit: int = DEFAULT_LIMIT,
) -> Page[Scan]:
    """A page of the account's scans, the one that began last first.

    Raises InvalidCursor. Takes one query.
    """
    rows = _of(Scan.objects.all(), seen, wanted.device)
    if wanted.states:
        rows = rows.filter(state__in=wanted.states)
    if wanted.kinds:
        rows = rows.filter(kind__in=wanted.kinds)
    if wanted.with_detections is not None:
        rows = rows.filter(Q(detections__gt=0) if wanted.with_detections else Q(detections=0))
    return _page(_between(rows, wanted.since, wanted.until), seen, cursor, limit)


def threats(
    seen: Seen,
    wanted: ThreatFilter = ALL_THREATS,
    *,
    cursor: str = "",
    limit: int = DEFAULT_LIMIT,
) -> Page[Detection]:
    """A page of the account's threats, newest first. Raises InvalidCursor. Takes one query."""
    device = wanted.device
    since = wanted.since
    if wanted.scan is not None:
        # There is no index by scan: a scan's findings are among its device's, after it began.
        device = wanted.scan.device_id if device is None else device
        began = wanted.scan.time - timedelta(days=1)
        since = began if since is None else max(since, began)
    rows = _of(Detection.objects.all(), seen, device)
    if wanted.scan is not None:
        rows = rows.filter(scan_uid=wanted.scan.uid)
    if wanted.dispositions:
        rows = rows.filter(disposition__in=wanted.dispositions)
    if wanted.severities:
        rows = rows.filter(severity__in=wanted.severities)
    if wanted.is_open is not None:
        rows = rows.filter(is_open=wanted.is_open)
    if wanted.text:
        rows = rows.filter(
            _in_path(wanted.text, seen)
            | Q(title__icontains=wanted.text)
            | Q(rule__icontains=wanted.text)
        )
    return _page(_between(rows, since, wanted.until), seen, cursor, limit)


def _in_path(text: str, seen: Seen) -> Q:
    here = Q(path__icontains=text)
    veiled = seen.without_paths if isinstance(seen, Sight) else []
    if not veiled:
        return here
    # What is not shown is not found either: a search that hits would tell it letter by letter.
    return here & (Q(device__member__isnull=True) | ~Q(device__member__in=veiled))


def _of(rows: QuerySet[Row], seen: Seen, device: UUID | None) -> QuerySet[Row]:
    rows = _visible(rows.select_related("device"), seen)
    if device is None:
        return rows.filter(account=sharing.account_of(seen))
    # Through the device, so that no planner weighs the account's index against the device's.
    return rows.filter(device_id=device, device__account=sharing.account_of(seen))


def _visible(rows: QuerySet[AnyRow], seen: Seen) -> QuerySet[AnyRow]:
    condition = seen.condition() if isinstance(seen, Sight) else None
    return rows if condition is None else rows.filter(condition)


def _veiled(rows: Sequence[AnyRow], seen: Seen) -> Sequence[AnyRow]:
    # On the rows in memory, which are read and never saved.
    if isinstance(seen, Sight) and seen.without_paths:
        for row in rows:
            if seen.of(row.device) != Shares.PATHS:
                _veil(row)
    return rows


def _veil(row: Scan | Detection | Remediation) -> None:
    if isinstance(row, Scan):
        row.paths, row.message, row.name = [], "", ""
    elif isinstance(row, Detection):
        row.path, row.member, row.more_paths, row.description = "", "", None, ""
    else:
        row.path, row.message = "", ""


def _between(rows: QuerySet[Row], since: datetime | None, until: datetime | None) -> QuerySet[Row]:
    if since is not None:
        rows = rows.filter(time__gte=since)
    if until is not None:
        rows = rows.filter(time__lt=until)
    return rows


def _page(rows: QuerySet[Row], seen: Seen, cursor: str, limit: int) -> Page[Row]:
    limit = max(1, min(limit, MAX_LIMIT))
    back = False
    if cursor:
        back, time, row_id = _read_cursor(cursor)
        # The first condition is the one that the index serves; the second only drops the few rows
        # of the very same moment that were shown already.
        if back:
            rows = rows.filter(Q(time__gte=time) & (Q(time__gt=time) | Q(id__gt=row_id)))
        else:
            rows = rows.filter(Q(time__lte=time) & (Q(time__lt=time) | Q(id__lt=row_id)))
    order = ("time", "id") if back else ("-time", "-id")
    found = list(rows.order_by(*order)[: limit + 1])
    more = len(found) > limit
    found = found[:limit]
    if back:
        found.reverse()
    if not found:
        return Page(rows=(), older="", newer="")
    _veiled(found, seen)
    has_older = more if not back else True
    has_newer = more if back else bool(cursor)
    return Page(
        rows=found,
        older=_cursor(found[-1], back=False) if has_older else "",
        newer=_cursor(found[0], back=True) if has_newer else "",
    )


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_CURSOR: Final = struct.Struct(">?qq")


def _cursor(row: Scan | Detection, *, back: bool) -> str:
    packed = _CURSOR.pack(back, (row.time - _EPOCH) // _MICROSECOND, row.id)
    return base64.urlsafe_b64encode(packed).rstrip(b"=").decode()


def _read_cursor(cursor: str) -> tuple[bool, datetime, int]:
    try:
        packed = base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True)
        back, time, row_id = _CURSOR.unpack(packed)
        return back, _EPOCH + time * _MICROSECOND, row_id
    except (ValueError, binascii.Error, struct.error, OverflowError) as error:
        raise InvalidCursor("This is not a cursor of ours") from error


# --------------------------------------------------------------------------------------- details


def scan(seen: Seen, uid: UUID) -> Scan:
    """The account's scan of this id. Raises Scan.DoesNotExist, also for one that is not seen."""
    return _one(_of(Scan.objects.filter(uid=uid), seen, None), seen)


def threat(seen: Seen, uid: UUID) -> Detection:
    """The account's threat of this id.

    Raises Detection.DoesNotExist, also for one that is not seen.
    """
    return _one(_of(Detection.objects.filter(uid=uid), seen, None), seen)


def threat_detail(seen: Seen, uid: UUID) -> ThreatDetail:
    """A threat with what was done about it and its scan. Raises Detection.DoesNotExist.

    Takes three queries at most.
    """
    found = threat(seen, uid)
    of_device = {"device_id": found.device_id}
    done = _visible(Remediation.objects.filter(finding_uid=found.finding_uid, **of_device), seen)
    remediations = list(done.select_related("device") if isinstance(seen, Sight) else done)
    remediations.sort(key=rank)
    of_scan = None
    if found.scan_uid is not None:
        by = _visible(Scan.objects.filter(uid=found.scan_uid, **of_device), seen)
        of_scan = (by.select_related("device") if isinstance(seen, Sight) else by).first()
    _veiled([of_scan] if of_scan is not None else [], seen)
    return ThreatDetail(found, _veiled(remediations, seen), of_scan)


def scan_by_command(seen: Seen, device: UUID, command: UUID) -> Scan | None:
    """The scan that this command of the device began, once the device told of it. One query."""
    found = _of(Scan.objects.filter(command_uid=command), seen, device).order_by("id").first()
    return _veiled([found], seen)[0] if found is not None else None


IN_QUARANTINE: Final = frozenset({Disposition.QUARANTINED, Disposition.ISOLATED})
MOST_HELD: Final = 200


def quarantine(
    seen: Seen, *, device: UUID | None = None, cursor: str = "", limit: int = DEFAULT_LIMIT
) -> Page[Detection]:
    """A page of what is in quarantine on the account's devices, newest first. Takes one query.

    Raises InvalidCursor. What is on a removed device is out of reach, and not among it.
    """
    return _page(_held(seen, device), seen, cursor, limit)


def held(seen: Seen, uids: Collection[UUID]) -> Sequence[Detection]:
    """Those of these detections that are in quarantine, by one query."""
    rows = _held(seen, None).filter(uid__in=uids)
    return _veiled(list(rows.order_by("-time", "-id")[:MOST_HELD]), seen)


def held_as(seen: Seen, device: UUID, quarantine_id: UUID) -> Detection | None:
    """What the device holds in quarantine under this id."""
    rows = _held(seen, device).filter(quarantine_id=quarantine_id)
    return next(iter(_veiled(list(rows.order_by("id")[:1]), seen)), None)


def _held(seen: Seen, device: UUID | None) -> QuerySet[Detection]:
    return _of(Detection.objects.all(), seen, device).filter(
        disposition__in=IN_QUARANTINE,
        quarantine_id__isnull=False,
        device__revoked_at__isnull=True,
    )


def _one(rows: QuerySet[Row], seen: Seen) -> Row:
    # The device makes the id. Should two devices of one account use the same one, the first wins.
    found = rows.order_by("id").first()
    if found is None:
        raise rows.model.DoesNotExist
    _veiled([found], seen)
    return found


def rank(remediation: Remediation) -> tuple[int, int, UUID]:
    """Where it stands among the events of its device, also when its clock was set back."""
    return remediation.sequence, remediation.device_time, remediation.uid


# --------------------------------------------------------------------------------- at a glance


def version(account: Account) -> int:
    """A number that rises whenever a report of the account is stored; the ETag of live parts.

    Takes one query by primary key.
    """
    found = Tally.objects.filter(account=account).values_list("version", flat=True).first()
    return 0 if found is None else found


def summary(account: Account, *, now: datetime | None = None) -> Summary:
    """What there is in the whole account. Takes five queries, whatever is stored."""
    since = (now or timezone.now()) - RECENT
    tally = Tally.objects.filter(account=account).first() or Tally(account=account)
    return Summary(
        version=tally.version,
        scans=tally.scans,
        threats=tally.detections,
        open_threats=_count(Detection.objects.filter(account=account, is_open=True)),
        recent_scans=_count(Scan.objects.filter(account=account, time__gte=since)),
        recent_threats=_count(Detection.objects.filter(account=account, time__gte=since)),
        last_scan=Scan.objects.filter(account=account)
        .select_related("device")
        .order_by("-time", "-id")
        .first(),
    )


def _count(rows: QuerySet[Row]) -> Bounded:
    counted = rows.order_by()[: COUNT_LIMIT + 1].count()
    return Bounded(min(counted, COUNT_LIMIT), counted > COUNT_LIMIT)


def lately(seen: Seen, *, limit: int = 10) -> Sequence[Happening]:
    """What happened last, newest first: scans, threats and what was done.

    The threats of one scan are one happening, and so is what was done alike on one device within an
    hour. Takes three queries.
    """
    happened = [
        *(Happening(row.time, row.device, scan=row) for row in scans(seen, limit=limit).rows),
        *_threats_lately(seen, limit),
        *_remediations_lately(seen, limit),
    ]
    # In the same millisecond what was done comes after what was found, and that after its scan.
    happened.sort(
        key=lambda it: (it.time, it.remediation is not None, it.threat is not None), reverse=True
    )
    return happened[:limit]


def _threats_lately(seen: Seen, limit: int) -> list[Happening]:
    rows = _of(Detection.objects.all(), seen, None)
    # What was found outside of any scan stays alone: its own id is in its scan's place.
    groups = _groups(rows, seen, F("device_id"), Coalesce("scan_uid", "uid"), limit=limit)
    return [
        Happening(
            group.newest.time,
            group.newest.device,
            threat=group.newest,
            count=group.count,
            still_there=group.still_there,
            more=group.more,
        )
        for group in groups
    ]


def _remediations_lately(seen: Seen, limit: int) -> list[Happening]:
    rows = _visible(
        Remediation.objects.select_related("device").filter(account=sharing.account_of(seen)), seen
    )
    groups = _groups(rows, seen, F("device_id"), F("disposition"), TruncHour("time"), limit=limit)
    return [
        Happening(
            group.newest.time,
            group.newest.device,
            remediation=group.newest,
            count=group.count,
            more=group.more,
        )
        for group in groups
    ]


@dataclass(frozen=True)
class Group(Generic[AnyRow]):
    """Rows that are told as one; `more` when no more than LATELY_COUNTED were looked at."""

    newest: AnyRow
    count: int
    still_there: int
    more: bool


def _groups(
    rows: QuerySet[AnyRow], seen: Seen, *alike: F | Func, limit: int
) -> list[Group[AnyRow]]:
    """The newest rows, as many as are alike told as one, the newest group first. One query."""
    counted = rows.order_by("-time", "-id").values("id")[:LATELY_COUNTED]
    still = Count("id", filter=Q(is_open=True)) if rows.model is Detection else Count(None)
    found = (
        rows.filter(id__in=counted)
        .annotate(
            of_kind=Window(Count("id"), partition_by=alike),
            still_there=Window(still, partition_by=alike),
            place=Window(RowNumber(), order_by=("-time", "-id"), partition_by=alike),
            looked_at=Window(Count("id")),
        )
        .filter(place=1)
        .order_by("-time", "-id")[:limit]
    )
    return [
        Group(row, told["of_kind"], told["still_there"], told["looked_at"] == LATELY_COUNTED)
        for row in _veiled(list(found), seen)
        for told in [vars(row)]
    ]


def open_by_device(seen: Seen, *, limit: int = DEFAULT_LIMIT) -> Sequence[Group[Detection]]:
    """The threats that still need somebody, device by device, the newest first. One query."""
    rows = _of(Detection.objects.filter(is_open=True), seen, None)
    return _groups(rows, seen, F("device_id"), limit=limit)


def of_devices(seen: Seen, devices: Sequence[UUID]) -> dict[UUID, DeviceReports]:
    """The last scan and the number of open threats of each of these devices. Takes two queries.

    Of a device whose findings are not seen, nothing.
    """
    account = sharing.account_of(seen)
    scans_of_it = _visible(Scan.objects.filter(device=OuterRef("pk")), seen)
    newest = scans_of_it.order_by("-time", "-id").values("id")[:1]
    last = Device.objects.filter(pk__in=devices, account=account).values(newest=Subquery(newest))
    newest_scans = Scan.objects.filter(id__in=last).select_related("device")
    last_scans = {scan.device_id: scan for scan in _veiled(list(newest_scans), seen)}
    counts = dict(
        _visible(
            Detection.objects.filter(device_id__in=devices, account=account, is_open=True), seen
        )
        .order_by()
        .values_list("device_id")
        .annotate(Count("id"))
    )
    return {
        device: DeviceReports(last_scans.get(device), counts.get(device, 0)) for device in devices
    }


def is_unfinished(of: Scan, *, now: datetime | None = None) -> bool:
    """Whether the scan began long ago and its end was never told."""
    return of.state == ScanState.RUNNING and of.time < (now or timezone.now()) - UNFINISHED_AFTER
