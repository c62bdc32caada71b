"""What an operator wants to see at a glance: what waits, what was done when, how many of what.

Each question is bounded, whatever the ledger holds, but `refusals.standing`, which counts all suppressions (about 0.1 s a
million): whoever shows it keeps the answer for a while. Nothing here decides anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Final

from sqlalchemy import Connection

from storage import brake, canaries, hooks, leases
from storage.audit import Chain
from storage.deferral import deferred
from storage.engine import Ledger
from storage.refusals import Outcome
from storage.terms import Reason, seconds, utc

MOST_ROWS: Final = 500_000  # of the audit log that are looked at for a plot: half a second
_DAY: Final = 86_400


@dataclass(frozen=True, slots=True)
class Record:
    """The audit log. `last`: its last sequence number; `verified`: up to where the last check found it whole; `as_left`:
    does it end as the last writer left it?"""

    last: int
    verified: int
    as_left: bool


@dataclass(frozen=True, slots=True)
class Sight:
    """How things stand now.

    `reviews`: how many wait for a person, and since when the oldest. `begun`, `to_be_filed`: messages whose reading has
    not ended, and those that are owed their folder. `jobs`: when each last ended well. `deferring_since`: from when on
    the list has a gap, so that nobody is told that they may be mailed. `holders`: role -> node, of leases that hold.
    `pulled`: what the brake holds up, and since when. `hooks`: by name, those of which there is something to tell.
    """

    reviews: int
    oldest_review: datetime | None
    begun: int
    to_be_filed: int
    record: Record
    jobs: Mapping[str, datetime]
    deferring_since: datetime | None
    holders: Mapping[str, str]
    pulled: Mapping[str, datetime] = field(default_factory=dict)
    hooks: Mapping[str, HookSight] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class HookSight:
    """Of a program that is told of changes: why the last try failed ("": it did not), and how many changes were given up."""

    trouble: str
    undelivered: int


def sight(ledger: Ledger, mailboxes: Iterable[str]) -> Sight:
    """Some milliseconds. Raises Unavailable, Unusable."""
    with ledger.reading() as db:
        waiting, oldest = db.exec_driver_sql("SELECT count(*), min(at) FROM review WHERE state = 'open'").one()
        states = [_states(db, mailbox) for mailbox in mailboxes]
        gap = deferred(db)
        return Sight(
            reviews=int(waiting),
            oldest_review=None if oldest is None else utc(oldest),
            begun=sum(s.get("reading", 0) for s in states),
            to_be_filed=sum(s.get("owed", 0) for s in states),
            record=record(db, Chain(ledger.site_key)),
            jobs={name: utc(at) for name, at in db.exec_driver_sql("SELECT name, at FROM job_run")},
            deferring_since=gap.since if gap else None,
            holders=leases.held(db),
            pulled={what: of.since for what, of in brake.pulled(db).items()},
            hooks=_hooks(db),
        )


def _hooks(db: Connection) -> dict[str, HookSight]:
    places, counts = hooks.places(db), hooks.counts(db)
    names = [name for name in {*places, *counts} if name in counts or places[name].failures]
    none = hooks.Counts()
    return {n: HookSight(places[n].trouble if n in places else "", counts.get(n, none).undelivered) for n in names}


def _states(db: Connection, mailbox: str) -> dict[str, int]:
    query = "SELECT state, count(*) FROM incoming WHERE mailbox = ? AND state IN ('reading', 'owed') GROUP BY state"
    return {state: int(number) for state, number in db.exec_driver_sql(query, (mailbox,))}


def record(db: Connection, chain: Chain) -> Record:
    """How the audit log ends."""
    notes = {
        n: bytes(v) for n, v in db.exec_driver_sql("SELECT name, value FROM meta WHERE name IN ('head', 'verified')")
    }
    head, verified = chain.head(db), chain.read_checkpoint(notes.get("verified"))
    return Record(head.seq, verified.seq if verified else 0, chain.sealed(head, notes.get("head")))


# ------------------------------------------------------------------ day by day, hour by hour


@dataclass(frozen=True, slots=True)
class OptOuts:
    """(day UTC, source) -> how many people were suppressed because they asked. `whole`: back to the first day that was
    asked for; a record too long for that is looked at from its end."""

    of: Mapping[tuple[date, str], int]
    whole: bool


def opt_outs(ledger: Ledger, now: datetime, days: int, most: int = MOST_ROWS) -> OptOuts:
    """Of the last `days` days, today included. Raises Unavailable, Unusable."""
    first_day = seconds(now) // _DAY - days + 1
    with ledger.reading() as db:
        first, start = first_since(db, first_day * _DAY), _start(db, first_day * _DAY, most)
        query = (
            "SELECT at / 86400, source, count(*) FROM audit"
            " WHERE seq >= ? AND event = 'suppressed' AND reason = ? AND at >= ? AND actor <> ?"
            " GROUP BY at / 86400, source"
        )
        values = (start, int(Reason.OPT_OUT), first_day * _DAY, canaries.ACTOR)
        rows = db.exec_driver_sql(query, values).all()
    return OptOuts({(_day(day), source or "operator"): int(number) for day, source, number in rows}, start == first)


def suppressed(db: Connection, after: datetime, until: datetime, most: int) -> Mapping[str, tuple[int, datetime]]:
    """source -> how many rows were written, and the first when; of the last `most` rows of the record."""
    begin, end = seconds(after), seconds(until)
    query = (
        "SELECT source, count(*), min(at) FROM audit"
        " WHERE seq >= ? AND event = 'suppressed' AND at > ? AND at <= ? AND actor <> ? GROUP BY source"
    )
    rows = db.exec_driver_sql(query, (_start(db, begin, most), begin, end, canaries.ACTOR)).all()
    return {source: (int(number), utc(at)) for source, number, at in rows if source}


def suppressed_before(
    db: Connection, until: datetime, length: int, windows: int, most: int
) -> Mapping[str, Sequence[int]]:
    """source -> how many, for each of so many windows of `length` seconds before `until` in which there were some."""
    end = seconds(until)
    begin = end - length * windows
    query = (
        "SELECT source, (? - at) / ?, count(*) FROM audit"
        " WHERE seq >= ? AND event = 'suppressed' AND at > ? AND at <= ? AND actor <> ? GROUP BY 1, 2"
    )
    found: dict[str, list[int]] = {}
    values = (end, length, _start(db, begin, most), begin, end, canaries.ACTOR)
    for source, _, number in db.exec_driver_sql(query, values):
        found.setdefault(source or "", []).append(int(number))
    return found


def _start(db: Connection, moment: int, most: int) -> int:
    """The first row of the record to look at: of this time, or as far back as is looked at all."""
    last = int(db.exec_driver_sql("SELECT coalesce(max(seq), 0) FROM audit").scalar_one())
    return max(first_since(db, moment), last - most + 1)


# Each in a SELECT of its own: SQLite answers min and max from an index, but not two of them at once.
_ENDS: Final = "SELECT coalesce((SELECT min(seq) FROM audit), 1), coalesce((SELECT max(seq) FROM audit), 0) + 1"


def first_since(db: Connection, moment: int) -> int:
    """The sequence number of the first audit row of this time (seconds) or later; one more than the last, if there is none.

    `at` has no index: the rows are in the order of time (but for a clock that was set back), so we look in the middle.
    """
    low, high = db.exec_driver_sql(_ENDS).one()
    while low < high:
        query = "SELECT seq, at FROM audit WHERE seq >= ? ORDER BY seq LIMIT 1"
        seq, at = db.exec_driver_sql(query, ((low + high) // 2,)).one()
        low, high = (seq + 1, high) if at < moment else (low, (low + high) // 2)
    return int(low)


def _day(number: int) -> date:
    return date(1970, 1, 1) + timedelta(days=number)


def relayed(ledger: Ledger, now: datetime, hours: int) -> Mapping[tuple[datetime, Outcome], int]:
    """(hour UTC, outcome) -> recipients, of the last `hours` hours, this one included. Raises Unavailable, Unusable."""
    query = "SELECT hour, outcome, sum(count) FROM tally WHERE hour > ? GROUP BY hour, outcome"
    with ledger.connect() as db:
        rows = db.exec_driver_sql(query, (seconds(now) // 3600 - hours,)).all()
    return {(utc(hour * 3600), outcome): int(number) for hour, outcome, number in rows}
