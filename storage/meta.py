"""Table `meta`: a few facts about the whole ledger, each under a name."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection


def get(db: Connection, name: str) -> Any:
    """What stands under a name, None if nothing does. Octets, unless somebody else has written it."""
    return db.exec_driver_sql("SELECT value FROM meta WHERE name = ?", (name,)).scalar()


def put(db: Connection, name: str, value: bytes) -> None:
    """Write it down within a writing transaction, in place of what stood there."""
    db.exec_driver_sql(
        "INSERT INTO meta (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        (name, value),
    )


def drop(db: Connection, name: str) -> None:
    """Nothing stands under this name any more."""
    db.exec_driver_sql("DELETE FROM meta WHERE name = ?", (name,))


def beginning(db: Connection, prefix: str) -> dict[str, bytes]:
    """What stands under the names that begin so; the rest of the name -> value, in order."""
    query = "SELECT name, value FROM meta WHERE substr(name, 1, ?) = ? ORDER BY name"
    return {name.removeprefix(prefix): bytes(value) for name, value in db.exec_driver_sql(query, (len(prefix), prefix))}
