"""Brings the data folder to what this version needs, once, however many starters there are."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path

from django.conf import settings
from django.contrib.staticfiles.finders import get_finders
from django.core.management import call_command
from django.db import connection

# Any number will do, as long as nothing else in this database uses it.
ADVISORY_LOCK = 0x_D00_2_3A2D


def everything() -> None:
    """Migrate the database and publish the static files; two starters at once take turns."""
    with _one_at_a_time():
        _close_to_others()
        call_command("migrate", verbosity=0, interactive=False)
        _publish_static_files()


def database() -> None:
    """Migrate the database; two starters at once take turns."""
    with _one_at_a_time():
        _close_to_others()
        call_command("migrate", verbosity=0, interactive=False)


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_lock(%s)", [ADVISORY_LOCK])
            try:
                yield
            finally:
                cursor.execute("SELECT pg_advisory_unlock(%s)", [ADVISORY_LOCK])
        return
    with (settings.DATA / "start.lock").open("w") as lock:
        if os.name != "nt":
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _close_to_others() -> None:
    """Make SQLite's files this user's alone, also where they were copied here without care."""
    if connection.vendor != "sqlite" or os.name == "nt":
        return
    database = Path(connection.settings_dict["NAME"])
    for end in ("", "-wal", "-shm"):
        path = database.with_name(f"{database.name}{end}")
        if path.is_file() and path.stat().st_mode & 0o077:
            path.chmod(0o600)


def _publish_static_files() -> None:
    found = [
        (name, Path(storage.path(name)))
        for finder in get_finders()
        for name, storage in finder.list([])
    ]
    digest = hashlib.sha256()
    for name, path in sorted(found):
        status = path.stat()
        digest.update(f"{name}|{path}|{status.st_size}|{status.st_mtime_ns}\n".encode())
    stamp = settings.STATIC_ROOT / ".stamp"
    if stamp.exists() and stamp.read_text() == digest.hexdigest():
        return
    call_command("collectstatic", verbosity=0, interactive=False, stdout=StringIO())
    stamp.write_text(digest.hexdigest())
