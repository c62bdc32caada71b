"""Has every suppression its evidence? Asked a piece at a time, so that it can be asked of millions."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection

PIECE: Final = 5_000  # keys: some milliseconds

_LAST: Final = "SELECT key FROM suppression WHERE key > ? ORDER BY key LIMIT 1 OFFSET ?"
_MISSING: Final = (
    "SELECT count(*) FROM suppression s LEFT JOIN evidence e ON e.id = s.evidence"
    " WHERE e.id IS NULL AND s.key > ? AND s.key <= ?"
)
_END: Final = b"\xff" * 17  # behind every key, which has 16 octets


def missing(db: Connection, after: bytes = b"", piece: int = PIECE) -> tuple[int, bytes | None]:
    """How many rows of the next piece have no evidence, and where to go on; None: that was the last one.

    Evidence that was forgotten is there: a mark without particulars. `after`: the key where the piece before ended.
    """
    last = db.exec_driver_sql(_LAST, (after, piece - 1)).scalar()
    found = db.exec_driver_sql(_MISSING, (after, _END if last is None else last)).scalar_one()
    return int(found), None if last is None else bytes(last)
