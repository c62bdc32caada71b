"""The newest suppressions, without an index for it: the audit log read backwards, a bounded stretch at a time.

A row that stands is told where it was written down. Of an import the log has one row for thousands: it is one line.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection

from storage.terms import Reason, seconds

MOST: Final = 100  # lines a page
STRETCH: Final = 200_000  # rows of the log that one page looks at, at most: a quarter of a second


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which of them: those of which all that is given holds. `since`: written down at this time or later."""

    scope: int | None = None
    reason: Reason | None = None
    source: str | None = None
    since: datetime | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """A suppression that stands, or an import (`key` None), whose `rows` are those it brought and `file` what it was called.

    `seq`: of its audit row; `at`: when it was written down, in seconds since 1970; `since`: from when on it counts.
    """

    seq: int
    at: int
    source: str | None
    evidence: int
    key: bytes | None = None
    address: str | None = None
    scope: int = 0
    reason: int = 0
    since: int = 0
    rows: int = 0
    file: str = ""
    run: int | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """`before`: what to ask for next; None: there is nothing older."""

    lines: tuple[Line, ...]
    before: int | None


_QUERY: Final = """
    SELECT a.seq, a.at, a.source, a.evidence, s.key, p.address, s.scope, s.reason, s.since,
           CASE WHEN a.event = 'imported' THEN e.detail END
    FROM audit a
    LEFT JOIN suppression s ON a.event = 'suppressed' AND s.key = a.key AND s.scope = a.scope AND s.reason = a.reason
              AND s.evidence = a.evidence
    LEFT JOIN person p ON p.key = s.key
    LEFT JOIN evidence e ON a.event = 'imported' AND e.id = a.evidence
    WHERE a.seq < ? AND a.seq >= ? AND {terms}
    ORDER BY a.seq DESC LIMIT ?
"""
_OF_ANY: Final = "(s.key IS NOT NULL OR (a.event = 'imported' AND a.evidence IS NOT NULL))"
# An import may have brought any reason, for any list. What stands is not asked for by `IS NOT NULL`: PostgreSQL would take
# that for an inner join of which nothing comes, and walk over all suppressions instead of looking some of them up.
_OF_ONE: Final = "a.event = 'suppressed' AND coalesce(s.reason, -1) >= 0"


def newest(db: Connection, wanted: Wanted, before: int | None = None, most: int = MOST) -> Page:
    """The newest first, from the audit row before this one on (None: from the end). A page may be short, or empty, and
    yet there is a next one: no more than STRETCH rows of the log are looked at."""
    if before is None:
        before = int(db.exec_driver_sql("SELECT coalesce(max(seq), 0) FROM audit").scalar_one()) + 1
    bottom = max(before - STRETCH, 1)
    terms = {"a.at >= ?": seconds(wanted.since) if wanted.since else None, "a.source = ?": wanted.source}
    terms |= {"a.scope = ?": wanted.scope, "a.reason = ?": None if wanted.reason is None else int(wanted.reason)}
    given = {term: value for term, value in terms.items() if value is not None}
    which = _OF_ANY if wanted.scope is None and wanted.reason is None else _OF_ONE
    query = _QUERY.format(terms=" AND ".join([which, *given]))
    found = db.exec_driver_sql(query, (before, bottom, *given.values(), most + 1)).all()
    lines = tuple(_gathered(map(_line, found[:most])))
    if len(found) > most:
        return Page(lines, found[most - 1][0])
    return Page(lines, bottom if bottom > 1 and not _is_older(db, bottom - 1, wanted.since) else None)


def _is_older(db: Connection, seq: int, since: datetime | None) -> bool:
    """Is all that is left before `since`?"""
    at = db.exec_driver_sql("SELECT at FROM audit WHERE seq = ?", (seq,)).scalar() if since else None
    return since is not None and at is not None and int(at) < seconds(since)


def _line(row: Any) -> Line:
    seq, at, source, evidence, key, address, scope, reason, since, detail = row
    if key is not None:
        return Line(seq, at, source, evidence, bytes(key), address, scope, reason, since)
    told = json.loads(detail) if detail else {}
    return Line(
        seq,
        at,
        source,
        evidence,
        rows=int(told.get("rows") or 0),
        file=str(told.get("file") or ""),
        run=told.get("import"),
    )


def _gathered(lines: Iterator[Line]) -> Iterator[Line]:
    """A long import is many batches, and one line."""
    last: Line | None = None
    for line in lines:
        if last is not None and last.key is None and line.key is None and line.run is not None and line.run == last.run:
            last = replace(last, rows=last.rows + line.rows)
            continue
        if last is not None:
            yield last
        last = line
    if last is not None:
        yield last
