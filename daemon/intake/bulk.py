"""What waits because of one brake, decided together by a person: many short transactions, each item as if by itself."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from daemon import events
from daemon.intake.deciding import NobodyNamed, Outdated, close
from daemon.intake.desk import Desk
from storage import held, incoming
from storage.brake import What
from storage.incoming import Item
from storage.write import write

BATCH: Final = 200  # items a transaction: a live opt-out waits for the whole of it
GAP: Final = 0.05  # s between two transactions, in which a live opt-out gets its turn
_SHOWN: Final = 10


@dataclass(slots=True)
class Tally:
    """How many items, by what accepting them does (`hard-bounce`...) and by state; whom the first are about.

    `left`: of which accepting would suppress nobody, or that are older than what the person did since; they still wait.
    """

    items: Counter[str] = field(default_factory=Counter)
    people: int = 0
    left: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, item: Item) -> None:
        """Count an item."""
        self.items[item.wish] += 1
        self.people += len(item.addresses)
        self.first += item.addresses[: _SHOWN - len(self.first)]


def survey(desk: Desk, what: What) -> Tally:
    """What `decide` would do now. Changes nothing. Raises Unavailable."""
    tally, beyond = Tally(), 0
    while numbers := _page(desk, what, beyond, 2**63 - 1):
        with desk.ledger.reading() as db:
            for item in (incoming.review(db, n) for n in numbers):
                if item is not None:
                    tally.add(item)
        beyond = numbers[-1]
    return tally


def decide(
    desk: Desk,
    what: What,
    accepted: bool,
    note: str,
    now: Callable[[], datetime],
    actor: str,
    progress: Callable[[int], object] = lambda _: None,
) -> Tally:
    """Decide all that waits now by this brake. Raises Unavailable; what was decided before that stays so.

    What comes meanwhile still waits. Broken off, the next call goes on where it was. `progress`: told how many are done.
    """
    tally, done = Tally(), 0
    for numbers in _batches(desk, what):
        if done:
            time.sleep(GAP)
        decided: list[Item] = []
        with write(desk.ledger, now(), actor) as w:
            for item in (incoming.review(w.db, n) for n in numbers):
                if item is None or item.state != "open":
                    continue  # somebody else was quicker
                try:
                    close(w, item, desk, accepted=accepted, note=note)
                except (NobodyNamed, Outdated):  # both are raised before anything is written
                    tally.left += 1
                else:
                    decided.append(item)
        for item in decided:
            events.review_decided(item.id, accepted)
            tally.add(item)
        done += len(numbers)
        progress(done)
    return tally


def _batches(desk: Desk, what: What) -> Iterator[list[int]]:
    """The numbers of what waits when it begins, some at a time."""
    with desk.ledger.reading() as db:
        newest = int(db.exec_driver_sql("SELECT coalesce(max(id), 0) FROM review").scalar_one())
    beyond = 0
    while numbers := _page(desk, what, beyond, newest):
        yield numbers
        beyond = numbers[-1]


def _page(desk: Desk, what: What, beyond: int, newest: int) -> list[int]:
    with desk.ledger.reading() as db:
        return [n for n in held.numbers(db, what, beyond, BATCH) if n <= newest]
