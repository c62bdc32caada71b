"""Backups: a copy of the ledger as one SQLite file, taken while the daemon runs, looked at, and only then given its name.

`snapshot` makes the copy and is all that knows how. On SQLite it is VACUUM INTO: one read transaction, so the copy is of
one moment; nobody waits for it (1 M rows take 0.3 s, in which lookups and opt-outs go on as ever); and unlike a copy
page by page it leaves behind what was deleted, so that people who were erased are not in the free pages of a backup.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from sqlalchemy import URL, Connection, create_engine
from sqlalchemy.exc import DBAPIError

from storage import meta
from storage.address import SiteKey
from storage.audit import Chain, Head
from storage.disk import sync_directory
from storage.engine import WRITE_SECONDS, Ledger, Unavailable, verify_identity
from storage.journal import epoch_of
from storage.sqlite import File, make_schema
from storage.terms import seconds

KEPT: Final = 48
EVERY: Final = timedelta(hours=1)
_NAME: Final = re.compile(r"optoutd-(\d{8}T\d{6}Z)\.db\Z")
_STAMP: Final = "%Y%m%dT%H%M%SZ"
_LAST_ROWS: Final = (
    5_000  # of the audit log are verified in a fresh copy: some 50 ms of the daemon's time, whatever it holds
)


class NotWritten(Exception):
    """The backup could not be made; nothing of it was left behind. `full`: for want of room, which may come back."""

    def __init__(self, sentence: str, *, full: bool = False):
        super().__init__(sentence)
        self.full = full


class Damaged(Exception):
    """A file is not the whole backup of a ledger; the message names it."""


@dataclass(frozen=True, slots=True)
class Backup:
    """A backup that was taken: when its moment was, and the audit head and suppression rows of that moment."""

    file: Path
    octets: int
    taken: datetime
    head: Head
    suppressions: int


# ------------------------------------------------------------------ taking one


def snapshot(ledger: Ledger, dest: Path) -> None:
    """Copy the ledger of one moment into `dest`, an empty file. Raises NotWritten, Unavailable."""
    if not isinstance(ledger.store, File):
        _copy_out(ledger, dest)
        return
    with ledger.connect() as db:
        try:
            db.exec_driver_sql("VACUUM INTO ?", (str(dest.absolute()),))
        except DBAPIError as why:
            raise _not_written(dest, why) from None


def _copy_out(ledger: Ledger, dest: Path) -> None:
    """Of a ledger in PostgreSQL: every row of one snapshot, compared when it is written."""
    from storage import transfer  # and the models: half a second of imports that a daemon on SQLite does not need

    try:
        make_schema(dest)
        with ledger.reading() as source, opened(dest, writable=True) as target:
            target.exec_driver_sql("BEGIN")
            transfer.copy(source, target, ledger.site_key)
            target.exec_driver_sql("COMMIT")
    except DBAPIError as why:
        raise _not_written(dest, why) from None
    except transfer.NotEqual as why:
        raise NotWritten(f"backup into {dest.parent}: {why}") from None


def _not_written(dest: Path, why: DBAPIError) -> NotWritten:
    code = getattr(why.orig, "sqlite_errorcode", 0) & 0xFF
    return NotWritten(f"backup into {dest.parent}: {why.orig}", full=code == sqlite3.SQLITE_FULL)


def take(ledger: Ledger, dest: Path, now: datetime) -> Backup:
    """Back up the ledger into the new file `dest` (0600). Raises NotWritten, Unavailable, Damaged; FileExistsError."""
    if dest.exists() or dest.is_symlink():
        raise FileExistsError(errno.EEXIST, "is there already", str(dest))
    try:
        with _part(dest) as part:
            snapshot(ledger, part)
            _stamp(part, now)
            head, rows = verify(part, ledger.site_key)
            _settle(part, dest)
        return Backup(dest, dest.stat().st_size, now, head, rows)
    except FileExistsError:
        raise
    except OSError as why:
        raise NotWritten(f"backup into {dest.parent}: {why.strerror}", full=why.errno == errno.ENOSPC) from None


@contextmanager
def _part(dest: Path) -> Iterator[Path]:
    """An empty file beside `dest` to work on, locked for as long as we do; gone afterwards, whatever happens."""
    part = dest.with_name(f".{dest.name}.{os.getpid()}.part")
    descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)  # `clear` leaves it alone
        yield part
    finally:
        for path in (part, part.with_name(part.name + "-journal")):
            path.unlink(missing_ok=True)
        os.close(descriptor)


def _stamp(part: Path, now: datetime) -> None:
    """The moment of the copy, in the copy: it is asked for when the file has long got other names and dates."""
    try:
        with opened(part, writable=True) as db:
            meta.put(db, "taken", str(seconds(now)).encode())
    except DBAPIError as why:
        raise _not_written(part, why) from None


def _settle(part: Path, dest: Path) -> None:
    """On disk, and then under its name; never over a file that somebody made meanwhile."""
    descriptor = os.open(part, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    try:
        os.link(part, dest)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        part.rename(dest)
    sync_directory(dest.parent)


def copy_key(key_file: Path, dest: Path) -> None:
    """A copy of the site key in the new file `dest` (0600). Raises NotWritten; FileExistsError."""
    octets = key_file.read_bytes()
    try:
        descriptor = os.open(dest, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise FileExistsError(errno.EEXIST, "is there already", str(dest)) from None
    except OSError as why:
        raise NotWritten(f"site key into {dest.parent}: {why.strerror}") from None
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(octets)
            file.flush()
            os.fsync(file.fileno())
        sync_directory(dest.parent)
    except OSError as why:
        dest.unlink(missing_ok=True)
        raise NotWritten(f"site key into {dest.parent}: {why.strerror}", full=why.errno == errno.ENOSPC) from None


# ------------------------------------------------------------------ looking at one


@contextmanager
def opened(path: Path, *, writable: bool = False, patience: float = WRITE_SECONDS) -> Iterator[Connection]:
    """A connection to a file that nobody else uses. Nothing is made beside one that is only read.

    Unless a write-ahead log lies beside it, which somebody copied together with a database: that belongs to it. `patience`:
    s to wait where somebody does use it.
    """
    log = path.with_name(path.name + "-wal")
    alone = not (log.exists() and log.stat().st_size)
    mode = {"mode": "rw"} if writable or not alone else {"mode": "ro", "immutable": "1"}
    query = {"uri": "true", "timeout": str(patience), **mode}
    engine = create_engine(
        URL.create("sqlite", database=path.absolute().as_uri(), query=query),
        isolation_level="AUTOCOMMIT",
        hide_parameters=True,
    )
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


def verify(path: Path, site_key: SiteKey) -> tuple[Head, int]:
    """Is this a whole ledger under our key, and is the end of its audit log genuine?

    Bounded: the file is read once and the last 5,000 audit rows are verified; `audit.verify` takes them all. Returns the
    audit head and the number of suppression rows. Raises Damaged, Unusable.
    """
    try:
        with opened(path) as db:
            verify_identity(lambda sql: db.exec_driver_sql(sql).scalar(), site_key)
            check_pages(db, path)
            head = verify_end(db, site_key, path)
            return head, int(db.exec_driver_sql("SELECT count(*) FROM suppression").scalar_one())
    except (DBAPIError, Unavailable) as why:
        raise Damaged(f"{path}: {why.orig if isinstance(why, DBAPIError) else why}") from None


def check_pages(db: Connection, path: Path) -> None:
    """SQLite's own check. Raises Damaged."""
    found = db.exec_driver_sql("PRAGMA quick_check(1)").scalar()
    if found != "ok":
        raise Damaged(f"{path}: {found}")


_END: Final = (
    "SELECT seq, at, actor, event, key, scope, reason, source, evidence, digest, standing, mac"
    " FROM audit ORDER BY seq DESC LIMIT ?"
)


def verify_end(db: Connection, site_key: SiteKey, path: Path) -> Head:
    """The last rows follow each other, and the head record is that of the last. Raises Damaged."""
    chain = Chain(site_key)
    rows: list[Any] = list(reversed(db.exec_driver_sql(_END, (_LAST_ROWS + 1,)).all()))
    before, expected = chain.start.mac, 1
    if len(rows) > _LAST_ROWS:
        before, expected = bytes(rows[0][11]), rows[0][0] + 1
        del rows[0]
    for seq, (*row, mac) in enumerate(rows, expected):
        if row[0] != seq or chain.mac(before, row) != bytes(mac):
            raise Damaged(f"{path}: audit row {seq} is missing, was changed, or was not written by us")
        before = bytes(mac)
    head = chain.head(db)
    if not chain.sealed(head, meta.get(db, "head")):
        raise Damaged(f"{path}: the end of the audit log is missing, or was added without the site key")
    return head


# ------------------------------------------------------------------ a directory of them


def name(now: datetime) -> str:
    """What the backup of this moment is called."""
    return f"optoutd-{now.astimezone(UTC).strftime(_STAMP)}.db"


def stamp(path: Path) -> str:
    """The moment in the name of a backup; "" if it is not one of our names. Stamps sort as their moments do."""
    found = _NAME.match(path.name)
    return found[1] if found else ""


def kept(directory: Path) -> list[Path]:
    """The backups in a directory, oldest first. Raises OSError."""
    return sorted(p for p in directory.iterdir() if stamp(p))


def newest(directory: Path) -> Path | None:
    """The backup that knows most, by its record: the clock by which it was named may have been wrong. Raises OSError."""
    return max(kept(directory), key=lambda path: (_reach(path), path.name), default=None)


def _reach(path: Path) -> tuple[int, int]:
    """How far a backup goes: (epoch, audit head); (0, 0) if it cannot be read."""
    try:
        with opened(path) as db:
            return epoch_of(db), int(db.exec_driver_sql("SELECT coalesce(max(seq), 0) FROM audit").scalar_one())
    except DBAPIError:
        return 0, 0


def is_due(directory: Path, now: datetime) -> bool:
    """Is there none of the last hour? One of a time to come (a clock was set back) says nothing. Raises OSError."""
    taken = (datetime.strptime(stamp(path), _STAMP).replace(tzinfo=UTC) for path in kept(directory))
    return not any(now - EVERY < at <= now for at in taken)


def prune(directory: Path, keep: int = KEPT) -> list[Path]:
    """Delete all but the last `keep`, and what a crash left half done. Returns those that are left. Raises OSError."""
    clear(directory)
    found = kept(directory)
    for path in found[:-keep]:
        path.unlink()
    return found[-keep:]


def clear(directory: Path) -> None:
    """Remove the beginnings of backups whose maker was killed."""
    for part in directory.glob(".optoutd-*.part"):
        with suppress(OSError):
            descriptor = os.open(part, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                part.unlink()
            finally:
                os.close(descriptor)
