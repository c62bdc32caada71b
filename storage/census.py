"""The ledger in numbers that somebody asks for every few seconds: what is cheap, what is not, and how to tell that the dear
one is still the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection

from storage.terms import Reason

_BATCHES: Final = 1_000  # audit rows, the newest, among which those of batches (imports) are looked for


@dataclass(frozen=True, slots=True)
class Numbers:
    """`audit_rows`: the sequence number of the last one; while that stays, so do the suppressions. `review_oldest`: when
    the oldest open item was received; `jobs`: name -> when it last ended well. Seconds since 1970 UTC."""

    audit_rows: int
    review_open: int
    review_oldest: int | None
    jobs: dict[str, int]


def numbers(db: Connection) -> Numbers:
    """What is answered by an index, however much there is."""
    rows = db.exec_driver_sql("SELECT max(seq) FROM audit").scalar()
    waiting = db.exec_driver_sql("SELECT count(*), min(at) FROM review WHERE state = 'open'").one()
    jobs = {row[0]: int(row[1]) for row in db.exec_driver_sql("SELECT name, at FROM job_run")}
    return Numbers(rows or 0, int(waiting[0]), None if waiting[1] is None else int(waiting[1]), jobs)


def suppressions(db: Connection) -> dict[Reason, int]:
    """Reason -> rows, for every reason. Walks over all of them: 0.1 s a million."""
    found = {
        row[0]: int(row[1]) for row in db.exec_driver_sql("SELECT reason, count(*) FROM suppression GROUP BY reason")
    }
    return {reason: found.get(reason, 0) for reason in Reason}


def head(db: Connection) -> int:
    """The sequence number of the last audit row."""
    return int(db.exec_driver_sql("SELECT coalesce(max(seq), 0) FROM audit").scalar_one())


def last_change(db: Connection, keys: Sequence[bytes], evidence: int) -> int:
    """The audit row (its sequence number) since which nothing has changed for whoever has one of these keys; 0: none is known.

    A batch names nobody in the record, so the last batch counts as well, and the row that the `evidence` came with.
    """
    marks = ",".join("?" * len(keys))
    queries = (
        (f"SELECT max(seq) FROM audit WHERE key IN ({marks})", tuple(keys)),
        ("SELECT max(seq) FROM audit WHERE evidence = ?", (evidence,)),
        (
            "SELECT max(seq) FROM (SELECT key, seq FROM audit ORDER BY seq DESC LIMIT ?) AS newest WHERE key IS NULL",
            (_BATCHES,),
        ),
    )
    return max(int(db.exec_driver_sql(query, values).scalar() or 0) for query, values in queries)
