"""The question asked before every recipient: which rows stand against this address, and what do they come to?

Measured at 10 M rows: a raw DBAPI connection answers in about 40 us, SQLAlchemy Core in 130, a session in 530; so
this file alone speaks to sqlite3 itself, on a connection that never writes, straight from the event loop. There is
no cache beside the table: what is committed is seen by the next question.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

from storage import hashes
from storage.address import Address, FormKind, HashKind, SiteKey, keys_of
from storage.engine import Unavailable, Unusable, refuse_deferred, verify_identity
from storage.sqlite import refuse_foreign_log
from storage.sweep import Swept, sweep
from storage.terms import ALL, Reason

BUSY_MILLISECONDS = 250  # SQLite readers do not wait for writers; this is for a checkpoint that resets the log
# Octets of the file that are mapped into memory: a page that is not in SQLite's small cache costs two system calls
# otherwise, and a campaign asks all over the list (11.7 against 6.9 us a question at 1 M rows). Somebody who cuts the file
# short in the very moment of a question ends the daemon (SIGBUS); nothing is delivered then, and systemd starts it again.
_MAPPED = 1 << 30
_AT_ONCE = 500  # keys a statement: measured best for scrubbing, and far below SQLite's limit


class Row(NamedTuple):
    """A row that stands against an address: through which form, and what it says. `since`: seconds since 1970 UTC."""

    kind: FormKind
    scope: int
    reason: int
    since: int
    evidence: int


Found = dict[bytes, list[tuple[int, int, int, int]]]  # key -> (scope, reason, since, evidence) of each row under it


@dataclass(frozen=True, slots=True)
class Verdict:
    """The rows of an address in one word: the strongest reason, the narrowest form that hit, and the row to explain it by."""

    reason: Reason
    scope: int
    matched: FormKind
    since: int
    evidence: int


_WIDTH: dict[FormKind, int] = {"exact": 0, "hash": 1, "tag": 2, "alias": 3, "domain": 4}


def verdict(rows: Sequence[Row], list_number: int | None) -> Verdict | None:
    """May this address get mail of this list (None: of no list we know)? None = nothing stands against it. Pure.

    Rows for everything count always, rows for a list only for that list. `wanted` takes one list out of an `all`
    opt-out that is no younger, and out of nothing else: not of a complaint, a bounce or the operator's word.
    """
    if not rows:
        return None
    wishes = (r.since for r in rows if r.reason == Reason.WANTED and r.scope == list_number)
    wanted = max(wishes, default=None) if list_number is not None else None
    standing = [
        r
        for r in rows
        if r.reason != Reason.WANTED
        and (r.scope == ALL or r.scope == list_number)
        and not (wanted is not None and r.scope == ALL and r.reason == Reason.OPT_OUT and r.since <= wanted)
    ]
    if not standing:
        return None
    strongest = min(standing, key=lambda r: (r.reason, r.scope != ALL, _WIDTH[r.kind]))
    narrowest = min(standing, key=lambda r: _WIDTH[r.kind])
    return Verdict(Reason(strongest.reason), strongest.scope, narrowest.kind, strongest.since, strongest.evidence)


@lru_cache(maxsize=64)
def _select(keys: int) -> str:
    one = "SELECT key, scope, reason, since, evidence FROM suppression WHERE key "
    if keys <= 8:  # an IN of two is 3 us dearer than this: SQLite makes a temporary table for it
        return " UNION ALL ".join([one + "= ?"] * keys)
    return f"{one}IN ({','.join('?' * keys)})"


# ------------------------------------------------------------------ from keys to rows, for whoever asks


def gather(found: Found, rows: Iterable[Sequence[Any]]) -> None:
    """Add rows (key, scope, reason, since, evidence) to those found so far."""
    for key, scope, reason, since, evidence in rows:
        found.setdefault(key, []).append((scope, reason, since, evidence))


def rows_of(asked: Sequence[Sequence[tuple[bytes, FormKind]]], found: Found) -> list[list[Row]]:
    """Of each address, given by its keys, the rows that they hit."""
    if not found:
        return [[] for _ in asked]
    return [[Row(kind, *rest) for key, kind in of_one for rest in found.get(key, ())] for of_one in asked]


def answers_of(asked: Swept, texts: Sequence[str], found: Found, *, hashes_too: bool) -> list[Sequence[Row] | None]:
    """The same of texts that were swept. `hashes_too`: there are rows of foreign hashes."""
    answers: list[Sequence[Row] | None] = [None if keys is None else () for keys in asked.domains]
    for number, keys in enumerate(asked.domains if found or hashes_too else ()):
        if keys is None:
            continue
        if hashes_too and "xn--" in texts[number].lower():  # its hash may be of the other spelling
            answers[number] = None
            continue
        standing = [Row("exact", *r) for own in asked.own for r in found.get(own[number], ())]
        standing += [Row("hash", *r) for of_kind in asked.hashed for r in found.get(of_kind[number], ())]
        standing += [Row(kind, *r) for key, kind in keys for r in found.get(key, ())]
        if standing:
            answers[number] = standing
    return answers


# ------------------------------------------------------------------ asking a file


def _scalar(db: sqlite3.Connection, sql: str) -> Any:
    return (db.execute(sql).fetchone() or [None])[0]


class Lookup:
    """A reading connection of its own. Not for several threads; every method raises Unavailable where it cannot tell."""

    def __init__(self, path: Path, site_key: SiteKey, *, mapped: int = _MAPPED):
        """`mapped`: octets of the file that may be mapped. 0 for whole lists: they come by every page in order anyway, and
        what is mapped counts as memory of ours."""
        self.path, self.site_key = path, site_key
        self._mapped = mapped
        self._text = str(path)
        self._db: sqlite3.Connection | None = None
        self._used: sqlite3.Cursor
        self._seen: tuple[int, int, int, int] | None = None
        self._known = hashes.Known()

    def rows(self, address: Address) -> list[Row]:
        """All rows that any form of this address hits."""
        keys = keys_of(self.site_key, address, self._begin())
        found = self._ask([key for key, _ in keys])
        if not found:
            return []
        kinds = dict(reversed(keys))  # equal keys are one; the narrowest name wins
        return [Row(kinds[key], *rest) for key, *rest in found]

    def rows_of_all(self, addresses: Iterable[Address]) -> list[list[Row]]:
        """As `rows` for several addresses, in one statement per 500 keys."""
        kinds = self._begin()
        asked = [keys_of(self.site_key, a, kinds) for a in addresses]
        keys = list({key for of_one in asked for key, _ in of_one})
        found: Found = {}
        for start in range(0, len(keys), _AT_ONCE):
            gather(found, self._ask(keys[start : start + _AT_ONCE]))
        return rows_of(asked, found)

    def sweep(self, texts: Sequence[str]) -> list[Sequence[Row] | None]:
        """As `rows_of_all` for addresses as a list has them, best some ten thousand at a time.

        None: not one of the plain addresses that storage.sweep knows how to ask for quickly; parse it.
        """
        kinds = self._begin()
        asked = sweep(self.site_key, texts, kinds)
        found: Found = {}
        for start in range(0, len(asked.wanted), _AT_ONCE):
            gather(found, self._ask(asked.wanted[start : start + _AT_ONCE]))
        return answers_of(asked, texts, found, hashes_too=bool(kinds))

    def _begin(self) -> Sequence[HashKind]:
        """A question begins: is the file still ours? Returns the kinds of foreign hashes that are to be asked for, too."""
        try:
            self._cursor()
            return self._known.kinds(self._announced)
        except (sqlite3.Error, OSError) as why:
            self.close()
            raise Unavailable(f"lookup in {self.path}: {why}") from why
        except (Unavailable, Unusable):
            self.close()
            raise

    def _announced(self) -> bytes | None:
        return hashes.seen(self._used.execute(hashes.LOOK).fetchone(), self.site_key)

    def _ask(self, keys: list[bytes]) -> list[tuple[bytes, int, int, int, int]]:
        """The rows under these keys, in the file that `_begin` found."""
        try:
            return self._used.execute(_select(len(keys)), keys).fetchall()  # a half-read cursor pins an old snapshot
        except sqlite3.Error as why:
            self.close()
            raise Unavailable(f"lookup in {self.path}: {why}") from why

    def _cursor(self) -> sqlite3.Cursor:
        """A cursor on the connection, which is opened anew whenever the file is another one or was written to.

        A file that is overwritten in place keeps its inode while our page cache keeps the old list, so size and
        mtime count as well. In WAL mode they change only when a checkpoint writes pages back: one reopening
        (about 0.3 ms) per checkpoint is the price.
        """
        now = os.stat(self._text)  # noqa: PTH116 - Path.stat costs twice as much, at every recipient
        seen = (now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns)
        if self._db is None or seen != self._seen:
            self.close()
            refuse_foreign_log(self.path, self._seen, seen)
            self._db = self._open()
            self._used = self._db.cursor()  # one for all questions: 1.5 us less than a new one each
            self._seen = seen
            self._known.forget()  # it may be another list, with other kinds of rows
        return self._used

    def _open(self) -> sqlite3.Connection:
        db = sqlite3.connect(
            f"{self.path.absolute().as_uri()}?mode=rw", uri=True, timeout=BUSY_MILLISECONDS / 1000, isolation_level=None
        )
        try:
            db.execute("PRAGMA query_only = ON")
            db.execute(f"PRAGMA mmap_size = {self._mapped}")
            verify_identity(partial(_scalar, db), self.site_key)
            refuse_deferred(partial(_scalar, db))
        except BaseException:
            db.close()
            raise
        return db

    def close(self) -> None:
        """Close the connection; the next question opens one."""
        if self._db is not None:
            self._db.close()
            self._db = None

    def __del__(self) -> None:
        # Python's connection and its cache of statements hold each other: one that is only dropped stays open, with its
        # descriptors, until a collection of old cycles, which a daemon hardly ever has.
        with suppress(AttributeError, sqlite3.Error):  # never opened; another thread's, at the end
            self.close()
