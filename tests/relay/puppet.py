"""An upstream in the test's own event loop that can be made to do anything, at any octet.

Unlike tests/sink.py, which plays a decent server that refuses or goes away, this one may speak out of turn, in
single octets, without end, or not at all.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

from tests.scripted import listening

USUAL = {
    "GREETING": b"220 puppet.example ESMTP\r\n",
    "EHLO": b"250-puppet.example\r\n250-PIPELINING\r\n250-SIZE 36700160\r\n250-DSN\r\n250-8BITMIME\r\n250 SMTPUTF8\r\n",
    "MAIL": b"250 2.1.0 sender ok\r\n",
    "RCPT": b"250 2.1.5 recipient ok\r\n",
    "DATA": b"354 go ahead\r\n",
    "DOT": b"250 2.0.0 taken by puppet\r\n",
    "RSET": b"250 2.0.0 reset\r\n",
    "QUIT": b"221 2.0.0 bye\r\n",
}
Act = Callable[[asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Puppet:
    """`says` replaces the usual octets of an answer; `does` is done instead of answering; BODY: at a body's first octets."""

    port: int = 0
    says: dict[str, bytes] = field(default_factory=dict)
    does: dict[str, Act] = field(default_factory=dict)
    messages: list[tuple[tuple[str, ...], bytes]] = field(default_factory=list)  # recipients, octets still stuffed
    halves: list[bytes] = field(default_factory=list)  # bodies whose dot did not come
    commands: list[str] = field(default_factory=list)
    open: set[asyncio.StreamWriter] = field(default_factory=set)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    connections: int = 0
    keeps: bool = True  # the octets of messages
    bite: int = 65_536  # octets of a body that it reads at a time

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        self.connections += 1
        self.open.add(writer)
        task = asyncio.current_task()
        assert task
        self.tasks.add(task)
        try:
            await self._converse(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            writer.transport.abort()
        finally:
            self.tasks.discard(task)
            self.open.discard(writer)
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._answer("GREETING", writer)
        begun, rcpts = False, list[str]()
        while True:
            line = (await reader.readuntil(b"\r\n"))[:-2].decode()
            self.commands.append(line)
            verb = line.partition(" ")[0].upper()
            if verb in ("MAIL", "RSET", "EHLO"):
                rcpts = []
            if verb == "MAIL" and begun:
                writer.write(b"503 5.5.1 nested MAIL\r\n")
                continue
            good = await self._answer(verb, writer, line)
            begun = (begun or (verb == "MAIL" and good)) and verb not in ("RSET", "EHLO", "DATA")
            if verb == "RCPT" and good:
                rcpts.append(line[8:].partition(" ")[0])
            elif verb == "DATA" and good:
                await self._body(reader, writer, tuple(rcpts))
            elif verb == "QUIT":
                break

    async def _body(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, rcpts: tuple[str, ...]) -> None:
        data = bytearray(b"\r\n")
        if "BODY" in self.does:
            data += await reader.readexactly(1)
            await self.does["BODY"](writer)
        try:
            while not data.endswith(b"\r\n.\r\n"):  # the relay sends nothing behind its dot before our answer
                piece = await reader.read(self.bite)
                if not piece:
                    raise ConnectionResetError
                data += piece
                if not self.keeps:
                    del data[:-5]
        except ConnectionResetError:
            self.halves.append(bytes(data[2:]))
            raise
        if await self._answer("DOT", writer):
            self.messages.append((rcpts, bytes(data[2:-3])))

    async def _answer(self, verb: str, writer: asyncio.StreamWriter, line: str = "") -> bool:
        for key in (line, verb):
            if key in self.does:
                await self.does[key](writer)
                return False
        said = self.says.get(line, self.says.get(verb, USUAL.get(verb, b"500 5.5.1 what?\r\n")))
        writer.write(said)
        await writer.drain()
        return said[:1] in b"23"


@contextlib.asynccontextmanager
async def puppet() -> AsyncIterator[Puppet]:
    """One that behaves, so far."""
    async with listening(Puppet()) as made:
        yield made


async def hang_up(writer: asyncio.StreamWriter) -> None:
    """Close without a word."""
    writer.close()


async def keep_silent(writer: asyncio.StreamWriter) -> None:
    """Say nothing for longer than anybody waits."""
    await asyncio.sleep(3)
