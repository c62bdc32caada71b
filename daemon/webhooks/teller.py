"""Telling a program of changes: in order, at least once, and not for ever.

A thread for each hook, so that a dead one delays no other. A hook's place in the audit log goes on after the receiver has
said 2xx: a crash in between has the change told once more, under the same id. What could not be told for LIFE is given
up: it waits in `undelivered` for somebody, and the hook goes on behind it.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from daemon import events
from daemon.webhooks import told
from daemon.webhooks.told import Hook
from daemon.webhooks.wire import Line, NoAnswer
from storage import hooks
from storage.engine import Ledger, Unavailable, Unusable
from storage.hooks import Lost, Place
from storage.suppressions import Fact
from storage.terms import seconds
from storage.write import write

POLL_SECONDS: Final = 1.0  # between two looks at the audit log's end
COMMIT_SECONDS: Final = 1.0  # the place is written down at least so often, and in the end
LIFE: Final = timedelta(days=3)
_TRIES: Final = 10  # failures in a row before anything is given up: after a long stop of ours everything is old
_RETRY: Final = (5.0, 3600.0)  # s, doubling from the first to the last
_JITTER: Final = 0.2  # by so much a wait may be shorter
_LAZY: Final = 500  # rows of which a hook is not told: behind so many its place is written down all the same
_AWAY_SECONDS: Final = 5.0  # between two tries to reach the ledger
_BUG_SECONDS: Final = 60.0
_LAST_SECONDS: Final = (
    2.0  # for the post in hand, when we are told to stop; then it is cut off, and sent again some time
)
_CHANCE: Final = random.SystemRandom()


class _Trouble(NamedTuple):
    """Why a change could not be told. `answered`: the receiver said no, so the next change may fare better."""

    why: str
    answered: bool


class Tellers:
    """All hooks of a config, at work."""

    def __init__(self, ledger: Ledger, of: Iterable[Hook], now: Callable[[], datetime]):
        self._tellers = [Teller(ledger, hook, now) for hook in of]

    def start(self) -> None:
        """Begin."""
        for teller in self._tellers:
            teller.start()

    def stop(self) -> None:
        """Begin nothing more, and wait for what is under way, but not for long."""
        end = time.monotonic() + _LAST_SECONDS
        for teller in self._tellers:
            teller.ask_to_stop()
        for teller in self._tellers:
            teller.join(max(0.0, end - time.monotonic()))
        for teller in self._tellers:
            teller.line.cut()
        for teller in self._tellers:
            teller.join(_LAST_SECONDS)


class Teller(threading.Thread):
    """Tells one program. A daemon thread: one that hangs in a look-up of a name must not keep us from ending."""

    def __init__(self, ledger: Ledger, hook: Hook, now: Callable[[], datetime]):
        super().__init__(name=f"hook {hook.name}", daemon=True)
        self.line = Line(hook.url, hook.ca_file)
        self._ledger, self._hook, self._now = ledger, hook, now
        self._actor = f"hook {hook.name}"
        self._stopping = threading.Event()
        self._reached = 0  # the last audit row that is dealt with, though it may not be written down yet
        self._epoch = 0  # in which that was its number

    def ask_to_stop(self) -> None:
        """Begin no other post."""
        self._stopping.set()

    def run(self) -> None:
        """Look every second, until told to stop."""
        while not self._stopping.is_set():
            pause = POLL_SECONDS
            try:
                if self.turn():
                    continue
            except (Unavailable, Unusable) as why:
                events.database_unavailable(why)
                pause = _AWAY_SECONDS
            except Exception as error:  # noqa: BLE001 - told in our log; a bug that one change trips must not end the thread
                events.failed(self._actor, error)
                pause = _BUG_SECONDS
            self.line.close()
            self._stopping.wait(pause)
        self.line.close()

    def turn(self) -> bool:
        """Do what is due. False: nothing is, for now. Raises Unavailable, Unusable."""
        with self._ledger.connect() as db:
            place = hooks.place(db, self._hook.name)
        if place is None:
            with write(self._ledger, self._now(), self._actor) as w:
                hooks.begin(w, self._hook.name)
            return True
        if seconds(self._now()) < place.due:
            return False
        wanted = self._wanted_again(place) if place.due == 0 or place.failures else []
        return self._tell_again(place, wanted) if wanted else self._tell_new(place)

    # ---- what is new

    def _tell_new(self, place: Place) -> bool:
        if place.epoch != self._epoch or place.head < self._reached:  # restored: numbers are given a second time
            self._epoch, self._reached = place.epoch, place.reached
        self._reached = max(self._reached, place.reached)
        if place.head <= self._reached:
            return False
        with self._ledger.connect() as db:
            changes, last = hooks.window(db, self._reached, place.head)
        mine = [c for c in changes if told.kind_of(c.event, c.reason) in self._hook.events]
        some, trouble = self._tell(mine)
        self._reached = some[-1].seq if some else self._reached
        if len(some) == len(mine):
            self._reached = last
        if trouble is not None:
            self._note_failure(place, trouble, mine[len(some) :])
        elif some or (not place.failures and self._reached - place.reached >= _LAZY):
            self._note_success(place, self._reached)
        return trouble is None and self._reached < place.head

    def _tell(self, changes: Sequence[Fact]) -> tuple[Sequence[Fact], _Trouble | None]:
        """Tell of these in order, as far as it goes. Returns what was told, and why the next one was not."""
        end = time.monotonic() + COMMIT_SECONDS
        for number, change in enumerate(changes):
            if self._stopping.is_set() or time.monotonic() > end:
                return changes[:number], None
            trouble = self._post(change)
            if trouble is not None:
                return changes[:number], None if self._stopping.is_set() else trouble
        return changes, None

    def _post(self, change: Fact) -> _Trouble | None:
        with self._ledger.reading() as db:
            message_id, body = told.compose(db, self._ledger, self._hook, change)
        try:
            answer = self.line.post(body, told.signed(self._hook, message_id, body, self._now()))
        except NoAnswer as why:
            return _Trouble(str(why), answered=False)
        if answer.trouble:
            return _Trouble(answer.trouble, answered=True)
        events.hook_told(self._hook.name, change.seq)
        return None

    def _note_success(self, place: Place, reached: int, *, more: bool = False) -> None:
        with write(self._ledger, self._now(), self._actor) as w:
            hooks.went_well(w, self._hook.name, reached, more=more)
            if place.failures:
                w.after_commit(lambda: events.hook_recovered(self._hook.name, place.failures))

    def _note_failure(self, place: Place, trouble: _Trouble, left: Sequence[Fact]) -> None:
        """`left`: what could not be told, first of all the change that was tried."""
        now, why = self._now(), events.masked(trouble.why)
        failures, wait = place.failures + 1, _wait(place.failures)
        old = [c for c in left if now - c.at > LIFE] if failures >= _TRIES else []
        if trouble.answered:
            old = old[:1]  # the others have not been tried, and may fare better
            wait = 0.0 if old else wait
        with write(self._ledger, now, self._actor) as w:
            hooks.give_up(w, self._hook.name, old, why)
            reached = old[-1].seq if old else self._reached
            hooks.failed(w, self._hook.name, reached, failures, now + timedelta(seconds=wait), why)
            w.after_commit(lambda: events.hook_failed(self._hook.name, why, wait))
            if old:
                w.after_commit(lambda: events.hook_gave_up(self._hook.name, len(old), why))
        self._reached = reached

    # ---- what somebody wants sent again

    def _wanted_again(self, place: Place) -> list[Lost]:
        with self._ledger.connect() as db:
            wanted = hooks.wanted_again(db, self._hook.name)
        if not wanted and place.due == 0:
            with write(self._ledger, self._now(), self._actor) as w:
                hooks.all_sent_again(w, self._hook.name)
        return wanted

    def _tell_again(self, place: Place, wanted: Sequence[Lost]) -> bool:
        some, trouble = self._tell([lost.change for lost in wanted])
        with write(self._ledger, self._now(), self._actor) as w:
            hooks.sent_again(w, [lost.id for lost in wanted[: len(some)]])
            if trouble is not None and trouble.answered:  # somebody has looked after it, and it was in vain
                hooks.refused_again(w, wanted[len(some)].id, events.masked(trouble.why))
        if trouble is not None and not trouble.answered:
            self._note_failure(place, trouble, ())
        elif some and place.failures:
            self._note_success(place, place.reached, more=True)
        return trouble is None or trouble.answered


def _wait(failures: int) -> float:
    """Seconds until the next try, after so many failures before this one."""
    first, last = _RETRY
    longest: float = min(first * 2 ** min(failures, 20), last)
    return longest * (1 - _JITTER * _CHANCE.random())
