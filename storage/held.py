"""What waits in the review queue because a brake is pulled: found by the cause that it is of.

An item that a brake holds bears the rule `7.9-brake`, and its words begin with the cause (`bounces:outlook.com/5.1.1: 550
5.1.1 ...`); those of a request are the writer's own. The queue has an index by state, so what is looked at is what is open.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Connection

from storage import brake
from storage.brake import What

RULE: Final = "7.9-brake"  # a reading that is clear, but the brake is pulled: a person decides
_WISHES: Final = {
    "bounces": "wish IN ('hard-bounce', 'soft-bounce')",
    "complaints": "wish = 'complaint'",
    "unproven": "wish NOT IN ('hard-bounce', 'soft-bounce', 'complaint', 'resubscribe')",
}


def words_of(what: What, text: str) -> str:
    """The words of an item that this brake holds: the cause, and what the machine said."""
    return f"{what}: {text}"


def cause_in(rules: Sequence[str], words: str) -> What | None:
    """Of which cause an item is, by its rules and words; None: no brake holds it, or it is a request."""
    what, colon, _ = words.partition(": ")
    return what if RULE in rules and colon and brake.is_name(what) else None


def numbers(db: Connection, what: What, beyond: int = 0, most: int = 10_000) -> list[int]:
    """The numbers of the open items that this brake holds, ascending; only above `beyond`, and so many at most."""
    where, values = _which(what)
    query = f"SELECT id FROM review WHERE state = 'open' AND id > ? AND {where} ORDER BY id LIMIT ?"
    return [int(row[0]) for row in db.exec_driver_sql(query, (beyond, *values, most))]


def _which(what: What) -> tuple[str, tuple[Any, ...]]:
    terms = ["rules LIKE ?", _WISHES[brake.kind_of(what)]]
    values: list[str | int] = [f'%"{RULE}"%']
    if ":" in what:  # with this very name in front, or a narrower one
        starts = [words_of(what, ""), *([f"{what}/"] if what.startswith("bounces:") and "/" not in what else [])]
        terms.append(f"({' OR '.join('substr(words, 1, ?) = ?' for _ in starts)})")
        values += [part for start in starts for part in (len(start), start)]
    return " AND ".join(terms), tuple(values)
