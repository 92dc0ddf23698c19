"""`doorward doctor`: looks at everything an operator would otherwise have to think of."""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import stat
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from doorward import keys

FREE_BYTES_WANTED = 1_000_000_000


@dataclass(frozen=True)
class Finding:
    """One thing looked at: ``ok``, ``note`` (works, but know this) or ``problem``."""

    state: str
    what: str
    advice: str = ""


def main(words: list[str]) -> int:
    """Print what was found; 0 without a problem, 1 with one."""
    argparse.ArgumentParser(
        prog="doorward doctor",
        description="Checks the data folder, keys, database, mail, addresses and doors.",
        epilog="--data DIR, --port N and --device-port N say which server is meant.",
    ).parse_args(words)
    from django.conf import settings

    if not (settings.DATA / "keys").is_dir():
        sys.stderr.write(
            f"doorward: nothing is installed in {settings.DATA}. `serve --data` makes it; "
            "is --data right?\n"
        )
        return 1
    problems = 0
    for look in (_data_folder, _keys, _database, _definitions, _site, _mail, _memory, _doors):
        for finding in look():
            problems += finding.state == "problem"
            sys.stdout.write(f"{finding.state:<8} {finding.what}\n")
            if finding.advice:
                sys.stdout.write(f"         {finding.advice}\n")
    sys.stdout.write("\nAll is well.\n" if not problems else f"\n{problems} to mend.\n")
    return 1 if problems else 0


def _data_folder() -> Iterator[Finding]:
    from django.conf import settings

    data: Path = settings.DATA
    if os.name != "nt" and stat.S_IMODE(data.stat().st_mode) & 0o077:
        yield Finding("note", "other users of this machine can look in", f"chmod 700 {data}")
    if not os.access(data, os.W_OK):
        yield Finding("problem", f"data folder {data} can't be written", "Check its owner.")
        return
    free = shutil.disk_usage(data).free
    state = "ok" if free > FREE_BYTES_WANTED else "problem"
    yield Finding(
        state,
        f"data folder {data}, {free / 1e9:.1f} GB free",
        "" if state == "ok" else "Free some space before the database can't grow.",
    )


def _keys() -> Iterator[Finding]:
    from django.conf import settings

    for name in keys.NAMES:
        path = settings.DATA / "keys" / name
        if not path.exists():
            yield Finding("problem", f"key {name} is missing", "Restore it from a backup.")
            continue
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & 0o077 and os.name != "nt":
            yield Finding("problem", f"key {name} can be read by others", f"chmod 600 {path}")
        elif path.stat().st_size != keys.KEY_BYTES:
            yield Finding("problem", f"key {name} is damaged", "Restore it from a backup.")
        else:
            yield Finding("ok", f"key {name}")


def _database() -> Iterator[Finding]:
    from django.db import DatabaseError, connection
    from django.db.migrations.executor import MigrationExecutor

    kind = "PostgreSQL" if connection.vendor == "postgresql" else "SQLite"
    try:
        executor = MigrationExecutor(connection)
        pending = executor.migration_plan(executor.loader.graph.leaf_nodes())
    except DatabaseError as error:
        first = str(error).partition("\n")[0]
        yield Finding(
            "problem", f"{kind} can't be reached: {first}", "Check DOORWARD_DATABASE_URL."
        )
        return
    if pending:
        yield Finding(
            "note", f"{kind}: {len(pending)} changes to its tables are due", "`serve` makes them."
        )
    else:
        yield Finding("ok", f"{kind} answers, its tables are up to date")
    if connection.vendor == "sqlite":
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA quick_check(1)")
            answer = cursor.fetchone()[0]
        if answer == "ok":
            yield Finding("ok", "SQLite's own check of the file")
        else:
            yield Finding("problem", f"the database file is damaged: {answer}", "Restore a backup.")


def _definitions() -> Iterator[Finding]:
    from datetime import timedelta

    from doorward.protection.definitions import repository

    try:
        tree = repository.load()
    except repository.NoRepository:
        yield Finding(
            "note",
            "no definitions are signed: agents use those they came with",
            "`doorward definitions-keys make FOLDER` begins (docs/operators/definitions.md).",
        )
        return
    except repository.RepositoryDamaged as damaged:
        yield Finding("problem", str(damaged), "Restore a backup.")
        return
    now = repository.moment()
    soon = False
    for signed, lead in (
        (tree.root.signed, timedelta(days=30)),
        (tree.targets.signed, timedelta(days=30)),
        (tree.snapshot.signed, timedelta(days=3)),
        (tree.timestamp.signed, timedelta(days=1)),
    ):
        if signed.expires - now < lead:
            soon = True
            by_worker = signed.type in repository.ONLINE
            yield Finding(
                "problem",
                f"definitions: the signature of {signed.type} ends {signed.expires:%Y-%m-%d %H:%M}",
                "The worker renews it: is it running?"
                if by_worker
                else "`doorward definitions-keys renew --keys PLACE…` signs for another year.",
            )
    if not soon:
        yield Finding("ok", f"definitions signed until {tree.root.signed.expires:%Y-%m-%d}")


def _site() -> Iterator[Finding]:
    from django.conf import settings

    if settings.SECURE:
        yield Finding("ok", f"people come by {settings.SITE_URL}")
        if not settings.TRUSTED_PROXIES:
            yield Finding(
                "note",
                "no proxy is trusted, so every visitor seems to come from the proxy itself",
                "Behind one proxy of yours set DOORWARD_TRUSTED_PROXIES=1.",
            )
    elif settings.LOOPBACK:
        yield Finding(
            "note", f"people come by {settings.SITE_URL}: this machine only", "README: in earnest."
        )
    else:
        yield Finding("problem", f"{settings.SITE_URL} sends passwords in clear", "Use https://.")


def _mail() -> Iterator[Finding]:
    from urllib.parse import urlsplit

    from django.conf import settings

    address = urlsplit(settings.EMAIL_URL)
    if address.scheme == "file":
        yield Finding(
            "note",
            f"mail is written to {settings.DATA / 'mail'}",
            "Nobody receives it: docs/settings.md.",
        )
        return
    port = address.port or (465 if address.scheme == "smtps" else 587)
    try:
        socket.create_connection((address.hostname or "", port), timeout=5).close()
    except OSError as error:
        yield Finding(
            "problem",
            f"the mail server {address.hostname}:{port} can't be reached: {error}",
            "Mails wait and go out when it answers.",
        )
    else:
        yield Finding("ok", f"the mail server {address.hostname}:{port} answers")


def _memory() -> Iterator[Finding]:
    """Tell whether the kernel gives a password's hash its memory in pages of 2 MiB.

    Where it does not, checking a password takes a third longer or more (bench/README.md, sign-in).
    """
    from doorward.accounts import hashing

    try:
        enabled = hashing.LARGE_PAGES.read_text()
    except OSError:
        return  # Another system, or a kernel without them.
    if "[always]" in enabled:
        yield Finding("ok", "memory comes in huge pages where that helps")
    else:
        yield Finding(
            "note",
            "memory comes in small pages: checking a password takes a third longer than it need",
            f"echo always > {hashing.LARGE_PAGES}, then start again (docs/operators/server.md).",
        )


def _doors() -> Iterator[Finding]:
    from django.conf import settings

    for name, port in (("people", settings.PORT), ("devices", settings.DEVICE_PORT)):
        yield _door(name, f"http://127.0.0.1:{port}/health/ready", urllib.request.urlopen)


def _door(name: str, address: str, ask: Callable[..., object]) -> Finding:
    try:
        ask(address, timeout=5)
    except urllib.error.HTTPError as error:
        return Finding("problem", f"the door for {name} answers {error.code}", address)
    except OSError:
        return Finding(
            "note", f"the door for {name} is closed here ({address})", "`serve` opens it."
        )
    return Finding("ok", f"the door for {name} is open")
