"""Undo: the suppressions that came of one cause (an import, a mailbox, a stream of wrong reports) ended together.

No opt-out that a person made ends with them. What people asked for themselves is kept, unless the operator says
otherwise; and so is a row of an import that the person has repeated since, which moved no row and left only `asked_again`.
"""

from __future__ import annotations

import json
import re
import time
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal

from sqlalchemy import Connection

from storage import suppressions
from storage.engine import Ledger
from storage.pieces import in_pieces
from storage.suppressions import RawRow
from storage.terms import Reason, seconds
from storage.write import Write, write

BATCH: Final = 2_000  # rows a transaction: a live opt-out waits for the whole of it
GAP: Final = 0.05  # s between two transactions, in which a live opt-out gets its turn
_PAGE: Final = 5_000  # rows looked at in one reading
_KEYS: Final = 500  # a statement
_SHOWN: Final = 10
_STATUS: Final = re.compile(r"(?<![\d.])[245]\.\d{1,3}\.\d{1,3}")

Kept = Literal["own", "asked-again"]  # asked for by the person · asked for (or reported) again, apart from this cause


@dataclass(frozen=True, slots=True)
class Cause:
    """What is to be undone: suppressions for which all that is given holds.

    `reason`: why the row stands. `source`: a word of storage.terms.SOURCES. `imported`: an import, by its file's name or its
    number. `mailbox`: the mailbox whose mail it came from. `scope`: of this list alone (0: what stands for everything).
    `begin`, `end`: when we recorded it, both included. `even_opt_outs`: what people asked for themselves, too.
    `domain`: whose server refused (as in the name of a brake), or who complained; `diagnostic`: the status of a bounce.
    """

    reason: Reason | None = None
    source: str | None = None
    imported: str | None = None
    mailbox: str | None = None
    scope: int | None = None
    begin: datetime | None = None
    end: datetime | None = None
    even_opt_outs: bool = False
    domain: str | None = None
    diagnostic: str | None = None

    def told(self) -> dict[str, Any]:
        """For the record: what was given, in JSON's kinds."""
        given = {
            "reason": self.reason.word if self.reason else None,
            "source": self.source,
            "import": self.imported,
            "mailbox": self.mailbox,
            "scope": self.scope,
            "from": self.begin and seconds(self.begin),
            "domain": self.domain,
            "diagnostic": self.diagnostic,
            "to": self.end and seconds(self.end),
            "even_opt_outs": self.even_opt_outs or None,
        }
        return {name: value for name, value in given.items() if value is not None}


@dataclass(slots=True)
class Tally:
    """How many rows end (by reason and scope), how many are kept and why, and whose the first of those that end are (keys)."""

    lifted: Counter[tuple[int, int]] = field(default_factory=Counter)
    kept: Counter[Kept] = field(default_factory=Counter)
    first: list[bytes] = field(default_factory=list)

    def add(self, row: RawRow, kept: Kept | None) -> None:
        """Count a row."""
        if kept:
            self.kept[kept] += 1
            return
        self.lifted[row[2], row[1]] += 1
        if len(self.first) < _SHOWN and row[0] not in self.first:
            self.first.append(row[0])


def survey(ledger: Ledger, cause: Cause) -> Tally:
    """What `undo` would do now. Changes nothing. Raises Unavailable."""
    found, tally = _evidence(ledger, cause), Tally()
    for row, again in _rows(ledger, cause, found):
        tally.add(row, _kept(cause, row, again, imported=found.is_import(row[4])))
    return tally


def undo(
    ledger: Ledger,
    cause: Cause,
    because: str,
    now: Callable[[], datetime],
    actor: str,
    progress: Callable[[int], object] = lambda _: None,
) -> Tally:
    """End them, in many short transactions; one that is broken off is taken up by the next call. Raises Unavailable.

    `because`: kept in the record, with an audit row for each suppression. `progress` is told how many rows are dealt with.
    """
    found, tally, done = _evidence(ledger, cause), Tally(), 0
    for some in _batches((row for row, _ in _rows(ledger, cause, found)), BATCH):
        if done:
            time.sleep(GAP)
        with write(ledger, now(), actor) as w:
            _end(w, cause, because, some, found, tally)
        done += len(some)
        progress(done)
    return tally


def addresses(db: Connection, keys: Iterable[bytes]) -> list[str]:
    """The plain addresses of these keys (some hundred at most), as far as they are kept."""
    asked = tuple(keys)
    marks = ",".join("?" * len(asked))
    if not asked:
        return []
    known = db.exec_driver_sql(f"SELECT address FROM person WHERE key IN ({marks}) ORDER BY address", asked)
    return [str(row[0]) for row in known]


# ------------------------------------------------------------------ which rows


class _Evidence:
    """The evidence that fits a cause: of imports, and other. Numbers in ascending order, 8 octets each."""

    def __init__(self) -> None:
        self.imports, self.others = array("q"), array("q")

    def is_import(self, number: int) -> bool:
        return _has(self.imports, number)

    def fits(self, number: int) -> bool:
        return _has(self.imports, number) or _has(self.others, number)

    def bounds(self) -> tuple[int, int] | None:
        ends = [n for some in (self.imports, self.others) if some for n in (some[0], some[-1])]
        return (min(ends), max(ends)) if ends else None


def _has(numbers: array[int], number: int) -> bool:
    place = bisect_left(numbers, number)
    return place < len(numbers) and numbers[place] == number


def _evidence(ledger: Ledger, cause: Cause) -> _Evidence:
    found = _Evidence()
    begin = seconds(cause.begin) if cause.begin else 0
    end = seconds(cause.end) if cause.end else 2**62
    query = "SELECT id, detail FROM evidence WHERE at >= ? AND at <= ? ORDER BY id"
    with ledger.reading() as db:
        for number, text in in_pieces(db, query, (begin, end)):
            detail = json.loads(text) if text else {}
            if _is_of(detail, cause):
                (found.imports if detail.get("source") == "import" else found.others).append(number)
    return found


def _is_of(detail: dict[str, Any], cause: Cause) -> bool:
    named = (str(detail.get("import", "")), detail.get("file"))
    return (
        cause.source in (None, detail.get("source"))
        and cause.mailbox in (None, detail.get("mailbox"))
        and (cause.imported is None or (detail.get("source") == "import" and cause.imported in named))
        and (cause.domain is cause.diagnostic is None or _is_by(detail, cause))
    )


def _is_by(detail: dict[str, Any], cause: Cause) -> bool:
    """Did this bounce or complaint come by the domain, and with the status, that is undone?

    Evidence from before there were names for causes tells only of the recipients, and of what the server said.
    """
    if detail.get("source") not in ("dsn", "arf"):
        return False
    if "cause" in detail:
        domain, _, status = str(detail["cause"]).partition(":")[2].partition("/")
        return cause.domain in (None, domain) and cause.diagnostic in (None, status)
    domains = {address.rpartition("@")[2].lower() for address in str(detail.get("address", "")).split(";")}
    said = _STATUS.findall(str(detail.get("words", "")))
    return cause.domain in (None, *(domains if len(domains) == 1 else ())) and cause.diagnostic in (None, *said)


def _rows(ledger: Ledger, cause: Cause, found: _Evidence) -> Iterator[tuple[RawRow, int | None]]:
    """The rows that fit, in order of key, each beside the time it was last asked again (or None).

    Page by page, each read on its own: one reading of minutes would keep SQLite from writing its log back.
    """
    bounds = found.bounds()
    place: tuple[bytes, int, int] = (b"", -1, -1)
    while bounds:
        with ledger.reading() as db:
            page = [_row(r) for r in db.exec_driver_sql(*_page(cause, place, bounds))]
        yield from ((row, again) for row, again in page if found.fits(row[4]))
        if len(page) < _PAGE:
            return
        place = page[-1][0][:3]


_SELECT: Final = (
    "SELECT s.key, s.scope, s.reason, s.since, s.evidence, g.at FROM suppression s"
    " LEFT JOIN asked_again g ON g.key = s.key AND g.scope = s.scope AND g.reason = s.reason"
)


def _page(cause: Cause, place: tuple[bytes, int, int], bounds: tuple[int, int]) -> tuple[str, tuple[Any, ...]]:
    terms = ["(s.key, s.scope, s.reason) > (?, ?, ?)", "s.evidence >= ?", "s.evidence <= ?", "s.reason <> ?"]
    values = [*place, *bounds, int(Reason.WANTED)]  # `wanted` suppresses nobody
    if cause.reason is not None:
        terms.append("s.reason = ?")
        values.append(int(cause.reason))
    if cause.scope is not None:
        terms.append("s.scope = ?")
        values.append(cause.scope)
    query = f"{_SELECT} WHERE {' AND '.join(terms)} ORDER BY s.key, s.scope, s.reason LIMIT {_PAGE}"
    return query, tuple(values)


def _row(row: Any) -> tuple[RawRow, int | None]:
    return (bytes(row[0]), int(row[1]), int(row[2]), int(row[3]), int(row[4])), row[5]


def _batches(rows: Iterable[RawRow], size: int) -> Iterator[list[RawRow]]:
    some: list[RawRow] = []
    for row in rows:
        some.append(row)
        if len(some) == size:
            yield some
            some = []
    if some:
        yield some


# ------------------------------------------------------------------ what becomes of them


def _kept(cause: Cause, row: RawRow, again: int | None, *, imported: bool) -> Kept | None:
    """Why a row that fits must stay; None: it ends.

    A repeat has no source of its own. One of an opt-out is the person's word, and one of an imported row came from
    elsewhere. A bounce or complaint that was only repeated within the time that is undone is part of it.
    """
    if row[2] == Reason.OPT_OUT and cause.even_opt_outs:
        return None
    if row[2] == Reason.OPT_OUT and not imported:
        return "own"
    if again is None:
        return None
    early = cause.begin is not None and again < seconds(cause.begin)
    late = cause.end is not None and again > seconds(cause.end)
    return "asked-again" if imported or early or late else None


def _end(w: Write, cause: Cause, because: str, rows: list[RawRow], found: _Evidence, tally: Tally) -> None:
    """End those of these rows that still stand as they were read, and that nobody has asked for again meanwhile."""
    gone = []
    for row, again in _standing(w.db, rows):
        kept = _kept(cause, row, again, imported=found.is_import(row[4]))
        tally.add(row, kept)
        if not kept:
            gone.append(row)
    if not gone:
        return
    # `asked`: nobody wished it, so a request that was written before this day, and is read later, still counts.
    number = w.evidence(source="operator", because=because, cause=cause.told(), rows=len(gone), asked=0)
    suppressions.end(w, gone, number)
    _forget(w, gone)


def _standing(db: Connection, rows: list[RawRow]) -> Iterator[tuple[RawRow, int | None]]:
    wanted = set(rows)
    for start in range(0, len(rows), _KEYS):
        keys = tuple(dict.fromkeys(row[0] for row in rows[start : start + _KEYS]))
        query = f"{_SELECT} WHERE s.key IN ({','.join('?' * len(keys))}) ORDER BY s.key, s.scope, s.reason"
        for found in db.exec_driver_sql(query, keys).all():
            row, again = _row(found)
            if row in wanted:
                wanted.remove(row)  # a key whose rows lie in two pieces is met twice
                yield row, again


def _forget(w: Write, gone: list[RawRow]) -> None:
    """What stood beside the rows: the address of whom nothing suppresses any more, and the days that made a soft bounce."""
    keys = [(row[0],) for row in gone]
    w.db.exec_driver_sql(
        "DELETE FROM person WHERE key = ? AND NOT EXISTS (SELECT 1 FROM suppression s WHERE s.key = person.key)", keys
    )
    counted = [(row[0],) for row in gone if row[2] == Reason.SOFT_BOUNCE]
    if counted:
        w.db.exec_driver_sql("DELETE FROM soft_bounce WHERE key = ?", counted)
