"""What a list is taken for, before a row of it is used: shown to whoever brought it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import BinaryIO, Final

from daemon.exchange.asking import Asked
from daemon.exchange.formats import open_list
from daemon.exchange.rows import Bad, Entry, Found

_FIRST: Final = 5  # rows that are shown


@dataclass(frozen=True, slots=True)
class Understood:
    """What a list was taken for, before a row of it is used. `first`: (line, what it says) of its first rows."""

    format: str
    encoding: str
    delimiter: str
    header: bool
    column: str
    description: str
    first: tuple[tuple[int, str], ...]


def look(file: BinaryIO, asked: Asked) -> Understood:
    """Find it out. Raises NotUnderstood."""
    file.seek(0)
    opened = open_list(file, format=asked.format, column=asked.column)
    first = tuple((row.line, _said(row)) for row in islice(opened.found(), _FIRST))
    return Understood(
        opened.format, opened.encoding, opened.delimiter, opened.header, opened.column, opened.description, first
    )


def _said(row: Found) -> str:
    """What a row was read as, in a line."""
    if not isinstance(row, Entry):
        return f"{'bad' if isinstance(row, Bad) else 'skipped'}: {row.why}"
    parts = {
        "": row.address or (row.hashed[1].hex() if row.hashed else ""),
        "reason ": row.reason,
        "of ": ", ".join(row.scopes),
        "since ": row.since.date().isoformat() if row.since else "",
    }
    return ", ".join(f"{word}{value}" for word, value in parts.items() if value)
