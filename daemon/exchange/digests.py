"""A list of hashes to strike addresses off another list by, in little memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import BinaryIO, Final

from daemon.exchange import tables, words
from daemon.exchange.reading import Text
from daemon.exchange.rows import Bad, HashKind, NotUnderstood

_OCTETS: Final = 16  # of each digest; two of them are where it is kept
_REST: Final = _OCTETS - 2
_KINDS: Final[dict[int, HashKind]] = {32: "md5", 64: "sha256"}


class Digests:
    """A set of digests by their first 16 octets: 18 octets of memory each, of which a Python set would take a hundred.

    They lie in 65,536 strings by their first two octets; at ten million of them a question looks through 2 KB.
    """

    def __init__(self) -> None:
        self.kinds: set[HashKind] = set()
        self._by_start = [bytearray() for _ in range(1 << 16)]
        self.count = 0

    def add(self, kind: HashKind, digest: bytes) -> None:
        """Put one in. Twice is harmless."""
        self.kinds.add(kind)
        self._by_start[digest[0] << 8 | digest[1]] += digest[2:_OCTETS]
        self.count += 1

    def __contains__(self, digest: bytes) -> bool:
        among, rest = self._by_start[digest[0] << 8 | digest[1]], digest[2:_OCTETS]
        at = among.find(rest)
        while at % _REST and at > 0:  # found across two of them
            at = among.find(rest, at + 1)
        return at >= 0

    def knows(self, spellings: Iterable[str]) -> bool:
        """Is one of these spellings of an address (in small letters) in it, by any kind of hash there is?"""
        for spelling in spellings:
            octets = spelling.encode("utf-8", "surrogateescape")
            for kind in self.kinds:
                if hashlib.new(kind, octets, usedforsecurity=False).digest() in self:
                    return True
        return False


def read(file: BinaryIO, into: Digests) -> Iterator[Bad]:
    """Read a list of hashes; the rows of it that are none come out. Raises NotUnderstood."""
    text = Text(file)
    if not text.head.strip():
        raise NotUnderstood("the file is empty")
    table = tables.look(text)
    if table.sample and not table.hashed:
        raise NotUnderstood("this is not a list of hashes: one MD5 or SHA-256 in hex digits a line")
    for line, raw, cells in table.records(text):
        why = _taken(cells, table.column, into)
        if why:
            yield Bad(line, why, raw[:500].rstrip("\r\n"))


def _taken(cells: list[str] | str, column: int, into: Digests) -> str:
    """Put the digest of a row in; why not, if there is none."""
    if isinstance(cells, str):
        return cells
    if tables.is_blank(cells) or cells[0].startswith("#"):
        return ""
    cell = cells[column].strip() if len(cells) > column else ""
    if not words.is_digest(cell):
        return "neither MD5 nor SHA-256 in hex digits"
    into.add(_KINDS[len(cell)], bytes.fromhex(cell))
    return ""
