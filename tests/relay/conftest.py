"""What the relay's tests share: a ledger, and an eye on what nobody looks at."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from daemon import events, log
from storage.terms import Reason
from tests.ledgers import Books, books
from tests.relay.people import PEOPLE
from tests.relay.puppet import Puppet, puppet


@pytest.fixture
def ledger(tmp_path: Path) -> Books:
    """A new one, with two lists."""
    return books(tmp_path)


@pytest.fixture
async def upstream() -> AsyncIterator[Puppet]:
    """An upstream that takes everything, unless it is told to misbehave."""
    async with puppet() as made:
        yield made


@pytest.fixture
async def nothing_unexpected(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """No exception reached the outermost loop of the door or asyncio's handler, and no session's task is left."""
    seen: list[object] = []
    monkeypatch.setattr(events, "failed", lambda where, error: seen.append((where, error)))
    monkeypatch.setattr(log, "bound", Log(seen))
    asyncio.get_running_loop().set_exception_handler(lambda _, context: seen.append(context))
    gc.freeze()  # so that the end walks over what this test has made only: the rest is a hundred times as much
    try:
        yield
        gc.collect()  # a task or future that was forgotten speaks up only now
    finally:
        gc.unfreeze()
    assert [t for t in asyncio.all_tasks() if "_handle_client" in repr(t)] == []
    assert seen == []


class Log:
    """Stands where structlog stood: keeps the names of events, and all errors."""

    said: list[str] = []  # noqa: RUF012 - one test at a time; `logged` empties it

    def __init__(self, errors: list[object]):
        self._errors = errors
        self.said.clear()

    def info(self, event: str, **facts: Any) -> None:
        """An event."""
        self.said.append(event)

    debug = warning = info

    def error(self, event: str, **facts: Any) -> None:
        """An event that no test here expects."""
        self._errors.append((event, facts))


@pytest.fixture
def logged(nothing_unexpected: None) -> list[str]:
    """The names of the events so far."""
    return Log.said


@pytest.fixture(scope="module")
def everybody(tmp_path_factory: pytest.TempPathFactory) -> tuple[Books, dict[tuple[str, str | None, Reason], int]]:
    """A ledger with all the people, and the ref of each row."""
    ledger = books(tmp_path_factory.mktemp("modes") / "state")
    refs = {
        (name, scope, reason): ledger.suppress(f"{name}@example.com", scope, reason).evidence
        for name, rows in PEOPLE.items()
        for scope, reason in rows
    }
    refs["domain", None, Reason.OPERATOR] = ledger.suppress("@closed.example", None, Reason.OPERATOR).evidence
    return ledger, refs


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, str, int, str | None]]:
    """Events about a recipient: (event, who, why, ref, list)."""
    found: list[tuple[str, str, str, int, str | None]] = []

    class Log:
        def info(self, event: str, **facts: Any) -> None:
            if "rcpt" in facts:
                found.append((event, facts["rcpt"], facts["reason"], facts["ref"], facts["list"]))

        warning = info
        error = info

    monkeypatch.setattr(log, "bound", Log())
    return found
