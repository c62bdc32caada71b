"""Ledgers as earlier versions have left them: the schema of that time, and in it what a life leaves in one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, MetaData, create_engine, event, select

from storage import engine, sqlite
from storage.engine import REVISION
from tests.ledgers import books
from tests.storage.lives import Life

_SCRIPTS: Final = str(Path(engine.__file__).with_name("migrations"))
_SINCE: Final = {"sealed": "0005", "needs": "0004"}  # facts of table meta that came with a schema, or with its code


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", _SCRIPTS)
    return config


def earlier_revisions() -> list[str]:
    """Every schema there was before this one, oldest first."""
    found = [script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()]
    return [r for r in reversed(found) if r != REVISION]


def upgrade(db: Connection, revision: str) -> None:
    """Run the migrations up to this one."""
    config = _config()
    config.attributes["connection"] = db
    command.upgrade(config, revision)


def ledger_of(revision: str, directory: Path) -> Path:
    """A database file of this schema in `directory`, its key beside it, and a life in it; returns the file."""
    now, database = directory / "now", directory / "optoutd.db"
    it = books(now)
    life = Life(it)
    for happens in (life.asks, life.asks_of_a_list, life.clicks, life.bounces, life.complains, life.is_doubtful):
        happens()
    it.close()
    shutil.copy(now / "site.key", directory / "site.key")
    with in_one_transaction(database) as db, in_one_transaction(now / "optoutd.db") as source:
        upgrade(db, revision)
        pour(source, db, revision)
    database.chmod(0o600)
    shutil.rmtree(now)
    return database


@contextmanager
def in_one_transaction(database: Path) -> Iterator[Connection]:
    """A connection to a file, which may be new."""
    made = create_engine(URL.create("sqlite", database=str(database)))
    event.listen(made, "connect", sqlite._leave_transactions_to_us)
    event.listen(made, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
    try:
        with made.begin() as db:
            yield db
    finally:
        made.dispose()


def pour(source: Connection, target: Connection, revision: str) -> None:
    """The rows of all tables and columns that there were."""
    tables = MetaData()
    tables.reflect(target)
    for table in tables.sorted_tables:
        if table.name == "alembic_version":
            continue
        rows = [dict(row._mapping) for row in source.execute(select(table))]
        if table.name == "meta":
            target.execute(table.delete())
            rows = [row for row in rows if _SINCE.get(row["name"], "") <= revision]
        if rows:
            target.execute(table.insert(), rows)


def dump(db: Connection) -> dict[str, set[tuple[Any, ...]]]:
    """The rows of each table, alembic's own aside."""
    tables = MetaData()
    tables.reflect(db)
    return {
        t.name: {tuple(row) for row in db.execute(select(t))}
        for t in tables.sorted_tables
        if t.name != "alembic_version"
    }
