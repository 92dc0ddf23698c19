"""A copy of everything, for who asks: packed by the worker, theirs alone, deleted after a day."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import secrets
import zipfile
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final
from uuid import UUID

import structlog
from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import Exists, F, OuterRef, Q, QuerySet
from django.utils import timezone
from django.utils.translation import gettext as _

from doorward.accounts import privacy
from doorward.accounts.csv_cells import cell
from doorward.accounts.members import UNTOLD
from doorward.accounts.models import Membership, Role, User
from doorward.accounts.origin import Origin
from doorward.accounts.privacy import Table, Whose
from doorward.accounts.privacy_rows import Export
from doorward.audit import trail
from doorward.notices import letter as post_office
from doorward.notices.letter import Letter

log = structlog.get_logger(__name__)

FORMAT: Final = "doorward-export/1"
KEPT: Final = timedelta(hours=24)
LEASE: Final = timedelta(minutes=2)
"""Renewed at each thousand rows; a worker silent for so long is taken for dead."""
MOST_TRIES: Final = 3
RENEW_EVERY: Final = 1000
STRAY_AFTER: Final = timedelta(hours=1)
UNDER_WAY: Final = (Export.State.WAITING, Export.State.PACKING)


class Overtaken(Exception):
    """The lease ran out and another worker packs this export, or nobody wants it any more."""


def ask(user: User, origin: Origin) -> Export:
    """Have a copy of everything packed for this person; one under way already is that one.

    An earlier one that is ready is replaced: its file goes.
    """
    whose = privacy.whose(user)
    for old in Export.objects.filter(user=user).exclude(state__in=UNDER_WAY):
        forget(old)
    try:
        with transaction.atomic():
            export = Export.objects.create(
                user=user, asked_at=timezone.now(), tables=len(privacy.tables())
            )
            export.accounts.set(whose.accounts)
            _note("account.export.asked", export, origin)
    except IntegrityError:
        return Export.objects.get(user=user, state__in=UNDER_WAY)
    return export


def newest_of(user: User) -> Export | None:
    """Return this person's export, under way, ready or failed; by one query."""
    return _theirs(user).order_by("-asked_at").first()


def fetch(user: User, export_id: UUID, origin: Origin) -> Path | None:
    """Return the file of this person's export, noting that they took it; None when there is none.

    None too for another person's, for one whose day is over, for one that is not ready, and for one
    of an account that is theirs alone no more.
    """
    ready = _theirs(user).filter(state=Export.State.READY, expires_at__gt=timezone.now())
    export = ready.filter(pk=export_id).first()
    if export is None or not file_of(export).is_file():
        return None
    with transaction.atomic():
        Export.objects.filter(pk=export.pk).update(fetched_at=timezone.now())
        _note("account.export.fetched", export, origin)
    return file_of(export)


def is_there(export: Export) -> bool:
    """Tell whether there is anything to show of it: its day may be over, its file not restored."""
    if export.expires_at is not None and export.expires_at <= timezone.now():
        return False
    return export.state != Export.State.READY or file_of(export).is_file()


def _theirs(user: User) -> QuerySet[Export]:
    """Return this person's exports, but of no account that is theirs alone no more.

    Whoever asked for a copy of it as its only owner may have handed it over since.
    """
    here = Membership.objects.filter(account=OuterRef("account"), role=Role.OWNER)
    alone = Exists(here.filter(user=user)) & ~Exists(here.exclude(user=user))
    packed = Export.accounts.through.objects.filter(export=OuterRef("pk"))
    return Export.objects.filter(~Exists(packed.filter(~Q(alone))), user=user)


def _note(tag: str, export: Export, origin: Origin = UNTOLD) -> None:
    # In each account, whose owners read there what was taken of it.
    for account in tuple(export.accounts.all()) or (None,):
        trail.record(tag, account=account, actor=export.user, ip=origin.ip, agent=origin.agent)


def file_of(export: Export) -> Path:
    """Return where the packed copy lies."""
    return folder() / f"{export.pk}.zip"


def folder() -> Path:
    """Return the folder of packed copies, in the data folder."""
    return Path(settings.DATA) / "exports"


def forget(export: Export) -> None:
    """Delete the copy and its row; one that is gone already is no error."""
    file_of(export).unlink(missing_ok=True)
    Export.objects.filter(pk=export.pk).delete()


# -- the worker's part -----------------------------------------------------------------------------


def pack_due(now: datetime) -> int:
    """Pack the copy asked for longest ago, if one waits; returns how many were settled."""
    export = _claim(now)
    if export is None:
        return 0
    try:
        _pack(export)
    except Overtaken:
        log.warning("export.overtaken", export=str(export.pk))
    except Exception:
        # Its next turn comes when the lease has run out; after three it is given up.
        log.exception("export.failed", export=str(export.pk), tries=export.tries)
    return 1


def forget_old(now: datetime) -> int:
    """Delete copies whose day is over, and files that belong to no row; returns how many."""
    old = list(Export.objects.filter(expires_at__lte=now))
    for export in old:
        forget(export)
    strays = 0
    for path in folder().glob("*") if folder().is_dir() else ():
        age = now.timestamp() - path.stat().st_mtime
        if age > STRAY_AFTER.total_seconds() and not _is_wanted(path):
            path.unlink(missing_ok=True)
            strays += 1
    return len(old) + strays


def _is_wanted(path: Path) -> bool:
    try:
        name = UUID(path.stem)
    except ValueError:
        return False
    return Export.objects.filter(pk=name).exists()


@transaction.atomic
def _claim(now: datetime) -> Export | None:
    free = Q(lease_until__isnull=True) | Q(lease_until__lte=now)
    waiting = Export.objects.filter(free, state__in=UNDER_WAY).order_by("asked_at")
    # On PostgreSQL two workers skip each other's rows; on SQLite the transaction itself excludes.
    export = waiting.select_for_update(skip_locked=True).first()
    if export is None:
        return None
    if export.tries >= MOST_TRIES:
        export.state, export.expires_at = Export.State.FAILED, now + KEPT
        export.lease_until = None
        export.save(update_fields=["state", "expires_at", "lease_until"])
        return None
    export.state, export.lease_until = Export.State.PACKING, now + LEASE
    export.tries += 1
    export.tables_done, export.rows = 0, 0
    export.save(update_fields=["state", "lease_until", "tries", "tables_done", "rows"])
    return export


def _pack(export: Export) -> None:
    whose = privacy.whose(export.user)
    _of(export, whose)
    folder().mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = folder() / f"{export.pk}.{secrets.token_hex(6)}.part"
    try:
        rows = _write(fresh, export, whose)
        with fresh.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        size = fresh.stat().st_size
        with transaction.atomic():
            now = timezone.now()
            mine = Export.objects.filter(pk=export.pk, tries=export.tries)
            if not mine.update(
                state=Export.State.READY,
                ready_at=now,
                expires_at=now + KEPT,
                lease_until=None,
                rows=rows,
                size=size,
                sha256=digest,
                tables_done=F("tables"),
            ):
                raise Overtaken
            _note("account.export.ready", export)
            post_office.post(_ready_letter(), to=export.user.email)
            # Last in the transaction: with the row there is the file, or neither.
            fresh.replace(file_of(export))
    finally:
        fresh.unlink(missing_ok=True)


def _of(export: Export, whose: Whose) -> None:
    """Note what is packed: whoever owned an account when they asked may not own it any more."""
    mine = Export.objects.filter(pk=export.pk, tries=export.tries, state=Export.State.PACKING)
    if not mine.exists():
        raise Overtaken
    export.accounts.set(whose.accounts)


def _write(path: Path, export: Export, whose: Whose) -> int:
    total = 0
    described = []
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with (
        os.fdopen(descriptor, "wb") as raw,
        zipfile.ZipFile(raw, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as packed,
    ):
        for number, table in enumerate(privacy.tables(), start=1):
            # Kept alive by writing: whoever packs for an hour is not dead.
            def alive(more: int, done: int = total) -> None:
                _renew(export, rows=done + more)

            rows = _write_table(packed, path, table, whose, alive)
            total += rows
            described.append(_description(table, rows))
            _renew(export, rows=total, tables_done=number)
        index = {
            "format": FORMAT,
            "made_at": timezone.now().isoformat(timespec="seconds"),
            "of": "account" if whose.accounts else "person",
            "product": settings.PRODUCT_NAME,
            "tables": described,
        }
        packed.writestr("index.json", json.dumps(index, ensure_ascii=False, indent=1))
        packed.writestr("README.txt", _read_me())
        packed.close()
        raw.flush()
        os.fsync(raw.fileno())
    return total


def _write_table(
    packed: zipfile.ZipFile, path: Path, table: Table, whose: Whose, alive: Callable[[int], None]
) -> int:
    """Write one table as JSON and CSV, row by row: its size does not matter to memory."""
    names = list(table.columns)
    count = 0
    beside = path.with_suffix(".csv.part")
    try:
        with (
            beside.open("x", encoding="utf-8-sig", newline="") as spread,
            packed.open(f"{table.name}.json", "w", force_zip64=True) as plain,
            io.TextIOWrapper(plain, encoding="utf-8", newline="\n") as text,
        ):
            beside.chmod(0o600)
            sheet = csv.writer(spread, quoting=csv.QUOTE_ALL)
            sheet.writerow(names)
            text.write("[")
            for row in table.rows(whose):
                values = dict(zip(names, row, strict=True))
                text.write(f"{',' if count else ''}\n{json.dumps(values, ensure_ascii=True)}")
                sheet.writerow([cell(value) for value in row])
                count += 1
                if count % RENEW_EVERY == 0:
                    alive(count)
            text.write("\n]\n")
        packed.write(beside, f"{table.name}.csv")
    finally:
        beside.unlink(missing_ok=True)
    return count


def _renew(export: Export, **done: int) -> None:
    """Tell how far it is, and keep the lease. Raises Overtaken when it is no longer ours."""
    mine = Export.objects.filter(pk=export.pk, tries=export.tries, state=Export.State.PACKING)
    if not mine.update(lease_until=timezone.now() + LEASE, **done):
        raise Overtaken


def _description(table: Table, rows: int) -> dict[str, object]:
    return {
        "name": table.name,
        "means": table.means,
        "rows": rows,
        "columns": [{"name": name, "means": means} for name, means in table.columns.items()],
    }


def _read_me() -> str:
    lines = [
        _("This is a copy of everything %(name)s keeps about you.")
        % {"name": settings.PRODUCT_NAME},
        _("Each table is there twice: as JSON for programs, as CSV for spreadsheets."),
        _("index.json says what each table and column means. Times are UTC."),
        _("In CSV, text that a spreadsheet would take for a formula has an apostrophe before it."),
        _("Passwords, codes and keys are not in it: we keep none that could be read."),
    ]
    return "\n".join(lines) + "\n"


def _ready_letter() -> Letter:
    return Letter(
        kind="account.export_ready",
        subject=_("Your copy is ready"),
        lines=[
            _("The copy of everything you asked for is packed."),
            _("You can download it for 24 hours. Then it is deleted."),
        ],
        link=f"{settings.SITE_URL}/account/privacy/",
        link_label=_("Sign in to download it"),
        closing=(_("If you didn't ask for it, end the sessions you don't know: see Account."),),
    )
