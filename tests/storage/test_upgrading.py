"""From every schema there was to this one: nothing is lost on the way, and nothing that breaks it off leaves half of it."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine
from sqlmodel import SQLModel

import storage.models  # noqa: F401 - declares the tables
from daemon.opening import lookup_of
from storage import audit, postgres, sealing, sqlite
from storage.address import parse
from storage.engine import REVISION, Ledger, Unavailable, read_site_key
from storage.postgres import Server, open_server
from storage.sqlite import migrate, open_ledger
from tests.storage.another import ROOT
from tests.storage.earlier import dump, earlier_revisions, in_one_transaction, ledger_of, pour, upgrade
from tests.storage.lives import BOB, ZELDA

OLDEST, *_ = EARLIER = earlier_revisions()
COPY = f"optoutd.db.before-{REVISION}"


def whole(ledger: Ledger) -> None:
    """The schema is what the models say, the record and the seal are whole, and whoever opted out still has."""
    with ledger.reading() as db:
        assert audit.verify(db, ledger.site_key).seq == 4
        assert sealing.is_whole(db, ledger.site_key)
        assert compare_metadata(MigrationContext.configure(db), SQLModel.metadata) == []
    with closing(lookup_of(ledger)) as lookup:
        assert lookup.rows(parse(ZELDA))
        assert not lookup.rows(parse(BOB))


def in_both(before: dict[str, set[tuple[object, ...]]], after: dict[str, set[tuple[object, ...]]]) -> None:
    """All that was there is there."""
    for table, rows in before.items():
        there = {row[: len(next(iter(rows)))] for row in after[table]} if rows else set()  # new columns stand behind
        assert rows <= there, table


@pytest.mark.parametrize("revision", EARLIER)
def test_a_ledger_of_any_earlier_version_is_brought_up_to_date(revision: str, tmp_path: Path) -> None:
    database = ledger_of(revision, tmp_path)
    with in_one_transaction(database) as db:
        before = dump(db)
    assert before["suppression"]
    assert migrate(database, read_site_key(tmp_path / "site.key")) == (revision, REVISION)
    ledger = open_ledger(database, tmp_path / "site.key")
    with ledger.connect() as db:
        in_both(before, dump(db))
    whole(ledger)
    ledger.close()
    assert sqlite.revision(tmp_path / COPY) == revision
    with in_one_transaction(tmp_path / COPY) as db:
        assert dump(db) == before


@pytest.mark.postgres
@pytest.mark.parametrize("revision", EARLIER)
def test_so_is_one_in_postgresql(revision: str, tmp_path: Path, empty: Server) -> None:
    database = ledger_of(revision, tmp_path)
    engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(empty.url))
    with engine.begin() as db, in_one_transaction(database) as source:
        upgrade(db, revision)
        pour(source, db, revision)
        before = dump(db)
    engine.dispose()
    assert postgres.migrate(empty, tmp_path / "site.key") == (revision, REVISION)
    ledger = open_server(empty, tmp_path / "site.key")
    with ledger.connect() as db:
        in_both(before, dump(db))
    whole(ledger)
    ledger.close()


# ------------------------------------------------------------------ broken off

_KILL = """
import os, signal, sys
from pathlib import Path
def killed(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)
database = Path(sys.argv[1])
import alembic.op, alembic.command, storage.disk, storage.sealing, storage.sqlite
from storage.engine import read_site_key
{kill} = killed
storage.sqlite.migrate(database, read_site_key(database.with_name("site.key")))
"""
# Where it is killed: is the copy there by then?
_MOMENTS = {
    "storage.sqlite.give_away": False,  # it is copied, but not on disk
    "os.fsync": False,
    "Path.rename": False,
    "storage.sqlite.sync_directory": True,
    "alembic.op.create_table": True,
    "alembic.op.create_index": True,
    "storage.sealing.begin": True,  # all is done but the commit
}


@pytest.mark.parametrize("kill", _MOMENTS)
def test_whenever_it_is_killed_the_next_start_begins_again(kill: str, tmp_path: Path) -> None:
    database = ledger_of(OLDEST, tmp_path)
    with in_one_transaction(database) as db:
        before = dump(db)
    done = subprocess.run([sys.executable, "-c", _KILL.format(kill=kill), database], cwd=ROOT, capture_output=True)
    assert done.returncode == -9, done.stderr.decode()
    assert sqlite.revision(database) == OLDEST
    assert (tmp_path / COPY).exists() is _MOMENTS[kill]
    with in_one_transaction(database) as db:
        assert dump(db) == before
    assert migrate(database, read_site_key(tmp_path / "site.key")) == (OLDEST, REVISION)
    ledger = open_ledger(database, tmp_path / "site.key")
    whole(ledger)
    ledger.close()
    assert sqlite.revision(tmp_path / COPY) == OLDEST
    assert not list(tmp_path.glob("*.part*"))


def test_somebody_who_writes_is_waited_for_and_then_it_is_doubt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = ledger_of(OLDEST, tmp_path)
    with closing(sqlite3.connect(database, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Unavailable, match=f"stays at schema {OLDEST}: database is locked"):
            migrate(database, read_site_key(tmp_path / "site.key"))
        other.execute("ROLLBACK")
    assert migrate(database, read_site_key(tmp_path / "site.key")) == (OLDEST, REVISION)


# ------------------------------------------------------------------ a full disk


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """Four megabytes."""
    where = tmp_path / "small"
    where.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", where], capture_output=True)
    if done.returncode:
        pytest.skip("no file system can be mounted here")
    try:
        yield where
    finally:
        subprocess.run(["umount", where], check=True)


@pytest.mark.parametrize("looks", [True, False])  # before it copies; not, as if the room went while it did
def test_without_room_for_the_copy_nothing_changes(small: Path, looks: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    database = ledger_of(OLDEST, small)
    site_key = read_site_key(small / "site.key")
    free = shutil.disk_usage(small).free
    (small / "ballast").write_bytes(bytes(free - 65_536))
    if not looks:
        monkeypatch.setattr(sqlite, "free", lambda _: 1 << 30)
    before = sorted(p.name for p in small.iterdir())
    said = "1 MB must be free" if looks else f"stays at schema {OLDEST}: database or disk is full"
    with pytest.raises(Unavailable, match=said):
        migrate(database, site_key)
    assert sorted(p.name for p in small.iterdir()) == before
    assert sqlite.revision(database) == OLDEST
    (small / "ballast").unlink()
    assert migrate(database, site_key) == (OLDEST, REVISION)
