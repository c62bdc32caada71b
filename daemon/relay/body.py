"""The octets of a message as they come over the wire: cut in pieces, up to the line with a dot."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

_END: Final = b"\r\n.\r\n"


class Gone(Exception):
    """The client has closed the connection, or must be told goodbye."""


class Body:
    """The octets of one DATA, in pieces, up to the line with a dot; still dot-stuffed, each piece as it came.

    `octets` counts them; `bare` tells whether a CR or LF stood alone (RFC 5321 2.3.8: a way to smuggle a second
    message past whoever treats it as a line end).
    """

    def __init__(self, read: Callable[[], Awaitable[bytes]], ended: Callable[[bytes], None]):
        self._read, self._tell_ended = read, ended  # `ended` is told what came behind the dot
        self._held = b"\r\n"  # the CRLF of the DATA command: a first line of `.` ends the body too
        self._first = True
        self._ended = False
        self.octets = 0
        self.bare = False

    async def piece(self) -> bytes | None:
        """The next octets; None at the end. Raises Gone.

        Not an async generator: one that is left early, as `head` does, is closed by asyncio in a task of its own.
        """
        while not self._ended:
            if piece := await self._piece():
                return piece
        return None

    async def skip(self) -> None:
        """Read to the end and forget it."""
        while await self.piece() is not None:
            pass

    async def head(self, limit: int) -> bytes:
        """The first pieces, until they hold the end of the header block or `limit` octets or all there is."""
        found = bytearray()
        while (piece := await self.piece()) is not None:
            searched = max(len(found) - 3, 0)
            found += piece
            if found.find(b"\r\n\r\n", searched) >= 0 or found.startswith(b"\r\n") or len(found) > limit:
                break
        return bytes(found)

    async def _piece(self) -> bytes:
        data = self._held + await self._read()
        end = data.find(_END)
        if end >= 0:
            self._ended = True
            self._tell_ended(data[end + len(_END) :])
            piece = data[: end + 2]
        else:  # hold back what could be the beginning of the end; so no CR LF is ever cut in two
            keep = next(n for n in (4, 3, 2, 1, 0) if data.endswith(_END[:n]))
            piece, self._held = data[: len(data) - keep], data[len(data) - keep :]
        pairs = piece.count(b"\r\n")
        self.bare = self.bare or piece.count(b"\n") != pairs or piece.count(b"\r") != pairs
        if self._first and piece:
            piece, self._first = piece[2:], False
        self.octets += len(piece)
        return piece
