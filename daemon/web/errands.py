"""What an operator has begun and need not wait for: to be erased, undone, written on paper. A page tells how far it is.

Kept in memory, for a while, and shown to whoever began it: what came of it may have a person's words in it. A restart forgets
it; the work itself is such that doing it again does the rest.
"""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from starlette.requests import Request

from daemon.web.workers import Workers

KEPT_SECONDS: Final = 1800.0  # after its end
_MOST: Final = 100
MOST_EACH: Final = 20  # of one operator, that have not ended: they take turns in one thread


@dataclass
class Errand:
    """`template`: the page of what came of it; `known`: facts of that page that were known before it began.

    `done`: how many steps, told by the work itself. `came`: what came of it. `trouble`: why nothing did, in half a sentence.
    """

    operator: str
    title: str
    template: str
    known: Mapping[str, Any]
    number: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    began: bool = False
    done: int = 0
    came: Any = None
    trouble: str = ""
    ended: float | None = None
    give_way: Callable[[], None] = lambda: None  # to the other threads; raises Stopping when the door stops

    @property
    def is_over(self) -> bool:
        """Has it ended, well or not?"""
        return self.ended is not None

    def step(self, *_: object) -> None:
        """One more is done. Raises Stopping."""
        self.reached(self.done + 1)

    def reached(self, number: int) -> None:
        """So many are done. Raises Stopping: the work is broken off between two of its transactions."""
        self.done = number
        self.give_way()


class Errands:
    """All of one door. For one event loop."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self._all: OrderedDict[str, Errand] = OrderedDict()

    def begin(self, errand: Errand, work: Callable[[Errand], Any]) -> Errand:
        """Have it done in the thread for what takes long. `work` gets the errand, to tell how far it is."""
        self._forget()
        self._all[errand.number] = errand
        errand.give_way = self._workers.give_way

        def run() -> Any:
            errand.began = True
            return work(errand)

        def over(came: Any, trouble: str) -> None:
            errand.came, errand.trouble, errand.ended = came, trouble, time.monotonic()

        self._workers.begin(run, over)
        return errand

    def has_enough(self, operator: str) -> bool:
        """Must this operator wait until some of theirs have ended?"""
        return sum(e.operator == operator and not e.is_over for e in self._all.values()) >= MOST_EACH

    def find(self, number: str, operator: str) -> Errand | None:
        """The errand of this operator; None: there is no such one (any more)."""
        self._forget()
        errand = self._all.get(number)
        return errand if errand is not None and errand.operator == operator else None

    def _forget(self) -> None:
        now = time.monotonic()
        old = [n for n, e in self._all.items() if e.ended is not None and now - e.ended > KEPT_SECONDS]
        over = [n for n, e in self._all.items() if e.is_over][: max(0, len(self._all) - _MOST)]
        for number in {*old, *over}:
            del self._all[number]


def errands_of(request: Request) -> Errands:
    """Those of this door."""
    errands: Errands = request.state.errands
    return errands
