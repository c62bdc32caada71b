"""A new ledger for every test that asks for one; where it may lie in either database, the test runs on both."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from sqlmodel import SQLModel

import storage.models  # noqa: F401 - declares the tables
from storage import postgres as in_postgres
from storage.engine import Ledger, first_facts
from storage.journal import Journal
from storage.postgres import Server, open_server
from tests.ledgers import Books, books, opened
from tests.servers import Postgres

_EMPTIED = sorted(set(SQLModel.metadata.tables) - {"meta"})


@pytest.fixture
def in_file(tmp_path: Path) -> Iterator[Books]:
    """In a file."""
    it = books(tmp_path / "ledger")
    yield it
    it.close()


@pytest.fixture(scope="session")
def _server(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    """A database with a schema: migrating anew for every test would take half a second."""
    key_file, server = tmp_path_factory.mktemp("postgres") / "site.key", Server(postgres.url(postgres.new_database()))
    in_postgres.migrate(server, key_file)
    ledger = open_server(server, key_file)
    yield ledger
    ledger.close()


@pytest.fixture
def on_server(_server: Ledger) -> Iterator[Books]:
    """In PostgreSQL, emptied."""
    assert isinstance(_server.store, Server)
    with psycopg.connect(_server.store.url) as db, db.cursor() as cursor:  # whatever site key the last test left there
        cursor.execute(f"TRUNCATE {', '.join(_EMPTIED)} RESTART IDENTITY".encode())
        cursor.execute("DELETE FROM meta WHERE name <> 'needs'")
        cursor.execute("UPDATE meta SET value = '0004'")
        cursor.executemany("INSERT INTO meta (name, value) VALUES (%s, %s)", first_facts(_server.site_key))
    it = opened(Ledger(_server.store, _server.site_key))
    yield it
    it.close()


@pytest.fixture
def empty(postgres: Postgres) -> Iterator[Server]:
    """A database without a schema."""
    server = Server(postgres.url(postgres.new_database()))
    yield server
    server.engine.dispose()
    postgres.drop(server.url.rpartition("/")[2])


@pytest.fixture(params=["file", pytest.param("postgres", marks=pytest.mark.postgres)])
def ledger(request: pytest.FixtureRequest) -> Books:
    """In each."""
    found: Books = request.getfixturevalue("in_file" if request.param == "file" else "on_server")
    return found


@pytest.fixture
def kept(in_file: Books, tmp_path: Path) -> Books:
    """In a file, with a journal."""
    in_file.ledger.journal = Journal(tmp_path / "kept" / "journal.log", in_file.ledger.site_key)
    return in_file
