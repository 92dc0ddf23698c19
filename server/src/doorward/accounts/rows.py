"""A model read by a statement written by hand: what a raw query set does, at a third of its cost.

For the statements that every sign-in waits for (bench/README.md). A raw query set asks the database
for its columns' names each time, looks up each column's converters and builds an iterator of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, TypeVar

from django.db import connection
from django.db.models import Model

AModel = TypeVar("AModel", bound=Model)
Convert = Callable[[Any], Any]


def first(
    model: type[AModel], alias: str, statement: str, values: list[Any]
) -> tuple[AModel, tuple[Any, ...]] | None:
    """Return the model of the first row, and what its row holds besides; None when there is none.

    ``{columns}`` in the statement stands for the model's columns, of the table named ``alias``.
    """
    vendor = connection.vendor
    row = one(_text(statement, model, alias, vendor), values)
    if row is None:
        return None
    width = len(_plan(model, vendor)[1])
    return made(model, row[:width]), row[width:]


def one(statement: str, values: list[Any]) -> tuple[Any, ...] | None:
    """Return the first row as the database gave it; None when there is none."""
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        row: tuple[Any, ...] | None = cursor.fetchone()
    return row


def made(model: type[AModel], row: Sequence[Any]) -> AModel:
    """Return the model that these values of its columns are, as the database gave them."""
    _columns, names, converters = _plan(model, connection.vendor)
    own = list(row)
    for place, convert in converters:
        own[place] = convert(own[place])
    return model.from_db(connection.alias, names, own)


def width_of(model: type[Model]) -> int:
    """Return how many columns the model has."""
    return len(_plan(model, connection.vendor)[1])


def columns_of(model: type[Model], alias: str, vendor: str) -> str:
    """Return the model's columns, of the table named ``alias``, as ``made`` takes their values."""
    return ", ".join(f"{alias}.{column}" for column in _plan(model, vendor)[0])


@cache
def _text(statement: str, model: type[Model], alias: str, vendor: str) -> str:
    return statement.replace("{columns}", columns_of(model, alias, vendor))


@cache
def _plan(
    model: type[Model], _vendor: str
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[tuple[int, Convert], ...]]:
    # The same for every connection to one kind of database.
    table = model._meta.db_table  # noqa: SLF001 - Django documents _meta
    fields = model._meta.concrete_fields  # noqa: SLF001 - as above
    columns = tuple(connection.ops.quote_name(field.column or "") for field in fields)
    converters = tuple(
        (place, _bound(convert, column))
        for place, column in enumerate(field.get_col(table) for field in fields)
        for convert in (
            *connection.ops.get_db_converters(column),
            *column.get_db_converters(connection),
        )
    )
    return columns, tuple(field.attname for field in fields), converters


def _bound(convert: Callable[[Any, Any, Any], Any], expression: Any) -> Convert:
    return lambda value: convert(value, expression, connection)
