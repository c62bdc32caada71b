"""The one place where a writing transaction begins.

    with write(ledger, now, actor) as w:
        suppressions.add(w, ...)

The verbs (suppressions, incoming, reviews) change rows and note what happened; the audit rows are appended at the end, in
the same transaction. Leaving the block without an exception means committed and on disk (synchronous=FULL), and then in
the journal of keys, if there is one.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from storage import forgotten, meta, sealing
from storage.address import SiteKey
from storage.audit import Chain, Entry, Event, digest
from storage.engine import NEEDS, WRITE_SECONDS, Ledger, Unavailable, first_line, judge_needs, judge_newest
from storage.journal import Change, Sign
from storage.terms import seconds


@dataclass
class Write:
    """A writing transaction, as the verbs see it."""

    ledger: Ledger
    db: Connection
    now: datetime
    actor: str
    chain: Chain
    _entries: list[Entry] = field(default_factory=list)
    _evidence: set[int] = field(default_factory=set)
    _change: int = 0
    _changed: bool = False
    _after: list[Callable[[], object]] = field(default_factory=list)
    _changes: list[Change] = field(default_factory=list)  # for the journal, if there is one
    _journalled: bytes = b""

    @property
    def at(self) -> int:
        """`now` in seconds since 1970 UTC."""
        return seconds(self.now)

    def rows_added(self, rows: Sequence[tuple[bytes, int, int, int, int]]) -> None:
        """Tell of suppression rows inserted: (key, scope, reason, since, evidence)."""
        self._change += self.chain.weigh(rows)
        self._changed |= bool(rows)
        self._for_the_journal("+", rows)

    def keys_added(self, keys: Sequence[bytes], scope: int, reason: int, since: int, evidence: int) -> None:
        """Tell of suppression rows inserted that differ in nothing but their keys."""
        self._change += self.chain.weigh_alike(keys, scope, reason, since, evidence)
        self._changed |= bool(keys)
        if self.ledger.journal is not None:
            self._changes += [("+", key, scope, reason, since) for key in keys]

    def rows_removed(self, rows: Sequence[tuple[bytes, int, int, int, int]]) -> None:
        """Tell of suppression rows deleted."""
        self._change -= self.chain.weigh(rows)
        self._changed |= bool(rows)
        self._for_the_journal("-", rows)

    def _for_the_journal(self, sign: Sign, rows: Sequence[tuple[bytes, int, int, int, int]]) -> None:
        if self.ledger.journal is not None:
            self._changes += [(sign, *row[:4]) for row in rows]

    def evidence(self, *, about: Iterable[str] = (), **detail: Any) -> tuple[int, bytes]:
        """Keep the particulars of an act. Returns (evidence id, digest for the audit row).

        `about`: addresses of people whom it concerns, if they are not in it: of those who were forgotten nothing is kept.
        """
        kept = forgotten.kept_out(self.db, self.ledger.site_key, detail, about)
        salt, text = secrets.token_bytes(16), json.dumps(kept, ensure_ascii=False, sort_keys=True)
        found = self.db.exec_driver_sql(
            "INSERT INTO evidence (at, salt, detail) VALUES (?, ?, ?) RETURNING id", (self.at, salt, text)
        ).scalar_one()
        self._evidence.add(int(found))
        return int(found), digest(salt, text)

    @property
    def latest_evidence(self) -> int:
        """The id of what was kept last in this transaction; 0: nothing was."""
        return max(self._evidence, default=0)

    def forget_evidence(self, numbers: Iterable[int]) -> None:
        """Forget the particulars of acts. A mark of ours stays, so that `audit verify` knows who it was that took them."""
        marks = [(self.chain.forgotten(number), number) for number in numbers]
        if marks:
            self.db.exec_driver_sql("UPDATE evidence SET salt = ?, detail = NULL WHERE id = ?", marks)

    def audit(
        self,
        event: Event,
        *,
        key: bytes | None = None,
        scope: int | None = None,
        reason: int | None = None,
        source: str | None = None,
        evidence: tuple[int, bytes] | None = None,
        actor: str | None = None,
    ) -> None:
        """Note a state change; it becomes an audit row when the transaction ends. `actor`: who did it, if not whose it is."""
        number, of_it = evidence or (None, None)
        if event == "erased" and key is not None:
            self.erased([key])
        self._entries.append(Entry(event, key, scope, reason, source, number, of_it, actor))

    def erased(self, keys: Iterable[bytes]) -> None:
        """Tell of somebody who was erased, by all their keys: a restored backup knows them in plain words once more."""
        if self.ledger.journal is not None:
            self._changes += [("x", key, 0, 0, 0) for key in keys]

    def mark_newest(self, site_key: SiteKey) -> None:
        """From this commit on nobody opens the ledger who lacks one of these keys: rows may stand under the newest."""
        mark = site_key.marks()[-1]
        meta.put(self.db, "newest", mark)
        self.keep_out_older_than("0005")
        of_it = self.evidence(source="operator", because="a new site key", keys=len(site_key.keys))
        self.audit("re-keyed", source="operator", evidence=of_it)
        if self.ledger.journal is not None:
            self._changes.append(("k", mark, 0, 0, 0))

    def keep_out_older_than(self, revision: str) -> None:
        """Code from before this revision would misread what is written now (and not see it under the seal): it defers."""
        octets = revision.encode()
        self.db.exec_driver_sql("UPDATE meta SET value = ? WHERE name = 'needs' AND value < ?", (octets, octets))

    def job_ran(self, name: str) -> None:
        """Note when a scheduled job last ended well."""
        statement = "INSERT INTO job_run (name, at) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET at = excluded.at"
        self.db.exec_driver_sql(statement, (name, self.at))

    def after_commit(self, say: Callable[[], object]) -> None:
        """Call this once the transaction is committed: what a log line says must be true."""
        self._after.append(say)

    def committed(self) -> None:
        """Write the journal, then say what was to be said."""
        if self._journalled and self.ledger.journal is not None:
            self.ledger.journal.append(self._journalled)
        for say in self._after:
            say()

    def finish(self) -> None:
        """Append the audit rows."""
        if self._changed and not self._entries:
            raise AssertionError("suppression rows were changed without an audit row")
        if not self._evidence <= {e.evidence for e in self._entries}:
            raise AssertionError("evidence was written of which no audit row tells")
        if self._entries:
            before = self.chain.head(self.db)
            after = self.chain.append(self.db, before, self.at, self.actor, self._entries, self._change)
            if self.ledger.journal is not None:
                self._journalled = self.ledger.journal.lines(self.db, before.seq, after.seq, self.at, self._changes)


# One writer at a time, in whatever process and on whatever node: each audit row goes on from the one before it. The
# lock ends with the transaction, however that ends.
_BEGIN: Final = {
    "sqlite": ("BEGIN IMMEDIATE",),
    "postgresql": (
        "BEGIN ISOLATION LEVEL READ COMMITTED",  # whatever the server's default: what is read is read after the lock
        f"SET LOCAL lock_timeout = '{WRITE_SECONDS}s'",
        "SELECT pg_advisory_xact_lock(7382194)",
    ),
}


@contextmanager
def write(ledger: Ledger, now: datetime, actor: str) -> Iterator[Write]:
    """Begin a writing transaction; commit when the block ends well, roll back on an exception.

    `actor`: who does it ("mailbox support", "cli root"). Raises Unavailable when it cannot begin within 5 s or
    cannot be committed: nothing of it has happened then; Unusable when a newer site key came that we do not have.
    """
    store = ledger.store.identity()
    with _turn(ledger), ledger.connect() as db:
        for statement in _BEGIN[db.dialect.name]:
            _run(db, statement, ledger)
        try:
            w, watch = Write(ledger, db, now, actor, Chain(ledger.site_key)), sealing.Watch(db, ledger.site_key)
            _mind_the_keys(w, watch.meta.get("newest"))
            yield w
            w.finish()
            watch.end()
            _run(db, "COMMIT", ledger)
        except BaseException:
            _roll_back(db)
            raise
        if ledger.store.identity() != store:  # committed into a file that was taken away meanwhile is not committed
            raise Unavailable(f"{ledger.name}: another database took its place while it was written to")
    w.committed()


def _mind_the_keys(w: Write, mark: bytes | None) -> None:
    """No row comes under a key that the ledger does not know of, nor from somebody who lacks one, or is too old for the schema.
    Raises Unusable."""
    marks = w.ledger.site_key.marks()
    judge_needs(w.db.exec_driver_sql(NEEDS).scalar())
    judge_newest(mark, w.ledger.site_key)
    if marks[-1] != (marks[0] if mark is None else bytes(mark)):
        w.mark_newest(w.ledger.site_key)


@contextmanager
def _turn(ledger: Ledger) -> Iterator[None]:
    if not ledger.writer.acquire(timeout=WRITE_SECONDS):
        raise Unavailable(f"{ledger.name}: another thread has been writing for {WRITE_SECONDS} s")
    try:
        yield
    finally:
        ledger.writer.release()


def _run(db: Connection, statement: str, ledger: Ledger) -> None:
    try:
        db.exec_driver_sql(statement)
    except DBAPIError as why:
        raise Unavailable(f"{ledger.name}: {first_line(why.orig)}") from why


def _roll_back(db: Connection) -> None:
    try:
        db.exec_driver_sql("ROLLBACK")
    except (SQLAlchemyError, sqlite3.Error):
        db.invalidate()  # SQLite has rolled back by itself (disk full, I/O error), or the connection is beyond use
