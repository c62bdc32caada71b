"""What a ledger can say of its own health without being changed, each question within its time."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from storage import audit, backup, census
from storage.address import SiteKey
from storage.engine import Ledger, Unavailable, verify_identity
from storage.sqlite import File
from storage.terms import utc
from storage.write import write

_STEPS: Final = 10_000  # of SQLite's machine between two looks at the clock


class _Enough(Exception):
    """The time is up."""


@contextmanager
def _within(db: Connection, seconds: float) -> Iterator[None]:
    """SQLite's statements inside end after so many seconds. Raises _Enough."""
    line: Any = db.connection.dbapi_connection
    end = time.monotonic() + seconds
    line.set_progress_handler(lambda: time.monotonic() > end, _STEPS)
    try:
        yield
    except DBAPIError as why:
        if getattr(why.orig, "sqlite_errorcode", None) == sqlite3.SQLITE_INTERRUPT:
            raise _Enough from None
        raise
    finally:
        line.set_progress_handler(None, 0)


def pages(ledger: Ledger, seconds: float) -> str | None:
    """What SQLite's own check finds wrong with the pages of the file; "" if nothing; None: it was not done in time.

    Raises Unavailable.
    """
    with ledger.connect() as db:
        try:
            with _within(db, seconds):
                found = str(db.exec_driver_sql("PRAGMA quick_check(1)").scalar())
        except _Enough:
            return None
    return "" if found == "ok" else found


def backup_is_whole(path: Path, site_key: SiteKey, seconds: float) -> bool:
    """Could this backup be restored? False: not all of it could be read in time, and what could is whole.

    Raises backup.Damaged, Unusable.
    """
    try:
        with backup.opened(path) as db, _within(db, seconds):
            verify_identity(lambda sql: db.exec_driver_sql(sql).scalar(), site_key)
            backup.check_pages(db, path)
            backup.verify_end(db, site_key, path)
    except _Enough:
        return False
    except (DBAPIError, Unavailable) as why:
        raise backup.Damaged(f"{path}: {why.orig if isinstance(why, DBAPIError) else why}") from None
    return True


def record(ledger: Ledger, seconds: float) -> tuple[int, bool]:
    """The last row of the record, and whether all that is new in it since the last check could be verified in time.

    Raises audit.ChainBroken, Unavailable.
    """
    end = time.monotonic() + seconds

    def look_at_the_clock(_: int) -> None:
        if time.monotonic() > end:
            raise _Enough

    with ledger.reading() as db:
        try:
            head, _ = audit.verify_new(db, ledger.site_key, look_at_the_clock)
        except _Enough:
            return census.head(db), False
    return head.seq, True


def newest_row(db: Connection) -> datetime | None:
    """When the last row of the record was written, by the clock of then."""
    at = db.exec_driver_sql("SELECT at FROM audit ORDER BY seq DESC LIMIT 1").scalar()
    return None if at is None else utc(int(at))


class _Undo(Exception):
    """Nothing of it shall stay."""


def try_to_write(ledger: Ledger, now: datetime, *, note: bool = False) -> None:
    """Begin a writing transaction; `note`: and commit that we did, else undo it. Raises Unavailable, Unusable."""
    try:
        with write(ledger, now, "doctor") as w:
            if not note:
                raise _Undo
            w.job_ran("doctor")
    except _Undo:
        return


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """Of a PostgreSQL. `tls`: the protocol of our own connection, "" in clear; `seconds`: for one question."""

    version: str
    is_standby: bool
    tls: str
    clock: datetime
    seconds: float


def server(db: Connection) -> ServerFacts:
    """Ask a PostgreSQL about itself."""
    version = str(db.exec_driver_sql("SHOW server_version").scalar_one())
    standby = bool(db.exec_driver_sql("SELECT pg_is_in_recovery()").scalar_one())
    tls = db.exec_driver_sql("SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid() AND ssl").scalar()
    began = time.monotonic()
    clock: datetime = db.exec_driver_sql("SELECT clock_timestamp()").scalar_one()
    return ServerFacts(version.split()[0], standby, str(tls or ""), clock, time.monotonic() - began)


def rows(ledger: Ledger) -> int:
    """Suppression rows. Raises Unavailable."""
    with ledger.connect() as db:
        return int(db.exec_driver_sql("SELECT count(*) FROM suppression").scalar_one())


def log_size(ledger: Ledger) -> int:
    """Octets of SQLite's write-ahead log."""
    assert isinstance(ledger.store, File)
    log = ledger.path.with_name(ledger.path.name + "-wal")
    return log.stat().st_size if log.exists() else 0
