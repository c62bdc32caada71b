"""Lists of others, read: which format is it, and what does each row say? Pure: octets in, rows out.

`open_list` finds out what a file is from its header or structure and says so before a row of it is used; it refuses what
could be two things, and what uses words that nobody explained to us.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import BinaryIO, Final

from daemon.exchange import dialects, items, reading, tables, words
from daemon.exchange.dialects import BY_NAME, DIALECTS, Dialect, Said
from daemon.exchange.reading import Text
from daemon.exchange.rows import Bad, Entry, Found, HashKind, NotUnderstood, Skipped
from daemon.exchange.tables import Table
from daemon.exchange.words import Strange

_TABLES: Final = {"csv": None, "tsv": "\t", "text": "", "hashes": None}  # generic formats, and their delimiter
FORMATS: Final = ("auto", *_TABLES, "json", "ndjson", "postfix", *BY_NAME)
_JSON: Final = frozenset(("auto", "json", "ndjson", *BY_NAME)) - {"optoutd", "mautic"}
_SAMPLE: Final = 200

_ANYONE: Final = Dialect("text", "plain text", (), lambda names: False, dialects.anyone)
_GENERIC: Final = Dialect("csv", "CSV", (), lambda names: False, dialects.generic)
_HASHES: Final = Dialect("hashes", "hashes", (), lambda names: False, dialects.anyone)
_POSTFIX: Final = Dialect("postfix", "Postfix access map", ("address",), lambda names: False, dialects.postfix)


@dataclass(frozen=True, slots=True)
class ForeignList:
    """A list that was understood. `delimiter` "" and `header` False where there is none; `column`: the address's, as named."""

    format: str
    encoding: str
    delimiter: str
    header: bool
    column: str
    hashed: bool
    description: str
    _rows: Callable[[], Iterator[Found]]

    def found(self) -> Iterator[Found]:
        """Its rows, in order, once. Raises OSError where the file cannot be read on."""
        return self._rows()


def open_list(file: BinaryIO, *, format: str = "auto", column: str | None = None) -> ForeignList:
    """Find out what a list is. `format`: one of FORMATS; `column`: name or number (from 1) of the column of addresses.

    Reads the beginning of `file` (which need not be seekable) and leaves the rest to `found`. Raises NotUnderstood.
    """
    if format not in FORMATS:
        raise NotUnderstood(f"no format {format!r}; there are: {', '.join(FORMATS)}")
    text = Text(file)
    start = text.head.lstrip()[:1]
    if not start:
        raise NotUnderstood("the file is empty")
    if start in "{[" and format in _JSON:
        return _json(text, format, column)
    if format in ("json", "ndjson"):
        raise NotUnderstood("this is not JSON: it begins with neither { nor [")
    if format == "postfix" or (format == "auto" and column is None and _is_access_map(text)):
        return _access_map(text)
    return _table(text, format, column)


# ------------------------------------------------------------------ tables and plain text


def _table(text: Text, format: str, column: str | None) -> ForeignList:
    told = BY_NAME.get(format)
    table = tables.look(text, column, _TABLES.get(format), told.bare if told else ())
    names = [words.name(n) for n in table.names]
    dialect = told or _dialect(format, frozenset(names), table)
    if told and told.address and column is None and not set(told.address) & set(names):
        raise NotUnderstood(f"this is not a list from {told.title}: no column {' or '.join(told.address)}")
    if dialect is _HASHES and table.sample and not table.hashed:
        raise NotUnderstood("this is not a list of hashes: one MD5 or SHA-256 in hex digits a line")
    rows = _Rows(dialect, names, table)
    rows.look_at(table.sample)
    return ForeignList(
        dialect.format,
        text.encoding.name,
        table.delimiter,
        bool(table.preamble.strip()),
        table.column_name,
        table.hashed,
        _described(dialect, text, table),
        lambda: rows.found(text),
    )


def _dialect(format: str, names: frozenset[str], table: Table) -> Dialect:
    if format == "hashes" or (format == "auto" and table.hashed and table.width == 1):
        return _HASHES
    if format != "auto":
        return _ANYONE if format == "text" else _GENERIC
    if table.width == 1:
        return _ANYONE
    return _fitting(names)


def _fitting(names: frozenset[str]) -> Dialect:
    fits = [d for d in DIALECTS if d.fits(names)]
    if len(fits) > 1:
        raise NotUnderstood(f"this could be {' or '.join(d.title for d in fits)}: say which with --format")
    return fits[0] if fits else _GENERIC


def _described(dialect: Dialect, text: Text, table: Table) -> str:
    """One line: what the user should know before it starts."""
    what = "hashes" if table.hashed else "addresses"
    return f"{dialect.title}, {text.encoding.name}, {table.shape}, {what} in {table.column_name!r}"


class _Rows:
    """The rows of a table in one dialect."""

    def __init__(self, dialect: Dialect, names: list[str], table: Table):
        if dialect is _GENERIC:
            dialect = replace(dialect, read=dialects.generic_for(names))
            dialect = _ANYONE if dialect.read is dialects.anyone else dialect
        self._dialect, self._names, self._table = dialect, names, table

    def look_at(self, sample: Iterable[list[str]]) -> None:
        """Raises NotUnderstood where the first rows use words that we do not know."""
        for cells in sample:
            if not tables.is_blank(cells):
                _ask(self._dialect, dict(zip(self._names, cells, strict=False)))

    def found(self, text: Text) -> Iterator[Found]:
        """What each of them says; in lists without a delimiter lines may begin with `#`."""
        table, names, comments = self._table, self._names, not self._table.delimiter
        hashed = table.hashed or self._dialect is _HASHES
        simple = self._dialect is _ANYONE and not hashed
        for line, raw, cells in table.records(text):
            if isinstance(cells, str):
                yield _bad(line, cells, raw)
            elif address := table.address(cells):
                if comments and address.startswith("#"):
                    continue
                if simple:
                    yield Entry(line, address)
                else:
                    yield _read(self._dialect, line, raw, address, dict(zip(names, cells, strict=False)), hashed)
            elif not tables.is_blank(cells):
                yield _bad(line, "no address in it", raw)


def _read(dialect: Dialect, line: int, raw: str, address: str, record: words.Record, hashed: bool = False) -> Found:
    """What one row comes to. `address`: trimmed; `hashed`: a digest should be there instead."""
    if not address:
        return _bad(line, "no address in it", raw)
    try:
        said = dialect.read(record)
    except Strange as why:
        return _bad(line, f"{why.column}: {why.value[:60]!r} is not understood", raw)
    except NotUnderstood as why:
        return _bad(line, str(why), raw)
    if isinstance(said, str):
        return Skipped(line, said)
    if not hashed:
        return _entry(line, address, said, None)
    digest = _digest(address)
    return _entry(line, "", said, digest) if digest else _bad(line, "neither MD5 nor SHA-256 in hex digits", raw)


def _digest(text: str) -> tuple[HashKind, bytes] | None:
    if not words.is_digest(text):
        return None
    octets = bytes.fromhex(text)
    return ("md5" if len(octets) == 16 else "sha256"), octets


def _entry(line: int, address: str, said: Said, digest: tuple[HashKind, bytes] | None) -> Entry:
    if not said.since and not said.reason and not said.note:
        return Entry(line, address, "", said.scopes, None, said.source, digest)
    since = words.moment(said.since)
    note = said.note
    if said.since and since is None:  # kept, though we cannot read it
        note = f"{note}; date: {said.since[:60]}".removeprefix("; ")
    return Entry(line, address, said.reason, said.scopes, since, said.source, digest, note)


def _bad(line: int, why: str, raw: str) -> Bad:
    return Bad(line, why, raw[:500].rstrip("\r\n"))


def _ask(dialect: Dialect, record: words.Record) -> None:
    """Does this row make sense? Raises NotUnderstood. In our own format a wrong word is a bad row: the column is no riddle."""
    try:
        dialect.read(record)
    except Strange as why:
        if dialect.format == "optoutd":
            return
        raise NotUnderstood(
            f"{dialect.title}: column {why.column!r} says {why.value[:60]!r}, which is not understood; take that column out, or"
            " translate it: opt-out, complaint, hard-bounce, operator, subscribed"
        ) from None


# ------------------------------------------------------------------ JSON


def _json(text: Text, format: str, column: str | None) -> ForeignList:
    lines = items.is_lines(text.head)
    if lines and format == "json":
        raise NotUnderstood("these are JSON Lines: --format ndjson")
    try:
        sample = [i.value for i in islice(_items([text.head], lines), _SAMPLE) if i.value is not None]
    except (items.NoArray, ValueError):
        raise NotUnderstood("no array of addresses found in this JSON") from None
    objects = [value for value in sample if isinstance(value, dict)]
    records = [_record(value) for value in objects or sample]
    names = frozenset(name for record in records[:5] for name in record)
    dialect = BY_NAME.get(format) or (_GENERIC if format != "auto" else _fitting(names))
    key = _key(dialect, names, column)
    for record in records:
        _ask(dialect, record)
    hashed = any(words.is_digest(words.said(r.get(key))) for r in records[:1])
    title = f"{'' if dialect is _GENERIC else dialect.title + ' '}JSON{' Lines' if lines else ''}"
    what = f"{'hashes' if hashed else 'addresses'} in {key!r}" if records else "empty"
    return ForeignList(
        "json" if dialect is _GENERIC else dialect.format,
        text.encoding.name,
        "",
        False,
        key,
        hashed,
        f"{title}, {text.encoding.name}, {what}",
        lambda: _objects(dialect, _items(text.pieces(), lines), key, hashed),
    )


def _items(pieces: Iterable[str], lines: bool) -> Iterator[items.Item]:
    return items.lines(pieces) if lines else items.items(pieces, items.ARRAYS)


def _objects(dialect: Dialect, source: Iterator[items.Item], key: str, hashed: bool) -> Iterator[Found]:
    for item in source:
        if item.why:
            yield _bad(item.number, item.why, item.raw)
        elif item.value is not None:
            record = _record(item.value)
            yield _read(dialect, item.number, item.raw, words.trimmed(words.said(record.get(key))), record, hashed)


def _record(value: object) -> dict[str, object]:
    """An object by normalised names; of an array of strings each is an address."""
    if isinstance(value, dict):
        return {words.name(str(k)): v for k, v in islice(value.items(), 200)}
    return {"email": value} if isinstance(value, str) else {}


def _key(dialect: Dialect, names: frozenset[str], column: str | None) -> str:
    if column is not None:
        if names and words.name(column) not in names:
            raise NotUnderstood(f"no {column!r} in the objects; there are: {', '.join(sorted(names)[:40])}")
        return words.name(column)
    known = [n for n in dialect.address if n in names]
    called = known or sorted(n for n in names if words.means_address(n) or words.means_digest(n))
    if not names:
        return next(iter(dialect.address), "email")
    if not called or (len(called) > 1 and not known):
        raise NotUnderstood(f"which of these is the address: {', '.join(sorted(names)[:40])}? Say it with --column")
    return called[0]


# ------------------------------------------------------------------ Postfix access maps

_ACCESS: Final = re.compile(
    r"\S+[ \t]+(?:REJECT|DISCARD|OK|PERMIT|DUNNO|RELAY|DEFER(?:_IF_PERMIT|_IF_REJECT)?|HOLD|WARN|FILTER|REDIRECT|BCC|INFO|PREPEND"
    r"|[2345]\d\d)(?:[ \t\r\n]|\Z)",
    re.IGNORECASE,
)


def _is_access_map(text: Text) -> bool:
    """Patterns and actions, and nothing else, in the first lines."""
    first = [x for x in text.head.splitlines()[:_SAMPLE] if x.strip() and not x.startswith(("#", " ", "\t"))]
    return bool(first) and all(_ACCESS.match(line) for line in first[:-1] or first)


def _access_map(text: Text) -> ForeignList:
    for _number, raw in islice(_logical([text.head]), _SAMPLE):
        pattern, action = _split(raw)
        if action:
            _ask(_POSTFIX, {"address": pattern, "action": action})
    if not _is_access_map(text):
        raise NotUnderstood("this is not a Postfix access map: each line has a pattern, a space and an action")

    def found() -> Iterator[Found]:
        for number, raw in _logical(text.pieces()):
            yield _refused(number, raw)

    described = f"{_POSTFIX.title}, {text.encoding.name}"
    return ForeignList("postfix", text.encoding.name, "", False, "pattern", False, described, found)


def _logical(pieces: Iterator[str] | list[str]) -> Iterator[tuple[int, str]]:
    """Logical lines: one that begins with a space goes on the one before (postmap(1)); without comments."""
    number, start, held = 0, 0, ""
    for batch in reading.batches(pieces):
        for raw in batch.lines:
            number += 1
            if not raw.strip() or raw.startswith("#"):
                continue
            if raw[0] in " \t" and held:
                held = (held + " " + raw.strip())[: reading.LONGEST]
                continue
            if held:
                yield start, held
            start, held = number, raw.strip()
    if held:
        yield start, held


def _split(raw: str) -> tuple[str, str]:
    pattern, _, action = raw.replace("\t", " ").partition(" ")
    return pattern, action.strip()


def _refused(number: int, raw: str) -> Found:
    pattern, action = _split(raw)
    if not action:
        return _bad(number, "a pattern without an action", raw)
    if "@" not in pattern:
        if pattern == "<>" or ":" in pattern or not pattern.strip("0123456789./[]"):
            return Skipped(number, "a network or the null sender, no address")
        pattern = "@" + pattern.lstrip(".")
    elif pattern.endswith("@"):
        return _bad(number, "a name at any domain: no address", raw)
    return _read(_POSTFIX, number, raw, pattern, {"address": pattern, "action": action})
