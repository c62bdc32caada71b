"""A ledger to test with: made in a temporary directory, with lists and a few short words for its verbs."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from daemon.gate import Gate, Lookup
from daemon.opening import lookup_of
from storage import audit, bulk, incoming, sqlite, suppressions
from storage.address import SiteKey, parse
from storage.engine import Ledger
from storage.postgres import Server, migrate, open_server
from storage.sqlite import File, make_schema, open_ledger
from storage.terms import ALL, Reason
from storage.write import Write, write
from tests.servers import Postgres

# For a test of what only a file can be, though others of its module run on both databases.
IN_A_FILE = pytest.mark.parametrize("ledger", ["file"], indirect=True)
LISTS = {"newsletter": "newsletter.quillpdf.example", "offers": "offers.quillpdf.example"}


@dataclass
class Books:
    """A ledger and what goes with it."""

    ledger: Ledger
    numbers: dict[str, int]
    _lookups: list[Lookup] = field(default_factory=list)

    def suppress(
        self,
        address: str,
        list_id: str | None = None,
        reason: Reason = Reason.OPT_OUT,
        *,
        since: datetime | None = None,
    ) -> suppressions.Added:
        """Suppress somebody now."""
        scope = ALL if list_id is None else self.numbers[list_id]
        with write(self.ledger, datetime.now(UTC), "test") as w:
            return suppressions.add(w, parse(address), scope, reason, "operator", {"note": "test"}, since=since)

    def lift(self, address: str, scope: int = ALL) -> int:
        """End it; how many rows went."""
        with write(self.ledger, datetime.now(UTC), "test") as w:
            return len(suppressions.lift(w, parse(address), scope, "test"))

    @property
    def where(self) -> tuple[str, ...]:
        """What `again` opens it by."""
        store = self.ledger.store
        if isinstance(store, File):
            return (str(store.path.parent),)
        assert isinstance(store, Server)
        return store.url, self.key_text

    @property
    def key_text(self) -> str:
        """The newest site key, as its file has it."""
        return self.ledger.site_key.keys[0].hex()

    def lookup(self) -> Lookup:
        """A reading connection."""
        found = lookup_of(self.ledger)
        if not isinstance(self.ledger.store, File):  # psycopg wants to be closed; SQLite does so when nobody holds it
            self._lookups.append(found)
        return found

    def close(self) -> None:
        """Close all that was opened."""
        for lookup in self._lookups:
            lookup.close()
        self.ledger.close()

    def gate(self) -> Gate:
        """The decision."""
        return Gate(self.lookup(), self.numbers)


@cache
def _migrated() -> bytes:
    """A database file as the migrations leave it: with a schema, and with nothing in it."""
    with tempfile.TemporaryDirectory() as directory:
        database = Path(directory, "empty.db")
        make_schema(database)
        return database.read_bytes()


def _migrate_by_copying(database: Path) -> None:
    database.write_bytes(_migrated())


def books(directory: Path, *, same_person: tuple[str, ...] = ("tag", "alias")) -> Books:
    """A new ledger in `directory`, or the one that is there.

    The migrations take longer than most tests: they run once a process, and what came of them is copied. The rest
    (the key, the check value, the first seal) is made anew, as everywhere.
    """
    directory.mkdir(exist_ok=True)
    with mock.patch.object(sqlite, "make_schema", _migrate_by_copying):
        return opened(
            open_ledger(directory / "optoutd.db", directory / "site.key", same_person=same_person, allow_create=True)
        )


def queued(w: Write, received: datetime | None = None, *, of: int | None = None, **facts: Any) -> int:
    """A doubtful mail in the review queue, of which all is empty that is not given; its number. `of`: of `incoming`."""
    usual = {"sender": "", "addresses": (), "scope": "all", "rules": (), "words": "", "wish": "review"}
    return incoming.open_review(w, of, received=received or w.now, **(usual | facts))


def opened(ledger: Ledger) -> Books:
    """An open ledger, with its lists numbered."""
    with write(ledger, datetime.now(UTC), "test") as w:
        numbers = suppressions.number_lists(w, LISTS)
    return Books(ledger, numbers)


def again(where: str, key: str = "") -> Books:
    """A ledger that another process has made, by its `where`."""
    if not key:
        return books(Path(where))
    return opened(Ledger(Server(where), SiteKey((bytes.fromhex(key),))))


def bring(
    w: Write,
    rows: Sequence[bulk.Row],
    source: str,
    detail: Mapping[str, Any],
    people: Sequence[tuple[bytes, str]] = (),
) -> bulk.Added:
    """Rows (key, scope, reason, since) at once, as an import does."""
    return bulk.add_many(w, bulk.Batch(sorted(rows), dict(people)), w.at, detail, source=source)


@contextmanager
def verified(directory: Path) -> Iterator[Books]:
    """A ledger whose record must be whole when the test is over."""
    it = books(directory)
    yield it
    with it.ledger.reading() as db:
        audit.verify(db, it.ledger.site_key)
    it.ledger.close()


@contextmanager
def verified_on(postgres: Postgres, directory: Path) -> Iterator[Books]:
    """The same in a PostgreSQL database of its own; the key lies in `directory`."""
    server, key_file = Server(postgres.url(postgres.new_database())), directory / "site.key"
    migrate(server, key_file)
    it = opened(open_server(server, key_file))
    yield it
    with it.ledger.reading() as db:
        audit.verify(db, it.ledger.site_key)
    it.close()
    server.engine.dispose()
    postgres.drop(server.url.rpartition("/")[2])
