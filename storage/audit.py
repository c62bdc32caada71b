"""The audit log: a chain of keyed rows that cannot be changed, cut, added to or reordered unseen.

Each row's `mac` is BLAKE2b-128 over the row and the mac before it, keyed from the oldest site key (so adding a key
changes nothing). Each row carries `standing`, the sum (mod 2^128) of a keyed digest of every suppression row after
its transaction: a suppression row changed behind our back makes the sums differ. The head (last sequence number and
mac) is kept beside the chain under a MAC of its own, so that a cut tail shows even without a head kept elsewhere.
Personal data stands in `evidence`, of which the row has only SHA-256(salt || detail). Evidence that was forgotten bears a
mark that only the site key can make; so what went behind our back shows, too. Small tables that say what the rows mean
(the lists' numbers) stand under a seal of their own: storage/sealing.py.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from storage import culprit, meta, sealing
from storage.address import SiteKey
from storage.pieces import as_they_come, in_pieces

Event = Literal[
    "suppressed",
    "lifted",
    "erased",
    "bounce",
    "complaint",
    "review-accepted",
    "review-rejected",
    "imported",
    "exported",
    "restored",
    "brake",
    "re-keyed",
    "hook-again",
    "hook-dropped",
]

_MODULUS: Final = 1 << 128
_COLUMNS: Final = "seq, at, actor, event, key, scope, reason, source, evidence, digest, standing, mac"
INSERT: Final = f"INSERT INTO audit ({_COLUMNS}) VALUES ({', '.join('?' * 12)})"


@dataclass(frozen=True, slots=True)
class Entry:
    """A row to be: what happened to whom. `digest` is that of the evidence; `actor`: if not that of the transaction."""

    event: Event
    key: bytes | None = None
    scope: int | None = None
    reason: int | None = None
    source: str | None = None
    evidence: int | None = None
    digest: bytes | None = None
    actor: str | None = None


@dataclass(frozen=True, slots=True)
class Head:
    """Where the chain ends. `standing` is the digest of the suppression rows as an integer."""

    seq: int
    mac: bytes
    standing: int

    def __str__(self) -> str:
        return f"{self.seq}:{self.mac.hex()}"


class Chain:
    """The keys of the chain and its arithmetic. Pure but for `head` and `remember_head`, which read and write one row."""

    def __init__(self, site_key: SiteKey):
        self._row = hashlib.blake2b(key=site_key.derive(b"audit row"), digest_size=16)
        self._set = hashlib.blake2b(key=site_key.derive(b"audit standing"), digest_size=16)
        self._head = site_key.derive(b"audit head")
        self._verified = site_key.derive(b"audit verified")
        self._forgotten = site_key.derive(b"evidence forgotten")
        self.start = Head(0, hashlib.blake2b(b"", key=site_key.derive(b"audit start"), digest_size=16).digest(), 0)

    def weigh(self, rows: Iterable[Sequence[Any]]) -> int:
        """What suppression rows add to `standing`. Raises TypeError on a value of another kind than we write."""
        copy, integer, total = self._set.copy, int.from_bytes, 0
        for key, scope, reason, since, evidence in rows:  # written out: the nightly check asks for every row
            _ = scope | reason | since | evidence  # TypeError if one is no integer: %d would cut a fraction off unseen
            digest = copy()
            digest.update(b"%b|%d|%d|%d|%d" % (key, scope, reason, since, evidence))
            total += integer(digest.digest())
        return total

    def weigh_alike(self, keys: Iterable[bytes], scope: int, reason: int, since: int, evidence: int) -> int:
        """The same of rows that differ in nothing but their keys, at half the cost: imports are mostly such."""
        tail = b"|%d|%d|%d|%d" % (scope, reason, since, evidence)
        total, copy = 0, self._set.copy
        for key in keys:
            digest = copy()
            digest.update(key + tail)
            total += int.from_bytes(digest.digest())
        return total

    def mac(self, before: bytes, row: Iterable[Any]) -> bytes:
        """The mac of a row (all columns but the mac) that follows `before`."""
        digest = self._row.copy()
        digest.update(before)
        for value in row:
            octets = b"" if value is None else value if isinstance(value, bytes) else str(value).encode()
            digest.update(b"%c%d:" % (type(value).__name__[0].encode(), len(octets)) + octets)
        return digest.digest()

    def head(self, db: Connection) -> Head:
        """Where the chain ends now."""
        row = db.exec_driver_sql("SELECT seq, mac, standing FROM audit ORDER BY seq DESC LIMIT 1").first()
        return Head(row[0], bytes(row[1]), int.from_bytes(row[2])) if row else self.start

    def append(self, db: Connection, head: Head, at: int, actor: str, entries: Iterable[Entry], change: int) -> Head:
        """Write the rows of one transaction. `change`: weights of suppression rows added minus those removed."""
        standing = (head.standing + change) % _MODULUS
        octets = standing.to_bytes(16)
        seq, mac, rows = head.seq, head.mac, []
        for e in entries:
            seq += 1
            row = (seq, at, e.actor or actor, e.event, e.key, e.scope, e.reason, e.source, e.evidence, e.digest, octets)
            mac = self.mac(mac, row)
            rows.append((*row, mac))
        db.exec_driver_sql(INSERT, rows)
        after = Head(seq, mac, standing)
        record = meta.get(db, "head")
        if not self.sealed(head, record):
            return after  # the tail was cut before us: the old record stays, so that every later check still finds it
        meta.put(db, "head", self.seal(after))
        return after

    def seal(self, head: Head) -> bytes:
        """The head record: kept from the very beginning, or an emptied ledger would look like a new one."""
        return _sealed(head, self._head)

    def sealed(self, head: Head, record: bytes | None) -> bool:
        """Is this the head that the last writer left?"""
        return _same(self.seal(head), record)

    def checkpoint(self, head: Head) -> bytes:
        """The record of how far the chain was found whole (meta row `verified`)."""
        return _sealed(head, self._verified)

    def read_checkpoint(self, record: object) -> Head | None:
        """What such a record says, its standing unknown (0); None if it was not made with the site key."""
        if not isinstance(record, bytes) or len(record) != 40:
            return None
        head = Head(int.from_bytes(record[:8]), record[8:24], 0)
        return head if _same(self.checkpoint(head), record) else None

    def forgotten(self, evidence: int) -> bytes:
        """What stands in the place of the salt where evidence was forgotten: 16 octets that tell nothing of it."""
        return hashlib.blake2b(b"%d" % evidence, key=self._forgotten, digest_size=16).digest()


def _sealed(head: Head, key: bytes) -> bytes:
    body = head.seq.to_bytes(8) + head.mac
    return body + hashlib.blake2b(body, key=key, digest_size=16).digest()


def digest(salt: bytes, detail: str) -> bytes:
    """What an audit row keeps of its evidence."""
    return hashlib.sha256(salt + detail.encode()).digest()


# ------------------------------------------------------------------ verifying

Table = Literal["audit", "evidence", "suppression", "list_number", "meta"]
Noted = tuple[int, str]  # a head noted earlier: sequence, hex mac in small letters
Progress = Callable[[int], object]  # told how many rows are done, now and then


EVENTS: Final = get_args(Event)


class ChainBroken(Exception):
    """The record was changed. `table` and `row` say where (row None: not one row, but the whole), `seq` which audit row shows it (or 0)."""

    def __init__(self, table: Table, sentence: str, row: int | None = None, *, seq: int | None = None):
        super().__init__(f"{table}: {sentence}" if row is None else f"{table} row {row}: {sentence}")
        self.table, self.row = table, row
        self.seq = seq or (row or 0 if table == "audit" else 0)


def verify(
    db: Connection,
    site_key: SiteKey,
    head: Noted | None = None,
    progress: Progress = lambda _: None,
    *,
    heads: Iterable[Noted] = (),
) -> Head:
    """Recompute everything: the chain, its evidence, the digest of all suppression rows, the seal of the small tables.

    Give a connection with a consistent snapshot. `head`, `heads`: noted earlier; each must still be part of the chain.
    `progress` is told every thousandth of the rows that `rows_to_verify` counts. Returns the head; raises ChainBroken.
    """
    chain, done = Chain(site_key), _Counting(progress)
    with _of_our_kind("audit"):
        last = _verify_rows(db, chain, chain.start, done)
        _verify_heads(db, chain, last, [*heads, *filter(None, [head])])
        _verify_end(db, chain, last)
        _last_verified(db, chain)
    with _of_our_kind("evidence"):
        _verify_evidence(db, done)
    with _of_our_kind("suppression"):
        _verify_suppressions(db, chain, last, done)
    _verify_small_tables(db, site_key)
    return last


def verify_new(
    db: Connection, site_key: SiteKey, progress: Progress = lambda _: None, *, heads: Iterable[Noted] = ()
) -> tuple[Head, int]:
    """Verify what the chain has gained since the last check that found it whole (all of it, if there was none).

    Looks at the new rows, their evidence, the end, `heads`, and the small tables; not at older rows, nor at the
    suppression rows. Returns the head, and the sequence number after which it began; raises ChainBroken.
    """
    chain = Chain(site_key)
    with _of_our_kind("audit"):
        start = _last_verified(db, chain)
        last = _verify_rows(db, chain, start, _Counting(progress))
        _verify_heads(db, chain, last, heads)
        _verify_end(db, chain, last)
    _verify_small_tables(db, site_key)
    return last, start.seq


def remember_verified(db: Connection, site_key: SiteKey, head: Head) -> None:
    """Note, within a writing transaction, that the chain was found whole up to here."""
    meta.put(db, "verified", Chain(site_key).checkpoint(head))


def last_verified(db: Connection, site_key: SiteKey) -> Head | None:
    """How far the chain was found whole by the last check; None if there was none, or its note is not ours."""
    record = meta.get(db, "verified")
    return Chain(site_key).read_checkpoint(record)


def last_run(db: Connection, job: str) -> int | None:
    """When a job of the clock last ended well, in seconds since 1970: `verify_audit` (of everything), `note_head`."""
    found = db.exec_driver_sql("SELECT at FROM job_run WHERE name = ?", (job,)).scalar()
    return None if found is None else int(found)


def rows_to_verify(db: Connection) -> int:
    """How many rows `verify` goes through."""
    tables = ("audit", "evidence", "suppression")
    return sum(int(db.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar_one()) for table in tables)


class _Counting:
    """Counts rows over all tables, and tells of every thousandth."""

    def __init__(self, progress: Progress):
        self._progress, self._done = progress, 0

    def row(self) -> None:
        self.rows(1)

    def rows(self, number: int) -> None:
        before = self._done // 1000
        self._done += number
        if self._done // 1000 > before:
            self._progress(self._done)


@contextmanager
def _of_our_kind(table: Table) -> Iterator[None]:
    """SQLite stores any kind of value in any column, and octets that are no UTF-8 as text."""
    try:
        yield
    except (TypeError, ValueError, AttributeError, OverflowError):
        raise ChainBroken(table, "a value is not of the kind that we write") from None
    except DBAPIError as why:
        if "decode" not in str(why.orig):
            raise
        raise ChainBroken(table, "a text is not of the kind that we write") from None


def _last_verified(db: Connection, chain: Chain) -> Head:
    record = meta.get(db, "verified")
    if record is None:
        return chain.start
    found = chain.read_checkpoint(record)
    if found is None:
        raise ChainBroken("meta", "the note of the last check was not written by us")
    if found.seq and not _is_row(db, found.seq, found.mac.hex()):
        raise ChainBroken("audit", "not the one that the last check ended with", found.seq)
    return found


def _verify_rows(db: Connection, chain: Chain, start: Head, done: _Counting) -> Head:
    before, last = start.mac, start
    query = (
        "SELECT a.seq, a.at, a.actor, a.event, a.key, a.scope, a.reason, a.source, a.evidence, a.digest, a.standing, a.mac, e.salt, e.detail "
        "FROM audit a LEFT JOIN evidence e ON e.id = a.evidence WHERE a.seq >= ? ORDER BY a.seq"
    )
    first = start.seq + 1 if start.seq else -(2**63)  # rows below 1, too, are none of ours
    for expected, (*row, mac, salt, detail) in enumerate(in_pieces(db, query, (first,)), start.seq + 1):
        seq = int(row[0])
        if seq != expected:
            raise ChainBroken("audit", "missing", expected)
        if not _same(chain.mac(before, row), mac):
            raise ChainBroken("audit", "changed, or not written by us", seq)
        if row[8] is not None and not _is_evidence(chain, row[8], salt, detail, row[9]):
            raise ChainBroken("evidence", f"changed or removed (it is that of audit row {seq})", row[8], seq=seq)
        before, last = mac, Head(seq, mac, int.from_bytes(row[10]))
        done.row()
    return last


def _is_evidence(chain: Chain, number: int, salt: object, detail: object, of_it: object) -> bool:
    """Is it what was written, or forgotten by ourselves?"""
    if detail is None:
        return _same(chain.forgotten(number), salt)
    return isinstance(salt, bytes) and isinstance(detail, str) and digest(salt, detail) == of_it


def _verify_heads(db: Connection, chain: Chain, last: Head, heads: Iterable[Noted]) -> None:
    for seq, mac in sorted(set(heads)):
        if seq > last.seq:
            raise ChainBroken("audit", f"missing: the log ends before the given head {seq}", last.seq + 1)
        if seq == 0 and mac != chain.start.mac.hex():
            raise ChainBroken("audit", "the given head is not the beginning of this log")
        if seq and not _is_row(db, seq, mac):
            raise ChainBroken("audit", "not the one of the given head", seq)


def _is_row(db: Connection, seq: int, mac: str) -> bool:
    found = db.exec_driver_sql("SELECT mac FROM audit WHERE seq = ?", (seq,)).scalar()
    return isinstance(found, bytes) and found.hex() == mac


def _verify_end(db: Connection, chain: Chain, last: Head) -> None:
    record = meta.get(db, "head")
    if not chain.sealed(last, record):
        raise ChainBroken("audit", "the end of the log is missing, or was added without the site key", last.seq + 1)


def _verify_evidence(db: Connection, done: _Counting) -> None:
    """Each row belongs to an audit row, and bears its time (the first one's; the digest knows nothing of it)."""
    query = (
        "SELECT e.id, e.at, (SELECT a.at FROM audit a WHERE a.evidence = e.id ORDER BY a.seq LIMIT 1)"
        " FROM evidence e ORDER BY e.id"
    )
    for number, at, audited in in_pieces(db, query):
        if audited is None:
            raise ChainBroken("evidence", "belongs to no audit row", number)
        if at != audited:
            raise ChainBroken("evidence", "its time was changed", number)
        done.row()


def _verify_suppressions(db: Connection, chain: Chain, last: Head, done: _Counting) -> None:
    total = 0
    for some in as_they_come(db, "SELECT key, scope, reason, since, evidence FROM suppression"):
        total += chain.weigh(some)
        done.rows(len(some))
    if total % _MODULUS != last.standing:
        raise ChainBroken("suppression", culprit.named(db))


def _verify_small_tables(db: Connection, site_key: SiteKey) -> None:
    if not sealing.is_whole(db, site_key):
        raise ChainBroken(
            "list_number",
            "the numbers of the lists (or `hashes`, `deferred`, `brake` in meta) are not as we wrote them",
        )


def _same(ours: bytes, found: object) -> bool:
    return isinstance(found, bytes) and hmac.compare_digest(ours, found)
