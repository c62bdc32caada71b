"""What has begun and not ended: mail being read, mail to be filed, mail of our own. Each question is answered by an index."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from storage.terms import utc


@dataclass(frozen=True, slots=True)
class Owed:
    """How many, and since when the oldest."""

    number: int
    since: datetime | None


def oldest_reading(db: Connection, mailbox: str) -> int | None:
    """The UID of the message of this mailbox whose reading began first of those that have not ended."""
    query = "SELECT uid FROM incoming WHERE mailbox = ? AND state = 'reading' ORDER BY id LIMIT 1"
    found = db.exec_driver_sql(query, (mailbox,)).scalar()
    return None if found is None else int(found)


def to_be_filed(db: Connection, mailbox: str) -> Owed:
    """The recorded messages of a mailbox that are owed their folder: since they came and what they ask for was committed."""
    query = (
        "SELECT count(*), min(CASE WHEN coalesce(i.internaldate, 0) > coalesce(e.at, 0) THEN i.internaldate ELSE e.at END)"
        " FROM incoming i LEFT JOIN evidence e ON e.id = i.evidence WHERE i.mailbox = ? AND i.state = 'owed'"
    )
    return _owed(*db.exec_driver_sql(query, (mailbox,)).one())


def notices(db: Connection) -> Owed:
    """The mails of our own that are owed to people."""
    return _owed(*db.exec_driver_sql("SELECT count(*), min(at) FROM outbox WHERE state = 'owed'").one())


def _owed(number: int, since: int | None) -> Owed:
    return Owed(int(number), None if since is None else utc(since))
