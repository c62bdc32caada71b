"""What the tests of the policy service share."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from daemon import log
from daemon.postfix import Context
from storage.terms import Reason
from tests.ledgers import books
from tests.policy.desk import Desk


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(books(tmp_path / "ledger"))


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """The events so far, with their facts."""
    seen: list[tuple[str, dict[str, Any]]] = []

    class Log:
        def info(self, event: str, **facts: Any) -> None:
            seen.append((event, facts))

        warning = error = info

    monkeypatch.setattr(log, "bound", Log())
    return seen


@pytest.fixture(scope="module")
def shared() -> Iterator[Callable[[], Context]]:
    """One context for all examples, with a domain that is suppressed."""
    with tempfile.TemporaryDirectory() as directory:
        made = Desk(books(Path(directory)))
        made.books.suppress("@suppressed.example", reason=Reason.OPERATOR)
        context = made.context()
        yield lambda: context
