"""What the tests of the journal ask of it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from storage import journal
from storage.address import SiteKey
from storage.journal import Line
from tests.ledgers import Books

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
AT = int(NOW.timestamp())
KEY = SiteKey((bytes(32),))


def file_of(it: Books) -> Path:
    assert it.ledger.journal is not None
    return it.ledger.journal.path


def lines(it: Books) -> list[Line | None]:
    return list(journal.read(file_of(it).parent, it.ledger.site_key))


def signs(it: Books) -> str:
    return "".join(line.sign if line else "?" for line in lines(it))


def since(it: Books, backup: tuple[int, int] = (1, 0)) -> journal.Since:
    return journal.since(lines(it), backup, AT)
