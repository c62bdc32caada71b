"""A foreign list goes into the ledger: rows of any dialect become keys, and bounded transactions.

Nothing in a list is believed further than it must be: it adds, and never takes away; what it says without a date counts
against nothing that happened before; our own addresses and whole mail providers are not let in. Rows are parsed and
hashed between the transactions, never within one, so that a live opt-out finds its turn.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from operator import itemgetter
from typing import Any, BinaryIO, Final

from daemon.exchange.pace import BESIDE_OTHERS, Pace
from daemon.exchange.rows import Bad, Entry, Found
from daemon.options import House
from storage import bulk, hashes, imports
from storage.address import PUBLIC_PROVIDERS, Address, HashKind, NotAnAddress, hash_key, parse, person
from storage.bulk import UNDATED, Batch, Fate
from storage.engine import Ledger, Unavailable
from storage.sweep import PlainDomains, own_keys
from storage.terms import ALL, REASONS, Reason, seconds
from storage.write import write

_SEEN: Final = 1_000_000  # keys that a dry run remembers, to count nobody twice: some 80 MB
_PIECE: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Terms:
    """What holds for the rows that do not say it themselves, and what may be in the list at all.

    `scope`, `reason`: of rows that name none. `as_of`: the date of rows without one (None: they have none). `domains`: may
    it suppress whole domains? `soft_days`: how long a soft bounce counts.
    """

    scope: int = ALL
    reason: Reason = Reason.OPT_OUT
    as_of: datetime | None = None
    domains: bool = False
    soft_days: int = 30


@dataclass(frozen=True, slots=True)
class Tally:
    """What became of the rows of a list; `rows` is the sum of the others."""

    rows: int = 0
    added: int = 0
    already: int = 0
    skipped: int = 0
    bad: int = 0

    def plus(self, other: Tally) -> Tally:
        """Both."""
        return Tally(
            self.rows + other.rows,
            self.added + other.added,
            self.already + other.already,
            self.skipped + other.skipped,
            self.bad + other.bad,
        )


def digest(file: BinaryIO, asked: Mapping[str, object]) -> bytes:
    """What tells one import from another: the octets of the file (read from where it stands) and what was asked for."""
    found = hashlib.blake2b(digest_size=32)
    while piece := file.read(_PIECE):
        found.update(piece)
    for name, value in sorted(asked.items()):
        found.update(f"\0{name}={value!r}".encode("utf-8", "backslashreplace"))
    return found.digest()


# ------------------------------------------------------------------ reading rows


class _Unfit(ValueError):
    """A row that must not go in; the message says why."""


@dataclass(slots=True)
class Portion:
    """Consecutive rows of a list, ready to be written. `owners`: which entry each row of the batch is of, where an entry
    has several (else None). `first`, `last`: lines of entries in it."""

    batch: Batch
    rows: int = 0
    skipped: int = 0
    bad: list[Bad] = field(default_factory=list)
    owners: list[int] | None = None
    kinds: set[HashKind] = field(default_factory=set)
    first: int | None = None
    last: int | None = None

    def tally(self, fates: list[Fate]) -> Tally:
        """What became of it. Of an entry that stands for several rows the best counts: added, then already."""
        if self.owners is not None:
            best: dict[int, Fate] = {}
            for owner, fate in zip(self.owners, fates, strict=True):
                best[owner] = min(fate, best.get(owner, fate))  # in the order of the alphabet, as it happens
            fates = list(best.values())
        added, already = fates.count("added"), fates.count("already")
        skipped = self.skipped + len(fates) - added - already
        return Tally(self.rows, added, already, skipped, len(self.bad))


class Reader:
    """Makes portions of rows.

    `numbers`: list id -> number. `begun`: the date of rows without one. `now`: what lies behind it is clamped to it.
    """

    def __init__(
        self,
        ledger: Ledger,
        house: House,
        numbers: Mapping[str, int],
        terms: Terms,
        *,
        begun: datetime,
        now: datetime,
    ):
        self._house, self._numbers, self._terms = house, numbers, terms
        self._key, self._same, self._keep = ledger.site_key, ledger.same_person, ledger.keep_addresses
        self._hasher, self._several = ledger.site_key.hashers[0], len(ledger.site_key.hashers) > 1
        self._now, self._begun = seconds(now), seconds(begun)
        self._as_of = UNDATED if terms.as_of is None else self._moment(terms.as_of)
        self._ran_out = self._now - terms.soft_days * 86400
        ours = (*house.addresses, *house.form_addresses, *(x.sender for x in house.lists))
        self._our_domains = frozenset(a.lower().rpartition("@")[2] for a in ours)
        self._plain = PlainDomains(ledger.site_key, self._our_domains)
        self._usual = (terms.scope,), int(terms.reason), self._as_of

    def portion(self, found: Iterable[Found]) -> Portion:
        """Read all of these."""
        addresses, older = dict[bytes, str](), dict[bytes, list[bytes]]()
        made = Portion(Batch([], addresses, older))
        entries, texts = self._sorted_out(found, made)
        rows: list[tuple[bytes, int, int, int, int]] = []
        for number, (entry, key) in enumerate(zip(entries, self._quick(texts), strict=True)):
            line, text, reason, scopes, since, _, hashed, _ = entry
            try:
                terms = self._terms_of(entry) if reason or scopes or since else self._usual
                if hashed:
                    key = self._hashed(entry, made)
                elif not key:
                    key = self._keyed(text, addresses, older)
                elif self._keep or self._several:
                    self._note(key, text.lower(), text, addresses, older)
            except _Unfit as why:
                made.bad.append(Bad(line, str(why), text[:500]))
                continue
            if terms[1] == Reason.SOFT_BOUNCE and (terms[2] or self._begun) < self._ran_out:
                made.skipped += 1
                continue
            rows.append((key, terms[0][0], terms[1], terms[2], number))
            if len(terms[0]) > 1:
                rows += [(key, scope, terms[1], terms[2], number) for scope in terms[0][1:]]
                made.owners = []
            made.first = made.first or line
            made.last = line
        rows.sort(key=itemgetter(0))
        made.batch.rows = [row[:4] for row in rows]
        made.owners = None if made.owners is None else [row[4] for row in rows]
        return made

    @staticmethod
    def _sorted_out(found: Iterable[Found], made: Portion) -> tuple[list[Entry], list[str]]:
        """The entries, and their addresses; the others are noted."""
        entries = []
        for item in found:
            made.rows += 1
            if isinstance(item, Entry):
                entries.append(item)
            elif isinstance(item, Bad):
                made.bad.append(item)
            else:
                made.skipped += 1
        return entries, [entry.address for entry in entries]

    def _quick(self, texts: list[str]) -> list[bytes]:
        """The keys of the plain ones, which nearly all are."""
        return own_keys(self._hasher, texts, self._plain.__getitem__)

    def _terms_of(self, entry: Entry) -> tuple[tuple[int, ...], int, int]:
        """Scopes, reason and date of a row. Raises _Unfit."""
        terms = self._terms
        reason = terms.reason
        if entry.reason:
            found = REASONS.get(entry.reason)
            if found is None:
                raise _Unfit(f"no such reason: {entry.reason[:40]!r}")
            reason = found
        scopes = self._scopes(entry.scopes) if entry.scopes else (terms.scope,)
        if reason == Reason.WANTED and ALL in scopes:
            raise _Unfit("`wanted` exempts one list, and none is named")
        return scopes, int(reason), self._as_of if entry.since is None else self._moment(entry.since)

    def _moment(self, since: datetime) -> int:
        """Seconds; what lies in the future is now, and nothing is older than 1970."""
        return min(max(seconds(since), UNDATED + 1), self._now)

    def _scopes(self, ids: tuple[str, ...]) -> tuple[int, ...]:
        if "all" in ids:
            return (ALL,)
        for list_id in ids:
            if list_id not in self._numbers:
                raise _Unfit(f"no list {list_id[:40]!r} in the config")
        return tuple(dict.fromkeys(self._numbers[list_id] for list_id in ids))

    def _hashed(self, entry: Entry, made: Portion) -> bytes:
        assert entry.hashed
        kind, octets = entry.hashed
        made.kinds.add(kind)
        return hash_key(octets)

    def _keyed(self, text: str, addresses: dict[bytes, str], older: dict[bytes, list[bytes]]) -> bytes:
        """The key of an address, which is noted with it. Raises _Unfit."""
        address = self._parsed(text)
        form = person(address, self._same)
        key = self._key.address_key(form)
        self._note(key, form, str(address), addresses, older)
        return key

    def _note(
        self, key: bytes, form: str, text: str, addresses: dict[bytes, str], older: dict[bytes, list[bytes]]
    ) -> None:
        if self._keep and key not in addresses:
            at = text.rindex("@")
            addresses[key] = text[:at] + text[at:].lower()
        if self._several:
            older[key] = self._key.address_keys(form)[1:]

    def _parsed(self, text: str) -> Address:
        try:
            address = parse(text)
        except NotAnAddress as why:
            raise _Unfit(str(why)) from None
        if address.is_domain:
            self._check_domain(address.domain)
        elif self._house.never_suppresses(str(address)):
            raise _Unfit("one of our own addresses: it is never suppressed")
        return address

    def _check_domain(self, domain: str) -> None:
        if not self._terms.domains:
            raise _Unfit("a whole domain, and a list of this kind names people: use `optoutd suppress` if it is meant")
        if "." not in domain.strip("[]"):
            raise _Unfit("a top-level domain cannot be suppressed as a whole")
        if domain in PUBLIC_PROVIDERS:
            raise _Unfit("a public mail provider, and all its users would be suppressed")
        mine = [*self._house.domains, *self._our_domains]
        if any(own == domain or own.endswith("." + domain) for own in mine):
            raise _Unfit("one of our own domains")


# ------------------------------------------------------------------ writing them


@dataclass
class Import:
    """One list on its way into the ledger.

    `numbers`: list id -> number. `detail`: what the evidence says beside numbers (`file`, `format`). `clock`: now, aware.
    `alone`: is no daemon running on this ledger (asked before each transaction)? `bad`: told of each row that cannot go in,
    those of an earlier, broken-off run included. `done`: told after each transaction. `wait`: time.sleep.
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
    _announced: set[HashKind] = field(default_factory=set, init=False)
    _lifted: bulk.Lifted | None = field(default=None, init=False)

    def begin(self, digest: bytes, file: str) -> imports.Run:
        """The import of this file, or where it was broken off."""
        with write(self.ledger, self.clock(), self.actor) as w:
            return imports.begin(w, digest, file)

    def run(self, run: imports.Run, found: Iterator[Found]) -> Tally:
        """Put it in, from where `run` says it has come to. Each transaction says how far, so it may be killed anywhere.

        Raises Unavailable; what was committed until then stays, and the next `begin` knows it.
        """
        reader, pace = self._reader(run.at), Pace(self.alone, self.wait)
        self._pass_over(reader, found, run.position)
        try:
            while (portion := reader.portion(islice(found, pace.rows))).rows:
                run = self._put(portion, run, pace)
                self._lifted = self._lifted or bulk.Lifted()  # from the second transaction on: it is a long list
            with write(self.ledger, self.clock(), self.actor) as w:
                imports.finish(w, run)
        except imports.OutOfStep:
            raise Unavailable("another import of the same file is under way: wait for it to end") from None
        return Tally(run.position, run.added, run.already, run.skipped, run.bad)

    def _reader(self, begun: datetime) -> Reader:
        return Reader(self.ledger, self.house, self.numbers, self.terms, begun=begun, now=self.clock())

    def _pass_over(self, reader: Reader, found: Iterator[Found], rows: int) -> None:
        """What is committed already is only looked at for the bad rows, so that the file of rejects is whole."""
        while rows > 0 and (portion := reader.portion(islice(found, min(rows, BESIDE_OTHERS)))).rows:
            self._tell(portion)
            rows -= portion.rows

    def _put(self, portion: Portion, run: imports.Run, pace: Pace) -> imports.Run:
        for kind in sorted(portion.kinds - self._announced):
            hashes.announce(self.ledger, kind, self.clock(), self.actor, self.wait)
            self._announced.add(kind)
        detail = {**self.detail, "first": portion.first, "last": portion.last}
        with pace.turn(), write(self.ledger, self.clock(), self.actor) as w:
            added = bulk.add_many(w, portion.batch, seconds(run.at), detail, run=run.id, lifted=self._lifted)
            t = portion.tally(added.fates)
            run = imports.advance(w, run, rows=t.rows, added=t.added, already=t.already, skipped=t.skipped, bad=t.bad)
        self._tell(portion)
        return run

    def _tell(self, portion: Portion) -> None:
        for bad in portion.bad:
            self.bad(bad)
        self.done()

    def rehearse(self, found: Iterator[Found]) -> Tally:
        """What `run` would do, without doing it. Beyond a million new rows, who is in the list twice may count twice."""
        now = self.clock()
        reader, tally, seen = self._reader(now), Tally(), set[int]()
        while (portion := reader.portion(islice(found, BESIDE_OTHERS))).rows:
            with self.ledger.reading() as db:
                fates = bulk.plan(db, portion.batch, seconds(now)).fates
            for n, (row, fate) in enumerate(zip(portion.batch.rows, fates, strict=True)):
                if fate == "added":
                    mark = hash(row[:3])
                    if mark in seen:
                        fates[n] = "already"
                    elif len(seen) < _SEEN:
                        seen.add(mark)
            tally = tally.plus(portion.tally(fates))
            self._tell(portion)
        return tally
