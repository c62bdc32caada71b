"""Many rows at once, as an import brings them.

A row of a list is an old wish that we read late, thousands at a time; so the questions of `suppressions.add` are asked
of a whole batch here, each in one statement per 500 keys. Nothing that stands is changed, nothing is ever lifted, and
nobody comes back onto the list on the strength of something older than what took them off it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Final, Literal

from sqlalchemy import Connection

from storage import copying, forgotten
from storage.lifts import COUNTED, WISHES, Lifted
from storage.suppressions import WISH_SECONDS, RawRow, _delete
from storage.terms import ALL, Reason
from storage.write import Write

Row = tuple[bytes, int, int, int]  # key, scope, reason, since: seconds UTC, or UNDATED
Identity = tuple[bytes, int, int]
Fate = Literal["added", "already", "skipped"]

UNDATED: Final = 0  # the list says no date: the row counts from the import on, and against nothing that happened before
_AT_ONCE: Final = 500  # keys a statement: below every limit, and no faster beyond it
_IN_AN_ARRAY: Final = 5_000  # keys a statement of PostgreSQL
_A_STATEMENT: Final = 100  # rows an INSERT: half the time of one row each
_CLICKED_WITHIN: Final = 3_600  # s for which a click on a page of ours can be undone (daemon.intake.clicking)
_BOUNCES: Final = (int(Reason.HARD_BOUNCE), int(Reason.SOFT_BOUNCE))
# SQLite keeps every page as it was before a statement in memory, so that the statement can be undone: 4 KB a row in a large
# table (50,000 rows a statement: 214 MB at 10 M rows, where 98 at 1 M).
_IN_A_BLOB: Final = 5_000
# All keys in one value, taken apart by the database: a key costs much less than a parameter.
_ALIKE: Final = (
    "WITH RECURSIVE number (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM number WHERE n + 1 < ?)"
    " INSERT INTO suppression (key, scope, reason, since, evidence) SELECT substr(?, n * 16 + 1, 16), ?, ?, ?, ? FROM number"
)


@dataclass(slots=True)
class Batch:
    """Rows sorted by key (twice as fast; of one key, in the order of the list), and what goes with them.

    `addresses`: key -> plain address, of those to keep. `older`: key -> the keys of the same person under older site
    keys, newest first; empty while there is but one site key. `elsewhere`: key -> other keys under which the person was taken
    off the list (storage.lifts); empty for nearly all.
    """

    rows: list[Row]
    addresses: Mapping[bytes, str] = field(default_factory=dict)
    older: Mapping[bytes, Sequence[bytes]] = field(default_factory=dict)
    elsewhere: Mapping[bytes, Sequence[bytes]] = field(default_factory=dict)


@dataclass(slots=True)
class Plan:
    """What is to be done with a batch. `fates` go with its rows, one each.

    `fresh`: rows as they will stand, but for the evidence. `ended`: standing `wanted` rows that a later opt-out ends.
    `again`: of rows that stand, those that were asked for once more, and when. `taught`: keys whose address may be kept.
    """

    fates: list[Fate] = field(default_factory=list)
    fresh: list[Row] = field(default_factory=list)
    ended: list[RawRow] = field(default_factory=list)
    again: dict[Identity, int] = field(default_factory=dict)
    taught: list[bytes] = field(default_factory=list)


# ------------------------------------------------------------------ deciding


def plan(db: Connection, batch: Batch, at: int, run: int = 0, lifted: Lifted | None = None) -> Plan:
    """What would come of these rows? Changes nothing. `at`: when rows without a date begin to count; `run`: the import."""
    keys = list(dict.fromkeys(row[0] for row in batch.rows))
    every = [*keys, *chain.from_iterable(batch.older.values())]
    now_called = {old: key for key, olds in batch.older.items() for old in olds}
    standing = _standing(db, every, now_called)
    lifts = _lifts(db, batch, every, lifted)
    if not standing and not lifts and len(keys) == len(batch.rows):  # as nearly always: nobody of them is known
        fresh = [row if row[3] else (*row[:3], at) for row in batch.rows]
        return Plan(["added"] * len(fresh), fresh, taught=keys)
    return _Planner(batch, at, standing, lifts, _Of(db, run)).plan()


class _Planner:
    """One batch being judged, in the order of its rows."""

    def __init__(
        self,
        batch: Batch,
        at: int,
        standing: dict[bytes, dict[tuple[int, int], RawRow]],
        lifts: dict[bytes, list[_Lift]],
        ours: _Of,
    ):
        self._batch, self._at, self._standing, self._lifts, self._ours = batch, at, standing, lifts, ours
        self._made = Plan()
        self._fresh: list[Row | None] = []  # None: ended by a later row of the same batch

    def plan(self) -> Plan:
        """Judge every row."""
        last, mine = b"", dict[tuple[int, int], RawRow]()
        decided, keep, stands, lifts = self._made.fates.append, self._made.taught.append, self._standing, self._lifts
        for row in self._batch.rows:
            key, scope, reason, since = row
            if key != last:
                last, mine = key, stands.get(key) or {}
            if mine and (stood := mine.get((scope, reason))):
                decided("already")
                self._repeated(row, stood, mine)
                if stood[0] == key:
                    keep(key)
            elif (mine or key in lifts) and self._outdated(row, mine):
                decided("skipped")
            else:
                decided("added")
                keep(key)
                if mine:
                    self._end_wanted(row, mine)
                # A row of this batch has no evidence yet: its place among the fresh ones instead, below zero.
                mine[scope, reason] = (key, scope, reason, since or self._at, -1 - len(self._fresh))
                self._fresh.append((key, scope, reason, since or self._at))
        self._made.fresh = [row for row in self._fresh if row is not None]
        return self._made

    def _outdated(self, row: Row, mine: dict[tuple[int, int], RawRow]) -> bool:
        """Did the person, or an operator, say otherwise since? A row without a date is older than anything."""
        key, scope, reason, since = row
        counted = (*WISHES, Reason.HARD_BOUNCE) if reason in _BOUNCES else WISHES
        for of_scope, of_reason, at in self._lifts.get(key, ()):
            if of_scope in (scope, ALL) and of_reason in counted and since < at:
                return True
        if reason == Reason.OPT_OUT:
            wanted = mine.get((scope, Reason.WANTED))
            return wanted is not None and since < wanted[3]
        if reason == Reason.WANTED:  # an import lifts nothing: this only belongs to an opt-out that came with it
            opt_outs = [mine[s, Reason.OPT_OUT] for s in (ALL, scope) if (s, Reason.OPT_OUT) in mine]
            return any(since < r[3] or not (r[4] < 0 or self._ours(r[4])) for r in opt_outs)
        return False

    def _repeated(self, row: Row, stood: RawRow, mine: dict[tuple[int, int], RawRow]) -> None:
        """It stands: but was it asked for again since? A link to take the older wish back must not take this one back."""
        since = row[3]
        if since > stood[3] or self._may_be_undone(stood):
            identity = stood[:3]
            self._made.again[identity] = max(since, self._made.again.get(identity, 0))
        self._end_wanted(row, mine)

    def _may_be_undone(self, stood: RawRow) -> bool:
        """Does it stand by a click alone, on a page whose button undoes it? Then an older wish, too, must be known of."""
        is_new = stood[2] == Reason.OPT_OUT and stood[3] >= self._at - _CLICKED_WITHIN
        return is_new and stood[4] >= 0 and self._ours.is_click(stood[4])

    def _end_wanted(self, row: Row, mine: dict[tuple[int, int], RawRow]) -> None:
        """Whoever says no to everything, or to this list, no longer wants it."""
        _, scope, reason, since = row
        if reason != Reason.OPT_OUT:
            return
        for standing in [r for r in mine.values() if r[2] == Reason.WANTED and scope in (ALL, r[1]) and r[3] < since]:
            del mine[standing[1], standing[2]]
            if standing[4] < 0:
                self._fresh[-1 - standing[4]] = None
            else:
                self._made.ended.append(standing)


def _standing(
    db: Connection, keys: Sequence[bytes], now_called: Mapping[bytes, bytes]
) -> dict[bytes, dict[tuple[int, int], RawRow]]:
    """What stands, by the newest key of each person; what was written under it goes before what an older key has."""
    found: dict[bytes, dict[tuple[int, int], RawRow]] = {}
    query = "SELECT key, scope, reason, since, evidence FROM suppression WHERE key {among}"
    for key, scope, reason, since, evidence in _of_all(db, query, keys):
        row = (bytes(key), scope, reason, since, evidence)
        of_person = found.setdefault(now_called.get(row[0], row[0]), {})
        if row[0] not in now_called or (scope, reason) not in of_person:
            of_person[scope, reason] = row
    return found


_Lift = tuple[int, int, int]  # scope, reason, when it was wished


def _lifts(db: Connection, batch: Batch, keys: Sequence[bytes], lifted: Lifted | None) -> dict[bytes, list[_Lift]]:
    """What was lifted, by the key of the row that the person has in the batch. `keys`: those of its rows, and older ones."""
    every = [*keys, *chain.from_iterable(batch.elsewhere.values())]
    found = _lifted_under(db, lifted.among(db, every) if lifted else every)
    if not found:
        return {}
    by_row: dict[bytes, list[_Lift]] = {}
    for key in dict.fromkeys(row[0] for row in batch.rows):
        also = dict.fromkeys((key, *batch.older.get(key, ()), *batch.elsewhere.get(key, ())))
        if mine := [lift for other in also for lift in found.get(other, ())]:
            by_row[key] = mine
    return by_row


def _lifted_under(db: Connection, keys: Sequence[bytes]) -> dict[bytes, list[_Lift]]:
    """What was lifted under these very keys.

    Soft bounces run out by themselves, and an undoing by cause mends what should never have been: neither says what
    the person wants.
    """
    found: dict[bytes, list[_Lift]] = {}
    query = (
        "SELECT a.key, a.scope, a.reason, a.at, e.detail FROM audit a LEFT JOIN evidence e ON e.id = a.evidence"
        f" WHERE a.event = 'lifted' AND a.reason IN ({COUNTED})"
        " AND a.key {among}"
    )
    for key, scope, reason, at, text in _of_all(db, query, keys):
        detail = json.loads(text) if text else {}
        if "cause" not in detail:
            wished = detail.get("asked", at) if text else at - WISH_SECONDS  # forgotten: as suppressions.add has it
            found.setdefault(bytes(key), []).append((scope, reason, wished))
    return found


def _of_all(db: Connection, query: str, keys: Sequence[bytes]) -> Iterator[Any]:
    """The rows of a query over all these keys; `{among}` stands in it for as many as go into one statement."""
    if db.dialect.name == "postgresql":  # an array is one parameter, however many keys are in it
        for start in range(0, len(keys), _IN_AN_ARRAY):
            yield from db.exec_driver_sql(
                query.replace("{among}", "= ANY(?)"), (list(keys[start : start + _IN_AN_ARRAY]),)
            )
        return
    for start in range(0, len(keys), _AT_ONCE):
        some = tuple(keys[start : start + _AT_ONCE])
        yield from db.exec_driver_sql(query.replace("{among}", f"IN ({','.join('?' * len(some))})"), some)


class _Of:
    """Does an evidence belong to this import, or is it of a click?"""

    def __init__(self, db: Connection, run: int):
        self._db, self._run = db, run
        self._known: dict[int, tuple[bool, bool]] = {}

    def __call__(self, evidence: int) -> bool:
        return self._look(evidence)[0]

    def is_click(self, evidence: int) -> bool:
        return self._look(evidence)[1]

    def _look(self, evidence: int) -> tuple[bool, bool]:
        if evidence not in self._known:
            text = self._db.exec_driver_sql("SELECT detail FROM evidence WHERE id = ?", (evidence,)).scalar()
            detail = json.loads(str(text)) if text else {}
            self._known[evidence] = (bool(self._run) and detail.get("import") == self._run, "click" in detail)
        return self._known[evidence]


# ------------------------------------------------------------------ writing


@dataclass(frozen=True, slots=True)
class Added:
    """What came of a batch. `evidence`: 0 if nothing was changed by it."""

    fates: list[Fate]
    evidence: int

    @property
    def new(self) -> int:
        """How many rows were added."""
        return self.fates.count("added")


def add_many(
    w: Write,
    batch: Batch,
    at: int,
    detail: Mapping[str, Any],
    *,
    source: str = "import",
    run: int = 0,
    lifted: Lifted | None = None,
) -> Added:
    """Add what is to be added of a batch, under one evidence and one audit row.

    `at`: seconds UTC at which rows without a date begin to count. `detail`: what explains the batch. `run`: the import
    that it is a part of, if it is; `lifted`: of a long one, kept from batch to batch. A live opt-out waits for the whole
    transaction: keep to 5,000 rows beside others.
    """
    made = plan(w.db, batch, at, run, lifted)
    number = 0, b""
    if made.fresh or made.ended:
        of_run: dict[str, Any] = {"import": run} if run else {}
        number = w.evidence(source=source, rows=len(made.fresh), **of_run, **detail)
        _delete(w, made.ended)
        insert(w, made.fresh, number[0])
        w.audit("imported", source=source, evidence=number)
        for row in made.ended:
            w.audit("lifted", key=row[0], scope=row[1], reason=row[2], source=source, evidence=number)
    _note_again(w, made.again)
    if w.ledger.keep_addresses and batch.addresses:
        _teach(w, made.taught, batch)
    return Added(made.fates, number[0])


def insert(w: Write, rows: Sequence[Row], evidence: int) -> None:
    """Put rows into the table that are not there yet. The one place through which bulk rows go."""
    if not rows:
        return
    copies = w.db.dialect.name == "postgresql"
    rest = rows[0][1:]
    if all(row[1:] == rest for row in rows):  # a list without dates: half the work
        keys = [row[0] for row in rows]
        if copies:
            copying.alike(w.db, keys, *rest, evidence)
        else:
            for start in range(0, len(keys), _IN_A_BLOB):
                some = keys[start : start + _IN_A_BLOB]
                w.db.exec_driver_sql(_ALIKE, (len(some), b"".join(some), *rest, evidence))
        w.keys_added(keys, *rest, evidence)
        return
    whole = [(*row, evidence) for row in rows]
    if copies:
        copying.rows(w.db, whole)
    else:
        _insert_many(w.db, "suppression (key, scope, reason, since, evidence)", "", whole)
    w.rows_added(whole)


def _insert_many(db: Connection, into: str, types: str, rows: Sequence[tuple[Any, ...]], tail: str = "") -> None:
    """`types`: of the columns, in PostgreSQL's words: there a column is one parameter, and the server makes rows of them."""
    if not rows:
        return
    if db.dialect.name == "postgresql":
        columns = ", ".join(f"?::{kind}[]" for kind in types.split())
        db.exec_driver_sql(
            f"INSERT INTO {into} SELECT * FROM unnest({columns}){tail}",
            tuple(map(list, zip(*rows, strict=True))),
        )
        return
    one = f"({', '.join('?' * len(rows[0]))})"
    for start in range(0, len(rows), _A_STATEMENT):
        some = rows[start : start + _A_STATEMENT]
        marks = ", ".join([one] * len(some))
        db.exec_driver_sql(f"INSERT INTO {into} VALUES {marks}{tail}", tuple(chain.from_iterable(some)))


def _note_again(w: Write, again: Mapping[Identity, int]) -> None:
    """Write down when what stands was asked for again, where that is news."""
    if again:
        w.db.exec_driver_sql(
            "INSERT INTO asked_again (key, scope, reason, at) VALUES (?, ?, ?, ?)"
            " ON CONFLICT (key, scope, reason) DO UPDATE SET at = excluded.at WHERE asked_again.at < excluded.at",
            [(*identity, at) for identity, at in again.items()],
        )


def _teach(w: Write, keys: Sequence[bytes], batch: Batch) -> None:
    """Keep the addresses, but of nobody who was forgotten."""
    known = dict.fromkeys(key for key in keys if key in batch.addresses)
    every = [*known, *chain.from_iterable(batch.older.get(key, ()) for key in known)]
    gone = forgotten.among(w.db, every)
    people = [
        (key, batch.addresses[key]) for key in known if key not in gone and gone.isdisjoint(batch.older.get(key, ()))
    ]
    _insert_many(w.db, "person (key, address)", "bytea text", people, " ON CONFLICT (key) DO NOTHING")
