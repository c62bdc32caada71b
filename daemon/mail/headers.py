"""What a marketing message gets written on its head on its way through the relay. Pure.

List-Unsubscribe (RFC 2369), List-Unsubscribe-Post (RFC 8058), List-Id (RFC 2919), Feedback-ID (Gmail) and
CFBL-Address (RFC 9477) go in front of the first octet that came; no other octet changes, but that `replace` leaves out
the unsubscribe fields that were there. It runs for every message, so it is one search over the header block; the email
package would take a hundred times as long, and not give back the octets it was given.

The block is what came over the wire, still dot-stuffed: the receiver takes a dot off the head of a line, so
`.List-Id: x` is a List-Id, and a line that begins with a dot and a space continues the field above it. Lines end in
CRLF; the relay refuses messages with a CR or LF that stands alone.

What counts as a field is generous: any line up to the empty one, even behind a line that is no field, where some
programs begin the body. So whatever a program takes for the header, it never finds two of one field.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from daemon.mail.patterns import pattern

_LINE: Final = 78  # octets of a line (RFC 5322 2.1.1), where it can be folded
_LONGEST: Final = 998  # of any line
_PHRASE: Final = 200  # octets: a longer title says no more
_WORD: Final = 39  # octets of text in an encoded word: base64 makes 64 of them, and they fit behind any field name here
_CONTINUES: Final = (b" ", b"\t", b". ", b".\t")  # how a line begins on the wire that belongs to the field above it

# One search for all. It begins with a character that has no case, so that `re` skips from line to line by memchr.
_FIELD = pattern(
    r"\n\.?(?:(?P<unsubscribe>list-unsubscribe)|(?P<post>list-unsubscribe-post)|(?P<list_id>list-id)"
    r"|(?P<feedback_id>feedback-id)|(?P<cfbl_address>cfbl-address)"
    r"|(?P<signature>dkim-signature|domainkey-signature|arc-seal|arc-message-signature))[ \t]*:"
)
_ATOMS = pattern(r"\A[a-z0-9!#$%&'*+/=?^_`{|}~ -]+\Z")  # RFC 5322 3.2.3, and the spaces between them
_QUOTABLE = pattern(r"\A[ !#-;=?-\[\]-~]+\Z")  # printable ASCII without " \ < >
_LIST_ID = pattern(r"\A[a-z0-9!#$%&'*+/=?^_`{|}~.-]{1,255}\Z")  # RFC 2919 2
_URI = pattern(r"\A[!#-;=?-\[\]_a-z~]+\Z")  # RFC 3986: neither blanks nor quotes nor brackets


@dataclass(frozen=True, slots=True)
class Stamps:
    """What is to be written on one message: whole field values, ready made, ASCII, folded; b"": not that field.

    `one_click`: the https URI in `unsubscribe` takes a POST (RFC 8058); it means nothing without `unsubscribe`.
    """

    unsubscribe: bytes
    one_click: bool
    list_id: bytes
    feedback_id: bytes
    cfbl_address: bytes


@dataclass(frozen=True, slots=True)
class Stamped:
    """What to change. `lines` go in front of the first octet; `dropped` are the spans (start, end) to leave out.

    Spans are in order, do not overlap, and count from the first octet of the message, not of what is left. The CRLF
    that ends a field goes with it. So a last field whose CRLF the caller has cut off (it is the first half of the
    CRLF CRLF) has an end two octets beyond the block: apply them to what still has it, as `applied_to` does.
    `foreign`: somebody else's List-Unsubscribe stays in; we never hear of a click on it.
    """

    lines: bytes
    dropped: tuple[tuple[int, int], ...]
    foreign: bool

    def applied_to(self, head: bytes) -> bytes:
        """The message as it goes on. `head`: its first octets as they came, at least the block and its empty line."""
        if not self.dropped:
            return self.lines + head
        starts = (0, *(end for _, end in self.dropped))
        ends = (*(start for start, _ in self.dropped), len(head))
        return self.lines + b"".join(head[start:end] for start, end in zip(starts, ends, strict=True))


def stamp(block: bytes, stamps: Stamps, *, replace: bool) -> Stamped:
    """Decide what to write on a message and what to leave out. `block`: all before the empty line, as it came.

    - A message that is signed (DKIM, DomainKeys, ARC) is left as it is: whoever signed it vouches for those octets.
    - A List-Unsubscribe that is there stays (`replace` false), and neither it nor List-Unsubscribe-Post is added; or
      all fields of both names are left out and ours are written (`replace` true, if there is one of ours at all).
      An empty one is there, too.
    - A List-Unsubscribe-Post alone stays as the one of that name and serves for ours, unless `replace` drops it.
    - The others are added where no field of that name is there.
    - A first line that begins with white space belongs to no field. Whatever stood last before it would swallow it,
      so a field of no meaning comes between.
    """
    found = [
        (match.lastgroup, match.start()) for match in _FIELD.finditer("\n" + block.decode("latin-1"))
    ]  # the LF in front moves the places by the one octet by which each match begins too early
    names = {name for name, _ in found}
    foreign = "unsubscribe" in names
    if "signature" in names:
        return Stamped(b"", (), foreign)
    dropped: tuple[tuple[int, int], ...] = ()
    if replace and stamps.unsubscribe:
        theirs = ("unsubscribe", "post")
        dropped = tuple((start, _end(block, start)) for name, start in found if name in theirs)
        names.difference_update(theirs)
        foreign = False
    lines = b""
    if stamps.unsubscribe and not foreign:
        lines = b"List-Unsubscribe: %b\r\n" % stamps.unsubscribe
        if stamps.one_click and "post" not in names:
            lines += b"List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n"
    if stamps.list_id and "list_id" not in names:
        lines += b"List-Id: %b\r\n" % stamps.list_id
    if stamps.feedback_id and "feedback_id" not in names:
        lines += b"Feedback-ID: %b\r\n" % stamps.feedback_id
    if stamps.cfbl_address and "cfbl_address" not in names:
        lines += b"CFBL-Address: %b\r\n" % stamps.cfbl_address
    if block.startswith(_CONTINUES):
        lines += b"X-Stray-Line: below\r\n"
    return Stamped(lines, dropped, foreign)


def _end(block: bytes, start: int) -> int:
    """Where the field that begins at `start` ends: behind the first CRLF that no continuation line follows.

    The last line has its CRLF even where the block has not.
    """
    while (found := block.find(b"\r\n", start)) >= 0:
        start = found + 2
        if not block.startswith(_CONTINUES, start):
            return start
    return len(block) + 2


# ------------------------------------------------------------------ values


def unsubscribe_value(one_click_url: str | None, mailto: str | None) -> bytes:
    """The value of List-Unsubscribe (RFC 2369 3.2): these URIs, the first preferred; b"" for none.

    One that cannot stand in a field, or in a line of it, is left out.
    """
    room = _LONGEST - len("List-Unsubscribe: <>,")
    uris = [uri for uri in (one_click_url, mailto) if uri and len(uri) <= room and _fits(_URI, uri)]
    return _folded("List-Unsubscribe", [*(f"<{uri}>," for uri in uris[:-1]), *(f"<{uri}>" for uri in uris[-1:])])


def list_id_value(title: str, list_id: str) -> bytes:
    """The value of List-Id (RFC 2919 3): the title as a phrase, if it is not too long, and the id in brackets.

    A title that holds what a simple reader takes for the brackets, for a quote or for an encoded word is encoded
    itself (RFC 2047), like one that is not ASCII. Line breaks and what else cannot be printed become spaces. An id
    that cannot stand in brackets makes no field: b"".
    """
    if not _fits(_LIST_ID, list_id):
        return b""
    # The joiners are part of the spelling: of Persian, and of emoji.
    title = " ".join("".join(c if c.isprintable() or c in "\u200c\u200d" else " " for c in title).split())
    phrase = _phrase(title) if len(title.encode()) <= _PHRASE else []
    return _folded("List-Id", [*phrase, f"<{list_id}>"])


def _phrase(title: str) -> list[str]:
    """A title as the pieces of an RFC 5322 phrase, between which it may be folded."""
    if "=?" not in title and _fits(_ATOMS, title):
        return title.split()
    if "=?" not in title and _fits(_QUOTABLE, title):
        return f'"{title}"'.split(" ")  # a fold in a quoted string stands for its space (RFC 5322 3.2.4)
    return [f"=?utf-8?b?{base64.b64encode(chunk).decode()}?=" for chunk in _chunks(title)]


def _fits(shape: re.Pattern[str], text: str) -> bool:
    """Patterns ignore case, and a long s or the sign for kelvin is a letter of ASCII then."""
    return text.isascii() and shape.match(text) is not None


def _chunks(text: str) -> Iterator[bytes]:
    """UTF-8 in pieces of at most _WORD octets; no character is cut in two (RFC 2047 5)."""
    chunk = b""
    for octets in map(str.encode, text):
        if len(chunk) + len(octets) > _WORD:
            yield chunk
            chunk = b""
        chunk += octets
    if chunk:
        yield chunk


def _folded(name: str, pieces: Sequence[str]) -> bytes:
    """The pieces with a space between each two, or a fold where the line would be too long.

    Never a fold behind the colon: OpenDKIM signs such a field wrong in `simple` (nodemailer issue 1654 met it, too).
    """
    value, length = "", len(name) + 2
    for number, piece in enumerate(pieces):
        fits = length + 1 + len(piece) <= _LINE
        value += piece if not number else f" {piece}" if fits else f"\r\n {piece}"
        length = length + len(piece) + 1 if not number or fits else 1 + len(piece)
    return value.encode("ascii")
