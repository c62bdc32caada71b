"""The audit log: a chain of keyed rows that cannot be changed, cut, added to or reordered unseen.

Each row's `mac` is BLAKE2b-128 over the row and the mac before it, keyed from the oldest site key (so adding a key
changes nothing). Each row carries `standing`, the sum (mod 2^128) of a keyed digest of every suppression row after
its transaction: a suppression row changed behind our back makes the sums differ. The head (last sequence number and
mac) is kept beside the chain under a MAC of its own, so that a cut tail shows even without a head kept elsewhere.
Personal data stands in `evidence`, of which the row has only SHA-256(salt || detail).
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal

from sqlalchemy import Connection

from storage.address import SiteKey

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
]

_MODULUS: Final = 1 << 128
_COLUMNS: Final = "seq, at, actor, event, key, scope, reason, source, evidence, digest, standing, mac"
INSERT: Final = f"INSERT INTO audit ({_COLUMNS}) VALUES ({', '.join('?' * 12)})"


@dataclass(frozen=True, slots=True)
class Entry:
    """A row to be: what happened to whom. `digest` is that of the evidence."""

    event: Event
    key: bytes | None = None
    scope: int | None = None
    reason: int | None = None
    source: str | None = None
    evidence: int | None = None
    digest: bytes | None = None


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
        self.start = Head(0, hashlib.blake2b(b"", key=site_key.derive(b"audit start"), digest_size=16).digest(), 0)

    def weight(self, key: bytes, scope: int, reason: int, since: int, evidence: int) -> int:
        """What one suppression row adds to `standing`."""
        digest = self._set.copy()
        digest.update(b"%b|%d|%d|%d|%d" % (key, scope, reason, since, evidence))
        return int.from_bytes(digest.digest())

    def weights(self, rows: Iterable[tuple[bytes, int, int, int, int]]) -> int:
        """The sum of many."""
        return sum(self.weight(*row) for row in rows)

    def weights_alike(self, keys: Iterable[bytes], scope: int, reason: int, since: int, evidence: int) -> int:
        """The sum of many that differ in nothing but their keys, at half the cost: imports are mostly such."""
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
            row = (seq, at, actor, e.event, e.key, e.scope, e.reason, e.source, e.evidence, e.digest, octets)
            mac = self.mac(mac, row)
            rows.append((*row, mac))
        db.exec_driver_sql(INSERT, rows)
        after = Head(seq, mac, standing)
        record = db.exec_driver_sql("SELECT value FROM meta WHERE name = 'head'").scalar()
        if not self.sealed(head, record):
            return after  # the tail was cut before us: the old record stays, so that every later check still finds it
        db.exec_driver_sql(
            "INSERT INTO meta (name, value) VALUES ('head', ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            (self.seal(after),),
        )
        return after

    def seal(self, head: Head) -> bytes:
        """The head record: kept from the very beginning, or an emptied ledger would look like a new one."""
        body = head.seq.to_bytes(8) + head.mac
        return body + hashlib.blake2b(body, key=self._head, digest_size=16).digest()

    def sealed(self, head: Head, record: bytes | None) -> bool:
        """Is this the head that the last writer left?"""
        return _same(self.seal(head), record)


# ------------------------------------------------------------------ verifying


class ChainBroken(Exception):
    """The record was changed. `seq` is the first bad row (0: not one row, but the whole)."""

    def __init__(self, seq: int, sentence: str):
        super().__init__(f"row {seq}: {sentence}" if seq else sentence)
        self.seq = seq


def verify(
    db: Connection,
    site_key: SiteKey,
    head: tuple[int, str] | None = None,
    progress: Callable[[int], object] = lambda _: None,
) -> Head:
    """Recompute the chain and the digest of all suppression rows. Give a connection with a consistent snapshot.

    `head`: a head noted earlier (sequence, hex mac), which must still be part of the chain. `progress` is told every
    thousandth sequence number. Returns the head; raises ChainBroken.
    """
    try:
        return _verify(db, Chain(site_key), head, progress)
    except (TypeError, ValueError, AttributeError):  # SQLite stores any kind of value in any column
        raise ChainBroken(0, "a value is not of the kind that we write") from None


def _verify(db: Connection, chain: Chain, head: tuple[int, str] | None, progress: Callable[[int], object]) -> Head:
    last = _verify_rows(db, chain, head, progress)
    record = db.exec_driver_sql("SELECT value FROM meta WHERE name = 'head'").scalar()
    if not chain.sealed(last, record):
        raise ChainBroken(last.seq + 1, "the end of the log is missing, or was added without the site key")
    if head is not None and head[0] == 0 and head[1] != chain.start.mac.hex():
        raise ChainBroken(0, "the given head is not the beginning of this log")
    if head is not None and head[0] > last.seq:
        raise ChainBroken(last.seq + 1, f"the log ends before the given head {head[0]}")
    found = sum(chain.weight(bytes(row[0]), *row[1:]) for row in _suppressions(db)) % _MODULUS
    if found != last.standing:
        raise ChainBroken(
            0,
            "the suppression table is not what the log says: a row was changed, added or deleted without an audit row",
        )
    return last


def _verify_rows(db: Connection, chain: Chain, head: tuple[int, str] | None, progress: Callable[[int], object]) -> Head:
    before, last = chain.start.mac, chain.start
    query = (
        "SELECT a.seq, a.at, a.actor, a.event, a.key, a.scope, a.reason, a.source, a.evidence, a.digest, a.standing, a.mac, e.salt, e.detail "
        "FROM audit a LEFT JOIN evidence e ON e.id = a.evidence ORDER BY a.seq"
    )
    for expected, (*row, mac, salt, detail) in enumerate(db.exec_driver_sql(query), 1):
        seq = int(row[0])
        if seq != expected:
            raise ChainBroken(expected, "missing")
        if not _same(chain.mac(before, row), mac):
            raise ChainBroken(seq, "changed, or not written by us")
        if not _is_evidence(salt, detail, row[9]):
            raise ChainBroken(seq, f"its evidence {row[8]} was changed")
        if head is not None and head[0] == seq and head[1] != mac.hex():
            raise ChainBroken(seq, "not the row of the given head")
        before, last = mac, Head(seq, mac, int.from_bytes(row[10]))
        if seq % 1000 == 0:
            progress(seq)
    return last


def _suppressions(db: Connection) -> Iterator[Any]:
    yield from db.execution_options(yield_per=10_000).exec_driver_sql(
        "SELECT key, scope, reason, since, evidence FROM suppression"
    )


def _same(ours: bytes, found: object) -> bool:
    return isinstance(found, bytes) and hmac.compare_digest(ours, found)


def _is_evidence(salt: object, detail: object, of_it: object) -> bool:
    """What was written, or nothing at all: forgotten."""
    if salt is None and detail is None:
        return True
    return isinstance(salt, bytes) and isinstance(detail, str) and digest(salt, detail) == of_it


def digest(salt: bytes, detail: str) -> bytes:
    """What an audit row keeps of its evidence."""
    return hashlib.sha256(salt + detail.encode()).digest()
