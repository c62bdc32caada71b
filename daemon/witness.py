"""Was the promise kept? Some of the recipients whom the upstream has just taken are looked up a second time.

The relay asks before the dot, so nobody who was on the list may be among them. Whether that is so, a thread
finds out beside it: on a connection of its own, a second later. Told is only what cannot have been a race: each round notes
how far the record has come, and the suppression, with all else that the record has of the person, must have stood in it at
a note from before the last question began. No clock is asked but our own, which only goes forward.

A spot check of some recipients a second: a relay that asks wrongly (an old snapshot, another database, the wrong list)
does so for all, and is found out with the first of them. It cannot find what is wrong in the lookup itself.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Final, Protocol

from daemon import events, metrics, relay_events
from storage import census
from storage.address import Address, keys_of
from storage.engine import Ledger, Unavailable, Unusable
from storage.lookup import Row, Verdict, verdict

_MOST: Final = 50  # recipients looked at between two rounds: some 3 ms of work
_NOTES: Final = 120  # rounds that are remembered: a message may take so long between its last question and its reply


class Lookup(Protocol):
    """storage.lookup.Lookup, storage.questions.Lookup."""

    def rows_of_all(self, addresses: Sequence[Address]) -> list[list[Row]]:
        """All rows that any form of each address hits. Raises Unavailable, Unusable."""

    def close(self) -> None:
        """Close its connection."""


class Witness:
    """Looks again. `every`: s between two rounds."""

    def __init__(self, ledger: Ledger, open_lookup: Callable[[], Lookup], *, every: float = 1.0):
        self._ledger, self._open, self._every = ledger, open_lookup, every
        self._seen: list[tuple[Sequence[Address], int, float]] = []
        # (when it had come so far, the last audit row then)
        self._heads: deque[tuple[float, int]] = deque(maxlen=_NOTES)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, name="witness", daemon=True)

    def saw(self, recipients: Sequence[Address], list_number: int, asked: float) -> None:
        """The upstream has taken a message to these (marketing, of this list; 0: of none); `asked`: when the last question
        began, by time.monotonic. For the event loop: 0.1 us, and nothing but that if there is enough to look at already."""
        if len(self._seen) < _MOST:
            self._seen.append((recipients, list_number, asked))

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End; what was not looked at is not looked at any more."""
        self._stopping.set()

    def _work(self) -> None:
        lookup = self._open()
        while not self._stopping.wait(self._every):
            try:
                self.look(lookup)
            except (Unavailable, Unusable):
                continue  # the doors tell of it; and nobody is passed meanwhile
            except Exception as error:  # noqa: BLE001 - the outermost loop of a thread: a bug must not end the watching
                events.failed("witness", error)
        lookup.close()

    def look(self, lookup: Lookup) -> None:
        """One round. Raises Unavailable, Unusable."""
        seen, self._seen = self._seen, []
        left = _MOST
        self.note()
        for recipients, list_number, asked in seen:
            some = list(islice(recipients, left))
            left -= len(some)
            metrics.looked_at_again.of().inc(len(some))
            for address, rows in zip(some, lookup.rows_of_all(some) if some else (), strict=True):
                found = verdict(rows, list_number or None)
                if found is not None and self._stood(address, found, asked):
                    self._tell(address, found)

    def note(self) -> None:
        """How far has the record come? Raises Unavailable, Unusable."""
        with self._ledger.connect() as db:
            head = census.head(db)
        self._heads.append((time.monotonic(), head))  # later than it was read: what is told of it is true all the more

    def _stood(self, address: Address, found: Verdict, asked: float) -> bool:
        """Had it been so when the relay asked?"""
        before = next((head for at, head in reversed(self._heads) if at < asked), -1)
        keys = [key for key, _ in keys_of(self._ledger.site_key, address)]
        with self._ledger.connect() as db:
            return census.last_change(db, keys, found.evidence) <= before

    def _tell(self, address: Address, found: Verdict) -> None:
        who = self._ledger.site_key.who(address)
        relay_events.promise_broken(who, found.reason.word, found.evidence)
