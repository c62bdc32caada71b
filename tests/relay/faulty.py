"""Words for clients and upstreams that misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Callable

from tests.relay.desk import BODY, Desk, reply
from tests.relay.puppet import Act

MAIL = "C: MAIL FROM:<n@x.example>\nS: 250 2.1.0\n"
ENVELOPE = MAIL + "C: RCPT TO:<bob@example.com>\nS: 250\n"
AGAIN = "C: RSET\nS: 250\n" + ENVELOPE + "C: DATA\nS: 354\nC: ...\nS: 250 2.0.0 taken by puppet"
HELLO = "C: EHLO x\nS: 250\n"
BOB = ("<bob@example.com>",)


@contextlib.asynccontextmanager
async def connected(desk: Desk) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", desk.port)
    await reply(reader)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *lines: str) -> list[str]:
    """Send these lines one by one; the last lines of their replies."""
    said = []
    for line in lines:
        writer.write(line.encode() + b"\r\n")
        said.append(await reply(reader))
    return said


def reset_on_close(writer: asyncio.StreamWriter) -> None:
    """abort() will send a RST, not a FIN."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


async def until(happened: Callable[[], object], seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not happened():
            await asyncio.sleep(0.005)


def says(octets: bytes) -> Act:
    async def say(writer: asyncio.StreamWriter) -> None:
        writer.write(octets)

    return say


def free_places(desk: Desk) -> int:
    """How many upstream connections could still be taken."""
    return desk.server.pool.hops[0].places._value


async def play(client: tuple[asyncio.StreamReader, asyncio.StreamWriter], script: str, body: bytes = BODY) -> None:
    """As Desk.talk, on a connection that is there."""
    reader, writer = client
    for line in filter(None, map(str.strip, script.splitlines())):
        side, _, text = line.partition(": ")
        if side == "C":
            writer.write(body + b".\r\n" if text == "..." else text.encode() + b"\r\n")
        else:
            said = await reply(reader)
            assert said.startswith(text), f"expected {text!r}, got {said!r}"
