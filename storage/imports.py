"""Imports: how far one has come, and what one brought."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import Connection

from storage.terms import utc
from storage.write import Write


@dataclass(frozen=True, slots=True)
class Run:
    """An import, and what became of its first `position` rows, and of some behind them: a list is written bit by bit, and
    each bit sorted. `at`: when it was first begun. `again`: it had ended before, and is gone through once more.
    """

    id: int
    file: str
    at: datetime
    position: int = 0
    added: int = 0
    already: int = 0
    skipped: int = 0
    bad: int = 0
    again: bool = False

    @property
    def counted(self) -> int:
        """Of how many rows it is known what became of them."""
        return self.added + self.already + self.skipped + self.bad


class OutOfStep(Exception):
    """Another process imports the same file."""


def begin(w: Write, digest: bytes, file: str) -> Run:
    """The import of this file with these terms (`digest` is of both): a new one, or the one to go on with.

    One that has ended begins anew, with the date it had: what a list without dates says has not become younger.
    """
    row = w.db.exec_driver_sql(
        "SELECT id, file, at, position, added, already, skipped, bad, finished FROM import_run WHERE digest = ?",
        (digest,),
    ).first()
    if row is None:
        number = w.db.exec_driver_sql(
            "INSERT INTO import_run (digest, file, at, position, added, already, skipped, bad, finished)"
            " VALUES (?, ?, ?, 0, 0, 0, 0, 0, 0) RETURNING id",
            (digest, file, w.at),
        ).scalar_one()
        return Run(int(number), file, utc(w.at))
    number, named, at, *counts, finished = row
    found = Run(number, named, utc(at), *counts)
    if not finished:
        return found
    w.db.exec_driver_sql(
        "UPDATE import_run SET position = 0, added = 0, already = 0, skipped = 0, bad = 0, finished = 0 WHERE id = ?",
        (number,),
    )
    return Run(number, named, found.at, again=True)


def advance(w: Write, run: Run, *, rows: int, added: int, already: int, skipped: int, bad: int) -> Run:
    """Write down what became of some more rows, in the transaction in which it did; `rows`: by how many `position` goes on.

    Raises OutOfStep.
    """
    further = replace(
        run,
        position=run.position + rows,
        added=run.added + added,
        already=run.already + already,
        skipped=run.skipped + skipped,
        bad=run.bad + bad,
    )
    counts = (further.position, further.added, further.already, further.skipped, further.bad)
    done = w.db.exec_driver_sql(
        "UPDATE import_run SET position = ?, added = ?, already = ?, skipped = ?, bad = ?"
        " WHERE id = ? AND position = ? AND added + already + skipped + bad = ? AND finished = 0",
        (*counts, run.id, run.position, run.counted),
    )
    if done.rowcount != 1:
        raise OutOfStep
    return further


def finish(w: Write, run: Run) -> None:
    """The end of the file is reached. Raises OutOfStep."""
    done = w.db.exec_driver_sql(
        "UPDATE import_run SET finished = 1 WHERE id = ? AND position = ? AND finished = 0", (run.id, run.position)
    )
    if done.rowcount != 1:
        raise OutOfStep


def runs(db: Connection, before: int | None = None, most: int = 50) -> list[tuple[Run, bool]]:
    """Imports, newest first, each beside whether it came to its end. `before`: the number of the last of the page before."""
    query = (
        "SELECT id, file, at, position, added, already, skipped, bad, finished FROM import_run WHERE id < ?"
        " ORDER BY id DESC LIMIT ?"
    )
    rows = db.exec_driver_sql(query, (2**62 if before is None else before, most))
    return [(Run(r[0], r[1], utc(r[2]), *r[3:8]), bool(r[8])) for r in rows]


@dataclass(frozen=True, slots=True)
class Brought:
    """What stands behind the evidence of an import. `first`, `last`: lines of the file.

    `rows`: how many this batch brought, `standing`: how many of them stand now; `total` and `total_standing`: of the whole import.
    """

    file: str
    format: str
    first: int | None
    last: int | None
    rows: int
    standing: int
    total: int
    total_standing: int


def brought(db: Connection, evidence: int) -> Brought | None:
    """What an import brought in by this evidence; None: it is not an import's. Looks through the whole list."""
    query = (
        "SELECT e.id, e.detail FROM evidence e WHERE e.detail IS NOT NULL"
        " AND e.id IN (SELECT a.evidence FROM audit a WHERE a.event = 'imported')"
    )
    of_id = {int(row[0]): json.loads(row[1]) for row in db.exec_driver_sql(query)}
    this = of_id.get(evidence)
    if this is None:
        return None
    run = this.get("import")
    batches = {n: d for n, d in of_id.items() if n == evidence or (run is not None and d.get("import") == run)}
    marks = ",".join(map(str, batches))
    stand = {
        int(row[0]): int(row[1])
        for row in db.exec_driver_sql(
            f"SELECT evidence, count(*) FROM suppression WHERE evidence IN ({marks}) GROUP BY evidence"
        )
    }
    return Brought(
        str(this.get("file", "")),
        str(this.get("format", "")),
        this.get("first"),
        this.get("last"),
        int(this.get("rows", 0)),
        stand.get(evidence, 0),
        sum(int(d.get("rows", 0)) for d in batches.values()),
        sum(stand.values()),
    )
