"""Answers that may not fit into memory, a thousand rows at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

_AT_ONCE: Final = 1000
_OPTIONS: Final = {"yield_per": _AT_ONCE}
_IN_ONE_STATEMENT: Final = 500  # values, of which an old SQLite takes 999


def in_pieces(db: Connection, query: str, values: Sequence[Any] = ()) -> Iterator[Any]:
    """The rows of a query. In PostgreSQL `db` must be in a transaction."""
    with db.exec_driver_sql(query, tuple(values), execution_options=_OPTIONS) as rows:
        yield from rows


def under(db: Connection, query: str, values: Sequence[Any]) -> Iterator[Any]:
    """Rows of a query that ends where `IN (...)` is to come, over all these values."""
    for start in range(0, len(values), _IN_ONE_STATEMENT):
        some = values[start : start + _IN_ONE_STATEMENT]
        yield from db.exec_driver_sql(f"{query} IN ({','.join('?' * len(some))})", tuple(some)).all()


def as_they_come(db: Connection, query: str) -> Iterator[Sequence[Any]]:
    """Rows, many together. Of SQLite as its driver gives them: as SQLAlchemy's, a million takes 2.1 s of CPU instead of 1.0."""
    with db.exec_driver_sql(query, execution_options=_OPTIONS) as rows:
        if db.dialect.name != "sqlite":
            yield from rows.partitions()
            return
        cursor: Any = rows.cursor
        while True:
            try:
                some = cursor.fetchmany(_AT_ONCE)
            except db.dialect.loaded_dbapi.Error as why:
                raise DBAPIError(query, None, why) from why
            if not some:
                return
            yield some
