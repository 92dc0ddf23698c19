"""`doorward backup FILE` and `restore FILE`: one file with everything, checked before use."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
import zlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

FORMAT: Final = 1
MANIFEST: Final = "manifest.json"
DATABASE: Final = {"sqlite": "doorward.sqlite3", "postgresql": "doorward.pgdump"}
# Folders of the data folder that can't be made again.
FOLDERS: Final = ("keys", "definitions")
# A line for each file; far more than any server has.
MANIFEST_BYTES: Final = 64 * 1024 * 1024


class BackupRefused(Exception):
    """The backup can't be made or must not be restored; the text says why and what to do."""


def main_backup(words: list[str]) -> int:
    """Write the backup; 0 when the file is complete and on disk."""
    parser = argparse.ArgumentParser(
        prog="doorward backup",
        description="Writes database, keys and definitions into one file, while the server runs.",
        epilog="--data DIR says which server is meant.",
    )
    parser.add_argument("file", type=Path, help="the file to write; it must not exist yet")
    return _say(lambda: make(parser.parse_args(words).file))


def main_restore(words: list[str]) -> int:
    """Restore into an empty data folder; 0 when everything is back."""
    parser = argparse.ArgumentParser(
        prog="doorward restore",
        description="Restores a backup into an empty data folder (--data DIR) and its database. "
        "Everybody signs in again; devices go on without being enrolled again.",
    )
    parser.add_argument("file", type=Path, help="a file made by `doorward backup`")
    return _say(lambda: restore(parser.parse_args(words).file))


def _say(act: Any) -> int:
    try:
        sys.stdout.write(f"{act()}\n")
    except BackupRefused as refusal:
        sys.stderr.write(f"doorward: {refusal}\n")
        return 1
    except OSError as error:
        sys.stderr.write(f"doorward: {error.filename}: {error.strerror}.\n")
        return 1
    return 0


def make(target: Path) -> str:
    """Write a consistent copy of everything to ``target``, readable by this user alone.

    Raises BackupRefused when the file exists or the database can't be copied.
    """
    from django.conf import settings
    from django.db import connection

    if target.exists():
        raise BackupRefused(f"{target} exists already; name a new file.")
    if not target.absolute().parent.is_dir():
        raise BackupRefused(f"there is no folder {target.absolute().parent}; make it first.")
    if not (settings.DATA / "keys").is_dir():
        raise BackupRefused(f"nothing is installed in {settings.DATA}. Is --data right?")
    with tempfile.TemporaryDirectory(dir=target.absolute().parent, prefix=".doorward-") as folder:
        staging = Path(folder)
        name = DATABASE[connection.vendor]
        if connection.vendor == "sqlite":
            _copy_sqlite(Path(settings.DATABASES["default"]["NAME"]), staging / name)
        else:
            _dump_postgresql(staging / name)
        files = {name: staging / name}
        for part in FOLDERS:
            root = settings.DATA / part
            found = sorted(path for path in root.rglob("*") if path.is_file())
            files.update({f"{part}/{path.relative_to(root)}": path for path in found})
        manifest = {
            "format": FORMAT,
            "made": datetime.now(UTC).isoformat(timespec="seconds"),
            "database": connection.vendor,
            "sha256": {name: _sha256(path) for name, path in files.items()},
        }
        packed = staging / "packed"
        with os.fdopen(os.open(packed, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
            with tarfile.open(fileobj=out, mode="w:gz", compresslevel=5) as archive:
                _add_bytes(archive, MANIFEST, json.dumps(manifest, indent=1).encode())
                for name, path in files.items():
                    archive.add(path, name, recursive=False)
            out.flush()
            os.fsync(out.fileno())
        os.link(packed, target)
    size = _size(target.stat().st_size)
    return f"wrote {target} ({size}). It holds the keys: keep it as safe as the server."


def restore(source: Path) -> str:
    """Bring everything back from ``source`` into an empty data folder, or change nothing.

    Raises BackupRefused for a damaged file, another database kind or a folder in use.
    """
    from django.conf import settings
    from django.db import connection

    from doorward.audit import head

    data: Path = settings.DATA
    if (data / "doorward.sqlite3").exists() or _has_tables():
        raise BackupRefused(
            f"{data} or its database is in use. Restore into an empty one: --data NEW-FOLDER."
        )
    if not source.is_file():
        raise BackupRefused(f"there is no file {source}.")
    data.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(dir=data, prefix=".restore-") as folder:
        staging = Path(folder)
        manifest = _unpack(source, staging)
        if manifest["database"] != connection.vendor:
            raise BackupRefused(
                f"the backup is of {manifest['database']}, the settings name {connection.vendor}."
            )
        name = DATABASE[connection.vendor]
        if connection.vendor == "postgresql":
            _load_postgresql(staging / name)
        for part in FOLDERS:
            if (staging / part).is_dir():
                shutil.rmtree(data / part, ignore_errors=True)
                (staging / part).rename(data / part)
        if connection.vendor == "sqlite":
            # Last: its presence says that the folder is in use.
            (staging / name).rename(data / name)
    # How far another database's chain of events went; this one begins its own copy.
    (data / head.FILE).unlink(missing_ok=True)
    _end_sessions()
    return (
        f"restored the state of {manifest['made']} into {data}. Everybody signs in again; "
        "devices go on by themselves. Sign-ins, tokens and devices that were revoked after that "
        "moment are back: look at Devices and at the access tokens."
    )


def _size(count: float) -> str:
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def _copy_sqlite(source: Path, target: Path) -> None:
    if not source.exists():
        raise BackupRefused(f"there is no database at {source}. Is --data right?")
    with (
        contextlib.closing(sqlite3.connect(source, timeout=30)) as origin,
        contextlib.closing(sqlite3.connect(target)) as copy,
    ):
        origin.backup(copy)
        answer = copy.execute("PRAGMA integrity_check(1)").fetchone()[0]
    if answer != "ok":
        raise BackupRefused(f"the database is damaged ({answer}); the backup was not written.")


def _postgresql(tool: str, *words: str) -> None:
    from django.db import connection

    program = shutil.which(tool)
    if program is None:
        raise BackupRefused(
            f"{tool} is needed for PostgreSQL. On Debian: apt install postgresql-client"
        )
    parameters = connection.get_connection_params()
    names = {"host": "PGHOST", "port": "PGPORT", "user": "PGUSER", "password": "PGPASSWORD"}
    environment = {**os.environ, "PGDATABASE": str(parameters["dbname"])}
    environment |= {names[key]: str(value) for key, value in parameters.items() if key in names}
    done = subprocess.run(  # noqa: S603 - the tool found on PATH, with our own words
        [program, *words], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise BackupRefused(f"{tool} failed: {done.stderr.strip()[-400:]}")


def _dump_postgresql(target: Path) -> None:
    _postgresql("pg_dump", "--format=custom", "--no-owner", "--file", str(target))


def _load_postgresql(source: Path) -> None:
    from django.db import connection

    words = ("--no-owner", "--exit-on-error", "--single-transaction")
    database = str(connection.get_connection_params()["dbname"])
    _postgresql("pg_restore", *words, "--dbname", database, str(source))


def _has_tables() -> bool:
    from django.db import connection

    return connection.vendor == "postgresql" and bool(connection.introspection.table_names())


def _end_sessions() -> None:
    """A session that was ended after the backup was made must not come back to life."""
    from django.contrib.sessions.models import Session

    Session.objects.all().delete()


def _unpack(source: Path, staging: Path) -> dict[str, Any]:
    """Unpack exactly what the manifest, the first entry, names; each as it was backed up."""
    try:
        with tarfile.open(source, "r:gz") as archive:
            members = iter(archive)
            manifest = _manifest(archive, next(members, None), source)
            missing = dict(manifest["sha256"])
            for member in members:
                digest = missing.pop(member.name, None)
                if digest is None or not member.isfile():
                    raise BackupRefused(f"{member.name!r} has no place in this backup.")
                if _unpack_file(archive, member, staging) != digest:
                    raise _damaged(source, member.name)
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise BackupRefused(f"{source} is not a whole backup: {error}") from None
    if missing:
        raise _damaged(source, min(missing))
    return manifest


def _damaged(source: Path, name: str) -> BackupRefused:
    return BackupRefused(f"{source} is damaged: {name} is not what was backed up.")


def _manifest(
    archive: tarfile.TarFile, first: tarfile.TarInfo | None, source: Path
) -> dict[str, Any]:
    if first is None or first.name != MANIFEST or not 0 < first.size <= MANIFEST_BYTES:
        raise BackupRefused(f"{source} is not a backup: it does not begin with its manifest.")
    content = archive.extractfile(first)
    try:
        found = json.loads(content.read() if content else b"")
        digests = found["sha256"]
        fits = all(_has_place(name) and isinstance(digests[name], str) for name in digests)
        fits = fits and isinstance(found["database"], str) and isinstance(found["made"], str)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise BackupRefused(f"{source} is not a backup: its manifest can't be read.") from None
    if found.get("format") != FORMAT:
        raise BackupRefused(
            f"{source} has format {found.get('format')}; this version reads {FORMAT}."
        )
    if not fits or DATABASE.get(found["database"]) not in digests:
        raise BackupRefused(f"{source} is not a backup: its manifest names what has no place here.")
    return dict(found)


def _has_place(name: str) -> bool:
    """Whether a file of this name belongs into a backup: a database, or inside of one folder."""
    folder, *inside = name.split("/")
    if not inside:
        return folder in DATABASE.values()
    return folder in FOLDERS and all(part not in {"", ".", ".."} for part in inside)


def _unpack_file(archive: tarfile.TarFile, member: tarfile.TarInfo, staging: Path) -> str:
    """Unpack one file and answer its SHA-256."""
    # By hand: tarfile's own filter="data" is missing from Python 3.11's first releases.
    content = archive.extractfile(member)
    if content is None:
        raise BackupRefused(f"{member.name!r} has no place in this backup.")
    target = staging / member.name
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    created = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with content, os.fdopen(created, "wb") as out:
        shutil.copyfileobj(content, out)
    return _sha256(target)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _add_bytes(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    entry.mode = 0o600
    archive.addfile(entry, io.BytesIO(content))
