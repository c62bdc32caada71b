"""Verbs on the suppression table. Those that write take a Write and say what happened; a person is an Address."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

from sqlalchemy import Connection

from storage import forgotten, hashes
from storage.address import Address, NotAnAddress, SiteKey, forms, hash_keys, keys_of, parse, person
from storage.engine import Ledger
from storage.pieces import in_pieces
from storage.terms import ALL, Reason, joined, seconds, utc
from storage.write import Write

RawRow = tuple[bytes, int, int, int, int]  # key, scope, reason, since (seconds UTC), evidence
Whom = Address | bytes  # bytes: the address key in a token of ours; the address itself is not known

# How long before a lift it may have been wished, where that is not known any more: longer than a link of ours is good for.
WISH_SECONDS: Final = 90 * 86_400
_NO_LIMIT: Final = 2**63 - 1  # LIMIT of more rows than there can be

Outcome = Literal["new", "repeated", "outdated"]  # outdated: asked before the person was taken off the list again


@dataclass(frozen=True, slots=True)
class Added:
    """What `add` did, and the evidence that explains the row (its `ref`)."""

    outcome: Outcome
    evidence: int


def add(
    w: Write,
    whom: Whom,
    scope: int,
    reason: Reason,
    source: str,
    detail: dict[str, Any],
    *,
    since: datetime | None = None,
    evidence: Callable[[], tuple[int, bytes]] | None = None,
    plain: Address | None = None,
) -> Added:
    """Suppress a person (or a domain) within a scope.

    `detail`: what explains it (words, rules, message_id, mailbox, note...). `since`: when it was asked, if not now.
    `evidence`: gives the evidence if a row is written (one evidence may cover several addresses of a message).
    `plain`: the address of a person of whom `whom` is only the key.
    """
    moment = since or w.now
    keys, address = _keys_for_writing(w, whom)
    erased = any(forgotten.is_marked(w.db, w.ledger.site_key, p) for p in (whom, plain) if p)
    address = "" if erased else address or str(plain or "")
    standing = _rows(w.db, keys)
    # whoever says no to everything, or to this list, no longer wants it
    unwanted = [r for r in standing if reason == Reason.OPT_OUT and r[2] == Reason.WANTED and scope in (ALL, r[1])]
    for row in standing:
        if row[1] == scope and row[2] == reason:
            _no_longer_wanted(w, [r for r in unwanted if r[3] <= seconds(moment)], address, source)
            _note_repeated(w, row, moment)
            return Added("repeated", row[4])
    if reason in (Reason.OPT_OUT, Reason.WANTED):
        taken_off = keys if isinstance(whom, bytes) else [*keys, *_personal_keys(w, whom)]  # he may have stood narrower
        if _lifted_later(w.db, taken_off, scope, moment):
            return Added("outdated", 0)
    if any(r[1] == scope and r[3] > seconds(moment) for r in unwanted):
        return Added("outdated", 0)  # wanted again since
    unwanted = [r for r in unwanted if r[3] <= seconds(moment)]
    if erased:  # it is honoured all the same, and nothing of the person is written down again
        forgotten.mark(w.db, keys[:1])
        number = w.evidence(**(forgotten.ours(detail) | {"source": source}))
    else:
        number = evidence() if evidence else w.evidence(address=address, source=source, **detail)
    _delete(w, unwanted)
    _insert(w, [(keys[0], scope, int(reason), seconds(moment), number[0])])
    if w.ledger.keep_addresses and address:
        w.db.exec_driver_sql(
            "INSERT INTO person (key, address) VALUES (?, ?) ON CONFLICT (key) DO NOTHING", (keys[0], address)
        )
    w.audit("suppressed", key=keys[0], scope=scope, reason=int(reason), source=source, evidence=number)
    return Added("new", number[0])


def _note_repeated(w: Write, row: RawRow, moment: datetime) -> None:
    w.db.exec_driver_sql(
        "INSERT INTO asked_again (key, scope, reason, at) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (key, scope, reason) DO UPDATE SET at = excluded.at WHERE asked_again.at < excluded.at",
        (*row[:3], seconds(moment)),
    )


def last_asked(db: Connection, row: RawRow) -> int:
    """When what a standing row is about was asked for the last time, in seconds since 1970."""
    query = "SELECT at FROM asked_again WHERE key = ? AND scope = ? AND reason = ?"
    again = db.exec_driver_sql(query, row[:3]).scalar()
    return max(row[3], int(again or 0))


def was_repeated(db: Connection, row: RawRow) -> bool:
    """Was what a standing row is about asked for more than once, before or after it?"""
    query = "SELECT 1 FROM asked_again WHERE key = ? AND scope = ? AND reason = ?"
    return db.exec_driver_sql(query, row[:3]).first() is not None


def _keys_for_writing(w: Write, whom: Whom) -> tuple[list[bytes], str]:
    """(the keys under which rows of this person may stand, the first for new ones; the plain address, "" if unknown)."""
    if isinstance(whom, bytes):
        return [whom], ""
    return w.ledger.site_key.address_keys(form_of(w, whom)), str(whom)


def _no_longer_wanted(w: Write, rows: list[RawRow], address: str, source: str) -> None:
    """The opt-out stands already, so it leaves no row of its own to tell where the exemption went."""
    if rows:
        number = w.evidence(address=address, source=source, because="asked again to be left alone")
        end(w, rows, number, source)


def lift(
    w: Write,
    whom: Whom,
    scope: int,
    because: str,
    source: str = "operator",
    *,
    only: Reason | None = None,
    asked: datetime | None = None,
) -> list[RawRow]:
    """End every personal row of this scope, whatever its reason (or of one reason), saying why. Returns what went.

    `asked`: when the person wished it, if that was before now: an opt-out of between counts.
    """
    keys = [whom] if isinstance(whom, bytes) else _personal_keys(w, whom)
    gone = [r for r in _rows(w.db, keys) if r[1] == scope and r[2] != Reason.WANTED and only in (None, r[2])]
    if gone:
        address = "" if isinstance(whom, bytes) else str(whom)
        wished: dict[str, Any] = {} if asked is None else {"asked": seconds(asked)}
        end(w, gone, w.evidence(address=address, source=source, because=because, **wished), source)
    return gone


def end(w: Write, rows: list[RawRow], evidence: tuple[int, bytes], source: str = "operator") -> None:
    """End these very rows, an audit row for each."""
    _delete(w, rows)
    for row in rows:
        w.audit("lifted", key=row[0], scope=row[1], reason=row[2], source=source, evidence=evidence)


def expire(w: Write, before: datetime) -> int:
    """End soft-bounce rows older than `before`. Returns how many."""
    rows = w.db.exec_driver_sql(
        "SELECT key, scope, reason, since, evidence FROM suppression WHERE reason = ? AND since < ?",
        (int(Reason.SOFT_BOUNCE), seconds(before)),
    ).all()
    gone = [_raw(r) for r in rows]
    if gone:
        end(w, gone, w.evidence(source="operator", because="the soft bounce suppression ran out", rows=len(gone)))
    return len(gone)


def _personal_keys(w: Write, address: Address) -> list[bytes]:
    """The keys that are this person's own: not the domain's, and no wider than the operator lets sameness go.

    Of foreign lists of hashes, too: whoever is taken off the list is mailed again.
    """
    kinds = {"exact", *w.ledger.same_person} if not address.is_domain else {"domain"}
    mine = [form for kind, form in forms(address) if kind in kinds]
    if address.is_domain:
        mine = mine[:1]
    keyed = [key for form in mine for key in w.ledger.site_key.address_keys(form)]
    return keyed + hash_keys(address, hashes.kinds(w.db))


def _lifted_later(db: Connection, keys: list[bytes], scope: int, moment: datetime) -> bool:
    """Was this person taken off this list (or off all) again after `moment`? Then an older wish does not count.

    What counts is when it was wished, as the evidence has it, not when we got to read it; of evidence that was forgotten
    we take it that the wish was much older. A bounce that was lifted or ran out says nothing of what the person wants.
    """
    marks = ",".join("?" * len(keys))
    lifts = db.exec_driver_sql(
        "SELECT a.at, e.detail FROM audit a LEFT JOIN evidence e ON e.id = a.evidence"
        f" WHERE a.event = 'lifted' AND a.reason IN (?, ?, ?) AND a.scope IN (?, ?) AND a.key IN ({marks})",
        (int(Reason.COMPLAINT), int(Reason.OPT_OUT), int(Reason.OPERATOR), scope, ALL, *keys),
    )
    wished = (json.loads(detail).get("asked", at) if detail else at - WISH_SECONDS for at, detail in lifts)
    return any(seconds(moment) < at for at in wished)


def lifted_since(db: Connection, ledger: Ledger, whom: Whom, scope: int, moment: int) -> bool:
    """Was this person taken off this list again after `moment` (seconds since 1970)?"""
    keys = _all_keys(db, ledger.site_key, whom)
    return _lifted_later(db, keys, scope, utc(moment))


def _all_keys(db: Connection, site_key: SiteKey, whom: Whom) -> list[bytes]:
    """Every key under which something may stand against this person."""
    return [whom] if isinstance(whom, bytes) else [key for key, _ in keys_of(site_key, whom, hashes.kinds(db))]


def _rows(db: Connection, keys: Sequence[bytes]) -> list[RawRow]:
    marks = ",".join("?" * len(keys))
    query = f"SELECT key, scope, reason, since, evidence FROM suppression WHERE key IN ({marks})"
    return [_raw(r) for r in db.exec_driver_sql(query, tuple(keys))]


def _raw(row: Any) -> RawRow:
    return bytes(row[0]), int(row[1]), int(row[2]), int(row[3]), int(row[4])


def _insert(w: Write, rows: list[RawRow]) -> None:
    if rows:
        w.db.exec_driver_sql(
            "INSERT INTO suppression (key, scope, reason, since, evidence) VALUES (?, ?, ?, ?, ?)", rows
        )
        w.rows_added(rows)


def _delete(w: Write, rows: list[RawRow]) -> None:
    if rows:
        w.db.exec_driver_sql(
            "DELETE FROM suppression WHERE key = ? AND scope = ? AND reason = ?", [r[:3] for r in rows]
        )
        w.db.exec_driver_sql(
            "DELETE FROM asked_again WHERE key = ? AND scope = ? AND reason = ?", [r[:3] for r in rows]
        )
        w.rows_removed(rows)


def rows_of(db: Connection, keys: Sequence[bytes]) -> list[RawRow]:
    """The rows under any number of keys."""
    return [row for start in range(0, len(keys), 500) for row in _rows(db, keys[start : start + 500])]


def replace(w: Write, gone: list[RawRow], come: list[RawRow]) -> None:
    """Rows for rows; whoever asks for it says why in the record."""
    _delete(w, gone)
    _insert(w, come)


def form_of(w: Write, address: Address) -> str:
    """The form under which this person's rows are written."""
    return person(address, w.ledger.same_person)


# ------------------------------------------------------------------ lists and their numbers


def scope_word(db: Connection, scope: int) -> str:
    """`all`, or `list:ID`."""
    return joined([scope], {n: i for i, n in list_numbers(db).items()} if scope != ALL else {})


def list_numbers(db: Connection) -> dict[str, int]:
    """List id -> number, of all lists there ever were."""
    return {r[0]: r[1] for r in db.exec_driver_sql("SELECT id, number FROM list_number")}


def number_lists(w: Write, ids: Iterable[str]) -> dict[str, int]:
    """Give every list a number that it has not yet. Returns all numbers."""
    known = list_numbers(w.db)
    for list_id in ids:
        if list_id not in known:
            known[list_id] = w.db.exec_driver_sql(
                "INSERT INTO list_number (number, id) SELECT coalesce(max(number), 0) + 1, ? FROM list_number RETURNING number",
                (list_id,),
            ).scalar_one()
    return known


# ------------------------------------------------------------------ reading for people


@dataclass(frozen=True, slots=True)
class Fact:
    """An audit row beside the evidence behind it (None: forgotten). `key` as stored."""

    seq: int
    at: datetime
    actor: str
    event: str
    key: bytes | None
    scope: int | None
    reason: int | None
    source: str | None
    evidence: int | None
    detail: dict[str, Any] | None


FACTS = """
    SELECT a.seq, a.at, a.actor, a.event, a.key, a.scope, a.reason, a.source, a.evidence, e.detail
    FROM audit a LEFT JOIN evidence e ON e.id = a.evidence
"""


def fact_of(row: Any) -> Fact:
    """A row of a query that begins with FACTS."""
    key = None if row[4] is None else bytes(row[4])
    detail = json.loads(row[9]) if row[9] else None
    return Fact(row[0], utc(row[1]), row[2], row[3], key, row[5], row[6], row[7], row[8], detail)


def standing(db: Connection, site_key: SiteKey, whom: Whom) -> list[RawRow]:
    """The rows that stand against any form of this address (or under this key), oldest first."""
    keys = _all_keys(db, site_key, whom)
    return sorted(_rows(db, keys), key=lambda r: r[3])


def standing_by_evidence(db: Connection, evidence: int, site_key: SiteKey | None = None) -> list[RawRow]:
    """The rows that stand on this evidence; with `site_key` also those that were moved to another key since."""
    query = "SELECT key, scope, reason, since, evidence FROM suppression WHERE key IN (SELECT key FROM audit WHERE evidence = ?)"
    found = [r for r in (_raw(x) for x in db.exec_driver_sql(query, (evidence,))) if r[4] == evidence]
    address = details(db, [evidence]).get(evidence, {}).get("address")
    if found or site_key is None or not address:
        return found
    with suppress(NotAnAddress):
        return [r for r in standing(db, site_key, parse(address)) if r[4] == evidence]
    return []


def details(db: Connection, evidence: Sequence[int]) -> dict[int, dict[str, Any]]:
    """Evidence id -> its particulars, of those that are not forgotten."""
    if not evidence:
        return {}  # PostgreSQL knows no empty list
    marks = ",".join("?" * len(evidence))
    query = f"SELECT id, detail FROM evidence WHERE detail IS NOT NULL AND id IN ({marks})"
    return {r[0]: json.loads(r[1]) for r in db.exec_driver_sql(query, tuple(evidence))}


def history(db: Connection, site_key: SiteKey, address: Address) -> list[Fact]:
    """All that was ever done about any form of this address, oldest first."""
    return by_keys(db, _all_keys(db, site_key, address))


def by_keys(db: Connection, keys: Sequence[bytes]) -> list[Fact]:
    """All that was ever done about these keys, oldest first."""
    marks = ",".join("?" * len(keys))
    return [fact_of(r) for r in db.exec_driver_sql(f"{FACTS} WHERE a.key IN ({marks}) ORDER BY a.seq", tuple(keys))]


def by_evidence(db: Connection, evidence: int) -> list[Fact]:
    """What was done on this evidence: what a `(ref N)` in a refusal leads to."""
    return [fact_of(r) for r in db.exec_driver_sql(f"{FACTS} WHERE a.evidence = ? ORDER BY a.seq", (evidence,))]


def between(db: Connection, after: int, last: int) -> list[Fact]:
    """The audit rows behind `after`, up to `last`, in order."""
    query = f"{FACTS} WHERE a.seq > ? AND a.seq <= ? ORDER BY a.seq"
    return [fact_of(r) for r in db.exec_driver_sql(query, (after, last))]


def by_seqs(db: Connection, seqs: Sequence[int]) -> dict[int, Fact]:
    """Sequence number -> audit row, of some hundred."""
    marks = ",".join("?" * len(seqs))
    found = db.exec_driver_sql(f"{FACTS} WHERE a.seq IN ({marks})", tuple(seqs)) if seqs else ()
    return {fact.seq: fact for fact in map(fact_of, found)}


def facts(db: Connection, after: int = 0, most: int = _NO_LIMIT) -> Iterator[tuple[Fact, bytes]]:
    """The audit log in order, from the row after this sequence number on, each row beside its mac."""
    query = FACTS.replace("e.detail", "NULL, a.mac", 1) + " WHERE a.seq > ? ORDER BY a.seq LIMIT ?"
    for row in in_pieces(db, query, (after, most)):
        yield fact_of(row), bytes(row[10])


def listing(
    db: Connection,
    *,
    scope: int | None = None,
    reason: Reason | None = None,
    source: str | None = None,
    since: datetime | None = None,
) -> Iterator[Any]:
    """Rows (key, address or None, scope, reason, since, evidence, source or None) that fit, in order of key."""
    wanted = {
        "s.scope = ?": scope,
        "s.reason = ?": None if reason is None else int(reason),
        "s.since >= ?": None if since is None else seconds(since),
    }
    terms = [t for t, v in wanted.items() if v is not None]
    values = [v for v in wanted.values() if v is not None]
    query = (
        "SELECT s.key, p.address, s.scope, s.reason, s.since, s.evidence, e.detail FROM suppression s"
        " LEFT JOIN person p ON p.key = s.key LEFT JOIN evidence e ON e.id = s.evidence"
        + (" WHERE " + " AND ".join(terms) if terms else "")
        + " ORDER BY s.key, s.scope, s.reason"
    )
    for row in in_pieces(db, query, values):
        of_it = json.loads(row[6]).get("source") if row[6] else None
        if source is None or of_it == source:
            yield (bytes(row[0]), *row[1:6], of_it)
