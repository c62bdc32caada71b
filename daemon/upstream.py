"""The SMTP client and its pool: what the relay passes mail on with.

Connections are kept and used again, since a new one per message costs more than the message. One is retired after 5
refused recipients or 50 RSETs without a delivery (Postfix slows down at 10 and 110), and dropped without a word
whenever a message was begun and must not be finished: a connection that closes before the dot delivers nothing
(RFC 5321 4.1.1.4).

Failures are `Lost(step)`; what to tell the client is the relay's business.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from typing import Final

from daemon import events
from daemon.connection import Connection, Lost, Reply

__all__ = ["Connection", "Lost", "Pool", "Reply", "told"]

CONNECT_SECONDS: Final = 10
IDLE_SECONDS: Final = 60  # an idle connection is closed before the upstream's own limit (Postfix: 300 s) does it
_MAX_ERRORS: Final = 5
_MAX_RSETS: Final = 50
_EXTENSIONS: Final = frozenset({"PIPELINING", "SIZE", "8BITMIME", "SMTPUTF8", "DSN", "ENHANCEDSTATUSCODES"})


class Pool:
    """Connections to one upstream: at most `connections` at a time, idle ones used again.

    `hostname` is what we call ourselves; `timeout` is in seconds, for one reply.
    """

    def __init__(self, host: str, port: int, *, hostname: str, timeout: float = 60, connections: int = 20):
        self.host, self.port, self.hostname, self.timeout = host, port, hostname, timeout
        self.features: dict[str, str] = {}  # what the upstream offered last: what our own EHLO may offer
        self._idle: deque[Connection] = deque()
        self._places = asyncio.Semaphore(connections)
        self._closed = False

    @property
    def waiting(self) -> int:
        """How many wait for a connection now."""
        return len(self._places._waiters or ())

    async def probe(self) -> None:
        """Ask the upstream what it offers, so that the first EHLO knows. Raises Lost."""
        connection, _ = await self.take()
        self.give_back(connection)

    def take_idle(self) -> Connection | None:
        """A connection that was used before, if one is at hand and nobody else waits for it."""
        if self._idle and not self._places.locked():
            connection = self._fresh_enough()
            if connection is not None:
                self._places._value -= 1
            return connection
        return None

    def _fresh_enough(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            age = asyncio.get_running_loop().time() - connection.idle_since
            if not (connection.gone or connection.spoke or age > IDLE_SECONDS):
                return connection
            connection.quit()
        return None

    async def take(self, *, fresh: bool = False) -> tuple[Connection, bool]:
        """A connection ready for MAIL, and whether it was used before. Raises Lost(connect|greeting|ehlo)."""
        await self._place()
        try:
            idle = None if fresh else self._fresh_enough()
            return (idle, True) if idle else (await self._open(), False)
        except BaseException:
            self._places.release()
            raise

    async def _place(self) -> None:
        try:
            async with asyncio.timeout(self.timeout):
                await self._places.acquire()
        except TimeoutError:
            raise Lost("connect", "all connections are in use") from None

    async def _open(self) -> Connection:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                _, connection = await loop.create_connection(Connection, self.host, self.port)
        except (OSError, TimeoutError) as why:
            raise Lost("connect", str(why) or "timed out") from None
        try:
            await self._greet(connection)
        except BaseException:
            connection.drop()
            raise
        return connection

    async def _greet(self, connection: Connection) -> None:
        connection.send(b"", 1)
        greeting = await connection.reply(self.timeout, "greeting")
        if greeting.code != 220:
            raise Lost("greeting", greeting)
        connection.send(f"EHLO {self.hostname}\r\n".encode(), 1)
        hello = await connection.reply(self.timeout, "ehlo")
        if hello.code in (500, 502):
            connection.send(f"HELO {self.hostname}\r\n".encode(), 1)
            hello = await connection.reply(self.timeout, "ehlo")
        if hello.code != 250:
            raise Lost("ehlo", hello)
        connection.features = _features(hello.lines[1:])
        connection.errors = 0
        self.features = connection.features

    def give_back(self, connection: Connection, *, reset: bool = False) -> None:
        """Return a connection between transactions; `reset`: a transaction was begun and must be forgotten."""
        self._places.release()
        if not connection.in_step:
            connection.drop("left in the middle of a command")
        if self._closed or connection.gone or connection.errors >= _MAX_ERRORS or connection.rsets >= _MAX_RSETS:
            connection.quit()
            return
        if reset:
            connection.reset()
        connection.idle_since = asyncio.get_running_loop().time()
        self._idle.append(connection)

    def discard(self, connection: Connection) -> None:
        """Return a connection in the middle of a message: it is dropped."""
        self._places.release()
        connection.drop()

    def close(self) -> None:
        """Say goodbye on all idle connections, and on the others as they come back."""
        self._closed = True
        while self._idle:
            self._idle.pop().quit()


def _features(lines: Iterable[str]) -> dict[str, str]:
    """EHLO keywords that we understand -> their parameters."""
    found = {}
    for line in lines:
        keyword, _, rest = line.strip().partition(" ")
        if keyword.upper() in _EXTENSIONS:
            found[keyword.upper()] = rest.strip()
    return found


def told(lost: Lost) -> str:
    """What a client is told when the upstream cannot be used, and the log beside it."""
    events.upstream_lost(lost.step, lost)
    if lost.step in ("connect", "greeting", "ehlo"):
        return "451 4.4.1 the next mail server cannot be reached, try again later"
    return "451 4.4.2 the connection to the next mail server was lost, try again later"
