"""A relay in front of a sink, and a client that speaks from a script a person can read.

    C: MAIL FROM:<news@quillpdf.example>
    S: 250 2.1.0
    C: ...                                (a line of three dots: send the body below and the final dot)

A line with S: expects a reply (its last line) that begins so. Lines with C: that follow each other are pipelined.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from daemon.config import Relay
from daemon.relay.context import Context
from daemon.relay.server import Listening, Server
from daemon.upstream import Endpoint, Lost, Pool
from tests.ledgers import LISTS, Books

BODY = b"Subject: offer\r\nFrom: news@quillpdf.example\r\n\r\nhello\r\n..dot\r\n"


class Upstream(Protocol):
    """Whatever listens."""

    port: int


@dataclass
class Desk:
    """A running relay."""

    server: Server
    port: int
    books: Books

    async def talk(self, script: str, body: bytes = BODY) -> list[str]:
        """Play a script on a connection of its own (the greeting included); returns all final reply lines."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        said = [await reply(reader)]
        assert said[0].startswith("220 ")
        try:
            for line in filter(None, map(str.strip, script.splitlines())):
                side, _, text = line.partition(":")
                text = text.strip()
                if side == "C":
                    writer.write(
                        body + b".\r\n" if text == "..." else text.encode("utf-8", "surrogateescape") + b"\r\n"
                    )
                else:
                    said.append(await reply(reader))
                    assert said[-1].startswith(text), f"expected {text!r}, got {said[-1]!r}"
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        return said


async def reply(reader: asyncio.StreamReader) -> str:
    """The last line of the next reply, without its end; "" if the server closed."""
    async with asyncio.timeout(20):
        while True:
            line = (await reader.readline()).decode("utf-8", "surrogateescape")
            if line[3:4] != "-":
                return line.rstrip("\r\n")


@contextlib.asynccontextmanager
async def relay(
    books: Books,
    upstream: Upstream,
    *,
    timeout: float = 5,
    connections: int = 20,
    listening: Sequence[Listening] | None = None,
    **options: Any,
) -> AsyncIterator[Desk]:
    """A relay with these options of [relay], in front of `upstream`; `listening`: its listeners, if it has others."""
    settings = Relay.model_validate({"listen": ("127.0.0.1:0",), "hostname": "relay.quillpdf.example", **options})
    pool = Pool(
        [Endpoint("127.0.0.1", upstream.port)], hostname=settings.hostname, timeout=timeout, connections=connections
    )
    with contextlib.suppress(Lost):
        await pool.probe()
    lists = {value: list_id for list_id, value in LISTS.items()}
    server = Server(Context(settings, books.gate(), pool, books.ledger.site_key, lists, books.numbers), listening)
    bound = await server.start()
    try:
        yield Desk(server, int(bound[0].rpartition(":")[2]), books)
    finally:
        await server.stop()
