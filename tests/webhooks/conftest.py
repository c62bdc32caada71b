"""What the tests of the webhooks share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from daemon import events
from daemon.webhooks import Hook, Tellers, keys_in
from daemon.webhooks import teller as of_teller
from storage import hooks
from storage.write import write
from tests.ledgers import Books, verified
from tests.upstream.certificates import Authority, authority
from tests.webhooks.receiver import SECRET, Receiver, receiver, until

EVERYTHING = frozenset(("opt-out", "complaint", "bounce", "operator", "lift"))


@dataclass
class Clock:
    """One that a test moves on."""

    ahead: timedelta = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    def on(self, **by: float) -> None:
        """Later."""
        self.ahead += timedelta(**by)


@dataclass
class Hooks:
    """Hooks at work over a ledger."""

    books: Books
    clock: Clock = field(default_factory=Clock)
    at_work: list[Tellers] = field(default_factory=list)
    said: list[tuple[Any, ...]] = field(default_factory=list)

    def start(self, *of: Hook) -> Tellers:
        """Begin to tell these."""
        made = Tellers(self.books.ledger, of, self.clock)
        self.at_work.append(made)
        made.start()
        return made

    def begin(self, *names: str) -> None:
        """These were there before."""
        with write(self.books.ledger, self.clock(), "test") as w:
            for name in names:
                hooks.begin(w, name)

    def place(self, name: str = "crm") -> hooks.Place:
        """Where one stands."""
        with self.books.ledger.connect() as db:
            found = hooks.place(db, name)
        assert found is not None
        return found

    def has_begun(self, name: str = "crm") -> bool:
        """Has it a place?"""
        with self.books.ledger.connect() as db:
            return hooks.place(db, name) is not None

    def until_failed(self, times: int, name: str = "crm") -> None:
        """Wait until one has failed so often in a row."""
        until(lambda: self.place(name).failures == times, lambda: self.place(name))

    def untold(self, name: str = "crm") -> list[hooks.Lost]:
        """What was given up."""
        with self.books.ledger.connect() as db:
            return hooks.lost(db, name)

    def told(self, event: str) -> list[tuple[Any, ...]]:
        """What the log says of that kind."""
        return [s[1:] for s in self.said if s[0] == event]


def hook(to: Receiver | str, name: str = "crm", **other: Any) -> Hook:
    """One that tells this receiver everything."""
    facts: dict[str, Any] = {"keys": keys_in(SECRET), "events": EVERYTHING, **other}
    return Hook(name=name, url=to if isinstance(to, str) else to.url, **facts)


@pytest.fixture
def at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hooks]:
    """A ledger of which hooks are told, looking often. Nothing may reach the outermost loop."""
    monkeypatch.setattr(of_teller, "POLL_SECONDS", 0.02)
    with verified(tmp_path / "ledger") as books:
        it = Hooks(books)
        for name in ("hook_told", "hook_failed", "hook_recovered", "hook_gave_up", "failed", "database_unavailable"):
            monkeypatch.setattr(events, name, lambda *of, name=name: it.said.append((name, *of)))
        yield it
        for tellers in it.at_work:
            tellers.stop()
        assert it.told("failed") == []


@pytest.fixture
def crm() -> Iterator[Receiver]:
    """A program that is told."""
    with receiver() as it:
        yield it


@pytest.fixture(scope="session")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Who issues certificates, and is no public authority."""
    return authority(tmp_path_factory.mktemp("ca") / "ca")
