"""What was kept in a span of time, read from the ledger. Each question is bounded, but the count of what stands: 0.1 s a million."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection

from storage import alarms, canaries, census, sights
from storage.alarms import Noted
from storage.audit import Chain
from storage.engine import Ledger
from storage.terms import Reason, seconds, utc

MOST: Final = 100_000  # rows of one kind that are looked at, the newest
_STOPPED: Final = "('refused', 'stripped', 'withdrawn')"


@dataclass(frozen=True, slots=True)
class Week:
    """From `start` up to `end`.

    `opt_outs`: source -> people suppressed because they asked; `whole`: were they all counted? `seconds`: from the arrival of a
    mail to the commit of its opt-out, of those read by themselves and not lying there before we watched. `refused`,
    `passed`: recipients at the relay. `reviews`: decided; `open`: wait now, since `review_oldest`. `suppressions`: rows that
    stand now, without `wanted`. `head`: SEQ:HASH of the record; `as_left`: does it end as we left it? `jobs`: when each last
    ended well. `alarms`: that stood at some time in the span, a thousand at most; `kinds`: how many of each kind, of all.
    `canaries`: mailbox -> when its own test last came through.
    """

    start: datetime
    end: datetime
    opt_outs: Mapping[str, int]
    whole: bool
    seconds: tuple[float, float] | None  # (median, longest)
    refused: int
    passed: int
    reviews: int
    open: int
    review_oldest: datetime | None
    suppressions: int
    head: str
    as_left: bool
    jobs: Mapping[str, datetime]
    alarms: tuple[Noted, ...]
    kinds: Mapping[str, int]
    canaries: Mapping[str, datetime | None] = field(default_factory=dict)


def week(ledger: Ledger, start: datetime, end: datetime) -> Week:
    """Raises Unavailable, Unusable."""
    chain = Chain(ledger.site_key)
    with ledger.reading() as db:
        numbers, ways = census.numbers(db), _opt_outs(db, start, end)
        relay = _relayed(db, start, end)
        oldest, standing = numbers.review_oldest, census.suppressions(db)
        return Week(
            start,
            end,
            ways[0],
            ways[1],
            _enforcement(db, start, end),
            refused=relay[0],
            passed=relay[1],
            reviews=_decided(db, start, end),
            open=numbers.review_open,
            review_oldest=_moment(oldest),
            suppressions=sum(n for reason, n in standing.items() if reason != Reason.WANTED),
            head=str(chain.head(db)),
            as_left=sights.record(db, chain).as_left,
            jobs={name: utc(at) for name, at in numbers.jobs.items()},
            alarms=tuple(alarms.between(db, start, end)),
            kinds=alarms.kinds(db, start, end),
            canaries={mailbox: _moment(of.passed) for mailbox, of in canaries.states(db).items() if not of.skipped},
        )


def _moment(at: int | None) -> datetime | None:
    return None if at is None else utc(at)


def _opt_outs(db: Connection, start: datetime, end: datetime) -> tuple[dict[str, int], bool]:
    """By source, and whether the record was looked at back to the start."""
    first, last = sights.first_since(db, seconds(start)), census.head(db)
    query = (
        "SELECT source, count(*) FROM audit WHERE seq >= ? AND event = 'suppressed' AND reason = ? AND at >= ? AND at < ?"
        " AND actor <> ? GROUP BY source"
    )
    looked = max(first, last - sights.MOST_ROWS + 1)
    values = (looked, int(Reason.OPT_OUT), seconds(start), seconds(end), canaries.ACTOR)
    rows = db.exec_driver_sql(query, values)
    return {source or "operator": int(number) for source, number in rows}, looked == first


def _enforcement(db: Connection, start: datetime, end: datetime) -> tuple[float, float] | None:
    """(median, longest) seconds from arrival to commit. The evidence's own time is that of the commit."""
    query = (
        "SELECT e.at - i.internaldate FROM (SELECT mailbox, folder, uidvalidity, uid, internaldate, evidence FROM incoming"
        f" WHERE label = 'opt-out' AND evidence IS NOT NULL ORDER BY id DESC LIMIT {MOST}) i"
        " JOIN evidence e ON e.id = i.evidence"
        " JOIN watched_folder f ON f.mailbox = i.mailbox AND f.folder = i.folder AND f.uidvalidity = i.uidvalidity"
        " WHERE i.uid >= f.uidnext AND e.at >= ? AND e.at < ? AND i.internaldate <= e.at"  # later: asked once more
    )
    took = [float(row[0]) for row in db.exec_driver_sql(query, (seconds(start), seconds(end)))]
    return (statistics.median(took), max(took)) if took else None


def _relayed(db: Connection, start: datetime, end: datetime) -> tuple[int, int]:
    """(refused, passed) recipients, by whole hours."""
    query = (
        f"SELECT coalesce(sum(CASE WHEN outcome IN {_STOPPED} THEN count ELSE 0 END), 0),"
        " coalesce(sum(CASE WHEN outcome = 'passed' THEN count ELSE 0 END), 0) FROM tally WHERE hour >= ? AND hour < ?"
    )
    refused, passed = db.exec_driver_sql(query, (seconds(start) // 3600, -(-seconds(end) // 3600))).one()
    return int(refused), int(passed)


def _decided(db: Connection, start: datetime, end: datetime) -> int:
    query = (
        f"SELECT count(*) FROM (SELECT decided FROM review WHERE state <> 'open' ORDER BY id DESC LIMIT {MOST}) r"
        " WHERE decided >= ? AND decided < ?"
    )
    return int(db.exec_driver_sql(query, (seconds(start), seconds(end))).scalar_one())


def last_sent(db: Connection) -> datetime | None:
    """When a digest was last mailed."""
    return _moment(census.numbers(db).jobs.get("digest"))


WEEK: Final = timedelta(days=7)
