"""From octets to text and back without losing one: which encoding, whole lines, whole CSV records.

Everything is done a piece at a time, so that a list of a gigabyte takes no more memory than one of a megabyte; and what a
record was in the file is known to the last octet, so that scrubbing can put it into another file unchanged.
"""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final, NamedTuple

from daemon.exchange.rows import NotUnderstood

HEAD: Final = 1 << 18  # octets that are looked at before anything is decided
_PIECE: Final = 1 << 18  # octets at a time: lines and cells made of them take some fifteen times as much
LONGEST: Final = 1 << 20  # characters of a line, or of a record that goes over several

# Files that people send in place of a list.
_OTHERS: Final = {
    b"PK\x03\x04": "a ZIP archive or a spreadsheet: save it as CSV, or unpack it",
    b"\x1f\x8b": "compressed: unpack it first",
    b"\xd0\xcf\x11\xe0": "an old Excel file: save it as CSV",
    b"%PDF": "a PDF: save the list as CSV",
    b"SQLite format 3": "a database, not a list",
    b"\xff\xfe\x00\x00": "UTF-32: save it as UTF-8",
}


# ------------------------------------------------------------------ encoding


@dataclass(frozen=True, slots=True)
class Encoding:
    """How a file is written. `errors` is such that whatever was decoded can be encoded to the same octets again."""

    name: str
    codec: str
    errors: str
    bom: bytes


_UTF8: Final = Encoding("UTF-8", "utf-8", "surrogateescape", b"")
_MARKED: Final = (
    Encoding("UTF-8 with BOM", "utf-8", "surrogateescape", codecs.BOM_UTF8),
    Encoding("UTF-16 LE with BOM", "utf-16-le", "surrogatepass", codecs.BOM_UTF16_LE),
    Encoding("UTF-16 BE with BOM", "utf-16-be", "surrogatepass", codecs.BOM_UTF16_BE),
)


def encoding_of(head: bytes) -> Encoding:
    """The encoding of a file that begins with these octets. Raises NotUnderstood for what is no text.

    Octets that are no UTF-8 are no reason to refuse: a name in another column may be Latin-1, and the address is not.
    """
    for magic, what in _OTHERS.items():
        if head.startswith(magic):
            raise NotUnderstood(f"this is {what}")
    for marked in _MARKED:
        if head.startswith(marked.bom):
            return marked
    sample = head[:4096]
    if b"\x00" not in sample:
        return _UTF8
    # Lists are mostly ASCII: in UTF-16 every other octet is zero.
    even, odd = sample[::2].count(0), sample[1::2].count(0)
    if odd > len(sample) // 8 and even <= odd // 8:
        return Encoding("UTF-16 LE", "utf-16-le", "surrogatepass", b"")
    if even > len(sample) // 8 and odd <= even // 8:
        return Encoding("UTF-16 BE", "utf-16-be", "surrogatepass", b"")
    raise NotUnderstood("this is not text: save the list as CSV in UTF-8")


_CUT: Final = "\udcff\udcff"  # stands for the half character at the end of a UTF-16 file that was cut off


class Text:
    """The text of a file: `head` of it, and all of it in pieces, once. The BOM is in neither (`encoding.bom`)."""

    def __init__(self, file: BinaryIO):
        self._file = file
        octets = _read(file, HEAD)
        self.encoding = encoding_of(octets)
        self._decoder = codecs.getincrementaldecoder(self.encoding.codec)(self.encoding.errors)
        self.head = self._decoder.decode(octets[len(self.encoding.bom) :])
        self.whole = len(octets) < HEAD  # is the head all there is?
        self._odd = b""
        if self.whole:
            self.head += self._rest()

    def pieces(self) -> Iterator[str]:
        """The whole text, in order."""
        yield self.head
        while not self.whole:
            octets = _read(self._file, _PIECE)
            self.whole = len(octets) < _PIECE
            yield self._decoder.decode(octets) + (self._rest() if self.whole else "")

    def _rest(self) -> str:
        """What the decoder still holds at the end: octets of a character that was cut off."""
        held, _ = self._decoder.getstate()
        if self.encoding.codec == "utf-8":
            return self._decoder.decode(b"", final=True)
        self._odd = held
        return _CUT if held else ""

    def encode(self, text: str) -> bytes:
        """The octets that a part of the text was made of."""
        if self._odd and text.endswith(_CUT):
            return self.encode(text[: -len(_CUT)]) + self._odd
        return text.encode(self.encoding.codec, self.encoding.errors)


def _read(file: BinaryIO, size: int) -> bytes:
    """Exactly `size` octets, unless the file ends: a pipe gives what it has."""
    found = file.read(size)
    while found and len(found) < size and (more := file.read(size - len(found))):
        found += more
    return found


# ------------------------------------------------------------------ lines


class Batch(NamedTuple):
    """Whole lines with their ends. `fits`: False: the beginning of one line that is far too long. `quoted`: any `"` there?"""

    lines: list[str]
    fits: bool = True
    quoted: bool = True


def batches(pieces: Iterable[str]) -> Iterator[Batch]:
    """All lines, some at a time, each with its end (LF, CR LF or CR; the last may have none)."""
    rest, skipping = "", False
    for piece in pieces:
        text = rest + piece
        lines = list(io.StringIO(text, newline=""))  # knows all three ends, and no others
        # CR at the end may be half of CR LF
        rest = lines.pop() if lines and not lines[-1].endswith("\n") else ""
        if skipping and lines:
            del lines[0]
            skipping = False
        elif skipping:
            rest = "\r" if rest.endswith("\r") else ""
        if lines:
            yield Batch(lines, quoted='"' in text)
        if len(rest) > LONGEST:
            yield Batch([rest[:500]], fits=False)
            rest, skipping = "", True
    if rest and not skipping:
        yield Batch([rest])


# ------------------------------------------------------------------ CSV records

Record = tuple[int, str, list[str] | str]  # line where it begins (from 1), as found, cells or why it cannot be read

TOO_LONG: Final = "the line is too long"
UNCLOSED: Final = "a quotation mark is opened and not closed"


def plain(pieces: Iterable[str], start: int = 0) -> Iterator[Record]:
    """Lines as records of one cell; quotation marks around a whole line are taken off. `start`: lines before these."""
    number = start
    for lines, fits, _ in batches(pieces):
        if not fits:
            number += 1
            yield number, lines[0], TOO_LONG
            continue
        for raw in lines:
            number += 1
            yield number, raw, [unwrapped(raw)]


def unwrapped(raw: str) -> str:
    """A line without its end, surrounding space, and quotation marks around all of it."""
    text = raw.strip()
    if len(text) > 1 and text[0] == text[-1] == '"':
        return text[1:-1].replace('""', '"')
    return text


def records(pieces: Iterable[str], delimiter: str, width: int, start: int = 0) -> Iterator[Record]:
    """CSV records (RFC 4180, leniently). `width`: cells of the header. `start`: lines before these.

    A quotation mark that nobody closed would swallow the rows after it. So a record over several lines must have as many
    cells as the header and nothing behind a closing mark; otherwise its first line alone is given up.
    """
    number, pending = start, list[str]()  # pending: lines of a record that is not at its end
    for lines, fits, quoted in batches(pieces):
        if fits and not quoted and not pending:
            for raw in lines:
                number += 1
                yield number, raw, raw.rstrip("\r\n").split(delimiter)
            continue
        tape = _Tape(pending + lines if fits else pending)
        limit = LONGEST if fits else 0
        yield from _wound(tape, delimiter, width, number, limit)
        number, pending = number + tape.at, tape.left()
        if not fits:
            number += 1
            yield number, lines[0], TOO_LONG
    yield from _wound(_Tape(pending), delimiter, width, number, 0)


class _Tape:
    """Lines as the csv module asks for them, so that we know which of them a record was made of."""

    def __init__(self, lines: list[str]):
        self.lines = lines
        self.at = 0  # lines before this one are done with
        self.asked = 0

    def __iter__(self) -> _Tape:
        return self

    def __next__(self) -> str:
        if self.asked == len(self.lines):
            self.asked += 1  # asked for one more than there is: the record was not at its end
            raise StopIteration
        self.asked += 1
        return self.lines[self.asked - 1]

    def left(self) -> list[str]:
        return self.lines[self.at :]


def _wound(tape: _Tape, delimiter: str, width: int, start: int, limit: int) -> Iterator[Record]:
    """The records on the tape. Of a record that is not at its end at most `limit` characters are left on it."""
    while True:
        yield from _quoted(tape, delimiter, width, start)
        if sum(map(len, tape.left())) <= limit:
            return
        yield start + tape.at + 1, tape.lines[tape.at], UNCLOSED
        tape.at += 1


def _quoted(tape: _Tape, delimiter: str, width: int, start: int) -> Iterator[Record]:
    """The records on the tape; those lines that the last one needs more for are left on it."""
    while tape.at < len(tape.lines):
        tape.asked = tape.at
        why = UNCLOSED
        try:
            for cells in csv.reader(tape, delimiter=delimiter):
                if tape.asked > len(tape.lines):
                    return
                raw = "".join(tape.lines[tape.at : tape.asked])
                if tape.asked - tape.at > 1 and not _is_sound(raw, delimiter, width):
                    break
                yield start + tape.at + 1, raw, cells or [""]
                tape.at = tape.asked
            else:
                return
        except csv.Error:  # a cell of over 128 KB, which an open quotation mark makes, too
            why = UNCLOSED if tape.asked - tape.at > 1 else TOO_LONG
        yield start + tape.at + 1, tape.lines[tape.at], why
        tape.at += 1


def _is_sound(raw: str, delimiter: str, width: int) -> bool:
    try:
        (cells,) = csv.reader([raw], delimiter=delimiter, strict=True)
    except (csv.Error, ValueError):
        return False
    return len(cells) == width
