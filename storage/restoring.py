"""Restoring: a backup, brought up to date from the journal of keys, takes the place of the database in one rename.

    prepare (a copy of the backup, verified, beside the database) -> replay the journal into it -> put_in_place

Up to the rename the old state is untouched, after it the new one is whole: a kill at any point leaves one or the other.
The daemon must not run meanwhile (daemon.opening.sole_owner).

What neither backup nor journal knows is told; with `defer` every lookup answers "cannot tell" until it is closed.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from storage import audit, deferral, forgotten, hashes, journal, meta, people, suppressions
from storage.address import Address, NotAnAddress, SiteKey, parse
from storage.backup import Damaged, NotWritten, check_pages, opened, stamp
from storage.deferral import Deferred
from storage.disk import sync_directory
from storage.engine import (
    NEWEST,
    REVISION,
    WRITE_SECONDS,
    Ledger,
    Unavailable,
    Unusable,
    check_value,
    judge_newest,
)
from storage.journal import Journal, Since
from storage.pieces import under
from storage.sqlite import File, give_away, migrate, revision
from storage.suppressions import RawRow
from storage.terms import ALL, seconds, utc
from storage.write import Write, write

PATIENCE = WRITE_SECONDS  # how long to wait for a command that has the old database open
# What SQLite says when it cannot write the copy: no verdict on the backup, which must not be thrown away for it.
_OF_THE_COPY: Final = (
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR_WRITE,
    sqlite3.SQLITE_IOERR_FSYNC,
    sqlite3.SQLITE_IOERR_DIR_FSYNC,
    sqlite3.SQLITE_IOERR_TRUNCATE,
)
_AT_ONCE: Final = 5_000  # rows a transaction: bounds what it takes of memory, for nobody waits


class NotEmpty(Exception):
    """There is a database already, and something in it; the message says so."""


class InUse(Exception):
    """Another process has the database open."""


@dataclass(frozen=True, slots=True)
class Restored:
    """What was done. `uncovered`: from when on changes may be missing; `whole`: does the journal follow the backup without
    a hole up to then? `deferred`: is everybody answered "cannot tell" now? `aside`: the old database's new name, if any."""

    taken: datetime
    head: str
    lines: int
    unreadable: int
    added: int
    ended: int
    erased: int
    uncovered: datetime
    whole: bool
    deferred: bool
    aside: Path | None
    suppressions: int


@dataclass(frozen=True, slots=True)
class _Source:
    """A verified copy of a backup: where its journal begins, when it was taken (seconds UTC), and its audit head."""

    work: Path
    epoch: int
    taken: int
    head: audit.Head
    gap: Deferred | None  # of an earlier restore, which was not closed when the backup was taken


def restore(
    source: Path,
    database: Path,
    site_key: SiteKey,
    kept_in: Path | None,
    now: datetime,
    actor: str,
    *,
    defer: bool = False,
    force: bool = False,
    progress: Callable[[int], object] = lambda _: None,
) -> Restored:
    """Put a backup in the place of the database. `kept_in`: where its journal is (storage.backup_dir), if there is one.

    `force`: a database that is not empty is kept aside. `progress` is told audit rows verified. Raises NotEmpty, InUse,
    Damaged, Unusable (another key), audit.ChainBroken, NotWritten, OSError.
    """
    if not force and not is_empty(database):
        raise NotEmpty(f"there is a database at {database} already, and it is not empty")
    work = database.with_name(f"{database.name}.restoring")
    _remove(work)
    try:
        copied = _prepare(source, work, site_key, progress)
        found = _since(kept_in, site_key, copied)
        ledger = Ledger(File(work), site_key)
        try:
            added, ended, rows = _bring_up_to_date(ledger, copied, found, source, now, actor, defer=defer)
            if kept_in is not None:
                _note_restore(ledger, kept_in, found, now, database.parent)
            _to_one_file(ledger)
        finally:
            ledger.close()
        aside = _put_in_place(work, database, now)
    except (DBAPIError, sqlite3.Error) as why:
        raise NotWritten(f"restoring into {database.parent}: {getattr(why, 'orig', why)}") from None
    except Unavailable as why:
        raise NotWritten(str(why)) from None
    finally:
        _remove(work)
    taken, uncovered = (utc(at) for at in (copied.taken, _gap_since(copied, found)))
    counts = (found.lines, found.unreadable, added, ended, len(found.erased))
    deferred = defer or copied.gap is not None
    return Restored(taken, str(copied.head), *counts, uncovered, found.whole, deferred, aside, rows)


def _gap_since(copied: _Source, found: Since) -> int:
    """From when on changes may be missing (seconds UTC)."""
    return found.until if copied.gap is None else min(found.until, seconds(copied.gap.since))


def is_empty(database: Path) -> bool:
    """Is there no database, or one in which nothing was ever recorded? One that cannot be read is not empty."""
    if not database.exists() or database.stat().st_size == 0:
        return True
    if not _is_sqlite(database):
        return False
    try:
        with opened(database, writable=True) as db:
            return db.exec_driver_sql("SELECT 1 FROM audit LIMIT 1").first() is None
    except DBAPIError:
        return False


def _is_sqlite(database: Path) -> bool:
    """By its first octets: to open a file that is none would remove the log beside it, in which the last changes are."""
    with database.open("rb") as file:
        return file.read(16) in (b"SQLite format 3\0", b"")


def _remove(work: Path) -> None:
    for suffix in ("", "-wal", "-shm", "-journal"):
        work.with_name(work.name + suffix).unlink(missing_ok=True)
    for copy in work.parent.glob(f"{work.name}.before-*"):
        copy.unlink()


# ------------------------------------------------------------------ the copy


def _prepare(source: Path, work: Path, site_key: SiteKey, progress: Callable[[int], object]) -> _Source:
    """Copy the backup, bring its schema up to date, and verify all of it. Raises Damaged, Unusable, ChainBroken."""
    with source.open("rb"):  # an OSError that names the file
        pass
    work.touch(mode=0o600)
    try:
        with opened(source) as db:
            _know(db, site_key, source)
            db.exec_driver_sql("VACUUM INTO ?", (str(work.absolute()),))
    except DBAPIError as why:
        if getattr(why.orig, "sqlite_errorcode", 0) in _OF_THE_COPY:
            raise
        raise Damaged(f"{source} is not a backup that can be read: {why.orig}") from None
    if revision(work) > REVISION:
        raise Unusable(f"{source} is of a newer version of optoutd: restore it with that version")
    migrate(work, site_key)
    with opened(work) as db:
        check_pages(db, source)
        head = audit.verify(db, site_key, progress=progress)
        return _Source(work, journal.epoch_of(db), _taken(db, source), head, deferral.deferred(db))


def _know(db: Connection, site_key: SiteKey, source: Path) -> None:
    """Is it a ledger, and ours? Whatever its schema."""
    value = meta.get(db, "check")
    if value is None:
        raise Damaged(f"{source} has no check value in it")
    if bytes(value) != check_value(site_key):
        raise Unusable(f"the site key is not the one that {source} was made with: put the right key file in place")
    judge_newest(db.exec_driver_sql(NEWEST).scalar(), site_key, str(source))


def _taken(db: Connection, source: Path) -> int:
    """When the copy was made; of one that somebody else made: when the last change in it was."""
    value = meta.get(db, "taken")
    if value is not None:
        return int(bytes(value))
    last = db.exec_driver_sql("SELECT at FROM audit ORDER BY seq DESC LIMIT 1").scalar()
    return int(last) if last is not None else int(source.stat().st_mtime)


def _since(kept_in: Path | None, site_key: SiteKey, copied: _Source) -> Since:
    backup = (copied.epoch, copied.head.seq)
    lines = journal.read(kept_in, site_key) if kept_in is not None and kept_in.is_dir() else iter(())
    found = journal.since(lines, backup, copied.taken)
    for mark in found.site_keys:  # rows under that key come out of the journal, too
        judge_newest(mark, site_key, f"the journal in {kept_in}")
    return found


# ------------------------------------------------------------------ the journal, replayed


def _bring_up_to_date(
    ledger: Ledger, copied: _Source, found: Since, source: Path, now: datetime, actor: str, *, defer: bool
) -> tuple[int, int, int]:
    """What the journal says, audited as `restored` under one evidence. Returns rows added, ended, and standing in the end."""
    facts: dict[str, Any] = {
        "backup": source.name,
        "stamp": stamp(source),
        "head": str(copied.head),
        "lines": found.lines,
    }
    with ledger.reading() as db:
        erased = _known_again(db, found.erased)
    for address in erased:
        people.erase_everywhere(ledger, address, now, actor)
    with write(ledger, now, actor) as w:
        of_it = w.evidence(source="operator", because="restored from a backup", uncovered=found.until, **facts)
        w.audit("restored", source="operator", evidence=of_it)
        _erase_again(w, found.erased)
        epoch = str(found.reached[0] + 1).encode()
        meta.put(w.db, "epoch", epoch)
        w.db.exec_driver_sql("DELETE FROM meta WHERE name IN ('taken', 'deferred')")
        if any(sign == "+" for sign, _, _ in found.rows.values()):
            hashes.ask_for_all(w)  # the journal does not say which rows are of a list of hashes
        if defer or copied.gap:
            deferral.begin(w, _gap_since(copied, found))
    added = ended = 0
    rows = iter(found.rows.items())
    while batch := list(islice(rows, _AT_ONCE)):
        with write(ledger, now, actor) as w:
            more, fewer = _apply(w, batch, of_it)
            added, ended = added + more, ended + fewer
    with ledger.connect() as db:
        return added, ended, int(db.exec_driver_sql("SELECT count(*) FROM suppression").scalar_one())


_Named = tuple[tuple[bytes, str, int], tuple[journal.Sign, int, int]]


def _apply(w: Write, batch: Sequence[_Named], evidence: tuple[int, bytes]) -> tuple[int, int]:
    numbers = suppressions.list_numbers(w.db)
    there = {row[:3]: row for row in suppressions.rows_of(w.db, [named[0] for named, _ in batch])}
    added: list[RawRow] = []
    gone: list[RawRow] = []
    for (key, scope, reason), (sign, since, number) in batch:
        of_list = _number(w, numbers, scope, number)
        row: RawRow = (key, of_list, reason, since, evidence[0])
        stands = there.get(row[:3])
        if stands is not None and (sign == "-" or stands[3] != since):
            gone.append(stands)
        if sign == "+" and (stands is None or stands[3] != since):
            added.append(row)
    suppressions.replace(w, gone, added)
    back = {row[:3] for row in added}
    for row in added:
        w.audit("restored", key=row[0], scope=row[1], reason=row[2], source="operator", evidence=evidence)
    ended = [row for row in gone if row[:3] not in back]
    if ended:  # `asked`: the journal does not say when it was wished, so whatever the person wrote since counts
        end = w.evidence(source="operator", because="ended after the backup, as the journal says", asked=0)
        for row in ended:
            w.audit("lifted", key=row[0], scope=row[1], reason=row[2], source="operator", evidence=end)
    return len(added), len(ended)


def _number(w: Write, numbers: dict[str, int], scope: str, number: int) -> int:
    """The number of a list; of one that the backup does not know yet, the one that it had: links carry it."""
    list_id = scope.removeprefix("list:")
    if scope == "all":
        return ALL
    if list_id not in numbers:
        if number in numbers.values():
            numbers.update(suppressions.number_lists(w, [list_id]))
        else:
            w.db.exec_driver_sql("INSERT INTO list_number (number, id) VALUES (?, ?)", (number, list_id))
            numbers[list_id] = number
    return numbers[list_id]


def _known_again(db: Connection, erased: Sequence[bytes]) -> list[Address]:
    """People who were erased after the backup was made, and stand in it in plain words."""
    known = []
    for (address,) in under(db, "SELECT address FROM person WHERE key", erased):
        with suppress(NotAnAddress):
            known.append(parse(address))
    return known


def _erase_again(w: Write, erased: Sequence[bytes]) -> None:
    """Whoever stands in it by key only: nothing refills that, and what explains these keys goes."""
    forgotten.mark(w.db, erased)
    for key in erased:
        found = w.db.exec_driver_sql(
            "SELECT DISTINCT e.id FROM audit a JOIN evidence e ON e.id = a.evidence"
            """ WHERE a.key = ? AND coalesce(e.detail, '') NOT LIKE '%"cause": {%'""",  # of an undoing, which names nobody
            (key,),
        )
        w.forget_evidence([int(row[0]) for row in found])
        w.audit("erased", key=key, source="operator")


def _note_restore(ledger: Ledger, kept_in: Path, found: Since, now: datetime, home: Path) -> None:
    """In the journal, before it is true: if it does not come true, the old numbers go on and nothing follows this line."""
    with ledger.connect() as db:
        head = audit.Chain(ledger.site_key).head(db)
        after = (journal.epoch_of(db), head.seq)
    owner = home.stat()
    keys = Journal(kept_in / journal.NAME, ledger.site_key, owner=(owner.st_uid, owner.st_gid))
    keys.restored(found.reached, after, seconds(now))


# ------------------------------------------------------------------ in place


def _to_one_file(ledger: Ledger) -> None:
    with ledger.connect() as db:
        db.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").all()
        db.exec_driver_sql("PRAGMA journal_mode = DELETE").all()


def _put_in_place(work: Path, database: Path, now: datetime) -> Path | None:
    """One rename. A database that is there is kept under another name, and its log never meets the new file."""
    give_away(work, (database if database.exists() else database.parent).stat())
    with work.open("rb+") as file:
        os.fsync(file.fileno())
    aside = _aside(database, now)
    with _held(database) as is_one_file:
        if is_one_file:
            _link(database, aside)
        else:
            _set_aside(database, aside)
        work.rename(database)
        sync_directory(database.parent)
    return aside if aside.exists() else None


def _aside(database: Path, now: datetime) -> Path:
    """A name for the old database: not one that has another file, which is an older one still."""
    named = f"{database.name}.replaced-{now.astimezone(UTC).strftime('%Y%m%dT%H%M%SZ')}"
    for more in ("", *(f"-{n}" for n in range(2, 1000))):
        aside = database.with_name(named + more)
        if not aside.exists() or (database.exists() and aside.samefile(database)):
            return aside
    raise NotWritten(f"there are a thousand files {named}: move them away")


@contextmanager
def _held(database: Path) -> Iterator[bool]:
    """Keep everybody out of the old database while it is replaced. False: it is none that SQLite can open."""
    if not database.exists() or not _is_sqlite(database):
        yield False
        return
    with opened(database, writable=True, patience=PATIENCE) as db:
        try:
            mode = db.exec_driver_sql("PRAGMA journal_mode = DELETE").scalar()  # what its log holds is written back
            if mode != "delete":
                raise InUse(f"another process has {database} open")
            db.exec_driver_sql("BEGIN EXCLUSIVE")
        except DBAPIError as why:
            if getattr(why.orig, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise InUse(f"another process has {database} open") from None
            held = False
        else:
            held = True
        yield held
        if held:
            db.exec_driver_sql("ROLLBACK")


def _set_aside(database: Path, aside: Path) -> None:
    """A file that is no database, or only the log of one: all of it under other names, before the new one comes."""
    parts = [(database.with_name(database.name + end), aside.with_name(aside.name + end)) for end in ("", "-wal")]
    for part, name in parts:
        if part.exists():
            _link(part, name)
    for end in ("-wal", "-shm", "-journal"):
        database.with_name(database.name + end).unlink(missing_ok=True)
    sync_directory(database.parent)


def _link(path: Path, name: Path) -> None:
    if name.exists():  # a restore that was killed came as far as this
        name.unlink()
    try:
        os.link(path, name)
    except OSError as why:
        raise NotWritten(f"{path} cannot be kept as {name} ({why.strerror}): move it away by hand") from None
    sync_directory(path.parent)
