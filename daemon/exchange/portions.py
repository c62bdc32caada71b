"""The rows of a foreign list, made ready for the ledger: addresses become keys, words become numbers.

Nothing in a list is believed further than it must be: our own addresses and whole mail providers are not let in, dates
that lie ahead are drawn in, words that we do not know make a bad row.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from operator import itemgetter
from typing import Final

from daemon.exchange.rows import Bad, Entry, Found
from daemon.options import House
from storage.address import PUBLIC_PROVIDERS, Address, HashKind, NotAnAddress, hash_key, parse, person
from storage.bulk import UNDATED, Batch, Fate, Row
from storage.engine import Ledger
from storage.lifts import Elsewhere
from storage.sweep import PlainDomains, own_keys
from storage.terms import ALL, REASONS, Reason, seconds

_PORTION: Final = 5000  # rows of a list that are read at a time
# Rows that are sorted together. A transaction then touches a small part of the table: five thousand people as they come in a
# list lie on as many pages, and each page is written twice. As many as fit into 150 MB.
CHUNK: Final = 150_000
_UNSAID: Final = ("", (), None)  # reason, scopes and date of an entry that says nothing of them


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


class _Unfit(ValueError):
    """A row that must not go in; the message says why."""


@dataclass(slots=True)
class Portion:
    """Consecutive rows of a list, as rows of the ledger. `rows`: how many of the list. `owners`: which entry each row of the
    batch is of, where an entry has several (else None). `elsewhere`: for a row whose person was taken off under another key,
    the row's key and that one. `first`, `last`: lines of entries in it."""

    batch: Batch
    rows: int = 0
    skipped: int = 0
    bad: list[Bad] = field(default_factory=list)
    owners: list[int] | None = None
    kinds: set[HashKind] = field(default_factory=set)
    first: int | None = None
    last: int | None = None
    elsewhere: list[tuple[bytes, bytes]] = field(default_factory=list)

    def tally(self, fates: Sequence[Fate], but: int = 0) -> tuple[Tally, int]:
        """What became of it, but for its first `but` rows, which were counted before; and how many of those are left.

        Of an entry that stands for several rows the best counts: added, then already.
        """
        if self.owners is not None:
            best: dict[int, Fate] = {}
            for owner, fate in zip(self.owners, fates, strict=True):
                best[owner] = min(fate, best.get(owner, fate))  # in the order of the alphabet, as it happens
            fates = list(best.values())
        every = [*["bad"] * len(self.bad), *["skipped"] * self.skipped, *fates]
        count = every[but:].count
        counts = count("added"), count("already"), count("skipped"), count("bad")
        return Tally(sum(counts), *counts), max(0, but - len(every))

    def piece(self, start: int, most: int) -> tuple[Portion, int]:
        """Some `most` of its sorted rows, from one on, never some of a person's alone; and where they end.

        What is not to be written goes with the first.
        """
        rows = self.batch.rows
        end = min(start + most, len(rows))
        while 0 < end < len(rows) and rows[end][0] == rows[end - 1][0]:
            end += 1
        batch = Batch(rows[start:end], self.batch.addresses, self.batch.older)
        if self.batch.older:
            batch.older = {row[0]: self.batch.older.get(row[0], ()) for row in batch.rows}
        if elsewhere := self.batch.elsewhere:
            batch.elsewhere = {row[0]: elsewhere[row[0]] for row in batch.rows if row[0] in elsewhere}
        owners = None if self.owners is None else self.owners[start:end]
        found = Portion(batch, owners=owners, first=self.first, last=self.last)
        if start == 0:
            found.bad, found.skipped = self.bad, self.skipped
        return found, end


def together(parts: Sequence[Portion]) -> Portion:
    """Several portions as one, its rows sorted by key: ready to be written."""
    addresses, older = dict[bytes, str](), dict[bytes, Sequence[bytes]]()
    whole = Portion(Batch([], addresses, older))
    several = any(part.owners is not None for part in parts)
    rows, owners = list[Row](), list[int]()
    for part in parts:
        if several:  # else an entry is a row
            owners += (whole.rows + n for n in part.owners or range(len(part.batch.rows)))
        rows += part.batch.rows
        for key, text in part.batch.addresses.items():
            addresses.setdefault(key, text)
        older.update(part.batch.older)
        whole.rows += part.rows
        whole.skipped += part.skipped
        whole.bad += part.bad
        whole.kinds |= part.kinds
        whole.elsewhere += part.elsewhere
        whole.first = whole.first or part.first
        whole.last = part.last or whole.last
    if several:
        order = sorted(range(len(rows)), key=lambda n: rows[n][0])
        rows, whole.owners = [rows[n] for n in order], [owners[n] for n in order]
    else:
        rows.sort(key=itemgetter(0))
    whole.batch.rows = rows
    whole.batch.elsewhere = _of_all(whole.elsewhere, rows)
    return whole


def _of_all(elsewhere: Sequence[tuple[bytes, bytes]], rows: Sequence[Row]) -> dict[bytes, list[bytes]]:
    """Row's key -> other keys under which its person was taken off, where that holds for each of its rows.

    Two addresses may have one key (`ann+x@`, `ann+y@`): that one of them was taken off must not keep the other one off.
    """
    found: dict[bytes, list[bytes]] = {}
    if elsewhere:
        carrying = Counter(elsewhere)
        theirs = {key for key, _ in carrying}
        there = Counter(row[0] for row in rows if row[0] in theirs)
        for (key, other), times in carrying.items():
            if times == there[key]:
                found.setdefault(key, []).append(other)
    return found


class Reader:
    """Makes portions of rows.

    `numbers`: list id -> number. `begun`: the date of rows without one. `now`: what lies behind it is clamped to it.
    `elsewhere`: of those who were taken off the list; None if nobody was.
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
        elsewhere: Elsewhere | None = None,
    ):
        self._house, self._numbers, self._terms = house, numbers, terms
        self._key, self._same, self._keep = ledger.site_key, ledger.same_person, ledger.keep_addresses
        self._hasher, self._several = ledger.site_key.hashers[0], len(ledger.site_key.hashers) > 1
        self._elsewhere = elsewhere
        self._all_elsewhere = elsewhere is not None and elsewhere.of_plain_too
        self._now, self._begun = seconds(now), seconds(begun)
        self._as_of = UNDATED if terms.as_of is None else self._moment(terms.as_of)
        self._ran_out = self._now - terms.soft_days * 86400
        ours = (*house.addresses, *house.form_addresses, *(x.sender for x in house.lists))
        self._our_domains = frozenset(a.lower().rpartition("@")[2] for a in ours)
        self._plain = PlainDomains(ledger.site_key, self._our_domains)
        self._usual = (terms.scope,), int(terms.reason), self._as_of

    def chunks(self, found: Iterator[Found], past: int = 0, size: int | None = None) -> Iterator[Portion]:
        """Read it all, as portions of which each is sorted in itself; `size`: of how many rows (None: CHUNK).

        Of the first `past` rows, which are in already, only what is bad about them (`rows` is 0).
        """
        while past > 0 and (portion := self.portion(islice(found, min(past, _PORTION)))).rows:
            past -= portion.rows
            yield Portion(Batch([]), bad=portion.bad)
        while True:
            parts, left = list[Portion](), size or CHUNK
            while left > 0 and (portion := self.portion(islice(found, min(left, _PORTION)))).rows:
                parts.append(portion)
                left -= portion.rows
            if not parts:
                return
            whole = together(parts)
            del parts, portion
            yield whole
            del whole

    def portion(self, found: Iterable[Found]) -> Portion:
        """Read all of these, in order."""
        addresses, older = dict[bytes, str](), dict[bytes, list[bytes]]()
        made = Portion(Batch([], addresses, older))
        entries, texts = self._sorted_out(found, made)
        keys = self._quick(texts)
        if self._are_usual(entries, keys):
            (scope,), reason, since = self._usual
            made.batch.rows = [(key, scope, reason, since) for key in keys]
            made.first, made.last = entries[0].line, entries[-1].line
            return made
        rows, owners, several = made.batch.rows, list[int](), False
        for number, (entry, plain) in enumerate(zip(entries, keys, strict=True)):
            line, text, hashed, key = entry.line, entry.address, entry.hashed, plain
            try:
                terms = self._usual if entry[2:5] == _UNSAID else self._terms_of(entry)
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
            if self._elsewhere:
                others = self._taken_off(self._elsewhere, entry, bool(plain), key)
                made.elsewhere += [(key, other) for other in others] * len(terms[0])
            rows.append((key, terms[0][0], terms[1], terms[2]))
            owners.append(number)
            if len(terms[0]) > 1:
                rows += [(key, scope, terms[1], terms[2]) for scope in terms[0][1:]]
                owners += [number] * (len(terms[0]) - 1)
                several = True
            made.first = made.first or line
            made.last = line
        made.owners = owners if several else None
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

    def _are_usual(self, entries: list[Entry], keys: list[bytes]) -> bool:
        """Nothing but plain addresses, and nothing to keep beside their keys: a quarter of the time of all is saved."""
        return (
            bool(entries)
            and not (self._keep or self._several or self._all_elsewhere or self._usual[1] == Reason.SOFT_BOUNCE)
            and b"" not in keys
            and all(entry[2:5] == _UNSAID and entry[6] is None for entry in entries)
        )

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

    def _taken_off(self, elsewhere: Elsewhere, entry: Entry, plain: bool, key: bytes) -> Iterable[bytes]:
        """The other keys under which the person of this row was taken off."""
        if plain:
            return elsewhere.of_plain(entry.address) if self._all_elsewhere else ()
        others = elsewhere.of_hash(key) if entry.hashed else elsewhere.of_address(parse(entry.address))
        return dict.fromkeys(other for other in others if other != key)

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
