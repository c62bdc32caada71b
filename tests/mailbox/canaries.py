"""What tests of the canary ask and do."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from daemon.mailbox.canary import Rhythm
from storage import canaries
from storage.canaries import State
from storage.write import write
from tests.mailbox.support import Support

NOW = Rhythm(first=0, spread=0, again=3600, soon=0)
Logged = Callable[[], list[dict[str, Any]]]


def state(support: Support) -> State | None:
    with support.books.ledger.connect() as db:
        return canaries.state(db, "support")


def passed(support: Support) -> bool:
    found = state(support)
    return found is not None and found.passed is not None and not found.open


def failed(support: Support) -> canaries.Result | None:
    """What came of a canary that did not come through."""
    found = state(support)
    return found.result if found and found.result and found.result.step and not found.open else None


def rows(support: Support, query: str) -> int:
    with support.books.ledger.connect() as db:
        return int(db.exec_driver_sql(query).scalar_one())


def count(support: Support, event: str) -> int:
    """Audit rows of an event."""
    return rows(support, f"SELECT count(*) FROM audit WHERE event = '{event}'")


def is_lifted_again(support: Support, times: int) -> bool:
    """Once more than that?"""
    return count(support, "lifted") > times


def nothing_is_left(support: Support) -> None:
    """No message, no suppression, no address, no sighting."""
    for folder in ("INBOX", "Opt-outs"):
        assert not [s for s in support.subjects(folder) if "self-test" in s]
    for table in ("suppression", "person", "incoming", "review", "outbox", "unproven", "asked_again"):
        assert rows(support, f"SELECT count(*) FROM {table}") == 0, table


def make_due(support: Support) -> None:
    """Let a day go by."""
    found = state(support)
    assert found is not None
    with write(support.books.ledger, datetime.now(UTC), "test") as w:
        canaries.put(w, "support", dataclasses.replace(found, due=0))
