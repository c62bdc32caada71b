"""A ledger to test with: made in a temporary directory, with lists and a few short words for its verbs."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from unittest import mock

from daemon.gate import Gate
from storage import engine, suppressions
from storage.address import parse
from storage.engine import Ledger, _migrate, open_ledger
from storage.lookup import Lookup
from storage.terms import ALL, Reason
from storage.write import write

LISTS = {"newsletter": "newsletter.quillpdf.example", "offers": "offers.quillpdf.example"}


@dataclass
class Books:
    """A ledger and what goes with it."""

    ledger: Ledger
    numbers: dict[str, int]

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

    def lookup(self) -> Lookup:
        """A reading connection."""
        return Lookup(self.ledger.path, self.ledger.site_key)

    def gate(self) -> Gate:
        """The decision."""
        return Gate(self.lookup(), self.numbers)


@cache
def _migrated() -> bytes:
    """A database file as the migrations leave it: with a schema, and with nothing in it."""
    with tempfile.TemporaryDirectory() as directory:
        database = Path(directory, "empty.db")
        _migrate(database)
        return database.read_bytes()


def _migrate_by_copying(database: Path) -> None:
    database.write_bytes(_migrated())


def books(directory: Path, *, same_person: tuple[str, ...] = ("tag", "alias")) -> Books:
    """A new ledger in `directory`, or the one that is there.

    The migrations take longer than most tests: they run once a process, and what came of them is copied. The rest
    (the key, the check value, the first seal) is made anew, as everywhere.
    """
    directory.mkdir(exist_ok=True)
    with mock.patch.object(engine, "_migrate", _migrate_by_copying):
        ledger = open_ledger(
            directory / "optoutd.db", directory / "site.key", same_person=same_person, allow_create=True
        )
    with write(ledger, datetime.now(UTC), "test") as w:
        numbers = suppressions.number_lists(w, LISTS)
    return Books(ledger, numbers)
