"""Verbs on the programs that are told of changes: how far each has come in the audit log, and what it was never told.

Nothing is written on the path of a change: it has its audit row, and a hook is a reader of those with a place of its own.
A place only goes on, so two who tell the same hook for a moment tell it some changes twice, and leave none out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection

from storage import canaries, deferral, forgotten, hashes, journal, suppressions
from storage.address import Address, FormKind, NotAnAddress, SiteKey, keys_of, parse
from storage.audit import Event
from storage.lookup import Row, verdict
from storage.pieces import under
from storage.suppressions import Fact
from storage.terms import ALL, utc
from storage.write import Write

WINDOW: Final = 1_000  # audit rows that are looked at in one reading
MOST_COUNTED: Final = 100_000  # changes that wait: beyond that nobody needs the number
CHANGES: Final = ("suppressed", "restored", "lifted")  # events that say of one person that something stands or does not


@dataclass(frozen=True, slots=True)
class Place:
    """Where a hook stands. `head`: the last audit row there is; `reached`: the last one that is dealt with.

    `due`: seconds since 1970 before which it is not tried again; 0: now, and what somebody wants sent again as well.
    `epoch`: which restore the ledger is of (storage.journal): each gives audit numbers a second time.
    """

    name: str
    reached: int
    failures: int
    due: int
    trouble: str
    head: int
    epoch: int


@dataclass(frozen=True, slots=True)
class Lost:
    """A change that a hook could not be told of. `trouble`: why; "": somebody wants it sent again, and it waits for that."""

    id: int
    hook: str
    at: datetime
    trouble: str
    change: Fact


@dataclass(frozen=True, slots=True)
class Counts:
    """How many changes of a hook were given up and wait for somebody, and how many are to be sent again."""

    undelivered: int = 0
    again: int = 0


# ------------------------------------------------------------------ reading

_PLACE: Final = "SELECT name, reached, failures, due, trouble, coalesce((SELECT max(seq) FROM audit), 0) FROM hook"


def place(db: Connection, name: str) -> Place | None:
    """Where a hook stands; None: it is new. Three look-ups by a primary key: cheap enough for every second."""
    row = db.exec_driver_sql(f"{_PLACE} WHERE name = ?", (name,)).first()
    return Place(*_with(row, journal.epoch_of(db))) if row else None


def places(db: Connection) -> dict[str, Place]:
    """All of them, also of hooks that are not in the config any more."""
    epoch = journal.epoch_of(db)
    return {row[0]: Place(*_with(row, epoch)) for row in db.exec_driver_sql(f"{_PLACE} ORDER BY name")}


def _with(row: Sequence[Any], epoch: int) -> Sequence[Any]:
    return *row, epoch


def window(db: Connection, after: int, head: int) -> tuple[list[Fact], int]:
    """The changes (of one person each) behind this audit row, and the last row that was looked at: `head` at most.

    The canary is no person.
    """
    last = min(head, after + WINDOW)
    facts = suppressions.between(db, after, last)
    told = [fact for fact in facts if fact.key is not None and fact.event in CHANGES and fact.actor != canaries.ACTOR]
    return told, last


def waiting(db: Connection, after: int) -> list[tuple[str, int, int]]:
    """(event, reason, how many) of the changes behind this audit row, MOST_COUNTED of them at most."""
    marks = ",".join("?" * len(CHANGES))
    query = (
        "SELECT w.event, w.reason, count(*) FROM (SELECT event, reason FROM audit"
        f" WHERE seq > ? AND key IS NOT NULL AND event IN ({marks}) AND actor <> ? ORDER BY seq LIMIT {MOST_COUNTED}) w"
        " GROUP BY w.event, w.reason"
    )
    return [(row[0], row[1], row[2]) for row in db.exec_driver_sql(query, (after, *CHANGES, canaries.ACTOR))]


def counts(db: Connection) -> dict[str, Counts]:
    """Of each hook that has any."""
    query = "SELECT hook, count(*), sum(CASE WHEN trouble = '' THEN 1 ELSE 0 END) FROM undelivered GROUP BY hook"
    return {name: Counts(int(total) - int(again), int(again)) for name, total, again in db.exec_driver_sql(query)}


def lost(db: Connection, name: str | None = None, after: int = 0, most: int = 200) -> list[Lost]:
    """What was never told (to this hook), in order, from behind this id on; some hundred at most."""
    where, values = ("id > ?", [after]) if name is None else ("id > ? AND hook = ?", [after, name])
    return _lost(db, where, values, most)


def wanted_again(db: Connection, name: str, most: int = 50) -> list[Lost]:
    """What somebody wants sent to this hook again, in order."""
    return _lost(db, "hook = ? AND trouble = ''", [name], most)


def _lost(db: Connection, where: str, values: Sequence[object], most: int) -> list[Lost]:
    query = f"SELECT id, hook, at, trouble, seq FROM undelivered WHERE {where} ORDER BY id LIMIT ?"
    rows: Sequence[Any] = db.exec_driver_sql(query, (*values, most)).all()
    facts = suppressions.by_seqs(db, [row[4] for row in rows])
    return [Lost(row[0], row[1], utc(row[2]), row[3], facts[row[4]]) for row in rows if row[4] in facts]


def ids_of(db: Connection, name: str) -> list[int]:
    """Of all that this hook was never told."""
    return [row[0] for row in db.exec_driver_sql("SELECT id FROM undelivered WHERE hook = ? ORDER BY id", (name,))]


# ------------------------------------------------------------------ whom a change is about, and what holds now


def address_of(db: Connection, site_key: SiteKey, change: Fact) -> Address | None:
    """Whom a change is about; None: that is not kept, or the person was forgotten."""
    assert change.key is not None
    if forgotten.is_marked(db, site_key, change.key):
        return None
    beside = db.exec_driver_sql("SELECT address FROM person WHERE key = ?", (change.key,)).scalar()
    named = [str(beside)] if beside else str((change.detail or {}).get("address") or "").split(";")
    for text in named:
        with suppress(NotAnAddress):
            found = parse(text)
            if beside or change.key in _own_keys(site_key, found):
                return None if forgotten.is_marked(db, site_key, found) else found
    return None


def _own_keys(site_key: SiteKey, address: Address) -> list[bytes]:
    """Every key under which rows of this very person, or of this very domain, may stand."""
    if address.is_domain:
        return site_key.address_keys("@" + address.domain)
    return forgotten.personal_keys(site_key, address)


def stands(db: Connection, site_key: SiteKey, change: Fact, address: Address | None) -> bool:
    """Does anything stand against the person now, for what the change is about (everything, or one list)?

    While a restore has left a gap: yes, for not to know of anything means nothing then.
    """
    assert change.key is not None
    if deferral.deferred(db) is not None:
        return True
    keys: dict[bytes, FormKind] = {change.key: "exact"}
    if address is not None:
        keys |= keys_of(site_key, address, hashes.kinds(db))
    rows = [Row(keys[row[0]], *row[1:]) for row in suppressions.rows_of(db, list(keys))]
    return verdict(rows, None if change.scope == ALL else change.scope) is not None


# ------------------------------------------------------------------ the worker's verbs


def begin(w: Write, name: str) -> None:
    """A new hook: it is told what comes from now on."""
    w.db.exec_driver_sql(
        "INSERT INTO hook (name, reached, failures, due, trouble)"
        " SELECT ?, coalesce(max(seq), 0), 0, ?, '' FROM audit WHERE true ON CONFLICT (name) DO NOTHING",
        (name, w.at),
    )


_GO_ON: Final = "reached = CASE WHEN reached < ? THEN ? ELSE reached END"


def went_well(w: Write, name: str, reached: int, *, more: bool = False) -> None:
    """It was told all up to this audit row. `more`: there may be more to be sent again."""
    w.db.exec_driver_sql(
        f"UPDATE hook SET {_GO_ON}, failures = 0, trouble = '', due = CASE WHEN due = 0 THEN 0 ELSE ? END WHERE name = ?",
        (reached, reached, 0 if more else w.at, name),
    )


def failed(w: Write, name: str, reached: int, failures: int, due: datetime, trouble: str) -> None:
    """It was told all up to this audit row, and the next could not be told. `failures`: in a row, with this one."""
    w.db.exec_driver_sql(
        f"UPDATE hook SET {_GO_ON}, failures = ?, due = ?, trouble = ? WHERE name = ?",
        (reached, reached, failures, int(due.timestamp()), trouble, name),
    )


def give_up(w: Write, name: str, changes: Iterable[Fact], trouble: str) -> None:
    """These could not be told in time: they wait for somebody. Going on behind them is for the caller."""
    _each(
        w,
        "INSERT INTO undelivered (hook, seq, at, trouble) VALUES (?, ?, ?, ?)",
        [(name, change.seq, w.at, trouble) for change in changes],
    )


def sent_again(w: Write, ids: Iterable[int]) -> None:
    """These were told after all."""
    _each(w, "DELETE FROM undelivered WHERE id = ?", [(number,) for number in ids])


def refused_again(w: Write, number: int, trouble: str) -> None:
    """This one was refused once more, and waits for somebody again."""
    w.db.exec_driver_sql("UPDATE undelivered SET trouble = ?, at = ? WHERE id = ?", (trouble, w.at, number))


def all_sent_again(w: Write, name: str) -> None:
    """Nothing was found that is to be sent again: look for it no more, unless there is something by now."""
    w.db.exec_driver_sql(
        "UPDATE hook SET due = ? WHERE name = ? AND due = 0"
        " AND NOT EXISTS (SELECT 1 FROM undelivered u WHERE u.hook = hook.name AND u.trouble = '')",
        (w.at, name),
    )


# ------------------------------------------------------------------ what people may do


def again(w: Write, ids: Iterable[int]) -> int:
    """Send these once more, as soon as may be; their hooks are tried at once. Returns how many there are."""
    found = _found(w, ids)
    _each(w, "UPDATE undelivered SET trouble = '' WHERE id = ?", [(number,) for number, _, _ in found])
    _each(w, "UPDATE hook SET due = 0 WHERE name = ?", [(name,) for name in sorted({row[1] for row in found})])
    _record(w, "hook-again", found)
    return len(found)


def drop(w: Write, ids: Iterable[int], because: str) -> int:
    """Let these go: their hooks will never be told of them. Returns how many there were."""
    found = _found(w, ids)
    _each(w, "DELETE FROM undelivered WHERE id = ?", [(number,) for number, _, _ in found])
    _record(w, "hook-dropped", found, because=because)
    return len(found)


_Row = tuple[int, str, int]  # id, hook, audit row


def _found(w: Write, ids: Iterable[int]) -> list[_Row]:
    rows = under(w.db, "SELECT id, hook, seq FROM undelivered WHERE id", list(dict.fromkeys(ids)))
    return sorted((number, hook, seq) for number, hook, seq in rows)


def _record(w: Write, event: Event, rows: list[_Row], **detail: str) -> None:
    """An audit row for each hook: how many changes, and from which audit row to which."""
    for name in sorted({row[1] for row in rows}):
        seqs = [row[2] for row in rows if row[1] == name]
        facts: dict[str, Any] = {"hook": name, "rows": len(seqs), "first": min(seqs), "last": max(seqs), **detail}
        w.audit(event, source="operator", evidence=w.evidence(source="operator", **facts))


def _each(w: Write, statement: str, values: Sequence[tuple[Any, ...]]) -> None:
    if values:
        w.db.exec_driver_sql(statement, list(values))
