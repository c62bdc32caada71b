"""Inputs out of inputs: what a text protocol's reader is likely to trip over, drawn from a seeded generator."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from typing import Final

_NUMBERS: Final = (b"0", b"-1", b"1", b"999", b"65536", b"2147483648", b"4294967296", b"18446744073709551616", b"1e9")
_ODD: Final = (
    b"\x00",
    b"\r",
    b"\n",
    b"\r\n",
    b"\r\n\r\n",
    b"\xff",
    b"\xc3\x28",
    b"\xed\xa0\x80",
    b"\xe2\x80\xae",
    "\u0130".encode(),
    b"\x1b[2J",
    b"%s%n",
    b"'\"",
    b"\\",
    b"=",
    b"\t",
)
_DIGITS: Final = re.compile(rb"\d+")
_TIMES: Final = (2, 3, 10, 100, 2_000)

Mutation = Callable[[random.Random, bytes, Sequence[bytes], Sequence[bytes]], bytes]


def mutated(chance: random.Random, bases: Sequence[bytes], words: Sequence[bytes], longest: int) -> bytes:
    """One of the bases, changed here and there: a few times, seldom many times. At most `longest` octets."""
    found = chance.choice(bases)
    for _ in range(chance.choice((1, 1, 2, 3, 5, 8, 20))):
        found = chance.choice(_MUTATIONS)(chance, found, bases, words)[:longest]
    return found


def _span(chance: random.Random, octets: bytes) -> tuple[int, int]:
    """A piece of it, seldom a long one."""
    start = chance.randint(0, len(octets))
    return start, min(len(octets), start + chance.choice((0, 1, 1, 2, 5, 20, 100)))


def _deleted(chance: random.Random, octets: bytes, bases: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    start, end = _span(chance, octets)
    return octets[:start] + octets[end:]


def _flipped(chance: random.Random, octets: bytes, bases: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    if not octets:
        return octets
    at = chance.randrange(len(octets))
    return octets[:at] + bytes([octets[at] ^ (1 << chance.randrange(8))]) + octets[at + 1 :]


def _with_word(chance: random.Random, octets: bytes, bases: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    """A word of the protocol, or an octet that few expect, put in or instead of something."""
    start, end = _span(chance, octets)
    word = chance.choice(chance.choice((words, _ODD)))
    return octets[:start] + word + octets[chance.choice((start, end)) :]


def _repeated(chance: random.Random, octets: bytes, bases: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    start, end = _span(chance, octets)
    piece = octets[start:end] or chance.choice(words)
    return octets[:start] + piece * chance.choice(_TIMES) + octets[end:]


def _numbered(chance: random.Random, octets: bytes, bases: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    """Another number where one stood."""
    found = list(_DIGITS.finditer(octets))
    if not found:
        return octets
    one = chance.choice(found)
    return octets[: one.start()] + chance.choice(_NUMBERS) + octets[one.end() :]


def _lines_moved(chance: random.Random, octets: bytes, bases: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    """A line twice, or not at all, or elsewhere, or one of another input."""
    lines = octets.splitlines(keepends=True) or [b""]
    at, to = chance.randrange(len(lines)), chance.randrange(len(lines))
    line = lines[at]
    match chance.randrange(4):
        case 0:
            lines.insert(to, line)
        case 1:
            del lines[at]
        case 2:
            lines[at], lines[to] = lines[to], line
        case _:
            lines.insert(to, chance.choice(chance.choice(bases).splitlines(keepends=True) or [b""]))
    return b"".join(lines)


def _spliced(chance: random.Random, octets: bytes, bases: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    other = chance.choice(bases)
    return octets[: chance.randint(0, len(octets))] + other[chance.randint(0, len(other)) :]


def _noisy(chance: random.Random, octets: bytes, bases: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    start, end = _span(chance, octets)
    return octets[:start] + chance.randbytes(chance.choice((1, 2, 4, 16, 64))) + octets[end:]


_MUTATIONS: Final[tuple[Mutation, ...]] = (
    _deleted,
    _flipped,
    _with_word,
    _with_word,
    _with_word,
    _repeated,
    _numbered,
    _lines_moved,
    _lines_moved,
    _spliced,
    _noisy,
)
