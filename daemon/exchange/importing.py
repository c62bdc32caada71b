"""A foreign list goes into the ledger, in bounded transactions, each of which says how far it has come.

It adds, and never takes away; what it says without a date counts against nothing that happened before. Rows are read and
hashed between the transactions or in another process, never within one, so that a live opt-out finds its turn.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, BinaryIO, Final

from daemon.exchange.ahead import read_ahead
from daemon.exchange.pace import Pace
from daemon.exchange.portions import Portion, Reader, Tally, Terms
from daemon.exchange.rows import Bad, Found
from daemon.options import House
from storage import bulk, hashes, imports
from storage.address import HashKind
from storage.engine import Ledger, Unavailable
from storage.lifts import Lifted, elsewhere
from storage.terms import seconds
from storage.write import write

_PIECE: Final = 1 << 20


def digest(file: BinaryIO, asked: Mapping[str, object]) -> bytes:
    """What tells one import from another: the octets of the file (read from where it stands) and what was asked for."""
    found = hashlib.blake2b(digest_size=32)
    while piece := file.read(_PIECE):
        found.update(piece)
    for name, value in sorted(asked.items()):
        found.update(f"\0{name}={value!r}".encode("utf-8", "backslashreplace"))
    return found.digest()


@dataclass
class Import:
    """One list on its way into the ledger.

    `numbers`: list id -> number. `detail`: what the evidence says beside numbers (`file`, `format`). `clock`: now, aware.
    `alone`: is no daemon running on this ledger (asked before each transaction)? `bad`: told of each row that cannot go in,
    those of an earlier, broken-off run included. `done`: told after each transaction. `wait`: time.sleep. `ahead`: read it in
    another process, which pays from some ten thousand rows on. `chunk`, `remembered`: rows that are sorted together, and keys
    that a dry run remembers, to count nobody twice; fewer of them take less memory.
    """

    ledger: Ledger
    house: House
    numbers: Mapping[str, int]
    terms: Terms
    detail: Mapping[str, Any]
    actor: str
    clock: Callable[[], datetime]
    alone: Callable[[], bool] = lambda: False
    bad: Callable[[Bad], object] = lambda _: None
    done: Callable[[], object] = lambda: None
    wait: Callable[[float], object] = time.sleep
    ahead: bool = False
    chunk: int | None = None
    remembered: int = 1_000_000  # some 80 MB
    _announced: set[HashKind] = field(default_factory=set, init=False)
    _lifted: Lifted = field(default_factory=Lifted, init=False)

    def begin(self, digest: bytes, file: str) -> imports.Run:
        """The import of this file, or where it was broken off."""
        with write(self.ledger, self.clock(), self.actor) as w:
            return imports.begin(w, digest, file)

    def run(self, run: imports.Run, found: Iterator[Found]) -> Tally:
        """Put it in, from where `run` says it has come to. Each transaction says how far, so it may be killed anywhere.

        Raises Unavailable; what was committed until then stays, and the next `begin` knows it.
        """
        chunks = self._reader(run.at).chunks(found, run.position, self.chunk)
        pace = Pace(self.alone, self.wait, queues=self.ledger.store.queues)
        try:
            with read_ahead(chunks) if self.ahead else nullcontext(chunks) as chunks:
                for chunk in chunks:
                    if chunk.rows:
                        run = self._put(chunk, run, pace)
                    self._tell(chunk)
                    del chunk  # before the next one comes
            with write(self.ledger, self.clock(), self.actor) as w:
                imports.finish(w, run)
            if run.added:
                self.ledger.store.grown()
        except imports.OutOfStep:
            raise Unavailable("another import of the same file is under way: wait for it to end") from None
        return Tally(run.position, run.added, run.already, run.skipped, run.bad)

    def _reader(self, begun: datetime) -> Reader:
        with self.ledger.reading() as db:
            others = elsewhere(db, self.ledger, self._lifted)
        return Reader(
            self.ledger, self.house, self.numbers, self.terms, begun=begun, now=self.clock(), elsewhere=others
        )

    def _put(self, chunk: Portion, run: imports.Run, pace: Pace) -> imports.Run:
        """A chunk, in as many transactions as it takes.

        If it was broken off in the middle it is all gone through again, lest a row be left out because the order is another
        one now; those that had been counted are not counted again.
        """
        for kind in sorted(chunk.kinds - self._announced):
            hashes.announce(self.ledger, kind, self.clock(), self.actor, self.wait)
            self._announced.add(kind)
        detail = {**self.detail, "first": chunk.first, "last": chunk.last}
        counted, end = run.counted - run.position, 0
        while True:
            piece, end = chunk.piece(end, pace.rows)
            is_last = end == len(chunk.batch.rows)
            with pace.turn(), write(self.ledger, self.clock(), self.actor) as w:
                added = bulk.add_many(w, piece.batch, seconds(run.at), detail, run=run.id, lifted=self._lifted)
                t, counted = piece.tally(added.fates, counted)
                run = imports.advance(
                    w,
                    run,
                    rows=chunk.rows if is_last else 0,
                    added=t.added,
                    already=t.already,
                    skipped=t.skipped,
                    bad=t.bad,
                )
            self.done()
            if is_last:
                return run

    def _tell(self, portion: Portion) -> None:
        for bad in portion.bad:
            self.bad(bad)
        self.done()

    def rehearse(self, found: Iterator[Found]) -> Tally:
        """What `run` would do, without doing it. Beyond `remembered` new rows, who is in the list twice may count twice."""
        now = self.clock()
        reader, tally, seen = self._reader(now), Tally(), set[int]()
        for chunk in reader.chunks(found, 0, self.chunk):
            with self.ledger.reading() as db:
                fates = bulk.plan(db, chunk.batch, seconds(now), lifted=self._lifted).fates
            for n, (row, fate) in enumerate(zip(chunk.batch.rows, fates, strict=True)):
                if fate == "added":
                    mark = hash(row[:3])
                    if mark in seen:
                        fates[n] = "already"
                    elif len(seen) < self.remembered:
                        seen.add(mark)
            tally = tally.plus(chunk.tally(fates)[0])
            self._tell(chunk)
        return tally
