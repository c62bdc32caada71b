"""What the door's tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon import events
from tests.ledgers import Books, books
from tests.web.support import Door, door


@pytest.fixture
def ledger(tmp_path: Path) -> Books:
    """A new one, with two lists."""
    return books(tmp_path / "ledger")


@pytest.fixture(autouse=True)
def nothing_breaks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing may reach the outermost loop of a door; a test that wants something to break listens itself."""
    failed: list[BaseException] = []
    monkeypatch.setattr(events, "failed", lambda _, error: failed.append(error))
    yield
    assert failed == []


@pytest.fixture
def web(ledger: Books) -> Iterator[Door]:
    """A door before it."""
    with door(ledger) as opened:
        yield opened


@pytest.fixture(scope="module")
def standing_door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """A door for all the examples of a property: before a ledger of its own."""
    with door(books(tmp_path_factory.mktemp("fuzz") / "ledger")) as opened:
        yield opened
