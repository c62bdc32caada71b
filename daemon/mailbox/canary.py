"""The canary: once a day a message of ours goes the way of a request, and all that came of it is taken back.

    written down -> APPEND, seen -> search, attempt, fetch, as all mail -> triage.read -> intake.act (committed)
    -> the gate refuses -> UID EXPUNGE -> lifted (committed)

A run is written down before its message is sent. Whatever comes between, the next connection clears what was left of it,
before it reads anything. Who else's message bears a token of ours is read like any other.
"""

from __future__ import annotations

import hmac
import secrets
import time
import zlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Final

from daemon import events
from daemon.config import Mailbox
from daemon.gate import Pass, Refused
from daemon.intake import Envelope
from daemon.log import nameless
from daemon.mail import canary
from daemon.mail.reading import OptOut, label
from daemon.mailbox.means import Means
from daemon.mailbox.session import Failed, Fetched, Session
from storage import canaries, incoming
from storage.address import parse
from storage.canaries import Result, Run, State
from storage.incoming import Place
from storage.terms import seconds
from storage.write import Write, write

_DAY: Final = 86_400
_LOOK_AGAIN: Final = 0.2  # s between two searches while a message is on its way
_NO_UIDPLUS: Final = "the server has no UIDPLUS: one message cannot be removed without risking others"


@dataclass(frozen=True, slots=True)
class Rhythm:
    """How often, in seconds. `first`: after the first start ever, and up to `spread` more, by the mailbox's name; `every`:
    after one that passed; `again`: after one that failed; `soon`: after one that something came between; `patience`: for
    a message to appear in the mailbox."""

    first: int = 600
    spread: int = 300
    every: int = _DAY
    again: int = 3600
    soon: int = 600
    patience: float = 30.0


DAILY: Final = Rhythm()


class _Wrong(Exception):
    """The message did not come through `step`."""

    def __init__(self, step: str, why: str):
        super().__init__(why)
        self.step, self.why = step, why


@dataclass(slots=True)
class _Clock:
    """Of one run: which step was done how many seconds after its beginning."""

    began: float = field(default_factory=time.monotonic)
    done: dict[str, float] = field(default_factory=dict)

    def tick(self, step: str) -> None:
        """This step is done."""
        self.done[step] = round(self.lasted, 4)

    @property
    def lasted(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self.began


class Canary:
    """Of one mailbox."""

    def __init__(self, settings: Mailbox, means: Means, rhythm: Rhythm = DAILY):
        self._settings, self._means, self._rhythm = settings, means, rhythm
        self._wanted = settings.canary and not settings.observe and settings.role == "support"
        self._state: State | None = None  # as it stands in the ledger
        self._clock: _Clock | None = None  # of a message that is on its way

    # ---- for the loop

    def begin(self, session: Session) -> None:
        """A new connection: clear what was left of an earlier run, and see when the next is due."""
        name, now, rhythm = self._settings.name, self._now(), self._rhythm
        self._clock = None
        with self._means.ledger.connect() as db:
            state = self._state = canaries.state(db, name)
        if state is not None and state.left:
            state = self._clear(session, state)
        if not self._wanted:
            if state is not None and not state.left:
                with self._writing() as w:
                    canaries.forget(w, name)
                self._state = None
            return
        first = now + rhythm.first + (zlib.crc32(name.encode()) % rhythm.spread if rhythm.spread else 0)
        if state is None:
            self._put(State(first=now, due=first))
        elif state.due > now + rhythm.every:  # the clock was set back
            self._put(replace(state, due=first))

    def wait(self) -> float:
        """For how many seconds it can do without the loop."""
        if self._state is None or not self._wanted:
            return float(_DAY)
        return _LOOK_AGAIN if self._clock is not None else max(self._state.due - self._now(), 0)

    def tend(self, session: Session) -> None:
        """The folders have been read. Send a message if one is due; tell of one that did not appear."""
        state = self._state
        if state is None or not self._wanted:
            return
        if self._clock is None:
            if self._now() >= state.due:
                self._send(session, state)
        elif self._clock.lasted > self._rhythm.patience:
            why = f"the message did not appear in the folder within {self._rhythm.patience:g} s"
            self._end(session, state, None, "noticed", why)

    def end(self, session: Session) -> None:
        """We were told to stop: a message that is on its way is not left in the mailbox."""
        if self._clock is not None and self._state is not None:
            self._clock = None
            self._clear(session, self._state)

    # ---- sending

    def _send(self, session: Session, state: State) -> None:
        if not session.expunges:
            self._put(replace(state, due=self._now() + self._rhythm.every, skipped=_NO_UIDPLUS))
            events.canary_skipped(self._settings.name, _NO_UIDPLUS)
            return
        if state.left:
            state = self._clear(session, state)
        if state.left:  # one an hour would fill somebody's folder until a person comes; what is wrong was told
            self._put(replace(state, due=self._now() + self._rhythm.again))
            return
        when, ledger = self._means.now(), self._means.ledger
        made = canary.compose(
            ledger.site_key, self._means.intake.house, when, secrets.token_bytes(canary.CHANCE_OCTETS)
        )
        folder = self._settings.folders[0]
        run = Run(seconds(when), made.address, made.token, made.message_id, folder)
        state = replace(state, run=run, open=True, left=True, skipped="")
        self._put(state)
        self._clock = _Clock()
        try:
            session.append(folder, made.raw, when)
        except Failed as failure:
            if not failure.refused:
                raise
            self._end(session, state, None, "append", nameless(failure.why))
        else:
            self._clock.tick("append")

    # ---- reading

    def is_ours(self, fetched: Fetched) -> bool:
        """Is this the message of the last run, whether it is awaited or too late? Any other is not ours."""
        run = self._state.run if self._state is not None else None
        if run is None or run.token.encode() not in fetched.raw.lower():
            return False
        found = canary.token_of(fetched.raw, self._means.ledger.site_key)
        return hmac.compare_digest(found, run.token)

    def take(self, session: Session, fetched: Fetched, envelope: Envelope) -> None:
        """It has come up in the folder. One that is too late only goes."""
        state = self._state
        assert state is not None
        step = why = ""
        if self._clock is None or not state.open:
            self._end(session, state, fetched.place)
            return
        self._clock.tick("noticed")
        assert state.run is not None
        try:
            self._honour(state.run, fetched, envelope, self._clock)
        except _Wrong as wrong:
            step, why = wrong.step, wrong.why
        self._end(session, state, fetched.place, step, why)

    def _honour(self, run: Run, fetched: Fetched, envelope: Envelope, clock: _Clock) -> None:
        """As a request is honoured, and see that it is. Raises _Wrong; Unavailable, Unusable."""
        reading = self._means.read(fetched.raw)
        if not isinstance(reading, OptOut) or reading.addresses != (run.address,):
            raise _Wrong("read", f"it was read as {label(reading)} ({', '.join(reading.rules)})")
        clock.tick("read")
        ours = replace(envelope, canary=True, targets={})
        done = self._means.intake.act(reading, ours, self._means.now())
        if not done.refs:
            raise _Wrong("committed", f"no suppression came of it ({done.label})")
        clock.tick("committed")
        answer = self._means.ask(parse(run.address))
        if not isinstance(answer, Refused):
            why = "the gate let the address pass" if isinstance(answer, Pass) else f"the gate cannot tell: {answer.why}"
            raise _Wrong("refused", nameless(why))
        if answer.verdict.evidence not in done.refs:
            raise _Wrong("refused", f"the gate refuses, but not for this request (ref {answer.verdict.evidence})")
        clock.tick("refused")

    # ---- taking back

    def _end(self, session: Session, state: State, place: Place | None, step: str = "", why: str = "") -> None:
        """Take all of it back, and write down what came of it. `place`: where the message lies, if that is known."""
        assert state.run is not None
        clock, self._clock = self._clock, None
        places = self._places(session, state.run) if place is None else [place]
        left, not_removed = self._remove(session, places)
        if clock is None:  # too late: what came of that run was told
            self._written(replace(state, open=False, left=bool(left)), places, left)
            return
        if not_removed and not step:
            step, why = "removed", not_removed
        clock.tick("removed")
        now, rhythm = self._now(), self._rhythm
        result = Result(now, step, why, clock.done)
        after = replace(state, open=False, left=bool(left), result=result)
        if step:
            after = replace(after, due=now + rhythm.again, failed=state.failed or now)
        else:
            after = replace(after, due=state.run.began + rhythm.every, passed=now, failed=None)
        self._written(after, places, left)
        if step:
            events.canary_failed(self._settings.name, step, why)
        else:
            c = clock.done
            events.canary_passed(
                self._settings.name, c["append"], c["noticed"], c["read"], c["committed"], c["refused"], c["removed"]
            )

    def _clear(self, session: Session, state: State) -> State:
        """What was left of a run, when something came between."""
        assert state.run is not None
        try:
            places = self._places(session, state.run)
        except Failed as failure:
            if not failure.refused:
                raise
            places = []  # there is no such folder now
        left, _ = self._remove(session, places)
        after = replace(state, open=False, left=bool(left))
        if state.open:
            after = replace(after, due=self._now() + self._rhythm.soon)
        self._written(after, places, left)
        if state.open:
            events.canary_broken_off(self._settings.name)
        return after

    def _places(self, session: Session, run: Run) -> list[Place]:
        """Where the message of a run lies."""
        folder = session.enter(run.folder)
        found = [session.fetch(uid) for uid in session.with_id(run.message_id)]
        return [f.place for f in found if f is not None and f.place.folder == folder.name and self.is_ours(f)]

    def _remove(self, session: Session, places: Sequence[Place]) -> tuple[list[Place], str]:
        """Returns what could not be removed, and why not."""
        left, why = [], ""
        for place in places:
            try:
                if session.enter(place.folder).uidvalidity == place.uidvalidity:
                    session.expunge(place.uid)
            except Failed as failure:
                if not failure.refused:
                    raise
                left.append(place)
                why = nameless(failure.why)
        return left, why

    def _written(self, state: State, places: Sequence[Place], left: Sequence[Place]) -> None:
        """What was removed was never there; what was not needs no second look."""
        assert state.run is not None
        with self._writing() as w:
            canaries.take_back(w, state.run, [p for p in places if p not in left])
            for place in left:
                incoming.settle_unseen(w, place)
            canaries.put(w, self._settings.name, state)
        self._state = state

    # ---- the ledger

    def _put(self, state: State) -> None:
        with self._writing() as w:
            canaries.put(w, self._settings.name, state)
        self._state = state

    def _writing(self) -> AbstractContextManager[Write]:
        return write(self._means.ledger, self._means.now(), canaries.ACTOR)

    def _now(self) -> int:
        return seconds(self._means.now())
