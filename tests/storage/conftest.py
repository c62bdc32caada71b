"""A new ledger for every test that asks for one; where it may lie in either database, the test runs on both."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from storage import postgres as in_postgres
from storage.postgres import Server, open_server
from tests.ledgers import Books, books, opened
from tests.servers import Postgres


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Books]:
    """In a file."""
    it = books(tmp_path / "ledger")
    yield it
    it.close()


@pytest.fixture(scope="session")
def _made_once(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A database with a schema, to copy, and its site key: migrating anew for every test would take half a second."""
    key_file, template = tmp_path_factory.mktemp("template") / "site.key", postgres.new_database()
    server = Server(postgres.url(template))
    in_postgres.migrate(server, key_file)
    server.engine.dispose()
    return template, key_file


@pytest.fixture
def pg_ledger(postgres: Postgres, _made_once: tuple[str, Path]) -> Iterator[Books]:
    """In PostgreSQL."""
    template, key_file = _made_once
    database = postgres.new_database(template)
    it = opened(open_server(Server(postgres.url(database)), key_file))
    yield it
    it.close()
    postgres.drop(database)


@pytest.fixture(params=["file", pytest.param("postgres", marks=pytest.mark.postgres)])
def either(request: pytest.FixtureRequest) -> Books:
    """In each."""
    found: Books = request.getfixturevalue("ledger" if request.param == "file" else "pg_ledger")
    return found
