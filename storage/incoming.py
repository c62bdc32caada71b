"""Verbs on what came in: which messages were seen, what is still owed to them, and the queue of doubtful ones."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Connection

from storage import forgotten
from storage.terms import seconds, utc
from storage.write import Write

# reading: begun, not ended · done: read, nothing owed · owed: to be filed into `target` · filed · settled: a person
# or the server dealt with it (moved, deleted), nothing is owed any more
State = Literal["reading", "done", "owed", "filed", "settled"]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a message lies: an IMAP message's identity (RFC 9051 2.3.1.1)."""

    mailbox: str
    folder: str
    uidvalidity: int
    uid: int


@dataclass(frozen=True, slots=True)
class Seen:
    """A message as recorded. `message_id` is "" if it has none; `digest` is of the fetched octets and the size."""

    id: int
    place: Place
    state: State
    target: str
    digest: bytes
    size: int
    message_id: str
    internaldate: datetime | None
    label: str
    evidence: int | None


def attempt(w: Write, place: Place) -> int:
    """Note, before a message is read, that we are about to: a message that kills us must not do so for ever.

    Returns how many attempts there have been, this one included.
    """
    found = w.db.exec_driver_sql(
        "INSERT INTO incoming (mailbox, folder, uidvalidity, uid, state, attempts, target, message_id, label)"
        " VALUES (?, ?, ?, ?, 'reading', 1, '', '', '')"
        " ON CONFLICT (mailbox, folder, uidvalidity, uid) DO UPDATE SET attempts = incoming.attempts + 1 RETURNING attempts",
        (place.mailbox, place.folder, place.uidvalidity, place.uid),
    ).scalar_one()
    return int(found)


def record(
    w: Write,
    place: Place,
    *,
    digest: bytes,
    size: int,
    message_id: str,
    internaldate: datetime | None,
    label: str,
    state: State,
    target: str = "",
    evidence: int | None = None,
    sender: str = "",
) -> int:
    """Write down what was read, and what is owed (state `owed`: filing into `target`). Returns the row's id.

    `sender` is not written down: the message of somebody who was forgotten is known by its octets alone.
    """
    when = None if internaldate is None else seconds(internaldate)
    message_id = forgotten.message_id(w.db, w.ledger.site_key, message_id, digest, sender)
    found = w.db.exec_driver_sql(
        "INSERT INTO incoming (mailbox, folder, uidvalidity, uid, state, attempts, target, digest, size, message_id, internaldate, label, evidence)"
        " VALUES (?, ?, ?, ?, ?, 1, ?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (mailbox, folder, uidvalidity, uid) DO UPDATE SET state = excluded.state, target = excluded.target, digest = excluded.digest,"
        " size = excluded.size, message_id = excluded.message_id, internaldate = excluded.internaldate, label = excluded.label,"
        " evidence = excluded.evidence RETURNING id",
        (
            place.mailbox,
            place.folder,
            place.uidvalidity,
            place.uid,
            state,
            target,
            digest,
            size,
            message_id,
            when,
            label,
            evidence,
        ),
    ).scalar_one()
    return int(found)


def settle_unseen(w: Write, place: Place) -> None:
    """A message that is not to be read: it is gone, or it is none of anybody's."""
    record(w, place, digest=b"", size=0, message_id="", internaldate=None, label="", state="settled")


def settle(w: Write, number: int, state: State) -> None:
    """The debt to a message is paid (`filed`), or cannot be any more (`settled`)."""
    w.db.exec_driver_sql("UPDATE incoming SET state = ? WHERE id = ?", (state, number))


def seen(db: Connection, number: int) -> Seen:
    """One sighting by its row's id."""
    return _seen(db.exec_driver_sql(f"{_SEEN} WHERE id = ?", (number,)).one())


def take_over(w: Write, old: int, new: int) -> None:
    """A message lies somewhere else now: what waits for a decision about it follows it there."""
    w.db.exec_driver_sql("UPDATE review SET incoming = ? WHERE incoming = ? AND state = 'open'", (new, old))
    w.db.exec_driver_sql("UPDATE incoming SET state = 'settled' WHERE id = ? AND state = 'owed'", (old,))


_SEEN = "SELECT id, mailbox, folder, uidvalidity, uid, state, target, digest, size, message_id, internaldate, label, evidence FROM incoming"


def _seen(row: Any) -> Seen:
    when = None if row[10] is None else utc(row[10])
    return Seen(row[0], Place(*row[1:5]), row[5], row[6], row[7] or b"", row[8] or 0, row[9], when, row[11], row[12])


def owed(db: Connection, mailbox: str) -> list[Seen]:
    """The messages of a mailbox that are still to be filed away."""
    return [
        _seen(r) for r in db.exec_driver_sql(f"{_SEEN} WHERE mailbox = ? AND state = 'owed' ORDER BY id", (mailbox,))
    ]


def twins(db: Connection, message_id: str, digest: bytes, *, mailbox: str | None = None) -> list[Seen]:
    """Earlier sightings of the same message: by Message-ID, or by content if it has none. Oldest first."""
    if not message_id and not digest:
        return []  # never fetched: nothing is known to compare
    values: tuple[str | bytes, ...]
    if message_id:  # that of somebody who was erased is known by its octets alone
        where, values = "message_id IN (?, ?)", (message_id, forgotten.instead_of_id(digest) or message_id)
    else:
        where, values = "message_id = '' AND digest = ?", (digest,)
    if mailbox is not None:
        where, values = f"{where} AND mailbox = ?", (*values, mailbox)
    return [_seen(r) for r in db.exec_driver_sql(f"{_SEEN} WHERE {where} AND state <> 'reading' ORDER BY id", values)]


def last_asked(db: Connection, evidence: int) -> datetime | None:
    """When the latest message came that asked for what this evidence is about (a repeated request moves no row)."""
    query = "SELECT max(internaldate) FROM incoming WHERE evidence = ?"
    found = db.exec_driver_sql(query, (evidence,)).scalar()
    return None if found is None else utc(found)


# ------------------------------------------------------------------ soft bounces


def count_soft_bounce(w: Write, key: bytes, day: datetime, window_days: int) -> int:
    """Note that an address bounced softly on a day; returns on how many days of the window that ends there it did."""
    last = seconds(day) // 86_400
    w.db.exec_driver_sql("INSERT INTO soft_bounce (key, day) VALUES (?, ?) ON CONFLICT DO NOTHING", (key, last))
    query = "SELECT count(*) FROM soft_bounce WHERE key = ? AND day > ? AND day <= ?"
    return int(w.db.exec_driver_sql(query, (key, last - window_days, last)).scalar_one())


def forget_soft_bounces(w: Write, window_days: int) -> None:
    """Drop the days that have left the window."""
    w.db.exec_driver_sql("DELETE FROM soft_bounce WHERE day <= ?", (w.at // 86_400 - window_days,))


# ------------------------------------------------------------------ what nobody proved


def allow_unproven(w: Write, writer: bytes, asked: datetime, people: int, limit: int, one_writer: int) -> bool:
    """May so many more people be suppressed though nobody proved it? Counts them if so.

    `writer`: his address key. It is counted by the hour in which it came in, so that a backlog is read as it arrived.
    """
    hour = seconds(asked) // 3600
    query = "SELECT coalesce(sum(count), 0), coalesce(sum(CASE WHEN writer = ? THEN count END), 0) FROM unproven WHERE hour = ?"
    total, his = w.db.exec_driver_sql(query, (writer, hour)).one()
    if total + people > limit or his + people > one_writer:
        return False
    w.db.exec_driver_sql(
        "INSERT INTO unproven (hour, writer, count) VALUES (?, ?, ?)"
        " ON CONFLICT (hour, writer) DO UPDATE SET count = unproven.count + excluded.count",
        (hour, writer, people),
    )
    return True


def forget_unproven(w: Write, days: int = 60) -> None:
    """Drop the hours so long past that no mailbox is read back to them."""
    w.db.exec_driver_sql("DELETE FROM unproven WHERE hour < ?", (w.at // 3600 - days * 24,))


# ------------------------------------------------------------------ the review queue


@dataclass(frozen=True, slots=True)
class Item:
    """A doubtful message in the queue. `wish`: the label of its reading; `addresses`: whom accepting concerns."""

    id: int
    incoming: int | None
    at: datetime
    place: Place | None
    sender: str
    addresses: tuple[str, ...]
    scope: str
    rules: tuple[str, ...]
    words: str
    language: str
    excerpt: str
    wish: str
    state: Literal["open", "accepted", "rejected"]
    note: str
    decided: datetime | None = None


def open_review(
    w: Write,
    incoming: int | None,
    *,
    received: datetime,
    sender: str,
    addresses: Iterable[str],
    scope: str,
    rules: Iterable[str],
    words: str,
    wish: str,
    language: str = "",
    excerpt: str = "",
) -> int:
    """Put a message into the queue; returns its number there."""
    found = w.db.exec_driver_sql(
        "INSERT INTO review (incoming, at, sender, addresses, scope, rules, words, language, excerpt, wish, state, note)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'open', '') RETURNING id",
        (
            incoming,
            seconds(received),
            sender,
            json.dumps(list(addresses)),
            scope,
            json.dumps(list(rules)),
            words,
            language,
            excerpt,
            wish,
        ),
    ).scalar_one()
    return int(found)


def was_queued(db: Connection, received: datetime | None, sender: str, words: str) -> bool:
    """Was this message put into the queue before, whatever was decided? One without a date: by its words alone."""
    query = "SELECT 1 FROM review WHERE (at = ? OR ?) AND sender = ? AND words = ? LIMIT 1"
    at = 0 if received is None else seconds(received)
    if db.exec_driver_sql(query, (at, received is None, sender, words)).first() is not None:
        return True
    # One that was decided and has lost its words by now is known by the second in which it came.
    query = (
        "SELECT 1 FROM review WHERE at = ? AND state <> 'open' AND sender = '' AND words = '' AND excerpt = '' LIMIT 1"
    )
    return received is not None and db.exec_driver_sql(query, (at,)).first() is not None


_ITEM = (
    "SELECT r.id, r.incoming, r.at, i.mailbox, i.folder, i.uidvalidity, i.uid, r.sender, r.addresses, r.scope, r.rules, r.words, r.language,"
    " r.excerpt, r.wish, r.state, r.note, r.decided FROM review r LEFT JOIN incoming i ON i.id = r.incoming"
)


def _item(row: Any) -> Item:
    place = Place(*row[3:7]) if row[3] is not None else None
    when = utc(row[2])
    people, rules = tuple(json.loads(row[8])), tuple(json.loads(row[10]))
    decided = None if row[17] is None else utc(row[17])
    words, language, excerpt, wish, state, note = row[11:17]
    return Item(
        row[0],
        row[1],
        when,
        place,
        row[7],
        people,
        row[9],
        rules,
        words,
        language,
        excerpt,
        wish,
        state,
        note,
        decided,
    )


def reviews(db: Connection, state: str | None = "open", *, beyond: int = 0, most: int = 2**63 - 1) -> list[Item]:
    """The queue, oldest first; state None: decided ones too. `beyond`: only items with a higher number; `most`: of these."""
    where, values = ("AND r.state = ?", (state,)) if state else ("", ())
    query = f"{_ITEM} WHERE r.id > ? {where} ORDER BY r.id LIMIT ?"
    return [_item(r) for r in db.exec_driver_sql(query, (beyond, *values, most))]


def waiting(db: Connection, most: int) -> list[tuple[int, list[str]]]:
    """(number, whom it is about, the sender where it names nobody) of the newest open items."""
    query = "SELECT id, sender, addresses FROM review WHERE state = 'open' ORDER BY id DESC LIMIT ?"
    return [(row[0], json.loads(row[2]) or [row[1]]) for row in db.exec_driver_sql(query, (most,))]


def queue(db: Connection, state: str | None, beyond: int | None = None, most: int = 50) -> list[Item]:
    """A page of the queue. Open items: oldest first; others (None: of any state): newest first.

    `beyond`: the number of the last item of the page before.
    """
    way, order = (">", "ASC") if state == "open" else ("<", "DESC")
    terms: dict[str, int | str | None] = {"r.state = ?": state, f"r.id {way} ?": beyond}
    given = {term: value for term, value in terms.items() if value is not None}
    where = f"WHERE {' AND '.join(given)}" if given else ""
    query = f"{_ITEM} {where} ORDER BY r.id {order} LIMIT ?"
    return [_item(r) for r in db.exec_driver_sql(query, (*given.values(), most))]


def beside(db: Connection, number: int) -> tuple[int | None, int | None]:
    """The open items before and behind this one, by their numbers."""
    query = (
        "SELECT max(CASE WHEN id < ? THEN id END), min(CASE WHEN id > ? THEN id END) FROM review WHERE state = 'open'"
    )
    before, behind = db.exec_driver_sql(query, (number, number)).one()
    return before, behind


def open_items(db: Connection) -> int:
    """How many items are open."""
    return int(db.exec_driver_sql("SELECT count(*) FROM review WHERE state = 'open'").scalar_one())


def review(db: Connection, number: int) -> Item | None:
    """One item by its number."""
    row = db.exec_driver_sql(f"{_ITEM} WHERE r.id = ?", (number,)).first()
    return _item(row) if row else None


def review_of(db: Connection, incoming: int) -> Item | None:
    """The open item about a message, if there is one."""
    row = db.exec_driver_sql(f"{_ITEM} WHERE r.incoming = ? AND r.state = 'open'", (incoming,)).first()
    return _item(row) if row else None


def decide(w: Write, item: Item, accepted: bool, note: str) -> None:
    """Close an item. An accepted message is then owed its filing, if it has a folder to go to."""
    state = "accepted" if accepted else "rejected"
    w.db.exec_driver_sql(
        "UPDATE review SET state = ?, decided = ?, note = ? WHERE id = ?", (state, w.at, note, item.id)
    )
    if forgotten.whose(w.db, w.ledger.site_key, (item.sender, *item.addresses)):
        strip(w, [item.id])  # it had to be shown while it waited, and need not be any longer
    if accepted and item.incoming is not None:
        w.db.exec_driver_sql(
            "UPDATE incoming SET state = 'owed' WHERE id = ? AND state = 'done' AND target <> ''", (item.incoming,)
        )


def strip(w: Write, items: Iterable[int]) -> None:
    """Take out of items all that is anybody's: sender, addresses, words, excerpt and note."""
    w.db.exec_driver_sql(
        "UPDATE review SET sender = '', addresses = '[]', words = '', excerpt = '', note = '' WHERE id = ?",
        [(number,) for number in items],
    )
