"""The audit log read backwards, as an operator looks through it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from storage.pages import people
from storage.suppressions import FACTS, Fact, fact_of


@dataclass(frozen=True, slots=True)
class Stretch:
    """A part of the audit log, newest first. `reached`: the number down to which it was looked through; None: to its beginning.

    `addresses`: key -> plain address, of those of its keys whose address is kept.
    """

    facts: list[Fact]
    reached: int | None
    addresses: dict[bytes, str]


def backwards(
    db: Connection, before: int | None, *, event: str = "", actor: str = "", most: int = 100, wide: int = 200_000
) -> Stretch:
    """The log backwards, from before this number on: rows of this event, and by actors whose name begins so ("": any).

    At most `most` rows, out of at most `wide`: neither event nor actor has an index, and the log may have millions.
    """
    newest = db.exec_driver_sql("SELECT max(seq) FROM audit").scalar() or 0
    above = min(newest + 1, before or newest + 1)
    floor = max(0, above - 1 - wide)
    terms: dict[str, tuple[Any, ...]] = {"a.seq < ?": (above,), "a.seq > ?": (floor,)}
    if event:
        terms["a.event = ?"] = (event,)
    if actor:
        terms["substr(a.actor, 1, ?) = ?"] = (len(actor), actor)
    query = f"{FACTS} WHERE {' AND '.join(terms)} ORDER BY a.seq DESC LIMIT ?"
    found = [fact_of(r) for r in db.exec_driver_sql(query, (*(v for some in terms.values() for v in some), most))]
    reached = found[-1].seq if len(found) == most else floor + 1
    return Stretch(found, reached if reached > 1 else None, people(db, [f.key for f in found if f.key]))
