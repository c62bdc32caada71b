"""Which node does what: watches a mailbox, runs the jobs, sends notices.

A lease holds for SECONDS unless its holder renews it; a node that has died or lost the database loses its leases, and
another one takes them. The database's clock counts, so that nodes whose clocks differ agree. Two holders for a moment
(one that stood still for longer than its lease) do no harm: all that they do may be done twice.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from sqlalchemy import Connection

from storage.engine import Ledger

SECONDS: Final = 15
_KEPT_SECONDS: Final = 86_400  # after it ran out: each node that is killed leaves one that nobody else will ever take
_NOW: Final = {
    "sqlite": "CAST(strftime('%s', 'now') AS INTEGER)",
    "postgresql": "CAST(extract(epoch FROM clock_timestamp()) AS BIGINT)",
}


def take(ledger: Ledger, holder: str, roles: Iterable[str]) -> frozenset[str]:
    """Take or renew the leases of these roles for `holder`. Returns those that it has now. Raises Unavailable.

    Leases that ran out long ago are removed.
    """
    held: set[str] = set()
    with ledger.connect() as db:
        now = _NOW[db.dialect.name]
        statement = (
            f"INSERT INTO lease (role, holder, until) VALUES (?, ?, {now} + ?)"
            " ON CONFLICT (role) DO UPDATE SET holder = excluded.holder, until = excluded.until"
            f" WHERE lease.holder = excluded.holder OR lease.until < {now} RETURNING role"
        )
        db.exec_driver_sql(f"DELETE FROM lease WHERE until < {now} - ?", (_KEPT_SECONDS,))
        for role in roles:
            held.update(row[0] for row in db.exec_driver_sql(statement, (role, holder, SECONDS)))
    return frozenset(held)


def release(ledger: Ledger, holder: str) -> None:
    """Give up all leases at once: another node need not wait until they run out. Raises Unavailable."""
    with ledger.connect() as db:
        db.exec_driver_sql("DELETE FROM lease WHERE holder = ?", (holder,))


def held(db: Connection) -> dict[str, str]:
    """Role -> who has it now."""
    query = f"SELECT role, holder FROM lease WHERE until >= {_NOW[db.dialect.name]}"
    return {str(role): str(holder) for role, holder in db.exec_driver_sql(query)}


def holders(ledger: Ledger) -> list[str]:
    """Who holds a lease now: the nodes that run, as far as they have something to do. Raises Unavailable."""
    with ledger.connect() as db:
        return sorted(set(held(db).values()))
