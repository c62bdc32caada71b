"""A hostile upstream: the client's replies are well-formed, and 250 to its dot means that the upstream said so to it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Final

from tests.fuzz.driving import One
from tests.fuzz.talking import PATIENCE, PAUSE, Loop, Scripted, ledger, running, watched
from tests.ledgers import Books
from tests.relay.desk import BODY, Desk, relay
from tests.scripted import listening

_EHLO: Final = b"250-up.example\r\n250-PIPELINING\r\n250-SIZE 36700160\r\n250-DSN\r\n250 8BITMIME\r\n"
_OK: Final = b"250 2.0.0 ok\r\n"
_WHOLE: Final = (
    b"220 up.example ESMTP\r\n",
    _EHLO,
    _OK,
    _OK,
    b"354 go ahead\r\n",
    b"250 2.0.0 taken\r\n",
    b"221 bye\r\n",
)
BASES: Final = (
    PAUSE.join(_WHOLE),
    PAUSE.join((*_WHOLE[:3], b"550 5.1.1 nobody\r\n", _OK, _OK)),
    PAUSE.join((*_WHOLE[:5], b"452 4.2.2-full\r\n", _OK)),
    PAUSE.join((*_WHOLE[:5], b"250-a\r\n250-b\r\n250 c\r\n", _OK)),
    PAUSE.join((b"421 busy\r\n",)),
    PAUSE.join((_WHOLE[0], b"502 what?\r\n", b"250 up.example\r\n", *_WHOLE[2:])),
)
WORDS: Final = (
    PAUSE,
    PAUSE,
    _OK,
    b"250 2.0.0 ok\r\n250 2.0.0 ok\r\n",
    b"250-",
    b"250 ",
    b"354 ",
    b"421 4.3.2 closing\r\n",
    b"550 5.7.1 no\r\n",
    b"220 ",
    b"99",
    b"1000",
    b"-",
    b"\r\n",
    b"2.1.5",
    b"250-SIZE 10\r\n",
    b"250-STARTTLS\r\n",
    b"250-SMTPUTF8\r\n",
    b"x" * 2_000,
)
_REPLY: Final = re.compile(
    rb"(?:(\d{3})-[^\x00-\x08\x0a-\x1f\x7f]*\r\n(?=\1))*\d{3} [^\x00-\x08\x0a-\x1f\x7f]*\r\n"
)  # in its words
_POSITIVE: Final = re.compile(rb"(?:\A|\n)2\d\d[ \r\n]")


@dataclass
class _Upstream(Scripted):
    """`to_dot`: what was said to the dots that came."""

    to_dot: bytes = b""
    in_data: bool = False

    def answer(self, line: bytes, piece: bytes) -> bytes:
        """What was said to DATA decides what comes next."""
        self.in_data = line[:4].upper() == b"DATA" and piece[:3] == b"354"
        self.to_dot += piece if line == b".\r\n" else b""
        return piece

    async def listen(self, reader: asyncio.StreamReader) -> bytes:
        """A command, or a whole message up to its dot."""
        if not self.in_data:
            return await reader.readline()
        while (line := await reader.readline()) not in (b"", b".\r\n"):
            pass
        return line


@asynccontextmanager
async def _desk(books: Books) -> AsyncIterator[tuple[_Upstream, Desk]]:
    async with listening(_Upstream()) as upstream, relay(books, upstream, timeout=1, connections=2) as desk:
        yield upstream, desk


async def _send(port: int) -> list[bytes]:
    """One message, as a decent client does; every reply, "" where the relay hung up."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    replies = [await _reply(reader)]
    try:
        for command in (
            b"EHLO crm\r\n",
            b"MAIL FROM:<n@quillpdf.example>\r\n",
            b"RCPT TO:<bob@example.com>\r\n",
            b"DATA\r\n",
        ):
            writer.write(command)
            replies.append(await _reply(reader))
        if replies[-1].startswith(b"354"):
            writer.write(BODY + b".\r\n")
            replies.append(await _reply(reader))
        writer.write(b"QUIT\r\n")
        replies.append(await _reply(reader))
    finally:
        writer.close()
    return replies


async def _reply(reader: asyncio.StreamReader) -> bytes:
    said = b""
    async with asyncio.timeout(PATIENCE):
        while line := await reader.readline():
            said += line
            if line[3:4] != b"-":
                break
    return said


def _look_at(upstream: _Upstream, replies: list[bytes]) -> None:
    for reply in replies:
        assert _REPLY.fullmatch(reply) or not reply, reply
    if len(replies) == 7 and replies[5].startswith(b"2"):
        assert _POSITIVE.search(upstream.to_dot), (replies, upstream.heard)


@contextmanager
def ready() -> Iterator[One]:
    """A relay, and an upstream that says what the input is."""
    with watched() as failed, ledger() as books, running(_desk(books), failed) as (made, loop):
        upstream, desk = made

        def one(octets: bytes) -> None:
            upstream.pieces, upstream.to_dot, upstream.in_data = octets.split(PAUSE), b"", False
            upstream.heard.clear()
            replies = _told(loop, desk)
            failed.check()
            _look_at(upstream, replies)

        yield one


def _told(loop: Loop, desk: Desk) -> list[bytes]:
    return loop.do(_send(desk.port))
