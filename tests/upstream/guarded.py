"""A server in the test's own event loop with TLS and AUTH, which can be made to do both wrongly."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Final

from daemon.dialling import Endpoint
from tests.scripted import listening

USUAL: Final = {
    "GREETING": b"220 guarded.example ESMTP\r\n",
    "EHLO": b"250-guarded.example\r\n250-STARTTLS\r\n250 SIZE 1000\r\n",
    "EHLO under TLS": b"250-guarded.example\r\n250-DSN\r\n250 AUTH PLAIN LOGIN\r\n",
    "STARTTLS": b"220 2.0.0 go ahead\r\n",
    "AUTH": b"235 2.7.0 welcome\r\n",
    "DATA": b"354 go ahead\r\n",
    "QUIT": b"221 2.0.0 bye\r\n",
}


@dataclass
class Guarded:
    """`says` replaces an answer: b"" closes, None is silent. What it heard is kept apart: in clear and under TLS."""

    tls: ssl.SSLContext | None = None
    implicit: bool = False
    says: dict[str, bytes | None] = field(default_factory=dict)
    port: int = 0
    connections: int = 0
    clear: list[str] = field(default_factory=list)
    secure: list[str] = field(default_factory=list)
    names: list[str | None] = field(default_factory=list)  # that clients asked for in their handshakes (SNI)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def endpoint(self, context: ssl.SSLContext | None = None, host: str = "127.0.0.1", **options: str) -> Endpoint:
        """How to reach it; with `context` as it is meant to be reached."""
        mode = "none" if context is None else "implicit" if self.implicit else "starttls"
        return Endpoint(host, self.port, mode, context, **options)  # type: ignore[arg-type]

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        self.connections += 1
        task = asyncio.current_task()
        assert task
        self.tasks.add(task)
        try:
            if self.implicit and self.tls:
                await writer.start_tls(self.tls)
            await self._converse(reader, writer)
        except (OSError, EOFError, asyncio.CancelledError):
            pass
        finally:
            self.tasks.discard(task)
            writer.transport.abort()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._answer("GREETING", writer)
        body = False
        while line := (await reader.readline()).decode("latin-1"):
            heard = self.secure if writer.get_extra_info("sslcontext") else self.clear
            heard.append(line.rstrip("\r\n"))
            verb = line.split()[0].upper() if line.strip() else ""
            if body and line != ".\r\n":
                continue
            body = verb == "DATA"
            await self._answer(verb, writer)
            if verb == "STARTTLS" and (self.says.get(verb) or b"220").startswith(b"220"):
                await (writer.start_tls(self.tls) if self.tls else asyncio.sleep(30))
            elif verb == "QUIT":
                break

    async def _answer(self, verb: str, writer: asyncio.StreamWriter) -> None:
        secured = f"{verb} under TLS" if writer.get_extra_info("sslcontext") else verb
        key = secured if secured in self.says or secured in USUAL else verb
        said = self.says.get(key, USUAL.get(key, b"250 2.0.0 ok\r\n"))
        if said is None:
            await asyncio.sleep(30)
        if not said:
            raise EOFError
        writer.write(said)
        await writer.drain()


@contextlib.asynccontextmanager
async def guarded(
    tls: ssl.SSLContext | None = None, *, implicit: bool = False, host: str = "127.0.0.1", **says: bytes | None
) -> AsyncIterator[Guarded]:
    """One that behaves but for what it `says`."""
    made = Guarded(tls, implicit, dict(says))
    if tls is not None:
        tls.sni_callback = lambda _object, name, _context: made.names.append(name)
    async with listening(made, host):
        yield made
