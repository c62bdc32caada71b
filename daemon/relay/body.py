"""The octets of a message as they come over the wire: cut in pieces, up to the line with a dot."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Final

_END: Final = b"\r\n.\r\n"
_CR: Final = bytes(c == 13 for c in range(256))  # for bytes.translate: where the CRs are
_LF: Final = bytes(c == 10 for c in range(256))
# A CR or LF that stands alone, with the dot behind it, which then begins a line; and first a dot that is about to stand
# alone between a CRLF and what becomes one: no dot that is alone on its line may come of this but the last.
_BARE: Final = re.compile(rb"(?<=\r\n)\.(?=\r(?!\n)|\n)|\r(?!\n)\.?|(?<!\r)\n\.?")


class Gone(Exception):
    """The client has closed the connection, or must be told goodbye."""


class Body:
    """The octets of one DATA, in pieces, up to the line with a dot; still dot-stuffed, each piece as it came.

    `octets` counts them; `bare` tells whether a CR or LF stood alone (RFC 5321 2.3.8: a way to smuggle a second
    message past whoever treats it as a line end). With `normalise` each of those becomes a CR LF instead, and `bare`
    stays false; the end is looked for before that, so nothing becomes an end that was none.
    """

    def __init__(
        self,
        read: Callable[[], Awaitable[bytes]],
        ended: Callable[[bytes], None],
        *,
        normalise: bool = False,
    ):
        self._read, self._tell_ended, self._normalise = (
            read,
            ended,
            normalise,
        )  # `ended` is told what came behind the dot
        self._held = b"\r\n"  # the CRLF of the DATA command: a first line of `.` ends the body too
        self._first = True
        self._line_begins = False  # the last piece ended in a bare LF, which became a line's end
        self.ended = False
        self.octets = 0
        self.bare = False

    async def piece(self) -> bytes | None:
        """The next octets; None at the end. Raises Gone.

        Not an async generator: one that is left early, as `head` does, is closed by asyncio in a task of its own.
        """
        while not self.ended:
            if piece := self._cut(await self._read()):
                return piece
        return None

    async def skip(self) -> None:
        """Read to the end and forget it."""
        while await self.piece() is not None:
            pass

    async def head(self, limit: int) -> bytes:
        """The first pieces, until they hold the end of the header block or `limit` octets or all there is."""
        head = await self.piece()
        if head is None or self.ended or head.find(b"\r\n\r\n") >= 0 or head.startswith(b"\r\n"):
            return head or b""
        found = bytearray(head)
        while len(found) <= limit and (piece := await self.piece()) is not None:
            searched = max(len(found) - 3, 0)
            found += piece
            if found.find(b"\r\n\r\n", searched) >= 0:
                break
        return bytes(found)

    def _cut(self, came: bytes) -> bytes:
        data = self._held + came
        end = data.rfind(_END)  # three times as fast as find, and the first one is nearly always the last
        while end > 0 and (earlier := data.rfind(_END, 0, end + 4)) >= 0:
            end = earlier
        if end >= 0:
            self.ended = True
            self._tell_ended(data[end + len(_END) :])
            piece = data[: end + 2]
        else:  # hold back what could be the beginning of the end; so no CR LF is ever cut in two
            keep = next(n for n in (4, 3, 2, 1, 0) if data.endswith(_END[:n]))
            piece, self._held = data[: len(data) - keep], data[len(data) - keep :]
        bare = _has_bare(piece)
        if self._normalise and (bare or self._line_begins):
            piece = self._normalised(piece)
        elif bare:
            self.bare = True
        if self._first and piece:
            piece, self._first = piece[2:], False
        self.octets += len(piece)
        return piece

    def _normalised(self, piece: bytes) -> bytes:
        """A piece with a CRLF for each CR or LF alone. A dot that begins a line by it is text, and so is stuffed."""
        if not piece:  # all that came is held back: the line is still to begin
            return piece
        if self._line_begins and piece.startswith(b"."):
            piece = b"." + piece
        self._line_begins = piece.endswith(b"\n") and not piece.endswith(b"\r\n")
        return _BARE.sub(_stuffed, piece)


def _stuffed(found: re.Match[bytes]) -> bytes:
    if found[0] == b".":
        return b".."
    return b"\r\n.." if found[0].endswith(b".") else b"\r\n"


def _has_bare(piece: bytes) -> bool:
    """Does a CR stand without its LF, or an LF without its CR? Two tables and a comparison: half the time of counting."""
    crs, lfs = piece.translate(_CR), piece.translate(_LF)
    return crs[:-1] != lfs[1:] or lfs.startswith(b"\1") or crs.endswith(b"\1")
