"""Which suppression row is it? Asked once the sum over all of them has shown that one was changed behind our back.

The sum cannot say. But most rows have an audit row that names them, so a row that none explains, or one that was put
there and is gone, can be pointed at. Both questions go through the whole table; nobody is in a hurry then.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection

from storage.terms import Reason

# Rows without a key (an import, a restore) speak of many people and explain all rows that name their evidence; when a
# person is erased, their rows may move to another key.
_UNEXPLAINED: Final = """
    SELECT s.key, s.evidence FROM suppression s WHERE NOT EXISTS (
        SELECT 1 FROM audit a WHERE a.evidence = s.evidence AND a.event <> 'lifted'
        AND (a.key IS NULL OR (a.key = s.key AND a.scope = s.scope AND a.reason = s.reason))
    ) AND NOT EXISTS (SELECT 1 FROM audit a WHERE a.key = s.key AND a.event = 'erased') ORDER BY s.key LIMIT 1
"""
_GONE: Final = """
    SELECT a.seq, a.key, a.evidence FROM audit a WHERE a.event IN ('suppressed', 'restored') AND a.reason <> ?
    AND NOT EXISTS (
        SELECT 1 FROM suppression s WHERE s.key = a.key AND s.scope = a.scope AND s.reason = a.reason
    ) AND NOT EXISTS (
        SELECT 1 FROM audit b WHERE b.key = a.key AND b.seq > a.seq AND b.event = 'lifted'
        AND b.scope = a.scope AND b.reason = a.reason
    ) ORDER BY a.seq LIMIT 1
"""
_NOT_ONE: Final = (
    "the rows are not what the log says: one was changed, added or deleted without an audit row; which one cannot be told"
    " (its date, or a row that came with many others)"
)


def named(db: Connection) -> str:
    """The first row that is not as the log has it, as a sentence for the operator."""
    if db.exec_driver_sql("SELECT 1 FROM audit WHERE event = 're-keyed' LIMIT 1").first():
        return _NOT_ONE  # the rows have moved to keys that no earlier audit row names
    row = db.exec_driver_sql(_UNEXPLAINED).first()
    if row is not None:
        return f"the row of key {_hex(row[0])} (ref {row[1]}) is of no audit row: it was added or changed"
    row = db.exec_driver_sql(_GONE, (int(Reason.WANTED),)).first()
    if row is not None:
        return f"the row of key {_hex(row[1])} (ref {row[2]}), put there by audit row {row[0]}, is gone"
    return _NOT_ONE


def _hex(key: object) -> str:
    return key.hex() if isinstance(key, bytes) else repr(key)[:40]
