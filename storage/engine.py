"""Opening the ledger: the database file and the site key, which only exist together.

Three outcomes of any look at them: fine; `Unavailable` (doubt: away, locked, replaced, garbled: try later);
`Unusable` (somebody must act: wrong key, missing half, foreign schema: exit 78).
"""

from __future__ import annotations

import os
import secrets
import shutil
import sqlite3
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import QueuePool

from storage import sealing
from storage.address import SiteKey
from storage.audit import Chain
from storage.journal import Journal

REVISION: Final = "0004"  # the migration this code needs (tests hold it to the newest in migrations/)
_TIDY_MILLISECONDS: Final = 100
_WRITE_BACK_TRIES: Final = 20
WRITE_SECONDS: Final = 5  # how long a writer waits for another process' writer (CONTRACT 9)


class Unavailable(Exception):
    """The ledger cannot be asked right now: defer. The message is for the operator."""


class Unusable(Exception):
    """The ledger or its key is not what it must be; waiting does not help. The message says what to do."""


# ------------------------------------------------------------------ the site key's file


def read_site_key(path: Path) -> SiteKey:
    """Read a site key file: a line of 64 hex digits per key, newest first; `#` begins a comment. Raises Unusable."""
    try:
        with path.open() as file:
            found = os.fstat(file.fileno())
            lines = [line.partition("#")[0].strip() for line in file]
    except (OSError, UnicodeDecodeError) as why:
        raise Unusable(f"site key {path}: {getattr(why, 'strerror', None) or 'not text'}") from None
    # systemd shows a credential as 0440 where an ACL lets the service's user in: nobody else gets into its directory.
    credential = path.parent == Path(os.environ.get("CREDENTIALS_DIRECTORY", "/nonexistent"))
    if found.st_mode & (stat.S_IRWXG | stat.S_IRWXO) and not credential:
        raise Unusable(f"site key {path}: others can read it; run: chmod 600 {path}")
    try:
        return SiteKey(tuple(bytes.fromhex(line) for line in lines if line))
    except ValueError:
        raise Unusable(f"site key {path}: must have one or more lines of 64 hex digits") from None


def new_site_key(path: Path) -> SiteKey:
    """A new key, on disk before anything is written under it."""
    key = secrets.token_bytes(32)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(
            f"# optoutd site key. Without it the suppression list cannot be read: keep a copy apart from the database.\n{key.hex()}\n"
        )
        file.flush()
        os.fsync(file.fileno())
    _sync_directory(path.parent)
    return SiteKey((key,))


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# ------------------------------------------------------------------ creating, migrating, opening


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
    _sync_directory(database.parent)


def first_facts(site_key: SiteKey) -> list[tuple[str, bytes]]:
    """Rows (name, value) of table meta in a new ledger."""
    chain = Chain(site_key)
    return [
        ("check", check_value(site_key)),
        ("head", chain.seal(chain.start)),
        ("sealed", sealing.of_rows(site_key, [], [])),
    ]


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
    """Bring the schema to REVISION, keeping a copy beside the file. Returns (revision before, after). Raises Unusable.

    `site_key`: under which the small tables are sealed, if they never were.
    """
    before = revision(database)
    if before > REVISION:
        return before, before  # opening it says whether we can work with that
    if before != REVISION:
        copy = database.with_name(f"{database.name}.before-{REVISION}")
        os.close(os.open(copy, os.O_WRONLY | os.O_CREAT, 0o600))
        with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(copy)) as target:
            source.backup(target)
        shutil.copymode(database, copy)
        make_schema(database, site_key)
    return before, REVISION


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


def migrate_schema(connection: Connection, name: str, site_key: SiteKey | None = None) -> None:
    """Bring the schema to REVISION, in the transaction that the connection is in. Raises Unusable.

    `site_key`: of a ledger that is there already; what the new schema seals is sealed with it.
    """
    from alembic import command  # half a second of imports that a start with a current schema does not need
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
        if site_key is not None:
            sealing.begin(connection, site_key)
    except CommandError as why:
        raise Unusable(f"the schema of {name} is not one this version knows: {why}") from None


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


def check_value(site_key: SiteKey) -> bytes:
    """What the database keeps to recognise its key: it tells nothing about the key."""
    return site_key.derive(b"check")


def first_line(why: object) -> str:
    """What a driver says, as part of a sentence: PostgreSQL's goes on with hints and places."""
    return str(why).strip().partition("\n")[0]


class Store(Protocol):
    """Where a ledger lies: `File` here, `Server` in postgres.py."""

    engine: Engine

    @property
    def name(self) -> str:
        """What a message calls it."""

    def verify(self, site_key: SiteKey) -> None:
        """Is what our connections lead to still the database it was? Raises Unavailable, Unusable."""

    def identity(self) -> object:
        """Which database lies there now; differs if another took its place. Raises Unavailable if there is none."""

    def write_back(self) -> bool:
        """Leave nothing of deleted text behind, as far as the database can. False: somebody was reading for too long."""

    def tidy(self) -> None:
        """What a database wants done now and then."""

    def files(self, *, live: bool = False) -> list[Path]:
        """The files on this machine that it is made of, and unless only what is `live` is asked for, copies beside them."""


@dataclass
class Ledger:
    """The open ledger. One per process; `storage.write` begins its writing transactions, `reading()` its other ones."""

    store: Store
    site_key: SiteKey
    same_person: tuple[str, ...] = ("tag", "alias")
    keep_addresses: bool = True
    journal: Journal | None = field(default=None, repr=False)  # where changes are written a second time, as keys
    writer: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)  # one writer a process

    @property
    def name(self) -> str:
        """What a message calls the database."""
        return self.store.name

    @property
    def path(self) -> Path:
        """The SQLite file."""
        assert isinstance(self.store, File)
        return self.store.path

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        """A connection to the database that is there now. Raises Unavailable for whatever the database cannot do."""
        self.store.verify(self.site_key)
        try:
            with self.store.engine.connect() as connection:
                yield connection
        except DBAPIError as why:
            raise Unavailable(f"{self.name}: {first_line(why.orig)}") from why

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A consistent snapshot over several statements."""
        with self.connect() as connection:
            connection.exec_driver_sql(_BEGIN_READING[connection.dialect.name])
            try:
                yield connection
            finally:
                connection.exec_driver_sql("ROLLBACK")

    def close(self) -> None:
        """Close all connections."""
        self.store.engine.dispose()


_BEGIN_READING: Final = {"sqlite": "BEGIN", "postgresql": "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"}


@dataclass
class File:
    """An SQLite file."""

    path: Path
    engine: Engine = field(init=False, repr=False)
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
            connection.exec_driver_sql("PRAGMA optimize").all()

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


def verify_identity(scalar: Callable[[str], Any], site_key: SiteKey) -> None:
    """Schema and check value of an open database; `scalar(sql)` gives the first value of the first row. Raises as below."""
    judge_identity(
        scalar("SELECT version_num FROM alembic_version"),
        scalar("SELECT value FROM meta WHERE name = 'check'"),
        scalar("SELECT value FROM meta WHERE name = 'needs'"),
        site_key,
    )


def judge_identity(version: str | None, check: bytes | None, needs: bytes | None, site_key: SiteKey) -> None:
    """Is this our database, and one that we understand? `check`, `needs`: of table meta.

    Raises Unavailable when something is missing (doubt: not our database, or not whole), Unusable when it is another's.
    """
    if version is None:
        raise Unavailable("the database has no schema")
    if version != REVISION and not _goes_with(version, needs):
        what_to_do = "run `optoutd migrate`" if version < REVISION else "it belongs to a newer version of optoutd"
        raise Unusable(f"the database schema is {version}, this version needs {REVISION}: {what_to_do}")
    if check is None:
        raise Unavailable("the database has no check value")
    if not secrets.compare_digest(bytes(check), check_value(site_key)):
        raise Unusable("the site key is not the one this database was made with: put the right key file in place")


def _goes_with(newer: str, needs: bytes | None) -> bool:
    """Is this the schema of a later version, which says that ours can still work with it? Nodes are not all renewed at once."""
    return newer > REVISION and needs is not None and bytes(needs).decode("ascii", "replace") <= REVISION


def refuse_deferred(scalar: Any) -> None:
    """For whoever asks who may be mailed: after a restore with a gap the list does not know it all. Raises Unavailable."""
    deferred = scalar("SELECT value FROM meta WHERE name = 'deferred'")
    if deferred is not None:
        raise Unavailable(
            "restored from a backup, and what happened since is not replayed yet: run `optoutd restore --status`"
        )


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
    return engine


def _pragmas(connection: sqlite3.Connection, _record: object) -> None:
    for pragma in (
        "journal_mode = WAL",
        "synchronous = FULL",
        "foreign_keys = ON",
        "temp_store = MEMORY",
        "secure_delete = ON",  # who is erased must not lie about in free pages
    ):
        connection.execute(f"PRAGMA {pragma}").fetchall()
