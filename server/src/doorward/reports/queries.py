"""What people and programs read of the reports; the portal and the API ask the same questions here.

Every function takes the account first and answers about that account only: the whole of it, or as
one person may see it (devices/sharing.py); pages and the API give the latter. Lists are read by
cursor, never by number: the thousandth page costs what the first does.
"""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final, Generic, TypeVar
from uuid import UUID

from django.db.models import Count, OuterRef, Q, QuerySet, Subquery
from django.utils import timezone

from doorward.accounts.models import Account, Shares
from doorward.devices import sharing
from doorward.devices.models import Device
from doorward.devices.sharing import Seen, Sight
from doorward.reports.models import Detection, Remediation, Scan, ScanState, Tally

DEFAULT_LIMIT: Final = 20
MAX_LIMIT: Final = 200
"""The most rows of one page of a list."""
COUNT_LIMIT: Final = 1000
"""Counting stops here: "1,000+" says enough, and costs the same for every account."""
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
    """Something that happened lately: one of `scan`, `threat` and `remediation` is there."""

    time: datetime
    device: Device
    scan: Scan | None = None
    threat: Detection | None = None
    remediation: Remediation | None = None


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


def open_threats(seen: Seen, *, limit: int = DEFAULT_LIMIT) -> Sequence[Detection]:
    """The newest threats that still need somebody."""
    return threats(seen, ThreatFilter(is_open=True), limit=limit).rows


def lately(seen: Seen, *, limit: int = 10) -> Sequence[Happening]:
    """What happened last, newest first: scans, threats and what was done. Takes three queries."""

    done = _visible(
        Remediation.objects.select_related("device").filter(account=sharing.account_of(seen)), seen
    )
    remediations = _veiled(list(done.order_by("-time", "-id")[:limit]), seen)
    happened = [
        *(Happening(row.time, row.device, scan=row) for row in scans(seen, limit=limit).rows),
        *(Happening(row.time, row.device, threat=row) for row in threats(seen, limit=limit).rows),
        *(Happening(row.time, row.device, remediation=row) for row in remediations),
    ]
    happened.sort(key=lambda it: it.time, reverse=True)
    return happened[:limit]


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
