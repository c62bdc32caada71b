"""The whole ledger, from one database into another: all of it or nothing, and proved equal.

Every table is read from one snapshot and written in one transaction; then the target is read again. Of each table the
number of rows and a digest of the set of rows must be the same on both sides, and the audit chain must verify there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Final

from sqlalchemy import Connection, Table
from sqlmodel import SQLModel

import storage.models  # noqa: F401 - declares the tables
from storage import audit
from storage.address import SiteKey
from storage.pieces import in_pieces

_AT_ONCE: Final = 5_000  # rows
_MODULUS: Final = 1 << 128


class NotEqual(Exception):
    """The copy is not what was copied: nothing of it stays. Says which table."""


def tables() -> list[Table]:
    """All tables of the ledger, alembic's own aside."""
    return list(SQLModel.metadata.sorted_tables)


def size(db: Connection) -> int:
    """How many rows there are to copy."""
    return sum(int(db.exec_driver_sql(f"SELECT count(*) FROM {t.name}").scalar_one()) for t in tables())


def copy(
    source: Connection, target: Connection, site_key: SiteKey, progress: Callable[[int], object] = lambda _: None
) -> dict[str, int]:
    """Copy everything into an empty ledger that has our schema and nothing else, and prove it equal.

    `source`: in a reading transaction; `target`: in a writing one. `progress` is told how many rows are copied. Returns the
    number of rows of each table. Raises NotEqual, audit.ChainBroken.
    """
    target.exec_driver_sql("DELETE FROM meta")  # what the migrations wrote: the source has it, too
    copied: dict[str, int] = {}
    for table in tables():
        there = _Digest()
        _write(target, table, there.of(_read(source, table)), sum(copied.values()), progress)
        here = _Digest()
        for _ in here.of(_read(target, table)):
            pass
        if (here.rows, here.sum) != (there.rows, there.sum):
            raise NotEqual(f"table {table.name}: {here.rows} rows of {there.rows} arrived, or they differ")
        copied[table.name] = here.rows
    _number_on(target)
    audit.verify(target, site_key)
    return copied


class _Digest:
    """A digest of a set of rows, whatever their order."""

    def __init__(self) -> None:
        self.rows = self.sum = 0

    def of(self, rows: Iterable[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
        """The same rows, counted and added up on their way."""
        for row in rows:
            self.rows += 1
            self.sum = (
                self.sum + int.from_bytes(hashlib.blake2b(repr(row).encode(), digest_size=16).digest())
            ) % _MODULUS
            yield row


def _read(db: Connection, table: Table) -> Iterator[tuple[Any, ...]]:
    columns = ", ".join(table.columns.keys())
    order = ", ".join(table.primary_key.columns.keys())  # sorted by key, the copy is written twice as fast
    query = f"SELECT {columns} FROM {table.name} ORDER BY {order}"
    for row in in_pieces(db, query):
        yield tuple(
            v.replace("\0", "\ufffd") if isinstance(v, str) else v for v in row
        )  # PostgreSQL takes no NUL in a text


def _write(
    db: Connection, table: Table, rows: Iterator[tuple[Any, ...]], written: int, progress: Callable[[int], object]
) -> None:
    put = _copy_in if db.dialect.name == "postgresql" else _insert
    while some := list(islice(rows, _AT_ONCE)):
        put(db, table, some)
        written += len(some)
        progress(written)


def _insert(db: Connection, table: Table, rows: Sequence[tuple[Any, ...]]) -> None:
    names = table.columns.keys()
    db.exec_driver_sql(
        f"INSERT INTO {table.name} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})", list(rows)
    )


def _copy_in(db: Connection, table: Table, rows: Sequence[tuple[Any, ...]]) -> None:
    """COPY takes five times as many rows a second as INSERT."""
    with (
        db.connection.cursor() as cursor,  # type: ignore[attr-defined]  # psycopg's, which SQLAlchemy does not type
        cursor.copy(f"COPY {table.name} ({', '.join(table.columns.keys())}) FROM STDIN") as into,
    ):
        for row in rows:
            into.write_row(row)


def _number_on(db: Connection) -> None:
    """What is added later gets numbers of its own: PostgreSQL's counters know nothing of rows that brought theirs."""
    if db.dialect.name != "postgresql":
        return
    for table in tables():
        counter = db.exec_driver_sql("SELECT pg_get_serial_sequence(?, ?)", (table.name, _first(table))).scalar()
        if counter is not None:
            last = db.exec_driver_sql(f"SELECT max({_first(table)}) FROM {table.name}").scalar()
            db.exec_driver_sql("SELECT setval(?, ?, ?)", (counter, max(last or 1, 1), last is not None))


def _first(table: Table) -> str:
    return next(iter(table.primary_key.columns)).name
