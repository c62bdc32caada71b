"""How much a bulk job writes at a time, so that a live opt-out beside it never waits long.

SQLite has no queue: whoever finds the ledger taken looks again after 1, 2, 5, 10, 15, 20, 25, 25, 25, 50, 50, then every
100 ms. A gap that is longer than the pause between two looks is therefore seen by everybody; a shorter one may be missed
again and again. Waiters of the first 100 ms look every 25 ms: so a transaction shall take less than that, and the gap
behind it 30 ms. Parsing and hashing the next rows is done in the gap, and mostly fills it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

BESIDE_OTHERS: Final = 5_000  # rows a transaction at most
IN_A_QUEUE: Final = 10_000
ALONE: Final = 50_000
_FEWEST: Final = 1000
_SHORT, _LONG = 0.12, 1.5  # seconds a transaction may take, beside others and alone: then the next is made smaller
_POLLS: Final = ((0.1, 0.03), (0.22, 0.055), (float("inf"), 0.105))  # taken up to ... s: a gap of ... s is seen by all


class Pace:
    """`alone`: is nobody there who would mind? Asked before every transaction. `wait`: time.sleep.

    `queues`: does the database let writers in by the order in which they came? PostgreSQL does: who waits is next, and needs
    no gap.
    """

    def __init__(
        self, alone: Callable[[], bool], wait: Callable[[float], object] = time.sleep, *, queues: bool = False
    ):
        self._alone, self._wait, self._queues = alone, wait, queues
        self._beside_others = IN_A_QUEUE if queues else BESIDE_OTHERS
        self._is_alone = alone()
        self._most = ALONE if self._is_alone else self._beside_others
        self._ended, self._took = float("-inf"), 0.0

    @property
    def rows(self) -> int:
        """How many rows the next transaction should have."""
        return self._most

    @contextmanager
    def turn(self) -> Iterator[None]:
        """A transaction: after the gap that the one before left to others."""
        if not self._is_alone and not self._queues:
            gap = next(gap for took, gap in _POLLS if self._took <= took)
            if (left := self._ended + gap - time.monotonic()) > 0:
                self._wait(left)
        began = time.monotonic()
        yield
        self._ended = time.monotonic()
        self._took = self._ended - began
        self._settle()

    def _settle(self) -> None:
        """Of a slow disk fewer rows are asked, and more again when it is faster."""
        self._is_alone = self._alone()
        most, limit = (ALONE, _LONG) if self._is_alone else (self._beside_others, _SHORT)
        if self._took > limit:
            self._most //= 2
        elif self._took < limit / 3:
            self._most *= 2
        self._most = max(_FEWEST, min(self._most, most))
