"""The ledger a page at a time, for whoever comes back for the next: each begins where the one before ended, by key.

A page costs the same however large the ledger is, and wherever in it the page lies.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection

from storage import suppressions
from storage.pieces import in_pieces, under
from storage.refusals import Refusal
from storage.suppressions import Fact
from storage.terms import Reason, seconds, utc

LOOK: Final = 10_000  # rows looked at for one page, whether they fit or not: some hundred milliseconds at most

Place = tuple[bytes, int, int]  # key, scope, reason: a row of the list
START: Final[Place] = (b"", -1, -1)


class Wanted(NamedTuple):
    """Which suppressions. None: all."""

    scope: int | None = None
    reason: Reason | None = None
    source: str | None = None
    since: datetime | None = None

    def fits(self, row: Any, of_it: str | None) -> bool:
        """Is this one of them? `row` as in `suppressions.listing`."""
        return (
            self.scope in (None, row[2])
            and self.reason in (None, row[3])
            and self.source in (None, of_it)
            and (self.since is None or row[4] >= seconds(self.since))
        )


# That `person` begins where the page does goes without saying, but not for PostgreSQL, which would go through all before it.
_LISTED: Final = """
    SELECT s.key, p.address, s.scope, s.reason, s.since, s.evidence, e.detail FROM suppression s
    LEFT JOIN person p ON p.key = s.key AND p.key >= ? LEFT JOIN evidence e ON e.id = s.evidence
    WHERE (s.key, s.scope, s.reason) > (?, ?, ?) ORDER BY s.key, s.scope, s.reason LIMIT ?
"""


def listing(
    db: Connection, wanted: Wanted, most: int, beyond: Place = START, look: int = LOOK
) -> tuple[list[Any], Place | None]:
    """The next suppressions that fit, as `suppressions.listing` has them, and where to go on; None: these were the last.

    There may be few, or none, and more behind them: a page ends when enough rows were looked at, too.
    """
    found: list[Any] = []
    seen, place = 0, beyond
    for row in in_pieces(db, _LISTED, (beyond[0], *beyond, look)):
        seen, place = seen + 1, (bytes(row[0]), row[2], row[3])
        of_it = json.loads(row[6]).get("source") if row[6] else None
        if wanted.fits(row, of_it):
            found.append((bytes(row[0]), *row[1:6], of_it))
            if len(found) == most:
                return found, place
    return found, place if seen == look else None


def changes(db: Connection, after: int, most: int) -> list[tuple[Fact, bytes, str | None]]:
    """The audit rows behind this sequence number: (row, its mac, the address of the person if it is known)."""
    rows = suppressions.facts(db, after, most)
    told = list(rows)
    known = people(db, (fact.key for fact, _ in told if fact.key))
    return [(fact, mac, known.get(fact.key) if fact.key else None) for fact, mac in told]


_REFUSED: Final = """
    SELECT id, at, outcome, key, list, reason, credential, message_id, evidence, others FROM refusal
    WHERE id > ? AND at >= ? ORDER BY id LIMIT ?
"""
# Where those since a moment begin. Nodes write down what they refused a second later, so times and numbers are not quite
# in the same order.
_FIRST: Final = "SELECT min(id) FROM (SELECT id FROM refusal WHERE at >= ? ORDER BY at LIMIT 1000) AS first"


def refusals(
    db: Connection, since: datetime | None, most: int, beyond: int | None = None
) -> tuple[list[tuple[int, Refusal]], int]:
    """The next refusals in the order in which they were written down, each with its number, and where to go on.

    `address` is that of the person, if it is known.
    """
    moment = 0 if since is None else seconds(since)
    if beyond is None:
        first = db.exec_driver_sql(_FIRST, (moment,)).scalar()
        beyond = int(first) - 1 if first is not None else _last_refusal(db)
    rows = db.exec_driver_sql(_REFUSED, (beyond, moment, most)).all()
    known = people(db, (bytes(r[3]) for r in rows))
    told = [(int(row[0]), _refusal(row, known)) for row in rows]
    return told, told[-1][0] if told else beyond


def _refusal(row: Any, known: dict[bytes, str]) -> Refusal:
    _, at, outcome, key, *rest = row
    return Refusal(utc(at), outcome, bytes(key), *rest)._replace(address=known.get(bytes(key)))


def _last_refusal(db: Connection) -> int:
    return int(db.exec_driver_sql("SELECT max(id) FROM refusal").scalar() or 0)


def people(db: Connection, keys: Iterable[bytes]) -> dict[bytes, str]:
    """The plain addresses of these keys, as far as they are kept."""
    rows = under(db, "SELECT key, address FROM person WHERE key", list(dict.fromkeys(keys)))
    return {bytes(key): str(address) for key, address in rows}
