"""Detections become rows without Django's ORM: the one place where a row's cost in microseconds
counts.

SQLite takes many rows in one statement, PostgreSQL by COPY; both skip what is there already. The
order and the types of the columns come from the model, so that the two can't drift apart.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import chain
from typing import Any, Final, TypeAlias
from uuid import UUID

from django.db import IntegrityError, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from psycopg.types.json import Jsonb

from doorward.devices.models import Device
from doorward.reports.models import SETTLED, Detection, Remediation, Tally
from doorward_protocol.messages import HASH_SHA256, DetectionFinding, Hash

Row: TypeAlias = tuple[Any, ...]

OLDEST_BELIEVED: Final = timedelta(days=90)
"""A device that was away for longer, or whose clock is wrong by more: its time is not believed."""
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)


def believed(device_time: int, received: datetime) -> datetime:
    """When it happened as far as can be believed: not after `received`, not absurdly long ago."""
    time = EPOCH + device_time * _MILLISECOND
    return time if received - OLDEST_BELIEVED <= time <= received else received


COLUMNS: Final = (
    "account_id",
    "device_id",
    "uid",
    "time",
    "device_time",
    "received_at",
    "finding_uid",
    "scan_uid",
    "severity",
    "confidence",
    "disposition",
    "reported_disposition",
    "is_open",
    "title",
    "rule",
    "rule_name",
    "description",
    "engine",
    "definitions_version",
    "path",
    "member",
    "size",
    "sha256",
    "quarantine_id",
    "more_paths",
)
"""Every column of a detection but its number, in the order in which a row holds them."""
_TABLE: Final = Detection._meta.db_table  # noqa: SLF001 - documented
_NAMES: Final = ", ".join(COLUMNS)
_UNIQUE: Final = "(uid, device_id)"
_SETTLED: Final = frozenset(int(disposition) for disposition in SETTLED)


def builder(
    connection: BaseDatabaseWrapper, account: UUID, device: UUID, received: datetime
) -> Callable[[DetectionFinding], Row]:
    """A function that turns a finding of this device into a row as this database takes it."""
    account_id, device_id = identity(connection, account), identity(connection, device)
    earliest = (received - OLDEST_BELIEVED - EPOCH) // _MILLISECOND
    latest = (received - EPOCH) // _MILLISECOND
    if connection.vendor == "postgresql":
        return _native_builder(account_id, device_id, earliest, latest, received)
    return _text_builder(account_id, device_id, earliest, latest, str(received)[:-6])


# Two functions that differ in a few words: a call for each of them would cost more than the rest.


def _native_builder(
    account_id: UUID, device_id: UUID, earliest: int, latest: int, received_at: datetime
) -> Callable[[DetectionFinding], Row]:
    def build(event: DetectionFinding) -> Row:
        finding, detail, time = event.finding_info, event.unmapped, event.time
        analytic, file, disposition = (
            finding.analytic,
            event.evidences[0].file,
            event.disposition_id,
        )
        more = _more_paths(event)
        return (
            account_id,
            device_id,
            event.metadata.uid,
            datetime.fromtimestamp(time / 1000, UTC) if earliest <= time <= latest else received_at,
            time,
            received_at,
            finding.uid,
            detail.scan_uid,
            event.severity_id,
            event.confidence_id,
            disposition,
            disposition,
            disposition not in _SETTLED,
            finding.title,
            analytic.uid,
            analytic.name,
            finding.desc,
            detail.engine,
            detail.definitions_version,
            file.path,
            detail.member,
            file.size,
            _sha256(file.hashes),
            detail.quarantine_id,
            None if more is None else Jsonb(more),
        )

    return build


def _text_builder(
    account_id: str, device_id: str, earliest: int, latest: int, received_at: str
) -> Callable[[DetectionFinding], Row]:
    def build(event: DetectionFinding) -> Row:
        finding, detail, time = event.finding_info, event.unmapped, event.time
        analytic, file, disposition = (
            finding.analytic,
            event.evidences[0].file,
            event.disposition_id,
        )
        scan_uid, quarantine_id, more = detail.scan_uid, detail.quarantine_id, _more_paths(event)
        return (
            account_id,
            device_id,
            f"{event.metadata.uid.int:032x}",  # Half the time of `hex`.
            _moment_text(time) if earliest <= time <= latest else received_at,
            time,
            received_at,
            f"{finding.uid.int:032x}",
            None if scan_uid is None else f"{scan_uid.int:032x}",
            event.severity_id,
            event.confidence_id,
            disposition,
            disposition,
            disposition not in _SETTLED,
            finding.title,
            analytic.uid,
            analytic.name,
            finding.desc,
            detail.engine,
            detail.definitions_version,
            file.path,
            detail.member,
            file.size,
            _sha256(file.hashes),
            None if quarantine_id is None else f"{quarantine_id.int:032x}",
            None if more is None else json.dumps(more),
        )

    return build


def _more_paths(event: DetectionFinding) -> list[str] | None:
    if len(event.evidences) == 1:
        return None
    return [evidence.file.path for evidence in event.evidences[1:]]


def _sha256(hashes: tuple[Hash, ...]) -> str:
    for digest in hashes:
        if digest.algorithm_id == HASH_SHA256 and len(digest.value) == 64:
            return digest.value.lower()
    return ""


@lru_cache(maxsize=256)
def _second_text(seconds: int) -> str:
    return str(datetime.fromtimestamp(seconds, UTC))[:-6]


def _moment_text(milliseconds: int) -> str:
    # As Django stores a time in SQLite: UTC without saying so, no fraction where there is none.
    seconds, rest = divmod(milliseconds, 1000)
    return f"{_second_text(seconds)}.{rest:03d}000" if rest else _second_text(seconds)


def identity(connection: BaseDatabaseWrapper, value: UUID) -> Any:
    """The id as this database takes it."""
    return value if connection.features.has_native_uuid_field else value.hex


_FINDING: Final = COLUMNS.index("finding_uid")


def findings_of(rows: Sequence[Row]) -> list[UUID]:
    """Which finding each of the rows tells of."""
    return [_uuid(row[_FINDING]) for row in rows]


def moved(connection: BaseDatabaseWrapper, rows: Sequence[Row], account: UUID) -> list[Row]:
    """The rows as those of this account."""
    account_id = identity(connection, account)
    return [(account_id, *row[1:]) for row in rows]


def insert_detections(
    connection: BaseDatabaseWrapper, groups: Sequence[Sequence[Row]]
) -> set[int] | None:
    """Insert the rows that are not there yet; the positions of these, or None when all were new.

    Positions count through all the groups.

    Must run inside a transaction that keeps other writers of the same devices out.
    """
    if connection.vendor == "postgresql":
        return _copy(connection, list(chain.from_iterable(groups)))
    return _insert(connection, list(chain.from_iterable(groups)))


def _new_positions(rows: Sequence[Row], inserted: set[tuple[Any, Any]]) -> set[int]:
    positions: set[int] = set()
    for position, row in enumerate(rows):
        key = (row[1], row[2])
        if key in inserted:
            inserted.discard(key)  # The same event twice in one batch: the first one counts.
            positions.add(position)
    return positions


# ---------------------------------------------------------------------------------------- SQLite

_CHUNKS: Final = (256, 32, 4, 1)
"""Rows in one statement: many, as Python's lock is let go and taken again for each statement."""


def _statement(rows: int) -> str:
    one = f"({', '.join('?' * len(COLUMNS))})"
    values = ", ".join([one] * rows)
    return (
        f"INSERT INTO {_TABLE} ({_NAMES}) VALUES {values}"  # nosec B608 # noqa: S608 - our own names only
        f" ON CONFLICT {_UNIQUE} DO NOTHING"
    )


_STATEMENTS: Final = {rows: _statement(rows) for rows in _CHUNKS}


def _insert(connection: BaseDatabaseWrapper, rows: Sequence[Row]) -> set[int] | None:
    connection.ensure_connection()
    with connection.wrap_database_errors:
        raw = connection.connection
        (last,) = raw.execute(f"SELECT max(id) FROM {_TABLE}").fetchone()  # nosec B608 # noqa: S608 - our own
        count = 0
        position = 0
        for chunk in _CHUNKS:
            while len(rows) - position >= chunk:
                part = rows[position : position + chunk]
                values = list(chain.from_iterable(part))
                count += raw.execute(_STATEMENTS[chunk], values).rowcount
                position += chunk
        if count == len(rows):
            return None
        # Numbers only rise, and nobody else writes now: what is beyond `last` is ours.
        new = raw.execute(
            f"SELECT device_id, uid FROM {_TABLE} WHERE id > ?",  # nosec B608 # noqa: S608 - our own name
            (last or 0,),
        )
        return _new_positions(rows, set(new))


# ------------------------------------------------------------------------------------ PostgreSQL


def _copy(connection: BaseDatabaseWrapper, rows: Sequence[Row]) -> set[int] | None:
    # COPY costs half of any INSERT, but knows no ON CONFLICT. Duplicates are rare: try without.
    try:
        with transaction.atomic(using=connection.alias):
            _copy_into(connection, _TABLE, rows)
        return None
    except IntegrityError as error:
        if getattr(error.__cause__, "sqlstate", None) != "23505":  # unique_violation
            raise
    stage = "reports_intake"
    with connection.cursor() as cursor:
        cursor.execute(
            f"CREATE TEMPORARY TABLE {stage} ON COMMIT DROP AS"  # nosec B608 # noqa: S608 - our own names only
            f" SELECT {_NAMES} FROM {_TABLE} WITH NO DATA"
        )
        _copy_into(connection, stage, rows)
        cursor.execute(
            f"INSERT INTO {_TABLE} ({_NAMES}) SELECT {_NAMES} FROM {stage}"  # nosec B608 # noqa: S608 - our own
            f" ON CONFLICT {_UNIQUE} DO NOTHING RETURNING device_id, uid"
        )
        inserted = set(cursor.fetchall())
        cursor.execute(f"DROP TABLE {stage}")
    return _new_positions(rows, inserted)


def _copy_into(connection: BaseDatabaseWrapper, table: str, rows: Sequence[Row]) -> None:
    fields = {field.column: field for field in Detection._meta.concrete_fields}  # noqa: SLF001 - documented
    types = [str(fields[column].db_type(connection)).partition("(")[0] for column in COLUMNS]
    with connection.cursor() as cursor, connection.wrap_database_errors:
        statement = f"COPY {table} ({_NAMES}) FROM STDIN (FORMAT binary)"
        with cursor.copy(statement) as copy:
            copy.set_types(types)
            for row in rows:
                copy.write_row(row)


# ------------------------------------------------------------------------------------- both again


def add_to_tallies(
    connection: BaseDatabaseWrapper, tallies: Mapping[UUID, tuple[int, int]]
) -> None:
    """Add (scans, detections) to each account's tally, and raise its version by one."""
    table = Tally._meta.db_table  # noqa: SLF001 - documented
    with connection.cursor() as cursor:
        cursor.executemany(
            f"INSERT INTO {table} (account_id, version, scans, detections)"  # nosec B608 # noqa: S608 - our own
            " VALUES (%s, 1, %s, %s) ON CONFLICT (account_id) DO UPDATE SET"
            f" version = {table}.version + 1,"
            f" scans = {table}.scans + excluded.scans,"
            f" detections = {table}.detections + excluded.detections",
            # In order, so that two batches that touch the same accounts can't wait for each other.
            [
                (identity(connection, account), scans, detections)
                for account, (scans, detections) in sorted(tallies.items())
            ],
        )


def accounts_of(connection: BaseDatabaseWrapper, devices: Collection[UUID]) -> dict[UUID, UUID]:
    """The account of each of these devices that is still there and was not removed."""
    table = Device._meta.db_table  # noqa: SLF001 - documented
    found = _of_devices(
        connection,
        f"SELECT id, account_id FROM {table} WHERE revoked_at IS NULL AND id",  # nosec B608 # noqa: S608 - our own name
        devices,
    )
    return {_uuid(device): _uuid(account) for device, account in found}


def waiting_findings(
    connection: BaseDatabaseWrapper, devices: Collection[UUID]
) -> set[tuple[UUID, UUID]]:
    """The (device, finding) of these devices that remediations wait for."""
    table = Remediation._meta.db_table  # noqa: SLF001 - documented
    found = _of_devices(
        connection,
        f"SELECT device_id, finding_uid FROM {table}"  # nosec B608 # noqa: S608 - our own name
        " WHERE is_waiting AND finding_uid IS NOT NULL AND device_id",
        devices,
    )
    return {(_uuid(device), _uuid(finding)) for device, finding in found}


def _of_devices(
    connection: BaseDatabaseWrapper, statement: str, devices: Collection[UUID]
) -> list[tuple[Any, Any]]:
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute(f"{statement} = ANY(%s)", [list(devices)])
        else:
            places = ", ".join(["%s"] * len(devices))
            cursor.execute(f"{statement} IN ({places})", [device.hex for device in devices])
        found: list[tuple[Any, Any]] = cursor.fetchall()
    return found


def _uuid(value: Any) -> UUID:
    return value if isinstance(value, UUID) else UUID(value)
