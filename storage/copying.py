"""Suppression rows into PostgreSQL by COPY, as octets: what SQLite does with INSERT in storage/bulk.py.

The binary form (postgresql.org/docs/15/sql-copy.html, "Binary Format"): each row is a count of its columns, each column its
length before its value.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Any, Final

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from storage.address import KEY_OCTETS

_COPY: Final = "COPY suppression (key, scope, reason, since, evidence) FROM STDIN (FORMAT BINARY)"
_ROW: Final = struct.Struct(">hi16siiiiiqiq")
_BEFORE_KEY: Final = 6  # octets
_BEGIN, _END = b"PGCOPY\n\xff\r\n\0" + bytes(8), b"\xff\xff"


def rows(db: Connection, many: Iterable[tuple[bytes, int, int, int, int]]) -> None:
    """Put rows (key, scope, reason, since, evidence) into the table. Raises DBAPIError."""
    _copy(db, b"".join([_row(*one) for one in many]))


def alike(db: Connection, keys: Sequence[bytes], scope: int, reason: int, since: int, evidence: int) -> None:
    """The same of rows that differ in nothing but their keys."""
    one = _row(bytes(KEY_OCTETS), scope, reason, since, evidence)
    head, tail = one[:_BEFORE_KEY], one[_BEFORE_KEY + KEY_OCTETS :]
    _copy(db, head + (tail + head).join(keys) + tail)


def _row(key: bytes, scope: int, reason: int, since: int, evidence: int) -> bytes:
    return _ROW.pack(5, KEY_OCTETS, key, 4, scope, 4, reason, 8, since, 8, evidence)


def _copy(db: Connection, octets: bytes) -> None:
    driver: Any = db.connection
    try:
        with driver.cursor() as cursor, cursor.copy(_COPY) as into:
            into.write(b"".join([_BEGIN, octets, _END]))
    except db.dialect.loaded_dbapi.Error as why:
        raise DBAPIError(_COPY, None, why) from why
