"""The ledger in an SQLite file: creating it together with its key, migrating and opening it, and what to do about files.

A file may be removed, overwritten or replaced under a running daemon; each look at it begins with one stat.
"""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Final

from sqlalchemy import URL, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.pool import QueuePool

from storage.address import SiteKey
from storage.disk import free, sync_directory
from storage.engine import (
    REVISION,
    WRITE_SECONDS,
    Ledger,
    Unavailable,
    Unusable,
    first_facts,
    first_line,
    migrate_schema,
    new_site_key,
    read_site_key,
    verify_identity,
)

_TIDY_MILLISECONDS: Final = 100
_WRITE_BACK_TRIES: Final = 20
_SPARE: Final = 1 << 20  # octets of room beside a copy


def open_ledger(
    database: Path,
    key_file: Path,
    *,
    same_person: tuple[str, ...] = ("tag", "alias"),
    keep_addresses: bool = True,
    allow_create: bool = False,
) -> Ledger:
    """Open what is there, or create both halves if `allow_create` and both are missing. Raises Unavailable, Unusable."""
    if allow_create:
        create(database, key_file)
    if database.exists() != key_file.exists():
        _half(database, key_file)
    if not database.exists():
        raise Unavailable(f"no database at {database} yet: `optoutd run` creates it")
    ledger = Ledger(File(database), read_site_key(key_file), same_person, keep_addresses)
    ledger.store.verify(ledger.site_key)
    return ledger


def create(database: Path, key_file: Path) -> None:
    """Create database and key when both are missing; do nothing when both exist. Raises Unusable on one without the other."""
    have = database.exists(), key_file.exists()
    if have == (True, True):
        return
    if any(have):
        _half(database, key_file)
    try:
        database.parent.mkdir(parents=True, exist_ok=True)
        key_file.parent.mkdir(parents=True, exist_ok=True)
        _create_both(database, key_file)
    except OSError as why:
        raise Unusable(f"cannot create {why.filename or database}: {why.strerror}") from None
    except (DBAPIError, sqlite3.Error) as why:
        raise Unusable(f"cannot create {database}: {getattr(why, 'orig', why)}") from None


def _create_both(database: Path, key_file: Path) -> None:
    new = database.with_name(database.name + ".new")  # complete before it has its name: no crash leaves half of it
    new.unlink(missing_ok=True)
    os.close(os.open(new, os.O_CREAT | os.O_EXCL, 0o600))
    make_schema(new)
    site_key = new_site_key(key_file)
    try:
        with closing(sqlite3.connect(new)) as db:
            db.executemany("INSERT INTO meta (name, value) VALUES (?, ?)", first_facts(site_key))
            db.commit()
            db.execute("PRAGMA journal_mode = DELETE")  # so that the one file is all there is to rename
        new.rename(database)
    except BaseException:
        key_file.unlink()  # nothing was written under it: the next start begins afresh
        raise
    sync_directory(database.parent)


def _half(database: Path, key_file: Path) -> None:
    if key_file.exists():
        raise Unusable(
            f"the site key {key_file} is there but the database {database} is not: restore the database from a backup (`optoutd restore`); "
            "only if this is a first start that was interrupted, remove the key and start again"
        )
    raise Unusable(
        f"the database {database} is there but its site key {key_file} is not: put the key file back; without it the list cannot be read"
    )


def migrate(database: Path, site_key: SiteKey) -> tuple[str, str]:
    """Bring the schema to REVISION, keeping a copy beside the file. Returns (revision before, after).

    `site_key`: under which the small tables are sealed, if they never were. A kill at any point leaves the old schema or the
    new one. Raises Unusable; Unavailable (no room for the copy, somebody writes), and then nothing has changed.
    """
    before = revision(database)
    if before > REVISION:
        return before, before  # opening it says whether we can work with that
    if before != REVISION:
        try:
            _keep_copy(database, database.with_name(f"{database.name}.before-{REVISION}"))
            make_schema(database, site_key)
        except (DBAPIError, sqlite3.Error) as why:
            raise Unavailable(f"database {database} stays at schema {before}: {getattr(why, 'orig', why)}") from None
        except OSError as why:
            raise Unavailable(f"database {database} stays at schema {before}: {why.strerror}") from None
    return before, REVISION


def _keep_copy(database: Path, copy: Path) -> None:
    """A copy of what is there, on disk and whole before it has its name. Raises Unavailable, OSError, sqlite3.Error."""
    part = copy.with_name(copy.name + ".part")
    part.unlink(missing_ok=True)  # of a start that was killed
    found = database.stat()
    log = database.with_name(database.name + "-wal")
    needed = found.st_size + (log.stat().st_size if log.exists() else 0) + _SPARE
    room = free(database.parent)
    if room is not None and room < needed:
        raise Unavailable(
            f"database {database} is of an older version, and before it is changed a copy is made: {needed >> 20} MB must be"
            f" free in {database.parent}, {room >> 20} MB are"
        )
    try:
        os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(part)) as target:
            source.backup(target)
            target.execute("PRAGMA journal_mode = DELETE")  # one file is all there is to keep
        give_away(part, found)
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.rename(copy)
    finally:
        part.unlink(missing_ok=True)
    sync_directory(copy.parent)


def give_away(path: Path, like: os.stat_result) -> None:
    """What root makes, the daemon's user must be able to open: it belongs to whom `like` belongs to."""
    if os.geteuid() == 0:
        os.chown(path, like.st_uid, like.st_gid)


def make_schema(database: Path, site_key: SiteKey | None = None) -> None:
    """Bring the schema of a file, which may be empty, to REVISION. `site_key`: of a ledger that is there already."""
    engine = create_engine(URL.create("sqlite", database=str(database)))
    event.listen(engine, "connect", _leave_transactions_to_us)
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
    try:
        with engine.begin() as connection:
            migrate_schema(connection, f"database {database}", site_key)
    finally:
        engine.dispose()


def _leave_transactions_to_us(connection: sqlite3.Connection, _record: object) -> None:
    """Python's sqlite3 begins no transaction for CREATE and ALTER: a migration that fails would leave half of it."""
    connection.isolation_level = None


def revision(database: Path) -> str:
    """The schema revision of a database file. Raises Unavailable where there is none to be read."""
    try:
        with closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)) as db:
            row = db.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.Error as why:
        raise Unavailable(f"database {database}: {why}") from None
    if row is None:
        raise Unavailable(f"database {database}: no schema in it")
    return str(row[0])


def _is_busy(why: OperationalError) -> bool:
    """Is it only that somebody else is writing just now?"""
    return getattr(why.orig, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


@dataclass
class File:
    """An SQLite file."""

    path: Path
    engine: Engine = field(init=False, repr=False)
    queues: bool = field(default=False, init=False, repr=False)  # who waits looks again now and then
    _seen: tuple[int, int, int, int] | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        self.engine = _engine(self.path)

    @property
    def name(self) -> str:
        """What a message calls it."""
        return f"database {self.path}"

    def identity(self) -> tuple[int, int]:
        """Which file lies at `path`: (device, inode). Raises Unavailable if there is none."""
        return self._stat()[:2]

    def verify(self, site_key: SiteKey) -> None:
        """Is the file behind our connections still the one at `path`? Raises Unavailable, Unusable.

        One stat. A new file, and one that was written to (by a checkpoint, or over our heads), is opened and checked
        anew: our page cache would go on showing what stood there before.
        """
        found = self._stat()
        if found != self._seen:
            self.engine.dispose()  # closing the last connection may write the log back
            found = self._stat()
            refuse_foreign_log(self.path, self._seen, found)
            self._check(site_key)
            self._seen = found

    def _stat(self) -> tuple[int, int, int, int]:
        try:
            found = self.path.stat()
        except OSError as why:
            self._seen = None
            raise Unavailable(f"{self.name}: {why.strerror}") from None
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns

    def _check(self, site_key: SiteKey) -> None:
        try:
            with self.engine.connect() as connection:
                verify_identity(lambda sql: connection.exec_driver_sql(sql).scalar(), site_key)
        except DBAPIError as why:
            raise Unavailable(f"{self.name}: {first_line(why.orig)}") from None

    def write_back(self) -> bool:
        """Write the log back into the file and empty it: deleted text, which `secure_delete` overwrites, is in neither then."""
        for _ in range(_WRITE_BACK_TRIES):
            if self._truncate_log():
                return True
            time.sleep(_TIDY_MILLISECONDS / 1000)
        return False

    def tidy(self) -> None:
        """Write the log back as far as readers allow, and let SQLite renew its statistics."""
        self._truncate_log()
        with self.engine.connect() as connection:
            try:
                connection.exec_driver_sql("PRAGMA optimize").all()
            except OperationalError as why:
                if not _is_busy(why):
                    raise Unavailable(f"{self.name}: {first_line(why.orig)}") from None  # else the next time will do

    def grown(self) -> None:
        """A table without a second index leaves nothing to plan."""

    def files(self, *, live: bool = False) -> list[Path]:
        """The database, what SQLite keeps beside it, and copies."""
        name = self.path.name
        return (
            [self.path.with_name(name + suffix) for suffix in ("", "-wal", "-shm")]
            if live
            else sorted(self.path.parent.glob(f"{name}*"))
        )

    def _truncate_log(self) -> bool:
        """While somebody reads for long (a backup, the audit check) only a part can be written back. SQLite would wait for
        the reader, and let no opt-out in meanwhile: so it waits no longer than an opt-out may. False: not all of it."""
        with self.engine.connect() as connection:
            connection.exec_driver_sql(f"PRAGMA busy_timeout = {_TIDY_MILLISECONDS}").all()
            try:
                busy, _, _ = connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").one()
            except OperationalError as why:
                if not _is_busy(why):
                    raise Unavailable(f"{self.name}: {first_line(why.orig)}") from None
                return False  # somebody else writes it back just now
            finally:
                connection.exec_driver_sql(f"PRAGMA busy_timeout = {WRITE_SECONDS * 1000}").all()
        return not busy


def refuse_foreign_log(database: Path, before: tuple[int, ...] | None, now: tuple[int, ...]) -> None:
    """A database that took the place of another, while that one's log (-wal) is still there: SQLite would read both as one.

    `before`, `now`: (device, inode, ...) of what lay there and of what lies there. SQLite leaves the log of a file that was
    moved away, so somebody has to say whether it goes. Raises Unavailable.
    """
    if before is None or before[:2] == now[:2]:
        return
    log = database.with_name(database.name + "-wal")
    if log.exists() and log.stat().st_size:
        raise Unavailable(
            f"database {database}: another file took its place while {log.name} is still of the old one: stop optoutd, remove"
            f" {log.name}, start again"
        )


def _engine(path: Path) -> Engine:
    """AUTOCOMMIT: transactions begin where the code says so, and as the code says (BEGIN IMMEDIATE for writers)."""
    uri = f"{path.absolute().as_uri()}?mode=rw"  # rw: a missing file is never created by opening it
    engine = create_engine(
        "sqlite://",
        creator=lambda: sqlite3.connect(
            uri, uri=True, timeout=WRITE_SECONDS, check_same_thread=False, isolation_level=None
        ),
        isolation_level="AUTOCOMMIT",
        hide_parameters=True,
        pool_size=4,
        poolclass=QueuePool,
    )
    event.listen(engine, "connect", _pragmas)
    _close_those_of_old(engine)
    return engine


def _close_those_of_old(engine: Engine) -> None:
    """A connection that was in use when the pool was disposed of (`verify`) is closed when it comes back. Its pool, which
    nobody asks any more, would keep it, with its page cache and descriptors, until a rare collection of cycles."""
    disposed = count()
    now = [next(disposed)]

    def made(_: sqlite3.Connection, record: Any) -> None:
        record.info["of"] = now[0]

    def returned(connection: sqlite3.Connection, record: Any) -> None:
        if record.info["of"] != now[0]:
            connection.close()

    def dispose(_: Engine) -> None:
        now[0] = next(disposed)

    event.listen(engine, "connect", made)
    event.listen(engine, "checkin", returned)
    event.listen(engine, "engine_disposed", dispose)


def _pragmas(connection: sqlite3.Connection, _record: object) -> None:
    for pragma in (
        "journal_mode = WAL",
        "synchronous = FULL",
        "foreign_keys = ON",
        "temp_store = MEMORY",
        "secure_delete = ON",  # who is erased must not lie about in free pages
    ):
        connection.execute(f"PRAGMA {pragma}").fetchall()
