"""A list goes in, and comes out without those who may not be mailed: every other row as it was, to the last octet."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO, Final, NamedTuple

from daemon.exchange import items, tables, words
from daemon.exchange.digests import Digests
from daemon.exchange.reading import Text
from daemon.exchange.rows import Bad, NotUnderstood
from daemon.exchange.tables import Table
from storage.address import PUBLIC_PROVIDERS, NotAnAddress, as_written, forms, parse

_ROWS: Final = 50_000  # asked about at once: the more, the closer together their keys lie in the table
_CHARACTERS: Final = 8_000_000  # of such a batch

# What the list says of each address: the word for why it may not be mailed, "" if it may.
Why = str | NotAnAddress
Put = Callable[[bytes], object]  # takes octets
Verdicts = Callable[[Sequence[str]], Sequence[Why]]
_PLAIN: Final = re.compile(
    r"[a-z0-9._-]+@[a-z0-9.-]*[a-z0-9]\Z"
)  # one spelling only: no quotes, no tag, no dot at the end


@dataclass
class Counts:
    """`reasons`: why rows were removed, in words of the contract; `hash` for those of a list of hashes."""

    kept: int = 0
    removed: int = 0
    unreadable: int = 0
    reasons: Counter[str] = field(default_factory=Counter)


class _Row(NamedTuple):
    """A row as found, and the address in it. Without one `why` says why; "" then: nobody's (a blank line, a comment)."""

    line: int
    raw: str
    address: str
    why: str = ""


class Scrub:
    """A list whose shape is known. `description`: one line, for the user to see before it starts."""

    def __init__(self, file: BinaryIO, column: str | None = None):
        """Reads the beginning of `file` only. Raises NotUnderstood."""
        self._text = Text(file)
        start = self._text.head.lstrip()[:1]
        if not start:
            raise NotUnderstood("the file is empty")
        encoding = self._text.encoding.name
        if start == "[" or (start == "{" and not items.is_lines(self._text.head)):
            raise NotUnderstood("a JSON document cannot be scrubbed row by row: make it CSV or JSON Lines")
        if start == "{":
            self._header, self._rows = "", _json_rows(self._text, column)
            self.description = f"JSON Lines, {encoding}"
        else:
            table = tables.look(self._text, column)
            if table.hashed:
                raise NotUnderstood("these are hashes; a list to scrub has addresses")
            self._header, self._rows = table.preamble, _table_rows(self._text, table)
            self.description = f"{encoding}, {table.shape}, addresses in {table.column_name!r}"

    def run(
        self,
        verdicts: Verdicts,
        kept: Put,
        removed: Put | None = None,
        against: Digests | None = None,
        tell: Callable[[Bad], object] = lambda _: None,
        progress: Callable[[int], object] = lambda _: None,
    ) -> Counts:
        """Write the rows that may stay to `kept`, the others to `removed`, each with header, BOM and everything.

        `verdicts` is asked for some ten thousand addresses at a time; what it raises ends it. `against`: who stands in it is
        removed, too. `tell` hears of each row that cannot be read: it is in neither file, for nobody can say that it may
        be mailed. `progress` is told how many rows are done.
        """
        counts = Counts()
        head = self._text.encoding.bom + self._text.encode(self._header)
        for put in filter(None, (kept, removed)):
            put(head)
        for batch in _batches(self._rows):
            stay, go = _sorted_out(batch, _reasons(batch, verdicts, against), counts, tell)
            kept(self._text.encode("".join(stay)))
            if removed is not None:
                removed(self._text.encode("".join(go)))
            progress(counts.kept + counts.removed + counts.unreadable)
        return counts


# ------------------------------------------------------------------ rows


def _table_rows(text: Text, table: Table) -> Iterator[_Row]:
    comments = not table.delimiter
    for line, raw, cells in table.records(text):
        if isinstance(cells, str):
            yield _Row(line, raw, "", cells)
        elif address := table.address(cells):
            yield _Row(line, raw, "" if comments and address.startswith("#") else address)
        else:
            yield _Row(line, raw, "", "" if tables.is_blank(cells) else "no address in it")


def _json_rows(text: Text, column: str | None) -> Iterator[_Row]:
    key = "" if column is None else words.name(column)
    for number, raw, value, why in items.lines(text.pieces()):
        if isinstance(value, dict) and not why:
            record = {words.name(str(k)): v for k, v in value.items()}
            key = key or _key(record)
            address = words.trimmed(words.said(record.get(key)))
            yield _Row(number, raw, address, "" if address else "no address in it")
        else:
            yield _Row(number, raw, "", (why or "not an object") if raw.strip() else "")


def _key(record: dict[str, object]) -> str:
    """The name of the address, told by the first object."""
    called = [name for name in record if words.means_address(name)]
    if len(called) != 1:
        raise NotUnderstood(f"which of these is the address: {', '.join(sorted(record)[:40])}? Say it with --column")
    return called[0]


def _batches(rows: Iterator[_Row]) -> Iterator[list[_Row]]:
    batch: list[_Row] = []
    characters = 0
    for row in rows:
        batch.append(row)
        characters += len(row.raw)
        if len(batch) >= _ROWS or characters >= _CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


# ------------------------------------------------------------------ verdicts


def _reasons(batch: Sequence[_Row], verdicts: Verdicts, against: Digests | None) -> list[Why]:
    """Of each row why it goes, "" if it stays."""
    reasons = list(verdicts([row.address for row in batch]))
    for number, row in enumerate(batch):
        if not row.address:
            reasons[number] = NotAnAddress(row.why) if row.why else ""
        elif against is not None and reasons[number] == "" and against.knows(_spellings(row.address)):
            reasons[number] = "hash"
    return reasons


def _spellings(text: str) -> list[str]:
    """How a list of hashes may have an address: as it stands, and as the person is known whatever the tag or the dots."""
    low = text.lower()
    if low.isascii() and _PLAIN.match(low) and "xn--" not in low and low.rpartition("@")[2] not in PUBLIC_PROVIDERS:
        return [low]
    address = parse(text)
    return list(
        dict.fromkeys([low, *as_written(address), *(form for kind, form in forms(address) if kind != "domain")])
    )


def _sorted_out(
    batch: Sequence[_Row], reasons: Sequence[Why], counts: Counts, tell: Callable[[Bad], object]
) -> tuple[list[str], list[str]]:
    """The rows that stay and those that go, as found; counted, and the others told."""
    stay: list[str] = []
    go: list[str] = []
    for row, why in zip(batch, reasons, strict=True):
        if why == "":
            stay.append(row.raw)
            counts.kept += row.address != ""
        elif isinstance(why, str):
            go.append(row.raw)
            counts.reasons[why] += 1
        else:
            counts.unreadable += 1
            tell(Bad(row.line, str(why), row.raw[:500].rstrip("\r\n")))
    counts.removed = counts.reasons.total()
    return stay, go
