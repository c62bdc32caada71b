"""What the relay did, noted on its path and written down off it.

A refusal that waited for the disk would cost each RCPT some milliseconds; so doors only note it, and a thread commits
what gathered, once a second. A kill -9 may therefore lose the last second of the report. It never loses a suppression,
nor lets mail through: nothing that decides anything is written here.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from datetime import datetime
from typing import Final

from daemon import events, relay_events
from storage import refusals
from storage.engine import Ledger, Unavailable, Unusable
from storage.refusals import Outcome, Refusal, Tally
from storage.terms import seconds
from storage.write import write

_AT_ONCE: Final = 5_000  # refusals a transaction: about 0.1 s, for which a live opt-out may have to wait
_GAP: Final = 0.05  # s between two full transactions, in which others get their turn
_LAST_DELAY: Final = 15.0  # s: tried again after 1, 2, 4, 8, 15, 15...
_STOP_SECONDS: Final = 5.0


class Register:
    """Counts recipients and keeps refusals. `note` and `keep` are for any thread: about 1 us, no waiting, no error.

    `every`: s between two commits. `most`: how many refusals may wait while the ledger is away; of what comes on top
    only the counts are kept, and `refusals_not_kept` says how many those are.
    """

    def __init__(self, ledger: Ledger, now: Callable[[], datetime], *, every: float = 1.0, most: int = 20_000):
        self._ledger, self._now, self._every = ledger, now, every
        self._lock = threading.Lock()  # around what follows; only ever held for as long as it takes to swap a list
        self._counts: dict[tuple[Outcome, int, str, int], int] = {}
        self._fresh: list[Refusal] = []
        self._room = most
        self._not_kept = 0
        # of the thread alone: what it took over and has not committed yet. Counts are few: combinations times hours.
        self._held: list[Refusal] = []
        self._tallies: dict[Tally, int] = {}
        self._told = False  # of an outage
        self._stopping = threading.Event()
        # Not a daemon thread: the interpreter must not end in the middle of a commit.
        self._thread = threading.Thread(target=self._work, name="register")

    # ---- for the doors

    def note(self, outcome: Outcome, list_number: int, credential: str, reason: int, n: int = 1) -> None:
        """Count recipients (messages, for `duplicate` and `foreign`). 0, "" and 0 stand for none."""
        counted = (outcome, list_number, credential, reason)
        with self._lock:
            self._counts[counted] = self._counts.get(counted, 0) + n

    def keep(self, *of_one_transaction: Refusal) -> None:
        """Keep refusals and count them (no `note` beside it). Those of one transaction together: they share `others`."""
        with self._lock:
            for place, refusal in enumerate(of_one_transaction):
                counted = (refusal.outcome, refusal.list_number, refusal.credential, refusal.reason)
                self._counts[counted] = self._counts.get(counted, 0) + 1
                if self._room <= 0:
                    self._not_kept += 1
                    continue
                self._room -= 1
                self._fresh.append(refusal._replace(others=0) if place else refusal)

    # ---- start and stop

    def start(self) -> None:
        """Begin to write down."""
        self._thread.start()

    async def stop(self) -> None:
        """Write down the rest and end, within 5 s; what the ledger does not take by then is told as not kept."""
        self._stopping.set()
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join, _STOP_SECONDS)

    # ---- the thread

    def _work(self) -> None:
        delay = self._every
        while not self._stopping.wait(delay):
            delay = self._every if self._save() else min(2 * delay, _LAST_DELAY)
        if not self._save():
            relay_events.refusals_not_kept(len(self._held))

    def _save(self) -> bool:
        """Commit what gathered. False: the ledger is away, all is still held."""
        self._take_over()
        try:
            self._commit()
        except (Unavailable, Unusable) as why:
            if not self._told:  # once an outage, not once an attempt
                relay_events.refusals_waiting(len(self._held), why)
            self._told = True
            return False
        except Exception as error:  # noqa: BLE001 - a thread's outermost loop: told in our log, the counting goes on
            events.failed("register", error)
            self._drop()  # it would fail again, and all that comes after it would wait
        self._told = False
        return True

    def _take_over(self) -> None:
        """What gathered joins what is held. The hour is that of now: nothing here is older than since the last look."""
        hour = seconds(self._now()) // 3600
        with self._lock:
            counts, self._counts = self._counts, {}
            fresh, self._fresh = self._fresh, []
            not_kept, self._not_kept = self._not_kept, 0
        self._held += fresh
        for (outcome, list_number, credential, reason), n in counts.items():
            tally = Tally(hour, list_number, credential, outcome, reason)
            self._tallies[tally] = self._tallies.get(tally, 0) + n
        if not_kept:
            relay_events.refusals_not_kept(not_kept)

    def _commit(self) -> None:
        """Write down all that is held. Raises Unavailable, Unusable."""
        while self._held or self._tallies:
            some = self._held[:_AT_ONCE]
            with write(self._ledger, self._now(), "relay") as w:
                refusals.record(w, some, self._tallies)
            self._tallies = {}
            self._release(len(some))
            if self._held:
                self._stopping.wait(_GAP)

    def _drop(self) -> None:
        lost = min(len(self._held), _AT_ONCE)
        self._tallies = {}
        self._release(lost)
        relay_events.refusals_not_kept(lost)

    def _release(self, number: int) -> None:
        del self._held[:number]
        with self._lock:
            self._room += number
