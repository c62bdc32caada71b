"""Rows that stand for the hash of an address: lists of people whose addresses we are not told.

Their keys are asked for only when there are such rows, so that nobody pays for them otherwise. `meta` says which kinds
there are (`hashes`: b"md5 sha256"), and every reader looks there at most once a second. So that a row counts from its
commit on all the same, the kind is announced in a transaction of its own, and its first row is committed only when
every reader has looked again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from typing import Any, Final, get_args

from sqlalchemy import Connection

from storage import meta
from storage.address import HashKind, SiteKey
from storage.engine import NEEDS, NEWEST, Ledger, judge_needs, judge_newest
from storage.write import Write, write

SELECT: Final = "SELECT value FROM meta WHERE name = 'hashes'"
LOOK: Final = f"SELECT ({SELECT}), ({NEWEST}), ({NEEDS})"  # what a reader asks; `seen` says what comes of it
LOOK_AGAIN: Final = 1.0  # seconds for which a reader goes by what it read
SETTLED: Final = 2 * LOOK_AGAIN  # seconds from an announcement until a row of the kind may be committed
_KINDS: Final[tuple[HashKind, ...]] = get_args(HashKind)


def named(value: bytes | None) -> tuple[HashKind, ...]:
    """The kinds that a meta row names."""
    words = bytes(value or b"").split()
    return tuple(kind for kind in _KINDS if kind.encode() in words)


def seen(row: Sequence[Any] | None, site_key: SiteKey) -> bytes | None:
    """What `LOOK` gave: the value that `named` reads. Raises Unusable if a site key or a schema has come that is beyond us: a
    connection that was opened before it would go on to say that nobody opted out."""
    value, newest, needs = row or (None, None, None)
    judge_newest(newest, site_key)
    judge_needs(needs)
    return value


def kinds(db: Connection) -> tuple[HashKind, ...]:
    """The kinds of hashes there may be rows of."""
    return named(db.exec_driver_sql(SELECT).scalar())


def announce(ledger: Ledger, kind: HashKind, now: datetime, actor: str, wait: Callable[[float], object]) -> None:
    """Before the first row of a kind: have every reader ask for it. `wait` is time.sleep.

    It waits even when the kind is known already: whoever announced it may have been killed a moment ago.
    """
    with write(ledger, now, actor) as w:
        _put(w, {*kinds(w.db), kind})
    wait(SETTLED)


def ask_for_all(w: Write) -> None:
    """Have every kind asked for: rows may have come of which nobody knows whether they are of hashes."""
    _put(w, _KINDS)


def _put(w: Write, known: Collection[HashKind]) -> None:
    value = " ".join(k for k in _KINDS if k in known).encode()
    meta.put(w.db, "hashes", value)


class Known:
    """What one reader knows of the kinds: read at most once a second. Not for several threads."""

    __slots__ = ("_kinds", "_until")

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Read them before the next question: it goes to another database, or over another connection."""
        self._kinds: tuple[HashKind, ...] = ()
        self._until = float("-inf")

    def kinds(self, read: Callable[[], bytes | None]) -> tuple[HashKind, ...]:
        """The kinds to ask for. `read` gives the value of the meta row (`SELECT`); what it raises goes through."""
        now = time.monotonic()
        if now >= self._until:
            self.learn(read(), now)
        return self._kinds

    def fresh(self) -> tuple[HashKind, ...] | None:
        """The kinds to ask for; None: they must be read again. For a reader that cannot read in the middle of a call."""
        return self._kinds if time.monotonic() < self._until else None

    def learn(self, value: bytes | None, asked: float) -> None:
        """What the meta row says; `asked`: time.monotonic() before it was read."""
        self._kinds, self._until = named(value), asked + LOOK_AGAIN
