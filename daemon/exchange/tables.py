"""What shape a text has: its delimiter, its header, its column of addresses, and its rows. For formats and for scrubbing."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Final

from daemon.exchange import reading, words
from daemon.exchange.reading import Record, Text
from daemon.exchange.rows import NotUnderstood

_SAMPLE: Final = 200  # rows that are looked at before anything is decided
_DELIMITERS: Final = (",", ";", "\t", "|")
_NAMES: Final = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
_WITH_AT: Final = re.compile(r"\S@\S")


@dataclass(frozen=True, slots=True)
class Table:
    """`delimiter` "": one cell a line. `preamble`: what stands before the first row, as found; `before`: its lines.

    `names`: the header's cells, () if there is none. `column`: which cell is the address (from 0). `width`: cells of the
    first row, header or not. `sample`: the first rows.
    """

    delimiter: str
    preamble: str
    names: tuple[str, ...]
    column: int
    width: int
    before: int
    sample: tuple[list[str], ...]

    @property
    def hashed(self) -> bool:
        """Are digests where the addresses should be?"""
        cells = [row[self.column] for row in self.sample if len(row) > self.column and row[self.column].strip()]
        return bool(cells) and words.is_digest(cells[0])

    @property
    def column_name(self) -> str:
        """For people: as the header has it, or its number."""
        return _named(self.names, self.column) or f"column {self.column + 1}"

    @property
    def shape(self) -> str:
        """For people: delimiter and header."""
        kind = f"{_NAMES[self.delimiter]}-separated" if self.delimiter in _NAMES else f"separated by {self.delimiter!r}"
        return f"{kind if self.delimiter else 'one a line'}, {'with' if self.preamble.strip() else 'no'} header"

    def address(self, cells: Sequence[str]) -> str:
        """What stands in the column of addresses; "" if nothing does."""
        if len(cells) <= self.column:
            return ""
        return words.from_csv(cells[self.column]) if self.delimiter else words.trimmed(cells[self.column])

    def records(self, text: Text) -> Iterator[Record]:
        """Every row after the preamble, blank ones included."""
        pieces = text.pieces()
        first = next(pieces)[len(self.preamble) :]
        rest: Iterable[str] = chain([first], pieces)
        if not self.delimiter:
            return reading.plain(rest, self.before)
        return reading.records(rest, self.delimiter, self.width, self.before)


def _named(names: Sequence[str], column: int) -> str:
    """A column as the header has it; "" where rows are longer than the header, or there is none."""
    return names[column].strip() if column < len(names) else ""


def is_blank(cells: Sequence[str]) -> bool:
    """A row that says nothing at all: nobody's, and not a bad one."""
    return not any(cell.strip() for cell in cells)


# ------------------------------------------------------------------ finding out


def look(text: Text, column: str | None = None, delimiter: str | None = None, bare: Sequence[str] = ()) -> Table:
    """The shape of a text. `column`: the address's, by name or number (from 1), where it is known.

    `delimiter`: where it is known ("" for none). `bare`: names of the columns in a dialect that has no header.
    Raises NotUnderstood.
    """
    lines = _sample(text)
    told, skip = _told_delimiter(lines)
    while skip < len(lines) and not lines[skip].strip():
        skip += 1
    body = lines[skip:]
    if not body:
        raise NotUnderstood("the file is empty")
    found = told or (_delimiter(body) if delimiter is None else delimiter)
    raw, rows = _rows(body, found)
    header = _is_header(rows[0])
    names = tuple(rows[0]) if header else tuple(bare[: len(rows[0])])
    preamble = "".join(lines[:skip]) + (raw if header else "")
    sample = tuple(rows[1:] if header else rows)
    return Table(
        found,
        preamble,
        names,
        column=_column(names, sample, column),
        width=len(rows[0]),
        before=len(list(io.StringIO(preamble, newline=""))),
        sample=sample,
    )


def _sample(text: Text) -> list[str]:
    """The first lines, whole ones only."""
    lines = list(islice(io.StringIO(text.head, newline=""), _SAMPLE + 5))
    if len(lines) > 1 and not text.whole and len(lines) < _SAMPLE + 5:
        lines.pop()
    return lines


def _told_delimiter(lines: Sequence[str]) -> tuple[str | None, int]:
    """Excel's `sep=;` in the first line: the delimiter, and how many lines say so."""
    first = lines[0].strip("\r\n").lower() if lines else ""
    return (first[4], 1) if len(first) == 5 and first.startswith("sep=") else (None, 0)


def _delimiter(lines: Sequence[str]) -> str:
    """What the first row has most of, and the other rows as often; or a header that names an address. "": nothing is."""
    best, score = "", 0
    for candidate in _DELIMITERS:
        try:
            first, *others = [row for row in _rows(lines, candidate)[1] if not is_blank(row)] or [[]]
        except (NotUnderstood, csv.Error):
            continue
        same = 1 + sum(len(row) == len(first) for row in others)
        named = any(words.means_address(words.name(cell)) for cell in first)
        if len(first) > 1 and (named or same * 10 >= len(others) * 6) and len(first) * same > score:
            best, score = candidate, len(first) * same
    return best


def _rows(lines: Sequence[str], delimiter: str) -> tuple[str, list[list[str]]]:
    """The first row as found, and the cells of all rows of a sample that can be read."""
    text = ["".join(lines)]
    width = len(next(csv.reader(lines, delimiter=delimiter), [])) if delimiter else 1
    found = list(reading.records(text, delimiter, width) if delimiter else reading.plain(text))
    _, raw, first = found[0]
    if isinstance(first, str):
        raise NotUnderstood(f"the first row cannot be read: {first}")
    return raw, [cells for _, _, cells in found if isinstance(cells, list)]


def _is_header(cells: Sequence[str]) -> bool:
    """A row without an address in it, or anything that may be meant for one, and without a digest.

    Who is taken for a header is not asked about: `"ann lee"@example.com` and `ann@example.com (work)` are rows.
    """
    return not any(_WITH_AT.search(c) or words.is_digest(c) or c.strip().startswith(("#", "@")) for c in cells)


def _column(names: Sequence[str], body: Sequence[Sequence[str]], asked: str | None) -> int:
    """Which column the addresses are in: the one asked for, one that is called so, or the only one that has any."""
    if asked is not None:
        return _asked(names, body, asked)
    normal = [words.name(n) for n in names]
    called = [n for n, one in enumerate(normal) if words.means_address(one)]
    if len(called) > 1:  # `Email Address` and a postal `Address`
        called = [n for n in called if _has_addresses(body, n)] or called[:1]
    if not called:
        called = [n for n, one in enumerate(normal) if words.means_digest(one)]
    if not called:
        width = len(body[0]) if body else len(names)
        called = [n for n in range(width) if _has_addresses(body, n)]
    if len(called) == 1:
        return called[0]
    columns = _columns(names, body)
    if called:
        which = " and ".join(_named(names, n) or str(n + 1) for n in called[:4])
        raise NotUnderstood(f"several columns have addresses ({which}): say which with --column")
    raise NotUnderstood(f"no column of addresses found: name it with --column ({columns})")


def _columns(names: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    if names:
        return "the columns are: " + ", ".join(n.strip()[:40] for n in names[:40])
    return f"a number from 1 to {len(body[0]) if body else 1}"


def _has_addresses(body: Sequence[Sequence[str]], column: int) -> bool:
    """Do most of its cells look like one (or like a digest)?"""
    cells = [row[column] for row in body if len(row) > column and row[column].strip()]
    good = sum(words.looks_like_address(cell) or words.is_digest(cell) for cell in cells)
    return good > 0 and (good * 2 >= len(cells) or all(len(row) == 1 for row in body))


def _asked(names: Sequence[str], body: Sequence[Sequence[str]], asked: str) -> int:
    for same in (str.strip, words.name):
        found = [n for n, one in enumerate(names) if same(one) == same(asked)]
        if len(found) == 1:
            return found[0]
        if found:
            raise NotUnderstood(f"there are {len(found)} columns {asked!r}: give the number with --column")
    width = len(names) or max((len(row) for row in body), default=0)
    if asked.isascii() and asked.isdigit() and 0 < int(asked[:4]) <= width:
        return int(asked[:4]) - 1
    raise NotUnderstood(f"no column {asked!r}: {_columns(names, body)}")


def escaped(cells: Iterable[str]) -> str:
    """A CSV row, its line end LF. Cells that a spreadsheet would run as a formula begin with an apostrophe."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow([words.harmless(cell) for cell in cells])
    return out.getvalue()
