"""What stands between the bytes of a foreign list and our table: rows, whatever the dialect.

A dialect (formats.py and its neighbours) turns bytes into these and these into bytes; importing, exporting and scrubbing
know nothing of bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, NamedTuple

from daemon.texts import one_line

_LONGEST: Final = 700  # characters of a sentence: the names of some columns, and what to do
HashKind = Literal["md5", "sha256"]  # of the trimmed address in small letters


class Entry(NamedTuple):
    """Somebody who is on the list.

    `line`: where in the file it begins (of JSON: the number of the item), from 1. `address`: as written, trimmed; "" in a
    list of hashes. `reason`: a word of storage.terms (`opt-out`), "" if the list does not say. `scopes`: list ids, ("all",)
    for everything, () if the list does not say. `since`: aware, None if the list does not say. `source`: a word of
    storage.terms.SOURCES or "". `hashed`: kind and digest of an address that we are not told. `note`: what else the list
    says and is worth keeping (a bounce's status and text), bounded.
    """

    line: int
    address: str
    reason: str = ""
    scopes: tuple[str, ...] = ()
    since: datetime | None = None
    source: str = ""
    hashed: tuple[HashKind, bytes] | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Skipped:
    """A row that says of somebody that they are not suppressed (`subscribed`)."""

    line: int
    why: str


@dataclass(frozen=True, slots=True)
class Bad:
    """A row that cannot be read. `text`: the row as found, at most 500 characters, for the reject file."""

    line: int
    why: str
    text: str


Found = Entry | Skipped | Bad


class NotUnderstood(ValueError):
    """A whole file that cannot be read: no format fits, two do, a column is missing. A sentence that says what to do.

    It may name what stands in the file, so it is cut, and made one line.
    """

    def __init__(self, sentence: str):
        said = one_line(sentence)
        super().__init__(said if len(said) <= _LONGEST else f"{said[:_LONGEST]}...")
