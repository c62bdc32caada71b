"""Verbs on the outbox: the mail that we owe a person ourselves, claimed in the transaction of the fact it tells of."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Literal

from sqlalchemy import Connection

from storage import forgotten
from storage.address import Address
from storage.suppressions import form_of
from storage.terms import seconds, utc
from storage.write import Write

Kind = Literal["confirm", "comeback"]  # "you are off the list" · "do you want to be mailed again?"
Settled = Literal["sent", "dropped"]
AGAIN_DAYS: Final = 30  # one notice of a kind to a person in so many days
LIFE: Final = timedelta(hours=24)  # what could not be sent by then is not sent
_UNPROVEN_PER_HOUR: Final = 5  # notices to addresses that nobody proved: no more, so that nobody can be flooded by us


@dataclass(frozen=True, slots=True)
class Notice:
    """A notice to be sent. `scopes`: the numbers of what it is about; `key`: whose; `at`: when it was owed."""

    id: int
    at: datetime
    kind: Kind
    key: bytes
    address: str
    language: str
    scopes: tuple[int, ...]
    attempts: int


def owe(w: Write, kind: Kind, person: Address, language: str, scopes: Sequence[int], *, proven: bool) -> bool:
    """Owe a person a notice.

    False: they had one of this kind lately, too many unproven ones are under way, or the person was forgotten, so that
    their address is not written down for it.
    """
    if forgotten.is_marked(w.db, w.ledger.site_key, person):
        return False
    keys = w.ledger.site_key.address_keys(form_of(w, person))
    marks = ",".join("?" * len(keys))
    lately = w.db.exec_driver_sql(
        f"SELECT 1 FROM outbox WHERE kind = ? AND at > ? AND state <> 'dropped' AND key IN ({marks}) LIMIT 1",
        (kind, w.at - AGAIN_DAYS * 86_400, *keys),
    ).first()
    if lately or (not proven and _unproven_lately(w) >= _UNPROVEN_PER_HOUR):
        return False
    w.db.exec_driver_sql(
        "INSERT INTO outbox (at, kind, key, address, language, scopes, proven, state, attempts, due)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, 'owed', 0, ?)",
        (w.at, kind, keys[0], str(person), language, json.dumps(sorted(scopes)), int(proven), w.at),
    )
    return True


def _unproven_lately(w: Write) -> int:
    query = "SELECT count(*) FROM outbox WHERE proven = 0 AND at > ?"
    return int(w.db.exec_driver_sql(query, (w.at - 3600,)).scalar_one())


_NOTICE = "SELECT id, at, kind, key, address, language, scopes, attempts FROM outbox"


def due(db: Connection, now: datetime, most: int = 50) -> list[Notice]:
    """What is to be sent now, oldest first."""
    query = f"{_NOTICE} WHERE state = 'owed' AND due <= ? ORDER BY id LIMIT ?"
    return [_notice(row) for row in db.exec_driver_sql(query, (seconds(now), most))]


def _notice(row: Any) -> Notice:
    at, scopes = utc(row[1]), tuple(json.loads(row[6]))
    return Notice(row[0], at, row[2], bytes(row[3]), row[4], row[5], scopes, row[7])


def postpone(w: Write, notice: Notice, until: datetime) -> None:
    """It could not be sent; try again."""
    w.db.exec_driver_sql(
        "UPDATE outbox SET attempts = attempts + 1, due = ? WHERE id = ? AND state = 'owed'",
        (seconds(until), notice.id),
    )


def settle(w: Write, notice: Notice, state: Settled) -> None:
    """It was sent, or will not be. The plain address is not kept any longer."""
    w.db.exec_driver_sql(
        "UPDATE outbox SET state = ?, address = '', attempts = attempts + 1 WHERE id = ? AND state = 'owed'",
        (state, notice.id),
    )


def forget(w: Write) -> None:
    """Drop what no later notice has to know of."""
    w.db.exec_driver_sql("DELETE FROM outbox WHERE state <> 'owed' AND at < ?", (w.at - AGAIN_DAYS * 86_400,))
