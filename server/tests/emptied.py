"""Between tests that commit: empties what is filled, leaves what the migrations leave behind."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import cache
from importlib import import_module

import pytest
from django.core.management.commands import flush
from django.db import connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.base.operations import BaseDatabaseOperations

from doorward.audit import head

written_once = import_module("doorward.audit.migrations.0004_sealed_head")

# Which models there are is the same before each test: nothing but the migrations write it.
KEPT = {"django_content_type", "auth_permission"}


@contextlib.contextmanager
def quickly() -> Iterator[None]:
    """Within it, Django's way of emptying all tables is this one, several times as quick.

    Django's own empties each of some 70 tables, on PostgreSQL by new files for all of them and
    their indexes, and writes all models and permissions anew. Both databases' refusal to lose an
    event is set aside meanwhile; afterwards it stands again, with the sealed count of events at
    none.
    """

    def empty(self: BaseDatabaseOperations, _sql: list[str]) -> None:
        with transaction.atomic(using=self.connection.alias):
            _empty(self.connection)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BaseDatabaseOperations, "execute_sql_flush", empty)
        patch.setattr(flush, "emit_post_migrate_signal", lambda *_words, **_more: None)
        yield


def _empty(connection: BaseDatabaseWrapper) -> None:
    named = {table: connection.ops.quote_name(table) for table in _tables(connection.alias)}
    with connection.cursor() as cursor:
        cursor.execute(
            " UNION ALL ".join(
                f"SELECT '{table}' WHERE EXISTS (SELECT 1 FROM {name})"  # noqa: S608 - our models
                for table, name in named.items()
            )
        )
        filled = [row[0] for row in cursor.fetchall()]
        if connection.vendor == "postgresql":
            # Neither keys nor triggers are looked at: all of it goes.
            cursor.execute("SET LOCAL session_replication_role = replica")
        else:
            for rule in written_once.SQLITE:
                cursor.execute(f"DROP TRIGGER {rule}")
        for table in filled:
            cursor.execute(f"DELETE FROM {named[table]}")  # noqa: S608 - our models
        if connection.vendor == "sqlite":
            for rule, words in written_once.SQLITE.items():
                cursor.execute(f"CREATE TRIGGER {rule} {words}")
        cursor.execute(
            "INSERT INTO audit_head (id, events, chain, mark) VALUES (1, 0, %s, %s)",
            [head.GENESIS, head.mark_of(0, head.GENESIS)],
        )


@cache
def _tables(alias: str) -> list[str]:
    found = connections[alias].introspection.django_table_names(include_views=False)
    return sorted(set(found) - KEPT)
