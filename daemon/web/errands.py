"""What an operator has begun and need not wait for: to be erased, undone, written on paper. A page tells how far it is.

Kept in memory, for a while, and shown to whoever began it: what came of it may have a person's words in it. A restart forgets
it; the work itself is such that doing it again does the rest.
"""

from __future__ import annotations

import asyncio
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from daemon import events
from storage.engine import Unavailable, Unusable

KEPT_SECONDS: Final = 1800.0  # after its end
_MOST: Final = 100
MOST_EACH: Final = 20  # of one operator, that have not ended: they take turns in one thread
_AWAY: Final = "The database could not be asked. What was done by then stays done; try again in a minute."
_STOPPED: Final = "The daemon was stopped meanwhile. What was done by then stays done; doing it again does the rest."
_BUG: Final = "That went wrong, and it is our bug: the log of the daemon has it. What was done by then stays done."


class BrokenOff(Exception):
    """The door stops; the work is such that doing it again does the rest."""


@dataclass
class Errand:
    """`template`: the page of what came of it; `known`: facts of that page that were known before it began.

    `done`: how many steps, told by the work itself. `came`: what came of it. `trouble`: why nothing did, as a sentence.
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
    stopping: threading.Event = field(default_factory=threading.Event)  # of the door

    @property
    def is_over(self) -> bool:
        """Has it ended, well or not?"""
        return self.ended is not None

    def step(self, *_: object) -> None:
        """One more is done. Raises BrokenOff."""
        self.reached(self.done + 1)

    def reached(self, number: int) -> None:
        """So many are done. Raises BrokenOff."""
        self.done = number
        if self.stopping.is_set():
            raise BrokenOff


class Errands:
    """All of one door. `begin` and `find` are for the event loop."""

    def __init__(self) -> None:
        self._all: OrderedDict[str, Errand] = OrderedDict()
        self._stopping = threading.Event()

    def stop(self) -> None:
        """Break off what is under way, between two of its transactions."""
        self._stopping.set()

    def begin(
        self, start: Callable[[Callable[[], None]], asyncio.Future[None]], errand: Errand, work: Callable[[Errand], Any]
    ) -> Errand:
        """Have it done in a thread. `start`: Workers.begin; `work` gets the errand, to tell how far it is."""
        self._forget()
        self._all[errand.number] = errand
        errand.stopping = self._stopping
        start(lambda: _run(errand, work))
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


def _run(errand: Errand, work: Callable[[Errand], Any]) -> None:
    errand.began = True
    try:
        errand.came = work(errand)
    except BrokenOff:
        errand.trouble = _STOPPED
    except (Unavailable, Unusable) as why:
        events.database_unavailable(why)
        errand.trouble = _AWAY
    except Exception as error:  # noqa: BLE001 - nobody waits for this thread: it is told in the log and on the page
        events.failed("web", error)
        errand.trouble = _BUG
    finally:
        errand.ended = time.monotonic()
