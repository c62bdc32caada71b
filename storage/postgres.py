"""The ledger in PostgreSQL: several nodes on one truth.

The statements are those of SQLite, with `?` for what psycopg calls `%s`; they are put into its words in one place,
`_in_psycopgs_words`. Every question goes to the primary: a standby's answer would be an old one.

The question before a recipient stands in questions.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, TypeVar

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.types.array import ListBinaryDumper
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import QueuePool

from storage.address import SiteKey
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

_WITH_TEXT: Final = ("person", "evidence", "review", "incoming", "outbox", "refusal")
T = TypeVar("T")
_STATEMENT_SECONDS: Final = 60  # for a report over years, a batch of an import


# ------------------------------------------------------------------ where it is


@dataclass
class Server:
    """A PostgreSQL database. `url` as in `storage.url`, without a password; `password`: None for none."""

    url: str
    password: str | None = field(default=None, repr=False)
    engine: Engine = field(init=False, repr=False)
    path: None = field(default=None, init=False, repr=False)
    queues: bool = field(default=True, init=False, repr=False)
    _site_key: SiteKey | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        self.engine = _engine(self.connect)

    @property
    def name(self) -> str:
        """What a message calls it."""
        return f"database {self.url.partition('?')[0]}"

    def conninfo(self, statement_seconds: float) -> str:
        """What libpq connects by. A peer that is gone is noticed within 10 s, and a standby is not asked."""
        own: dict[str, Any] = {
            "connect_timeout": WRITE_SECONDS,
            "target_session_attrs": "read-write",
            "application_name": "optoutd",
            "keepalives_idle": 5,
            "keepalives_interval": 2,
            "keepalives_count": 2,
            "tcp_user_timeout": 10_000,
        }
        options = f"-c statement_timeout={int(statement_seconds * 1000)} -c client_min_messages=error -c timezone=UTC"
        given: dict[str, Any] = dict(conninfo_to_dict(self.url))
        given["options"] = f"{given.get('options', '')} {options}".strip()
        secret = {} if self.password is None else {"password": self.password}
        return make_conninfo(**(own | given | secret))

    def connect(self) -> psycopg.Connection[Any]:
        """A new connection, of which it is certain that it leads to our ledger. Raises psycopg.Error, Unavailable, Unusable."""
        connection: psycopg.Connection[Any] = psycopg.connect(self.conninfo(_STATEMENT_SECONDS), autocommit=True)
        # As text, which is the driver's choice, an array of keys takes four times as long.
        connection.adapters.register_dumper(list, ListBinaryDumper)
        if _scalar(connection, "SHOW synchronous_commit") == "off":  # else we would answer before it is on disk
            connection.execute("SET synchronous_commit = on")
        if self._site_key is not None:
            try:
                verify_identity(lambda statement: _scalar(connection, statement), self._site_key)
            except BaseException as why:
                connection.close()
                if isinstance(why, Unavailable):
                    raise Unavailable(f"{self.name}: {why}") from None
                raise
        return connection

    def verify(self, site_key: SiteKey) -> None:
        """Each connection is checked when it is made, and leads to one database as long as it lives."""
        if self._site_key is not site_key:
            self.engine.dispose()
            self._site_key = site_key

    def identity(self) -> object:
        """A connection does not change its database."""
        return None

    def write_back(self) -> bool:
        """Rows that were deleted are gone from the tables; the server's own log (WAL) forgets them in its time."""
        with self.engine.connect() as db:
            for table in _WITH_TEXT:
                db.exec_driver_sql(f"VACUUM {table}")
        return True

    def tidy(self) -> None:
        """PostgreSQL does so by itself."""

    def grown(self) -> None:
        """Without it a question for 500 keys reads the whole table: 1,400 us a key in the place of 9."""
        with self.engine.connect() as db:
            db.exec_driver_sql("ANALYZE suppression")

    def files(self, *, live: bool = False) -> list[Path]:
        """None on this machine, as far as we know."""
        return []


def _scalar(connection: psycopg.Connection[Any], statement: str) -> Any:
    row = connection.execute(statement.encode()).fetchone()
    return row and row[0]


def _engine(connect: Callable[[], psycopg.Connection[Any]]) -> Engine:
    """AUTOCOMMIT: transactions begin where the code says so. A connection that has died is noticed before its use."""
    engine = create_engine(
        "postgresql+psycopg://",
        creator=connect,
        isolation_level="AUTOCOMMIT",
        hide_parameters=True,
        pool_size=4,
        pool_pre_ping=True,
        poolclass=QueuePool,
    )
    event.listen(engine, "before_cursor_execute", _in_psycopgs_words, retval=True)
    return engine


def _in_psycopgs_words(
    _connection: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, many: bool
) -> tuple[str, Any]:
    """`?` becomes `%s`. A NUL, which PostgreSQL takes in no text, becomes what stands for an unknown character."""
    if isinstance(parameters, dict):
        return statement, parameters  # SQLAlchemy's own
    clean = [_clean(p) for p in parameters] if many else _clean(parameters)
    return _translated(statement), clean


@lru_cache(maxsize=512)
def _translated(statement: str) -> str:
    return statement.replace("%", "%%").replace("?", "%s")


def _clean(values: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(
        v.replace("\0", "\ufffd")
        if type(v) is str and "\0" in v
        else list(_clean(v))
        if type(v) is list and v and type(v[0]) is str
        else v
        for v in values
    )


# ------------------------------------------------------------------ creating, migrating, opening


def open_server(
    server: Server, key_file: Path, *, same_person: tuple[str, ...] = ("tag", "alias"), keep_addresses: bool = True
) -> Ledger:
    """Open the ledger there. Raises Unavailable, Unusable (no schema yet, another one, no key, the wrong key)."""
    at = revision(server)
    if at is None:
        raise Unusable(f"{server.name} has no schema yet: run `optoutd migrate`")
    if not key_file.exists():
        raise Unusable(
            f"{server.name} is there but its site key {key_file} is not: put the key file of another node there"
        )
    ledger = Ledger(server, read_site_key(key_file), same_person, keep_addresses)
    with ledger.connect():
        return ledger


def revision(server: Server) -> str | None:
    """The schema's revision; None: the database is empty. Raises Unavailable."""
    try:
        with psycopg.connect(server.conninfo(_STATEMENT_SECONDS), autocommit=True) as db:
            if _scalar(db, "SELECT to_regclass('alembic_version')") is None:
                return None
            return str(_scalar(db, "SELECT version_num FROM alembic_version"))
    except psycopg.Error as why:
        raise Unavailable(f"{server.name}: {first_line(why)}") from None


def migrate(server: Server, key_file: Path) -> tuple[str | None, str]:
    """Bring the schema to REVISION, or make it together with the site key if neither is there.

    Returns (revision before, after). Nodes of the version before go on working where the new schema allows it. Raises
    Unavailable, Unusable.
    """
    before = revision(server)
    if before is not None and before <= REVISION:
        _in_one_transaction(server, lambda db: _renew(db, server, read_site_key(key_file)))
        return before, REVISION
    if before is None and key_file.exists():
        raise Unusable(
            f"the site key {key_file} is there but {server.name} is empty: to move a list there, run `optoutd migrate --to`"
            " with the old storage.url still in the config; to begin a new one, remove the key"
        )
    if before is not None:
        return before, before
    site_key = new_site_key(key_file)
    try:
        _in_one_transaction(server, lambda db: _make(db, server, site_key))
    except BaseException:
        key_file.unlink()  # nothing was written under it
        raise
    return None, REVISION


def _renew(db: Connection, server: Server, site_key: SiteKey) -> None:
    db.exec_driver_sql("SET LOCAL lock_timeout = '30s'")  # an ALTER that waits keeps all behind it waiting
    migrate_schema(db, server.name, site_key)


def _make(db: Connection, server: Server, site_key: SiteKey) -> None:
    migrate_schema(db, server.name)
    db.exec_driver_sql("INSERT INTO meta (name, value) VALUES (?, ?)", first_facts(site_key))


def move_in(server: Server, source: Ledger, progress: Callable[[int], object] = lambda _: None) -> dict[str, int]:
    """Copy a whole ledger into this empty database, in one transaction. Returns the number of rows of each table.

    The source must not be written to meanwhile: what came later would be lost. Raises Unavailable, Unusable (not empty),
    transfer.NotEqual, audit.ChainBroken; then nothing is there.
    """
    from storage import transfer  # and the models: half a second of imports that a start does not need

    if revision(server) is not None:
        raise Unusable(f"{server.name} is not empty")

    def work(target: Connection) -> dict[str, int]:
        migrate_schema(target, server.name)
        copied = transfer.copy(here, target, source.site_key, progress)
        target.exec_driver_sql("ANALYZE")
        return copied

    with source.reading() as here:
        return _in_one_transaction(server, work)


def _in_one_transaction(server: Server, work: Callable[[Connection], T]) -> T:
    """PostgreSQL undoes CREATE and ALTER as well. Raises Unavailable."""
    engine = create_engine(
        "postgresql+psycopg://", creator=lambda: psycopg.connect(server.conninfo(0)), hide_parameters=True
    )
    event.listen(engine, "before_cursor_execute", _in_psycopgs_words, retval=True)
    try:
        with engine.begin() as db:
            return work(db)
    except DBAPIError as why:
        raise Unavailable(f"{server.name}: {first_line(why.orig)}") from None
    finally:
        engine.dispose()
