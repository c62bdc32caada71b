"""Opening the ledger: the database file and the site key, which only exist together.

Three outcomes of any look at them: fine; `Unavailable` (doubt: away, locked, replaced, garbled: try later);
`Unusable` (somebody must act: wrong key, missing half, foreign schema: exit 78).
"""

from __future__ import annotations

import os
import secrets
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, PendingRollbackError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from storage import sealing
from storage.address import SiteKey
from storage.audit import Chain
from storage.disk import free, sync_directory
from storage.journal import Journal, epoch_of, reached

REVISION: Final = "0006"  # the migration this code needs (tests hold it to the newest in migrations/)
WRITE_SECONDS: Final = 5  # how long a writer waits for another process' writer


class Unavailable(Exception):
    """The ledger cannot be asked right now: defer. The message is for the operator."""


class Unusable(Exception):
    """The ledger or its key is not what it must be; waiting does not help. The message says what to do."""


class WrongKey(Unusable):
    """The key file is not that of this database, or lacks one of its keys."""


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
    sync_directory(path.parent)
    return SiteKey((key,))


# ------------------------------------------------------------------ creating, migrating, opening


def first_facts(site_key: SiteKey) -> list[tuple[str, bytes]]:
    """Rows (name, value) of table meta in a new ledger."""
    chain = Chain(site_key)
    return [
        ("check", check_value(site_key)),
        ("head", chain.seal(chain.start)),
        ("sealed", sealing.of_rows(site_key, [], [])),
    ]


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


def check_value(site_key: SiteKey) -> bytes:
    """What the database keeps to recognise its key: it tells nothing about the key."""
    return site_key.derive(b"check")


def first_line(why: object) -> str:
    """What a driver says, as part of a sentence: PostgreSQL's goes on with hints and places."""
    return str(why).strip().partition("\n")[0]


class Store(Protocol):
    """Where a ledger lies: sqlite.File, postgres.Server."""

    engine: Engine
    queues: bool  # are writers let in in the order in which they came?

    @property
    def path(self) -> Path | None:
        """The SQLite file; None: it is none."""

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

    def grown(self) -> None:
        """Many rows have come: look at the tables again, so that questions are planned by what is there."""

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
        assert self.store.path is not None
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
        except (PendingRollbackError, PoolTimeout) as why:  # the connection was lost; all of them are taken
            raise Unavailable(f"{self.name}: {first_line(why)}") from why

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A consistent snapshot over several statements."""
        with self.connect() as connection:
            connection.exec_driver_sql(_BEGIN_READING[connection.dialect.name])
            try:
                yield connection
            finally:
                with suppress(PendingRollbackError):  # lost: what was to be said of it was said
                    connection.exec_driver_sql("ROLLBACK")

    def free(self) -> dict[str, int]:
        """`database` (a file on this machine), `backups` -> octets that may still be written there."""
        database, journal = self.store.path, self.journal
        places = {"database": database and database.parent, "backups": journal and journal.path.parent}
        return {of: left for of, place in places.items() if place and (left := free(place)) is not None}

    def compare_with_journal(self, *, alone: bool = False) -> None:
        """Has the database all that its journal tells of? Not if its log was lost, or an old copy took its place: it would
        pass people who opted out since, with nothing in it to show that. Raises Unusable, Unavailable.

        What the journal lacks (we were killed between a commit and its line) is in the next backup, which is due then.
        `alone`: and is written into it now, for nobody else is just about to.
        """
        if self.journal is None:
            return
        directory = self.journal.path.parent
        try:
            told = reached(directory, self.site_key)  # first: what comes to it meanwhile is in the database before
        except OSError:
            # The second copy holds nothing up; that there is none to be had, the backup that is due will tell.
            self.journal.behind = True
            return
        with self.connect() as db:
            here = (epoch_of(db), int(db.exec_driver_sql("SELECT coalesce(max(seq), 0) FROM audit").scalar_one()))
            self._refuse_older(told, here, directory)
            if told < here and self.store.path is not None:  # of several nodes each has its own journal
                self.journal.behind = True
                if alone and (missed := self.journal.missed(db, told, here)):
                    self.journal.append(missed)

    def _refuse_older(self, told: tuple[int, int], here: tuple[int, int], directory: Path) -> None:
        if here < told:
            how = f"restore --force {directory}`" if self.store.path else f"restore {directory}` (into an empty one)"
            raise Unusable(
                f"{self.name} is older than the journal in {directory}: changes after audit row {here[1]} are missing in it;"
                f" stop optoutd, then `optoutd {how}"
            )

    def close(self) -> None:
        """Close all connections."""
        self.store.engine.dispose()


_BEGIN_READING: Final = {"sqlite": "BEGIN", "postgresql": "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"}


def verify_identity(scalar: Callable[[str], Any], site_key: SiteKey) -> None:
    """Schema and check value of an open database; `scalar(sql)` gives the first value of the first row. Raises as below."""
    judge_identity(
        scalar("SELECT version_num FROM alembic_version"),
        scalar("SELECT value FROM meta WHERE name = 'check'"),
        scalar(NEEDS),
        scalar(NEWEST),
        site_key,
    )


def judge_identity(
    version: str | None, check: bytes | None, needs: bytes | None, newest: bytes | None, site_key: SiteKey
) -> None:
    """Is this our database, and one that we understand? `check`, `needs`, `newest`: of table meta.

    Raises Unavailable when something is missing (doubt: not our database, or not whole), Unusable when it is another's
    (WrongKey: or the key is).
    """
    if version is None:
        raise Unavailable("the database has no schema")
    if version != REVISION and not _goes_with(version, needs):
        what_to_do = "run `optoutd migrate`" if version < REVISION else "it belongs to a newer version of optoutd"
        raise Unusable(f"the database schema is {version}, this version needs {REVISION}: {what_to_do}")
    if check is None:
        raise Unavailable("the database has no check value")
    if not secrets.compare_digest(bytes(check), check_value(site_key)):
        raise WrongKey("the site key is not the one this database was made with: put the right key file in place")
    judge_newest(newest, site_key)


NEWEST: Final = "SELECT value FROM meta WHERE name = 'newest'"  # the mark of the newest key that rows may stand under


# The schema of the oldest version that can work with this one.
NEEDS: Final = "SELECT value FROM meta WHERE name = 'needs'"


def judge_needs(needs: bytes | None) -> None:
    """Has the ledger become one that this version would misread? `needs`: of table meta. Raises Unusable."""
    if needs is not None and _word(needs) > REVISION:
        raise Unusable(
            f"the database was renewed to schema {_word(needs)} under us: install the newer version of optoutd here, too"
        )


def _word(value: bytes) -> str:
    return bytes(value).decode("ascii", "replace")


def judge_newest(mark: bytes | None, site_key: SiteKey, what: str = "this database") -> None:
    """Have we every key that rows may stand under? `mark`: of table meta; None: they stand under one key. Raises WrongKey."""
    if mark is not None and bytes(mark) not in site_key.marks():
        raise WrongKey(f"the key file lacks a site key that {what} was written with: put the newest key file in place")


def _goes_with(newer: str, needs: bytes | None) -> bool:
    """Is this the schema of a later version, which says that ours can still work with it? Nodes are not all renewed at once."""
    return newer > REVISION and needs is not None and _word(needs) <= REVISION


def refuse_deferred(scalar: Any) -> None:
    """For whoever asks who may be mailed: after a restore with a gap the list does not know it all. Raises Unavailable."""
    deferred = scalar("SELECT value FROM meta WHERE name = 'deferred'")
    if deferred is not None:
        raise Unavailable(
            "restored from a backup, and what happened since is not replayed yet: run `optoutd restore --status`"
        )
