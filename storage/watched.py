"""The folders that are watched: where the reading of each began, and which of its messages have been read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection

from storage.terms import seconds, utc
from storage.write import Write


@dataclass(frozen=True, slots=True)
class FirstSight:
    """Where the reading of a folder began."""

    uidnext: int
    since: datetime


def first_sight(db: Connection, mailbox: str, folder: str, uidvalidity: int) -> FirstSight | None:
    """Where our reading of this folder began; None if we have not seen it (under this UIDVALIDITY)."""
    query = "SELECT uidnext, since FROM watched_folder WHERE mailbox = ? AND folder = ? AND uidvalidity = ?"
    row = db.exec_driver_sql(query, (mailbox, folder, uidvalidity)).first()
    return FirstSight(row[0], utc(row[1])) if row else None


def begin_folder(w: Write, mailbox: str, folder: str, uidvalidity: int, uidnext: int, days: int | None) -> FirstSight:
    """Note the first sight of a folder: read `days` back (None: only what comes from now on).

    Under a new UIDVALIDITY every UID is new to us: what lies there is looked at again, back to the day it once began.
    """
    query = "SELECT min(since) FROM watched_folder WHERE mailbox = ? AND folder = ?"
    earliest = w.db.exec_driver_sql(query, (mailbox, folder)).scalar()
    since = int(earliest) if earliest is not None else seconds(w.now - timedelta(days=days or 0))
    begun = FirstSight(uidnext, utc(since))
    w.db.exec_driver_sql(
        "INSERT INTO watched_folder (mailbox, folder, uidvalidity, uidnext, since) VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT DO NOTHING",
        (mailbox, folder, uidvalidity, begun.uidnext, since),
    )
    return begun


def known(db: Connection, mailbox: str, folder: str, uidvalidity: int) -> dict[int, bool]:
    """UID -> has its reading ended? Of every message of a folder that was begun."""
    query = "SELECT uid, CASE WHEN state <> 'reading' THEN 1 ELSE 0 END FROM incoming WHERE mailbox = ? AND folder = ? AND uidvalidity = ?"
    return {row[0]: bool(row[1]) for row in db.exec_driver_sql(query, (mailbox, folder, uidvalidity))}


def identities(
    db: Connection, mailbox: str, folder: str, uidvalidity: int, uids: Sequence[int]
) -> dict[int, tuple[int, datetime]]:
    """UID -> (size, INTERNALDATE) as recorded of some hundred messages, of those that were fetched."""
    query = (
        "SELECT uid, size, internaldate FROM incoming WHERE mailbox = ? AND folder = ? AND uidvalidity = ?"
        f" AND size > 0 AND internaldate IS NOT NULL AND uid IN ({','.join('?' * len(uids))})"
    )
    rows = db.exec_driver_sql(query, (mailbox, folder, uidvalidity, *uids))
    return {row[0]: (row[1], utc(row[2])) for row in rows}


def give_free(w: Write, mailbox: str, folder: str, uidvalidity: int, uidnext: int) -> None:
    """The server will give the UIDs from this one on a second time: what bore them is not there any more.

    Its rows stay, under numbers that no message can have; what was owed to it is not owed any more.
    """
    of = (mailbox, folder, uidvalidity, uidnext)
    where = "WHERE mailbox = ? AND folder = ? AND uidvalidity = ? AND"
    w.db.exec_driver_sql(f"DELETE FROM incoming {where} uid >= ? AND state = 'reading'", of)
    w.db.exec_driver_sql(
        "UPDATE incoming SET state = CASE WHEN state = 'owed' THEN 'settled' ELSE state END, uid = -id"
        f" {where} uid >= ?",
        of,
    )
    w.db.exec_driver_sql(f"UPDATE watched_folder SET uidnext = ? {where} uidnext > ?", (uidnext, *of))
