"""Verbs on alarms: what wants a person, since when, whether it was mailed, and when it was over.

A row that has ended stays for the digests; the same trouble later is a new row. Several nodes write here: each what it
finds, and the one with the jobs also what was mailed, so a row is changed column by column.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection

from storage.terms import seconds, utc
from storage.write import Write

_KEPT_DAYS: Final = 400  # after its end
_MOST: Final = 1_000  # rows that anybody looks at


@dataclass(frozen=True, slots=True)
class Noted:
    """An alarm as it is written down. `id`: None until it is; `told`: when it was last mailed; `closed`: when its end was."""

    kind: str
    about: str
    node: str
    detector: str
    since: datetime
    seen: datetime
    text: str
    advice: str
    told: datetime | None = None
    ended: datetime | None = None
    closed: datetime | None = None
    id: int | None = None

    @property
    def key(self) -> tuple[str, str]:
        """Two standing alarms with the same are one."""
        return self.kind, self.about


_STOOD: Final = "since < ? AND (ended IS NULL OR ended >= ?)"
_ROW: Final = "SELECT kind, about, node, detector, since, seen, text, advice, told, ended, closed, id FROM alarm"


def standing(db: Connection) -> list[Noted]:
    """Those that stand; oldest first."""
    return _rows(db, "WHERE ended IS NULL", ())


def unsettled(db: Connection) -> list[Noted]:
    """Those that stand, and those whose end nobody was told of, each oldest first: what stands is not left out for the others."""
    return standing(db) + _rows(db, "WHERE ended IS NOT NULL AND closed IS NULL", ())


def between(db: Connection, start: datetime, end: datetime) -> list[Noted]:
    """Those that stood at some time from `start` up to `end`; oldest first, a thousand at most."""
    return _rows(db, f"WHERE {_STOOD}", (seconds(end), seconds(start)))


def kinds(db: Connection, start: datetime, end: datetime) -> dict[str, int]:
    """Kind -> how many stood at some time from `start` up to `end`: all of them."""
    query = f"SELECT kind, count(*) FROM alarm WHERE {_STOOD} GROUP BY kind"
    return {kind: int(n) for kind, n in db.exec_driver_sql(query, (seconds(end), seconds(start)))}


def _rows(db: Connection, where: str, values: tuple[int, ...]) -> list[Noted]:
    return [_noted(row) for row in db.exec_driver_sql(f"{_ROW} {where} ORDER BY since, id LIMIT {_MOST}", values)]


def _noted(row: Any) -> Noted:
    kind, about, node, detector, since, seen, text, advice, *later, number = row
    told, ended, closed = (None if at is None else utc(at) for at in later)
    return Noted(kind, about, node, detector, utc(since), utc(seen), text, advice, told, ended, closed, number)


def last_told(db: Connection) -> datetime | None:
    """When somebody was last mailed of an alarm, or of the end of one."""
    row = db.exec_driver_sql("SELECT max(told), max(CASE WHEN told IS NULL THEN NULL ELSE closed END) FROM alarm").one()
    last = max((at for at in row if at is not None), default=None)
    return None if last is None else utc(last)


def save(w: Write, alarms: Iterable[Noted]) -> None:
    """Write them down. What was mailed and what has ended is never taken back; a standing one of the same key is gone on with."""
    for alarm in alarms:
        found = (
            alarm.id
            or w.db.exec_driver_sql(
                "SELECT id FROM alarm WHERE kind = ? AND about = ? AND ended IS NULL", alarm.key
            ).scalar()
        )
        if found is None:
            _insert(w, alarm)
        else:
            _update(w, int(found), alarm)


def _insert(w: Write, alarm: Noted) -> None:
    w.db.exec_driver_sql(
        "INSERT INTO alarm (kind, about, node, detector, since, seen, text, advice, told, ended, closed)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (*alarm.key, alarm.node, alarm.detector, seconds(alarm.since), *_changing(alarm)),
    )


def _update(w: Write, number: int, alarm: Noted) -> None:
    w.db.exec_driver_sql(
        "UPDATE alarm SET node = ?, detector = ?, seen = ?, text = ?, advice = ?, told = coalesce(?, told),"
        " ended = coalesce(ended, ?), closed = coalesce(closed, ?) WHERE id = ?",
        (alarm.node, alarm.detector, *_changing(alarm), number),
    )


def _changing(alarm: Noted) -> tuple[Any, ...]:
    told, ended, closed = (None if at is None else seconds(at) for at in (alarm.told, alarm.ended, alarm.closed))
    return seconds(alarm.seen), alarm.text, alarm.advice, told, ended, closed


def forget(w: Write) -> None:
    """Drop what was over long ago."""
    w.db.exec_driver_sql("DELETE FROM alarm WHERE ended < ?", (w.at - _KEPT_DAYS * 86_400,))
