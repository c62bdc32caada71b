"""One round of the clock of duty: look at everything, compare with what stands, write down what is new and what is over.

What cannot be told (the database is away, a detector failed) is neither raised nor ended. While the database is away
the alarms live in memory, and are written down when it is back.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Final

from daemon import events
from daemon.duty import requests
from daemon.duty.alarm import Alarm, Glance, Key, Limits, Look
from daemon.duty.detectors import OF_THE_LEDGER, OF_THE_PARTS, name_of
from daemon.log import nameless
from daemon.vitals import AlarmVitals, DutyVitals, Vitals
from storage import alarms, disk, waiting
from storage.alarms import Noted
from storage.engine import Ledger, Unavailable, Unusable
from storage.write import write

_AWAY: Final = timedelta(minutes=2)
_BUG: Final = timedelta(minutes=10)  # a detector may stumble once over a database that goes away meanwhile
_GONE: Final = timedelta(minutes=5)  # what another node found and does not find any more: it is gone, or not its to see
_ROUND: Final = "rounds.look"  # the detector that we are ourselves


@dataclass
class Rounds:
    """What is remembered from one round to the next. Each round runs in a thread; never two at once.

    `node`: which of several nodes we are; "": there is only one. `quiet`: nobody is mailed, so nobody waits for an end.
    """

    ledger: Ledger
    now: Callable[[], datetime]
    node: str = ""
    host: str = ""
    limits: Limits = field(default_factory=Limits)
    quiet: bool = True
    monotonic: Callable[[], float] = time.monotonic
    known: list[Noted] = field(default_factory=list)  # those that stand, and those whose end nobody was told of
    last_told: datetime | None = None
    duty: DutyVitals = field(default_factory=DutyVitals)
    reachable: bool = False  # could the database be asked?
    jump: timedelta = timedelta(0)
    _unsaved: list[Noted] = field(default_factory=list)
    _pending: dict[Key, tuple[str, datetime]] = field(default_factory=dict)  # found, not ripe: by which, since when
    _clocks: tuple[datetime, float] | None = None

    def look(self, vitals: Vitals, *, everything: bool) -> None:
        """One round. `everything`: look into the ledger, too, and end what gone nodes have left."""
        now = self.now()
        self._compare_clocks(now)
        why = self._read()
        self.reachable = why is None
        standing = {alarm.key: alarm.since for alarm in self.known if alarm.ended is None}
        beside = f" of {self.host}" if self.host else ""
        glance = Glance(vitals, now, self.limits, standing, self._free(), self.jump, beside)
        finding = _Finding(now)
        for part in OF_THE_PARTS:
            finding.run(name_of(part), partial(part, glance))
        finding.run(_ROUND, lambda: _away(now, beside, why) if why is not None else iter(()))
        if why is None:
            if everything:
                for detector in OF_THE_LEDGER:
                    finding.run(name_of(detector), partial(self._with_ledger, detector, vitals, now, standing))
            finding.run("rounds.duty", partial(self._with_ledger, self._see_duty, vitals, now, standing))
        self._note(finding, now, everything=everything)
        self._tell_vitals()

    def _free(self) -> dict[str, int]:
        """Where we write -> octets left."""
        found = self.ledger.free()
        with suppress(OSError):  # stderr is closed
            if stat.S_ISREG(os.fstat(2).st_mode) and (left := disk.free(2)) is not None:  # a journal keeps itself small
                found["log"] = left
        return found

    def _compare_clocks(self, now: datetime) -> None:
        """How much further did the wall clock go than time did?"""
        ticked = self.monotonic()
        if self._clocks is not None:
            before, then = self._clocks
            self.jump = now - before - timedelta(seconds=ticked - then)
        self._clocks = now, ticked

    def _read(self) -> Exception | None:
        """What is written down, and what only we know yet; None, or why it cannot be read."""
        try:
            with self.ledger.connect() as db:
                rows, last = alarms.unsettled(db), alarms.last_told(db)
        except (Unavailable, Unusable) as why:
            return why
        self.known = _overlaid(rows, self._unsaved)
        self.last_told = max(filter(None, (last, self.last_told)), default=None)
        return None

    def _with_ledger(
        self,
        detector: Callable[[Look], Iterable[Alarm]],
        vitals: Vitals,
        now: datetime,
        standing: Mapping[Key, datetime],
    ) -> list[Alarm]:
        """Each has a connection of its own: what one breaks is whole for the next."""
        with self.ledger.connect() as db:
            return list(detector(Look(self.ledger, db, vitals, now, self.limits, standing)))

    def _see_duty(self, look: Look) -> Iterable[Alarm]:
        """What console and metrics show beside the alarms."""
        found, owed = requests.oldest(look), waiting.notices(look.db)
        self.duty = replace(
            self.duty,
            open_since=found.since if found else None,
            waits=found.what if found else "",
            due=found.since + self.limits.due if found else None,
            notices=owed.number,
            oldest_notice=owed.since,
        )
        return ()

    # ---- what is new, what goes on, what is over

    def _note(self, finding: _Finding, now: datetime, *, everything: bool) -> None:
        standing = {alarm.key: alarm for alarm in self.known if alarm.ended is None}
        changed: list[Noted] = []
        for key, (detector, alarm) in finding.found.items():
            if (old := standing.get(key)) is not None:
                text, advice = alarm.text or old.text, alarm.advice or old.advice
                changed.append(replace(old, node=self.node, detector=detector, seen=now, text=text, advice=advice))
            elif (first := self._ripe(detector, alarm, now)) is not None:
                since = min(alarm.since, first)
                changed.append(Noted(*key, self.node, detector, since, now, alarm.text, alarm.advice))
                events.alarm_raised(*key, since.isoformat(), alarm.text, alarm.advice)
        for key, old in standing.items():
            looked = old.detector in finding.ran or (
                everything and self.reachable and old.detector not in finding.tried
            )
            ours = old.node == self.node and looked
            gone = everything and old.node != self.node and abs(now - old.seen) > _GONE
            if key not in finding.found and (ours or gone):
                changed.append(replace(old, ended=now, closed=now if self.quiet else None))
                events.alarm_ended(*key, old.since.isoformat())
        self._pending = {
            key: pending
            for key, pending in self._pending.items()
            if key in finding.found or pending[0] not in finding.ran
        }
        self.keep(changed)

    def _ripe(self, detector: str, alarm: Alarm, now: datetime) -> datetime | None:
        """Since when it is found, if that is long enough."""
        key = alarm.kind, alarm.about
        _, first = self._pending.setdefault(key, (detector, now))
        if abs(now - first) < alarm.ripe:
            return None
        del self._pending[key]
        return first

    def keep(self, changed: Iterable[Noted]) -> None:
        """Write these down; if that cannot be done now, with the next that are."""
        self._unsaved = _overlaid(self._unsaved, changed)
        self.known = _overlaid(self.known, self._unsaved)
        if not self._unsaved:
            return
        try:
            with write(self.ledger, self.now(), "duty") as w:
                alarms.save(w, self._unsaved)
                alarms.forget(w)
        except (Unavailable, Unusable):
            return  # they wait; and that the database is away is an alarm of its own
        self._unsaved = []
        self.known = [alarm for alarm in self.known if alarm.ended is None or alarm.closed is None]

    def _tell_vitals(self) -> None:
        standing = sorted((a for a in self.known if a.ended is None), key=lambda a: a.since, reverse=True)
        told = tuple(AlarmVitals(a.kind, a.about, a.since, a.text, a.advice) for a in standing)
        self.duty = replace(self.duty, alarms=told)


@dataclass
class _Finding:
    """What a round finds: by key, with the detector; which detectors were asked, and which of them have ended well."""

    now: datetime
    found: dict[Key, tuple[str, Alarm]] = field(default_factory=dict)
    tried: set[str] = field(default_factory=set)
    ran: set[str] = field(default_factory=set)

    def run(self, name: str, look: Callable[[], Iterable[Alarm]]) -> None:
        """One detector: whatever it trips over, the others look all the same."""
        self.tried.add(name)
        try:
            alarms_of_it = list(look())
        except (Unavailable, Unusable) as why:
            self._note_failure(name, str(why))
        except Exception as error:  # noqa: BLE001 - a detector with a bug must not blind the others; told in our log
            events.failed(f"detector {name}", error)
            self._note_failure(name, type(error).__name__)
        else:
            self.ran.add(name)
            for alarm in alarms_of_it:  # what a server said may have an address in it
                self.found[alarm.kind, alarm.about] = name, replace(alarm, text=nameless(alarm.text))

    def _note_failure(self, name: str, why: str) -> None:
        text = f"optoutd could not look after one of its duties: {name} ({why})"
        advice = "That alarm is blind until then. Look for `failed` in the log, and report it."
        alarm = Alarm("detector-failed", name, self.now, nameless(text), advice, _BUG)
        self.found["detector-failed", name] = _ROUND, alarm


def _away(now: datetime, beside: str, why: Exception) -> Iterator[Alarm]:
    text = f"The database cannot be asked{beside} ({why})"
    advice = (
        "All mail is deferred and no opt-out can be written down until it is back. Look at [storage] and its server."
    )
    yield Alarm("database-away", beside.strip(), now, text, advice, _AWAY)


def _overlaid(rows: Iterable[Noted], changes: Iterable[Noted]) -> list[Noted]:
    """The rows with these changes, and behind them what is new."""
    result = list(rows)
    for change in changes:
        place = next((n for n, row in enumerate(result) if _same(row, change)), None)
        if place is None:
            result.append(change)
            continue
        row = result[place]
        result[place] = replace(
            change,
            since=row.since,
            id=change.id or row.id,
            told=change.told or row.told,
            ended=change.ended or row.ended,
            closed=change.closed or row.closed,
        )
    return result


def _same(row: Noted, change: Noted) -> bool:
    if row.id is not None and change.id is not None:
        return row.id == change.id
    return row.key == change.key and row.ended in (None, change.ended)
